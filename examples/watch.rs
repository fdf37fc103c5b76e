//! A terminal client for any MCP server: connects over Streamable HTTP, calls the tools it is told
//! to and shows what arrives while it arrives: a bar for each running call, log lines, changes in
//! the lists of tools, prompts and resources, updates of the resources that were there at the
//! start. Without a terminal to draw on it prints a line for each progress.
//!
//!     cargo run --release --example watch -- URL [--call TOOL JSON]... [--era modern|legacy]
//!
//! Exit code: 0 if all calls succeeded, 1 if one did not, 2 for usage and connection errors.
#![allow(deprecated, reason = "MCP deprecates its log messages, but servers still send them")]

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rmcp::model::{ServerNotification as Note, *};
use rmcp::service::*;
use rmcp::transport::{StreamableHttpClientTransport, streamable_http_client as http};
use std::collections::{BTreeSet, HashMap};
use std::process::{ExitCode, exit};
use std::{env, error::Error, io, io::Write, mem, num::NonZeroUsize, pin::pin, time::Duration};
use tokio::time::{sleep, timeout};
use tokio::{sync::mpsc, task::JoinSet};

const USAGE: &str = "usage: watch URL [--call TOOL JSON]... [--era modern|legacy]";
/// What a server sends right after its last answer should still be seen.
const QUIET: Duration = Duration::from_millis(300);
/// The longest wait for what should be immediate.
const PATIENCE: Duration = Duration::from_secs(10);

/// rmcp gives a listen up when this many of its notifications are waiting, by default only 64.
const BACKLOG: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

type Calls = Vec<(String, JsonObject)>;

fn parse(mut args: impl Iterator<Item = String>) -> Result<(String, Calls, String), String> {
    let (mut url, mut calls, mut era) = (None, Vec::new(), String::new());
    while let Some(arg) = args.next() {
        if arg == "--call" {
            let needs = "--call needs a tool and a JSON object";
            let (tool, json) = (args.next().ok_or(needs)?, args.next().ok_or(needs)?);
            calls.push((tool, serde_json::from_str(&json).map_err(|e| format!("{needs}: {e}"))?));
        } else if arg == "--era" {
            let known = args.next().filter(|era| ["modern", "legacy"].contains(&era.as_str()));
            era = known.ok_or("--era needs modern or legacy")?;
        } else if arg.starts_with('-') || url.is_some() {
            return Err(format!("unexpected argument: {arg}"));
        } else {
            url = Some(arg);
        }
    }
    Ok((url.ok_or("no URL given")?, calls, era))
}

/// Queues what the connection brings, so that one place shows it, in order.
struct Inbox(mpsc::UnboundedSender<Note>);

impl Service<RoleClient> for Inbox {
    async fn handle_request(
        &self,
        request: ServerRequest,
        _: RequestContext<RoleClient>,
    ) -> Result<ClientResult, ErrorData> {
        match request {
            ServerRequest::PingRequest(_) => Ok(ClientResult::empty(())),
            _ => Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "watch only watches", None)),
        }
    }

    async fn handle_notification(
        &self,
        note: Note,
        _: NotificationContext<RoleClient>,
    ) -> Result<(), ErrorData> {
        let _ = self.0.send(note); // nobody receives it while the program ends
        Ok(())
    }

    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("stentor-watch", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
    }
}

struct Watch {
    peer: Peer<RoleClient>,
    inbox: mpsc::UnboundedReceiver<Note>,
    legacy: bool,
    screen: MultiProgress,
    bars: HashMap<ProgressToken, ProgressBar>,
    answers: JoinSet<(ProgressBar, Result<ServerResult, ServiceError>)>,
    lists: HashMap<&'static str, BTreeSet<String>>,
    outdated: BTreeSet<&'static str>,
    failed: bool,
}

impl Watch {
    fn line(&self, text: &str) {
        let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
        // Not `println!`: it panics when the reader of a pipe has gone away.
        if self.screen.suspend(|| writeln!(io::stdout(), "{text}")).is_err() {
            exit(1);
        }
    }

    /// Asks for all that can be watched. Legacy servers send list changes unasked.
    async fn listen(&self, info: &ServerPeerInfo) -> Result<Option<Subscription>, ServiceError> {
        let updates = info.capabilities.resources.as_ref().and_then(|r| r.subscribe) == Some(true);
        let uris = self.lists.get("resources").filter(|_| updates).into_iter().flatten().cloned();
        if !self.legacy {
            let filter = SubscriptionFilter::builder().tools_list_changed();
            let filter = filter.prompts_list_changed().resources_list_changed();
            let filter = filter.resource_subscriptions(uris).build();
            return self.peer.listen_with_capacity(filter, BACKLOG).await.map(Some);
        }
        if info.capabilities.logging.is_some() {
            self.peer.set_level(SetLevelRequestParams::new(LoggingLevel::Debug)).await?;
        }
        for uri in uris {
            self.peer.subscribe(SubscribeRequestParams::new(uri)).await?;
        }
        Ok(None)
    }

    async fn call(&mut self, label: String, params: CallToolRequestParams) -> Result<(), String> {
        let mut meta = RequestMetaObject::new();
        // Without it a modern server logs nothing, a legacy server does not mind it.
        meta.set_log_level(LoggingLevel::Debug);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let handle = self.peer.send_cancellable_request(request, options).await.map_err(reason)?;
        let bar = self.screen.add(ProgressBar::new_spinner().with_prefix(label));
        bar.set_style(style("{prefix:.bold} {spinner} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bars.insert(handle.progress_token.clone(), bar.clone());
        self.answers.spawn(async move { (bar, handle.await_response().await) });
        Ok(())
    }

    /// Shows what arrives: until all calls are answered or, without calls, until the end.
    async fn run(&mut self, mut listen: Option<Subscription>) -> Result<bool, String> {
        let (calling, mut open) = (!self.answers.is_empty(), self.legacy || listen.is_some());
        if !calling && !open {
            return Err("nothing to wait for".to_owned());
        }
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        loop {
            // In this order: what belongs to a call is shown before its answer.
            tokio::select! { biased;
                _ = &mut interrupt => break,
                Some(note) = self.inbox.recv() => self.show(note),
                note = next(&self.peer, &mut listen), if open => match note {
                    Ok(Some(note)) => self.show(note),
                    // The calls of the modern era do not need the listen, they go on without it.
                    Err(why) if self.legacy || !calling => return Err(why),
                    over => {
                        open = false;
                        let why = over.err().unwrap_or("the server ended the listen".to_owned());
                        self.line(&why);
                    }
                },
                Some(Ok((bar, answer))) = self.answers.join_next() => self.answered(&bar, answer),
                () = async {}, if !self.outdated.is_empty() => self.relist().await,
                () = sleep(QUIET), if self.answers.is_empty() && (calling || !open) => break,
            }
        }
        Ok(!self.failed && self.answers.is_empty())
    }

    fn show(&mut self, note: Note) {
        match note {
            Note::ProgressNotification(n) => self.progress(n.params),
            Note::LoggingMessageNotification(n) => {
                let level = format!("{:?}", n.params.level).to_lowercase();
                let logger = n.params.logger.map(|l| format!(" {l}:")).unwrap_or_default();
                let data = n.params.data.as_str().map_or(n.params.data.to_string(), str::to_owned);
                self.line(&format!("[{level}]{logger} {data}"));
            }
            Note::ResourceUpdatedNotification(n) => {
                self.line(&format!("resource updated: {}", n.params.uri));
            }
            Note::ToolListChangedNotification(_) => self.outdated.extend(["tools"]),
            Note::PromptListChangedNotification(_) => self.outdated.extend(["prompts"]),
            Note::ResourceListChangedNotification(_) => self.outdated.extend(["resources"]),
            _ => {}
        }
    }

    fn progress(&self, p: ProgressNotificationParam) {
        let Some(bar) = self.bars.get(&p.progress_token).filter(|b| !b.is_finished()) else {
            return;
        };
        let round = |n: f64| (n * 100.0).round() / 100.0;
        let total = p.total.map(|total| format!("/{}", round(total))).unwrap_or_default();
        let message = p.message.unwrap_or_default().replace(char::is_control, " ");
        let text = format!("{}{total} {message}", round(p.progress)).trim_end().to_owned();
        if self.screen.is_hidden() {
            return self.line(&format!("{} {text}", bar.prefix()));
        }
        if let Some(total) = p.total {
            bar.set_style(style("{prefix:.bold} [{bar:32.cyan/blue}] {wide_msg}"));
            bar.set_length(1000); // progress may be fractions of 1, a bar has whole steps
            bar.set_position((p.progress / total * 1000.0) as u64);
        }
        bar.set_message(text);
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
        self.line(&format!("{}: {}{text}", bar.prefix(), if ok { "" } else { "error: " }));
    }

    /// Several changes in a row need only one new list.
    async fn relist(&mut self) {
        let Some(kind) = self.outdated.pop_first() else { return };
        let changes = self.list(kind).await;
        let changes = changes.unwrap_or_else(|e| format!("no new list: {}", reason(e)));
        self.line(&format!("{kind} changed: {changes}"));
    }

    async fn list(&mut self, kind: &'static str) -> Result<String, ServiceError> {
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

/// The next notification of the listen, or none when the server has ended it.
async fn next(
    peer: &Peer<RoleClient>,
    listen: &mut Option<Subscription>,
) -> Result<Option<Note>, String> {
    let lost = |e| format!("the connection is lost: {}", reason(e));
    let Some(listen) = listen else {
        // A legacy session: rmcp reconnects its stream for ever and does not tell, so ask.
        loop {
            sleep(PATIENCE / 2).await;
            let ping = ClientRequest::PingRequest(PingRequest::default());
            match peer.send_request(ping).await {
                Ok(_) | Err(ServiceError::McpError(_)) => {}
                Err(e) => return Err(lost(e)),
            }
        }
    };
    let note = listen.next().await.map_err(lost)?;
    match listen.end() {
        Some(SubscriptionEnd::Abrupt) => Err(lost(ServiceError::TransportClosed)),
        Some(SubscriptionEnd::Lagged { .. }) => Err("more notifications than can be shown".into()),
        _ => Ok(note),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn text(result: &CallToolResult) -> String {
    let texts = result.content.iter().map(|c| c.as_text().map_or("(not a text)", |t| &t.text));
    texts.collect::<Vec<_>>().join("\n")
}

/// What is at the bottom of an error: not the layers of the client but "Connection refused".
fn reason(error: impl Error + 'static) -> String {
    let mut error: &(dyn Error + 'static) = &error;
    loop {
        // These do not name their source.
        let startup = error.downcast_ref::<ClientInitializeError>();
        let transport = error.downcast_ref::<http::StreamableHttpError<reqwest::Error>>();
        error = match (startup, transport, error.source()) {
            (Some(ClientInitializeError::TransportError { error, .. }), ..) => error,
            (Some(ClientInitializeError::LegacyFallbackFailed { fallback, .. }), ..) => &**fallback,
            (_, Some(http::StreamableHttpError::Client(error)), _) => error,
            (.., Some(source)) => source,
            _ => return error.to_string(),
        }
    }
}

async fn watch(url: &str, calls: Calls, era: &str) -> Result<bool, String> {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lifecycle = match era {
        "modern" => ClientLifecycleMode::Discover { preferred_versions },
        "legacy" => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
    };
    let client = reqwest::Client::builder().connect_timeout(PATIENCE).build().map_err(reason)?;
    let config = http::StreamableHttpClientTransportConfig::with_uri(url);
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let (sender, inbox) = mpsc::unbounded_channel();
    let connected = Inbox(sender).serve_with_lifecycle(transport, lifecycle).await;
    let mut client = connected.map_err(|e| format!("cannot connect to {url}: {}", reason(e)))?;
    let info = client.peer_info().ok_or("the server has not introduced itself")?;

    let mut watch = Watch {
        peer: client.peer().clone(),
        inbox,
        legacy: info.protocol_version.has_initialize(),
        screen: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
        bars: HashMap::new(),
        answers: JoinSet::new(),
        lists: HashMap::new(),
        outdated: BTreeSet::new(),
        failed: false,
    };
    let can = &info.capabilities;
    let can = [can.tools.is_some(), can.prompts.is_some(), can.resources.is_some()];
    for (kind, _) in ["tools", "prompts", "resources"].into_iter().zip(can).filter(|(_, can)| *can)
    {
        watch.list(kind).await.map_err(|e| format!("no list of {kind}: {}", reason(e)))?;
    }
    let name = info.server_info.as_ref().map(|s| format!("{} {}", s.name, s.version));
    let name = name.as_deref().unwrap_or("a server without a name");
    let tools = watch.lists.get("tools").map_or(0, BTreeSet::len);
    watch.line(&format!("connected to {name}, protocol {}, {tools} tools", info.protocol_version));

    let listen = timeout(PATIENCE, watch.listen(&info)).await;
    let listen = listen.unwrap_or(Err(ServiceError::Timeout { timeout: PATIENCE }));
    let listen = listen.unwrap_or_else(|e| {
        watch.line(&format!("not everything can be watched here: {}", reason(e)));
        None
    });
    for (n, (tool, arguments)) in calls.iter().enumerate() {
        let nth = calls[..=n].iter().filter(|call| call.0 == *tool).count();
        let label = if nth == 1 { tool.clone() } else { format!("{tool}#{nth}") };
        let params = CallToolRequestParams::new(tool.clone()).with_arguments(arguments.clone());
        watch.call(label, params).await?;
    }
    let ended = watch.run(listen).await;
    // Waits until the session of a legacy server is deleted.
    let _ = client.close_with_timeout(PATIENCE).await;
    ended
}

// One thread, or rmcp's task for each notification would show them out of order.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Only the first call can fail, and this is it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let ended = match parse(args) {
        Ok((url, calls, era)) => watch(&url, calls, &era).await,
        Err(e) => Err(format!("{e}\n{USAGE}")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("watch: {e}");
            ExitCode::from(2)
        }
    }
}
