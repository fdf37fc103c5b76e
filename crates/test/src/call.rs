//! Calls of tools: while they run, and their results.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stentor_wire::model::CallToolResult;
use stentor_wire::{ErrorObject, LogLevel};

use crate::link::{Event, Exchange, Link, ended};

/// A step of progress.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// How far the call is.
    pub progress: f64,
    /// How far it goes, if the tool knows that.
    #[serde(default)]
    pub total: Option<f64>,
    /// What the tool says of it; empty if it says nothing.
    #[serde(default)]
    pub message: String,
}

/// A log message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Log {
    /// The severity.
    pub level: LogLevel,
    /// What the message is about, if it says so.
    #[serde(default)]
    pub logger: Option<String>,
    /// The message: text, or any other value.
    pub data: Value,
}

/// A call of a tool, or another request, that runs.
///
/// It answers questions of the server, and its messages are kept, whether or not somebody reads
/// them. Dropping it does not cancel it.
#[derive(Debug)]
pub struct RunningCall {
    link: Arc<Link>,
    exchange: Exchange,
    progress: Kept<Progress>,
    logs: Kept<Log>,
    response: Option<Result<Value, ErrorObject>>,
}

/// All messages of one kind, and how many of them were read.
#[derive(Debug)]
struct Kept<T> {
    all: Vec<T>,
    unread: VecDeque<T>,
}

impl<T: Clone + DeserializeOwned> Kept<T> {
    fn new() -> Self {
        Self { all: Vec::new(), unread: VecDeque::new() }
    }

    fn push(&mut self, params: Value) {
        let text = params.to_string();
        let message: T = serde_json::from_value(params)
            .unwrap_or_else(|error| panic!("the server's message is wrong: {error}: {text}"));
        self.all.push(message.clone());
        self.unread.push_back(message);
    }
}

impl RunningCall {
    pub(crate) fn new(link: Arc<Link>, exchange: Exchange) -> Self {
        let (progress, logs) = (Kept::new(), Kept::new());
        Self { link, exchange, progress, logs, response: None }
    }

    /// Takes what came next; `Ready(false)` after the response.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.response.is_some() {
            return Poll::Ready(false);
        }
        match ready!(self.exchange.events.poll_recv(cx)) {
            Some(Event::Progress(params)) => self.progress.push(params),
            Some(Event::Log(params)) => self.logs.push(params),
            Some(Event::Acknowledged(_)) => {}
            Some(Event::Response(outcome)) => self.response = Some(outcome),
            None => self.response = Some(Err(ended())),
        }
        Poll::Ready(true)
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        loop {
            if let Some(next) = self.progress.unread.pop_front() {
                return Poll::Ready(Some(next));
            }
            if !ready!(self.poll_event(cx)) {
                return Poll::Ready(None);
            }
        }
    }

    /// The next step of progress; `None` once the call has ended. Cancel safe.
    ///
    /// # Panics
    ///
    /// If the server sends a notification that is none of the protocol.
    pub async fn progress(&mut self) -> Option<Progress> {
        poll_fn(|cx| self.poll_progress(cx)).await
    }

    /// As [`progress`](Self::progress), as a stream.
    pub fn progress_stream(&mut self) -> impl Stream<Item = Progress> + Send + Unpin + '_ {
        futures::stream::poll_fn(|cx| self.poll_progress(cx))
    }

    /// The next log message; `None` once the call has ended. Cancel safe.
    ///
    /// A modern client receives log messages after [`Client::set_log_level`]. A connection does not
    /// tell to which of several calls a log message belongs: each call that runs receives it.
    ///
    /// [`Client::set_log_level`]: crate::Client::set_log_level
    ///
    /// # Panics
    ///
    /// If the server sends a notification that is none of the protocol.
    pub async fn log(&mut self) -> Option<Log> {
        poll_fn(|cx| {
            loop {
                if let Some(next) = self.logs.unread.pop_front() {
                    return Poll::Ready(Some(next));
                }
                if !ready!(self.poll_event(cx)) {
                    return Poll::Ready(None);
                }
            }
        })
        .await
    }

    /// The log messages as a stream.
    pub fn logs(&mut self) -> impl Stream<Item = Log> + Send + '_ {
        futures::stream::unfold(self, |call| async move { Some((call.log().await?, call)) })
    }

    /// Cancels the call. The server sends nothing more of it, and no response.
    pub fn cancel(self) {
        self.link.cancel(&self.exchange.id, "the test cancels the call");
    }

    /// The result of a tool.
    ///
    /// # Errors
    ///
    /// The error of the protocol, or that the session has ended.
    pub async fn reply(mut self) -> Result<ToolReply, ErrorObject> {
        let result = self.response().await?;
        ToolReply::new(result, self.progress.all, self.logs.all)
    }

    /// The result of any request, as JSON.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply).
    pub async fn result(mut self) -> Result<Value, ErrorObject> {
        self.response().await
    }

    async fn response(&mut self) -> Result<Value, ErrorObject> {
        while poll_fn(|cx| self.poll_event(cx)).await {}
        self.response.take().unwrap_or_else(|| Err(ended()))
    }
}

/// The result of a tool.
#[derive(Clone, Debug)]
pub struct ToolReply {
    value: Value,
    result: CallToolResult,
    text: String,
    progress: Vec<Progress>,
    logs: Vec<Log>,
}

impl ToolReply {
    fn new(value: Value, progress: Vec<Progress>, logs: Vec<Log>) -> Result<Self, ErrorObject> {
        let result = match value["resultType"] == "task" {
            // Its result comes later.
            true => CallToolResult::success(Vec::new()),
            false => crate::client::read(value.clone())?,
        };
        let texts = result.content.iter().filter_map(|block| Some(&*block.as_text()?.text));
        let text = texts.collect::<Vec<_>>().join("\n");
        Ok(Self { value, result, text, progress, logs })
    }

    /// The texts of the result, joined by line breaks.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the tool says that it failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.result.is_error == Some(true)
    }

    /// The structured content.
    ///
    /// # Panics
    ///
    /// If there is none, or it is no `T`.
    #[must_use]
    #[track_caller]
    pub fn structured<T: DeserializeOwned>(&self) -> T {
        let Some(content) = &self.result.structured_content else {
            panic!("no structured content: {}", self.value);
        };
        T::deserialize(content).unwrap_or_else(|error| panic!("{error}: {content}"))
    }

    /// The id of the task that the call became: it has no result yet.
    #[must_use]
    pub fn task_id(&self) -> Option<&str> {
        self.value["taskId"].as_str()
    }

    /// The result; an empty one of a call that became a task.
    #[must_use]
    pub fn result(&self) -> &CallToolResult {
        &self.result
    }

    /// The result as JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The progress of the call.
    #[must_use]
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// The log messages of the call.
    #[must_use]
    pub fn logs(&self) -> &[Log] {
        &self.logs
    }
}
