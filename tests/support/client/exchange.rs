//! What a client reads: the messages of a request, its answer, and notices.

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{MARK, META_SUBSCRIPTION, Reply, soon};

/// The source of messages.
#[derive(Debug)]
pub(super) enum Source {
    Http(Box<Reply>),
    Pipe(UnboundedReceiver<Value>),
}

impl Source {
    async fn next(&mut self) -> Option<Value> {
        let message = match self {
            Self::Http(reply) => reply.message().await,
            Self::Pipe(messages) => soon("a message", messages.recv()).await,
        }?;
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        Some(message)
    }

    fn into_reply(self) -> Reply {
        match self {
            Self::Http(reply) => *reply,
            Self::Pipe(_) => panic!("a pipe has no responses of HTTP"),
        }
    }
}

/// A request that was sent, with the messages that belong to it and its response. On HTTP, dropping
/// it closes the stream.
#[derive(Debug)]
pub struct Exchange {
    pub(super) id: Value,
    pub(super) source: Source,
}

impl Exchange {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &Value {
        &self.id
    }

    /// The next message. The response comes last.
    pub async fn next(&mut self) -> Option<Value> {
        self.source.next().await
    }

    /// Reads the response and the messages before it. On HTTP, also checks that nothing follows.
    pub async fn answer(mut self) -> Answer {
        let mut answer = Answer { said: Vec::new(), response: None };
        while let Some(message) = self.next().await {
            assert_eq!(answer.response, None, "nothing follows the response but {message}");
            if message.get("method").is_some() {
                answer.said.push(message);
                continue;
            }
            if message.get("id").is_some() || message.get("result").is_some() {
                assert_eq!(message["id"], self.id, "{message}");
            }
            answer.response = Some(message);
            if matches!(self.source, Source::Pipe(_)) {
                break;
            }
        }
        answer
    }

    /// The HTTP response; its body may be unread.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match &self.source {
            Source::Http(reply) => reply,
            Source::Pipe(_) => panic!("a pipe has no responses of HTTP"),
        }
    }

    /// Like [`reply`](Self::reply), to read it event by event.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        self.source.into_reply()
    }
}

/// The outcome of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The messages before the response.
    pub said: Vec<Value>,
    /// The response, if there was one.
    pub response: Option<Value>,
}

impl Answer {
    /// The result.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.member("result")
    }

    /// The JSON-RPC error.
    #[must_use]
    pub fn error(&self) -> &Value {
        self.member("error")
    }

    fn member(&self, name: &str) -> &Value {
        let member = self.response.as_ref().and_then(|response| response.get(name));
        member.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The text of a tool's result.
    #[must_use]
    pub fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {self:?}"))
    }

    /// The parameters of the messages with this method.
    #[must_use]
    pub fn heard(&self, method: &str) -> Vec<&Value> {
        let of_method = self.said.iter().filter(|message| message["method"] == method);
        of_method.map(|message| &message["params"]).collect()
    }

    /// The reported progress values.
    #[must_use]
    pub fn progress(&self) -> Vec<f64> {
        let values = self.heard("notifications/progress").into_iter();
        values.map(|params| params["progress"].as_f64().expect("a number")).collect()
    }
}

/// The notices of a client, in order of arrival.
#[derive(Debug)]
pub struct Notices {
    pub(super) subscription: Option<Value>,
    /// The filter that the acknowledgment of a modern listen grants.
    pub granted: Value,
    pub(super) source: Source,
}

impl Notices {
    /// The next message. Checks that it carries this subscription's id, or no id in the legacy era.
    pub async fn next(&mut self) -> Option<Value> {
        let message = self.source.next().await?;
        let found = match message.get("method") {
            Some(_) => message["params"]["_meta"].get(META_SUBSCRIPTION),
            None => message["result"]["_meta"].get(META_SUBSCRIPTION),
        };
        assert_eq!(found, self.subscription.as_ref(), "{message}");
        Some(message)
    }

    /// The next message in short form: `tools/list_changed`, `resources/updated test://static`.
    pub async fn heard(&mut self) -> String {
        let message = self.next().await.expect("another notice");
        let method = message["method"].as_str().unwrap_or_else(|| panic!("a notice: {message}"));
        let method = method.strip_prefix("notifications/").unwrap_or(method);
        match message["params"]["uri"].as_str() {
            Some(uri) => format!("{method} {uri}"),
            None => method.to_owned(),
        }
    }

    /// All messages before the mark, in short form.
    pub async fn until_mark(&mut self) -> Vec<String> {
        let (mark, mut all) = (format!("resources/updated {MARK}"), Vec::new());
        loop {
            match self.heard().await {
                heard if heard == mark => return all,
                heard => all.push(heard),
            }
        }
    }

    /// The HTTP response that carries the notices; its body may be unread.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        self.source.into_reply()
    }

    /// Reads to the proper end of the stream. Returns the final result of a modern listen, or
    /// `None` in the legacy era.
    pub async fn end(mut self) -> Option<Value> {
        let last = self.next().await;
        if last.is_some() && matches!(self.source, Source::Http(_)) {
            assert_eq!(self.next().await, None, "nothing follows the result");
        }
        last
    }
}
