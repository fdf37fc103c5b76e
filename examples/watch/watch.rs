//! Prints notifications and answers as they arrive.

use std::collections::{BTreeSet, HashMap};
use std::{mem, pin::pin, time::Duration};

use indicatif::ProgressBar;
use rmcp::model::{ServerNotification as Note, *};
use rmcp::service::*;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::client::{next, reason};
use crate::events::{Ended, Events};
use crate::screen::Screen;

/// How long to wait for messages that a server sends right after its last answer.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct Watch {
    pub(crate) peer: Peer<RoleClient>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Note>,
    pub(crate) legacy: bool,
    pub(crate) screen: Screen,
    pub(crate) bars: HashMap<ProgressToken, ProgressBar>,
    pub(crate) answers: JoinSet<(ProgressBar, Result<ServerResult, ServiceError>)>,
    pub(crate) lists: HashMap<&'static str, BTreeSet<String>>,
    pub(crate) outdated: BTreeSet<&'static str>,
    pub(crate) events: Option<Events>,
    pub(crate) failed: bool,
}

impl Watch {
    pub(crate) async fn call(&mut self, tool: &str, arguments: &JsonObject) -> Result<(), String> {
        let mut meta = RequestMetaObject::new();
        // Without a level a modern server sends no log messages; a legacy server ignores it.
        meta.set_log_level(LoggingLevel::Debug);
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.clone());
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let handle = self.peer.send_cancellable_request(request, options).await.map_err(reason)?;
        let bar = self.screen.bar(tool.to_owned());
        self.bars.insert(handle.progress_token.clone(), bar.clone());
        self.answers.spawn(async move { (bar, handle.await_response().await) });
        Ok(())
    }

    /// Prints what arrives until all calls are answered and no event is to come or, without both,
    /// until the end.
    pub(crate) async fn run(&mut self, mut listen: Option<Subscription>) -> Result<bool, String> {
        let (calling, mut open) = (self.is_waiting(), self.legacy || listen.is_some());
        if !calling && !open {
            return Err("nothing to wait for".to_owned());
        }
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        loop {
            // In this order: messages of a call must be printed before its answer.
            tokio::select! { biased;
                _ = &mut interrupt => break,
                Some(note) = self.inbox.recv() => self.show(note),
                note = next(&self.peer, &mut listen), if open => match note {
                    Ok(Some(note)) => self.show(note),
                    // Calls of the modern era continue without the listen.
                    Err(why) if self.legacy || !calling => return Err(why),
                    over => {
                        open = false;
                        let why = over.err().unwrap_or("the server ended the listen".to_owned());
                        self.screen.line(&why);
                    }
                },
                Some(Ok((bar, answer))) = self.answers.join_next() => self.answered(&bar, answer),
                Some(ended) = ended(&mut self.events), if self.has_stream() => {
                    self.failed |= !self.events.as_mut().is_some_and(|events| {
                        events.reopen(&self.screen, &self.peer, ended)
                    });
                }
                () = async {}, if !self.outdated.is_empty() => self.relist().await,
                () = sleep(QUIET), if !self.is_waiting() && (calling || !open) => break,
            }
        }
        Ok(!self.failed && self.answers.is_empty())
    }

    /// Whether an answer or events are to come.
    fn is_waiting(&self) -> bool {
        !self.answers.is_empty() || self.has_stream()
    }

    fn has_stream(&self) -> bool {
        self.events.as_ref().is_some_and(Events::is_open)
    }

    fn show(&mut self, note: Note) {
        match note {
            Note::ProgressNotification(n) => {
                let bar = self.bars.get(&n.params.progress_token);
                if let Some(bar) = bar.filter(|bar| !bar.is_finished()) {
                    self.screen.progress(bar, n.params);
                }
            }
            Note::LoggingMessageNotification(n) => self.screen.log(n.params),
            Note::ResourceUpdatedNotification(n) => {
                self.screen.line(&format!("resource updated: {}", n.params.uri));
            }
            Note::CustomNotification(n) => {
                if let Some(events) = &mut self.events {
                    events.show(&self.screen, &n);
                }
            }
            Note::ToolListChangedNotification(_) => self.outdated.extend(["tools"]),
            Note::PromptListChangedNotification(_) => self.outdated.extend(["prompts"]),
            Note::ResourceListChangedNotification(_) => self.outdated.extend(["resources"]),
            _ => {}
        }
    }

    fn answered(&mut self, bar: &ProgressBar, answer: Result<ServerResult, ServiceError>) {
        bar.finish_and_clear();
        let (ok, text) = match answer {
            Ok(ServerResult::CallToolResult(r)) => (r.is_error != Some(true), text(&r)),
            Ok(ServerResult::InputRequiredResult(_)) => (false, "it asks for input".to_owned()),
            Ok(_) => (false, "the answer is not the result of a tool".to_owned()),
            Err(e) => (false, reason(e)),
        };
        self.failed |= !ok;
        self.screen.line(&format!("{}: {}{text}", bar.prefix(), if ok { "" } else { "error: " }));
    }

    /// Reads one changed list again. Several changes in a row need only one new list.
    async fn relist(&mut self) {
        let Some(kind) = self.outdated.pop_first() else { return };
        let changes = self.list(kind).await;
        let changes = changes.unwrap_or_else(|e| format!("no new list: {}", reason(e)));
        self.screen.line(&format!("{kind} changed: {changes}"));
    }

    pub(crate) async fn list(&mut self, kind: &'static str) -> Result<String, ServiceError> {
        let peer = &self.peer;
        let now: BTreeSet<String> = match kind {
            "tools" => peer.list_all_tools().await?.into_iter().map(|t| t.name.into()).collect(),
            "prompts" => peer.list_all_prompts().await?.into_iter().map(|p| p.name).collect(),
            _ => peer.list_all_resources().await?.into_iter().map(|r| r.uri).collect(),
        };
        let list = self.lists.entry(kind).or_default();
        let old = mem::replace(list, now);
        let added = list.difference(&old).map(|name| format!("+ {name}"));
        let changes = added.chain(old.difference(list).map(|name| format!("- {name}")));
        let changes = changes.collect::<Vec<_>>().join(", ");
        Ok(if changes.is_empty() { "the names are the same".to_owned() } else { changes })
    }
}

async fn ended(events: &mut Option<Events>) -> Option<Ended> {
    events.as_mut()?.ended().await
}

fn text(result: &CallToolResult) -> String {
    let texts = result.content.iter().map(|c| c.as_text().map_or("(not a text)", |t| &t.text));
    texts.collect::<Vec<_>>().join("\n")
}
