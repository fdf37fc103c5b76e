//! One event type of a server, watched live (SEP-3415, "Push").

use std::time::Duration;

use indicatif::ProgressBar;
use rmcp::model::*;
use rmcp::service::*;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::client::reason;
use crate::screen::Screen;

/// The pause before a stream is opened again.
const PAUSE: Duration = Duration::from_secs(2);
/// Not now, but perhaps later.
const UNAVAILABLE: ErrorCode = ErrorCode(503);

pub(crate) type Ended = Result<ServerResult, ServiceError>;

pub(crate) struct Events {
    name: String,
    arguments: JsonObject,
    /// Where a new stream goes on.
    cursor: Option<String>,
    /// The stream; also while it waits until it is opened again.
    stream: JoinSet<Ended>,
    beats: Option<ProgressBar>,
    is_active: bool,
    is_over: bool,
}

impl Events {
    pub(crate) fn new(name: String, arguments: JsonObject, cursor: Option<String>) -> Self {
        let (stream, beats) = (JoinSet::new(), None);
        Self { name, arguments, cursor, stream, beats, is_active: false, is_over: false }
    }

    pub(crate) fn open(&mut self, peer: &Peer<RoleClient>, pause: Duration) {
        let mut params = json!({"name": self.name, "arguments": self.arguments});
        if let Some(cursor) = &self.cursor {
            params["cursor"] = cursor.as_str().into();
        }
        let request = CustomRequest::new("events/stream", Some(params));
        let (peer, options) = (peer.clone(), PeerRequestOptions::no_options());
        self.is_active = false;
        self.stream.spawn(async move {
            sleep(pause).await;
            let request = ClientRequest::CustomRequest(request);
            peer.send_cancellable_request(request, options).await?.await_response().await
        });
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.stream.is_empty()
    }

    /// How the stream has ended.
    pub(crate) async fn ended(&mut self) -> Option<Ended> {
        self.stream.join_next().await?.ok()
    }

    pub(crate) fn show(&mut self, screen: &Screen, note: &CustomNotification) {
        let Some(kind) = note.method.strip_prefix("notifications/events/") else { return };
        let Some(params) = &note.params else { return };
        if let Some(cursor) = params["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        let truncated = if params["truncated"] == true { "something was skipped" } else { "" };
        let cursor = self.cursor.as_deref().unwrap_or("none");
        match kind {
            "active" if self.is_active => print(screen, "gap", &[truncated, "cursor", cursor]),
            "active" => {
                self.is_active = true;
                print(screen, "active", &[&self.name, "from cursor", cursor, truncated]);
            }
            "event" => {
                let text = |name: &str| params[name].as_str().unwrap_or("?");
                let data = params["data"].to_string();
                print(screen, "event", &[text("timestamp"), text("eventId"), &data]);
            }
            "heartbeat" => {
                let name = &self.name;
                let beats = self.beats.get_or_insert_with(|| screen.bar(name.clone()));
                screen.beat(beats, &in_columns("heartbeat", &["cursor", cursor]));
            }
            "error" => print(screen, "error", &[&in_words(&params["error"])]),
            "terminated" => {
                self.is_over = true;
                print(screen, "terminated", &[&in_words(&params["error"])]);
            }
            _ => {}
        }
    }

    /// The stream has ended. Opens it again, unless that is of no use; `false` then.
    pub(crate) fn reopen(
        &mut self,
        screen: &Screen,
        peer: &Peer<RoleClient>,
        ended: Ended,
    ) -> bool {
        if let Some(beats) = self.beats.take() {
            beats.finish_and_clear();
        }
        let (kind, why) = match ended {
            Err(ServiceError::McpError(error)) if error.code != UNAVAILABLE => {
                let error = serde_json::to_value(error).unwrap_or_default();
                print(screen, "refused", &[&in_words(&error)]);
                return false;
            }
            Err(error) => ("broken", reason(error)),
            Ok(_) => ("result", "the server ended the stream".to_owned()),
        };
        let seconds = PAUSE.as_secs();
        let then = match &self.cursor {
            _ if self.is_over => String::new(),
            Some(_) => format!("again in {seconds} s, from the last cursor"),
            None => format!("again in {seconds} s, without a cursor"),
        };
        print(screen, kind, &[&why, &then]);
        if !self.is_over {
            self.open(peer, PAUSE);
        }
        !self.is_over
    }
}

/// An error in one line.
fn in_words(error: &Value) -> String {
    let message = error["message"].as_str().unwrap_or("no message");
    let data = error.get("data").map(|data| format!(" {data}")).unwrap_or_default();
    format!("{} {message}{data}", error["code"])
}

fn in_columns(kind: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().filter(|word| !word.is_empty()).copied().collect();
    format!("{kind:<11} {}", words.join("  ")).replace(char::is_control, " ")
}

fn print(screen: &Screen, kind: &str, words: &[&str]) {
    screen.line(&in_columns(kind, words));
}
