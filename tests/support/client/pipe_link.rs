//! The messages of one pipe, each routed to what it belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, DuplexStream, WriteHalf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::pipe::{Ending, RawPipe};
use crate::web::request;
use crate::{META_SUBSCRIPTION, Server, soon};

#[derive(Debug)]
pub(super) struct PipeLink {
    pub(super) writer: tokio::sync::Mutex<WriteHalf<DuplexStream>>,
    pub(super) routes: Arc<Mutex<Routes>>,
    pub(super) notices: Mutex<Option<UnboundedReceiver<Value>>>,
    pub(super) ending: Ending,
}

/// Routes the messages of one pipe to the exchanges that they belong to.
#[derive(Debug)]
pub(super) struct Routes {
    /// Requests without a response, by their ids as JSON.
    open: HashMap<String, Route>,
    /// Notices of a legacy client: messages that belong to no request.
    notices: UnboundedSender<Value>,
    /// Messages that belong to no open request or listen.
    pub(super) strays: Vec<Value>,
}

#[derive(Debug)]
struct Route {
    token: Value,
    is_listen: bool,
    to: UnboundedSender<Value>,
}

impl Routes {
    fn route(&mut self, message: Value) {
        let meta = &message["params"]["_meta"];
        let method = message["method"].as_str().unwrap_or_default();
        if method.is_empty() {
            return match self.open.remove(&message["id"].to_string()) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        if let Some(subscription) = meta.get(META_SUBSCRIPTION) {
            return match self.open.get(&subscription.to_string()).filter(|it| it.is_listen) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        if is_change(method) {
            return deliver(&self.notices, message);
        }
        let token = &message["params"]["progressToken"];
        let mut calls = self.open.values().filter(|route| !route.is_listen);
        if method == "notifications/progress" {
            return match calls.find(|route| route.token == *token) {
                Some(route) => deliver(&route.to, message),
                None => self.strays.push(message),
            };
        }
        // On a pipe a log message does not name its request, so all open calls receive it.
        let calls: Vec<_> = calls.collect();
        match (&calls[..], method) {
            ([], "notifications/message") => self.strays.push(message),
            ([], _) => deliver(&self.notices, message),
            (calls, _) => calls.iter().for_each(|route| deliver(&route.to, message.clone())),
        }
    }
}

fn deliver(to: &UnboundedSender<Value>, message: Value) {
    // The test may have dropped the receiver.
    let _ = to.send(message);
}

fn is_change(method: &str) -> bool {
    method.ends_with("/list_changed") || method == "notifications/resources/updated"
}

impl PipeLink {
    pub(super) fn open(server: &Server) -> Self {
        let (writer, mut lines, ending) = RawPipe::open(server).into_parts();
        let (to, notices) = mpsc::unbounded_channel();
        let routes = Routes { open: HashMap::new(), notices: to, strays: Vec::new() };
        let routes = Arc::new(Mutex::new(routes));
        let reading = routes.clone();
        tokio::spawn(async move {
            while let Some(message) = lines.wait().await {
                reading.lock().route(message);
            }
            let mut routes = reading.lock();
            routes.open.clear();
            routes.notices = mpsc::unbounded_channel().0;
        });
        let writer = tokio::sync::Mutex::new(writer);
        Self { writer, routes, notices: Mutex::new(Some(notices)), ending }
    }

    pub(super) async fn write(&self, message: &str) {
        let line = format!("{message}\n");
        let mut writer = self.writer.lock().await;
        soon("the server to read", writer.write_all(line.as_bytes())).await.expect("an open pipe");
    }

    pub(super) async fn request(
        &self,
        id: &Value,
        method: &str,
        params: Value,
    ) -> UnboundedReceiver<Value> {
        let (to, from) = mpsc::unbounded_channel();
        let token = params["_meta"]["progressToken"].clone();
        let is_listen = method == "subscriptions/listen";
        self.routes.lock().open.insert(id.to_string(), Route { token, is_listen, to });
        self.write(&request(id, method, params)).await;
        from
    }
}
