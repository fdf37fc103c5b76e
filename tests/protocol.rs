//! The protocol to the letter: statuses, codes, headers and members, in both eras.

#[path = "protocol/headers.rs"]
mod headers;
#[path = "protocol/listening.rs"]
mod listening;
#[path = "protocol/messages.rs"]
mod messages;
#[path = "protocol/pipes.rs"]
mod pipes;
#[path = "protocol/responses.rs"]
mod responses;
#[path = "protocol/resuming.rs"]
mod resuming;
#[path = "protocol/sessions.rs"]
mod sessions;
#[path = "protocol/versions.rs"]
mod versions;

use serde_json::{Value, json};
use stentor_tests::{Call, Server};

/// Sends requests and collects all unexpected results, so that one run reports them all.
struct Table {
    server: Server,
    wrong: Vec<String>,
}

impl Table {
    async fn start() -> Self {
        Self::of(Server::start().await)
    }

    fn of(server: Server) -> Self {
        Self { server, wrong: Vec::new() }
    }

    /// A row: the expected status, and the expected error code if any. Returns the body.
    async fn row(&mut self, what: &str, call: Call, status: u16, code: Option<i64>) -> Value {
        let mut reply = call.send(self.server.address).await;
        let found = reply.status.as_u16();
        let body = reply.message().await.unwrap_or_default();
        let found_code = body["error"]["code"].as_i64();
        if (found, found_code) != (status, code) {
            self.wrong.push(format!(
                "{what}: {found} {found_code:?} instead of {status} {code:?}: {body}"
            ));
        }
        body
    }

    /// Like [`row`](Self::row), for an error that carries the id of its request.
    async fn error(&mut self, what: &str, call: Call, status: u16, code: i64, id: &Value) -> Value {
        let body = self.row(what, call, status, Some(code)).await;
        if body.get("id").unwrap_or(&Value::Null) != id {
            self.wrong.push(format!("{what}: the id is not {id}: {body}"));
        }
        body
    }

    #[track_caller]
    fn check(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// A modern call of `echo`.
fn echo() -> Call {
    modern("tools/call", json!({"name": "echo", "arguments": {"text": "hello"}}))
}

fn modern(method: &str, params: Value) -> Call {
    Call::modern(&json!(1), method, params)
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "raw", "version": "0.0.1"});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params})
}

fn ping(id: i64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}
