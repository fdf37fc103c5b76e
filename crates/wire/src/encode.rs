//! Encodes everything a server sends.
//!
//! A message is written without a trailing line break. The transport does the framing.

use std::fmt::{Display, Write as _};

use bytes::{BufMut, Bytes, BytesMut};
use rmcp::model::{CacheScope, Implementation, JsonObject};
use serde::Serialize;
use serde_json::Value;

use crate::params::NoticeFilter;
use crate::{
    Era, ErrorObject, Id, LogLevel, ProgressToken, SubscriptionId, meta_key, notification,
};

/// How long a client may cache a result, and for whom (2026-07-28, server/utilities/caching).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheHint {
    /// The lifetime in milliseconds; 0 means "ask again each time".
    pub ttl_ms: u64,
    /// Whether the copy of one user may be given to another user.
    pub scope: CacheScope,
}

impl Default for CacheHint {
    /// Stale at once, and only for the user who asked: safe for every server.
    fn default() -> Self {
        Self { ttl_ms: 0, scope: CacheScope::Private }
    }
}

/// A result that does not yet depend on the id and the era of its request.
///
/// `body` is a JSON object without `resultType`, `_meta` and caching members: those differ by era
/// and are written around it.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultBody {
    body: Bytes,
    meta: Option<JsonObject>,
    cache: Option<CacheHint>,
    is_error: bool,
    is_task: bool,
}

impl ResultBody {
    /// A result from anything that serializes to a JSON object.
    ///
    /// # Errors
    ///
    /// -32603 if `value` does not serialize, or serializes to something else.
    pub fn new(value: &impl Serialize) -> Result<Self, ErrorObject> {
        let body = serde_json::to_vec(value)
            .map_err(|error| ErrorObject::internal(format!("result is not JSON: {error}")))?;
        Self::from_json(body).ok_or_else(|| ErrorObject::internal("result is not a JSON object"))
    }

    /// A result from the raw JSON of an object; `None` if it does not look like one.
    #[must_use]
    pub fn from_json(body: impl Into<Bytes>) -> Option<Self> {
        let body = body.into();
        (body.starts_with(b"{") && body.ends_with(b"}")).then_some(Self {
            body,
            meta: None,
            cache: None,
            is_error: false,
            is_task: false,
        })
    }

    /// A result without members.
    #[must_use]
    pub fn empty() -> Self {
        let body = Bytes::from_static(b"{}");
        Self { body, meta: None, cache: None, is_error: false, is_task: false }
    }

    /// Adds the result's own `_meta`.
    #[must_use]
    pub fn with_meta(mut self, meta: Option<JsonObject>) -> Self {
        self.meta = meta;
        self
    }

    /// Marks the result as one that reports a failure itself: `isError`.
    #[must_use]
    pub fn with_is_error(mut self, failed: bool) -> Self {
        self.is_error = failed;
        self
    }

    /// Whether the result itself reports a failure.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// Marks the result as a task, from which the client gets the result of the request later
    /// (extension `io.modelcontextprotocol/tasks`).
    #[must_use]
    pub fn as_task_result(mut self) -> Self {
        self.is_task = true;
        self
    }

    /// The result alone, with its own `_meta`, as a task contains it.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let own = self.meta.as_ref().filter(|meta| !meta.is_empty());
        let Some(meta) = own else { return self.body.clone() };
        let mut out = BytesMut::with_capacity(self.body.len() + 64);
        out.put_slice(&self.body[..self.body.len() - 1]);
        out.put_slice(if self.body.len() > 2 { b",\"_meta\":" } else { b"\"_meta\":" });
        put_json(&mut out, meta);
        out.put_u8(b'}');
        out.freeze()
    }

    /// Sets how long a client may cache the result; written in the modern era only.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheHint) -> Self {
        self.cache = Some(cache);
        self
    }
}

/// The identity of the server, encoded once.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    info: Implementation,
    meta_member: Bytes,
}

impl ServerIdentity {
    /// The identity that every modern result carries in its `_meta`.
    #[must_use]
    pub fn new(info: Implementation) -> Self {
        let json = serde_json::to_string(&info).unwrap_or_else(|_| "{}".to_owned());
        let meta_member = format!("\"{}\":{json}", meta_key::SERVER_INFO).into();
        Self { info, meta_member }
    }

    /// The name, the version and the other members.
    #[must_use]
    pub fn info(&self) -> &Implementation {
        &self.info
    }
}

/// A successful response.
#[must_use]
pub fn response(id: &Id, era: Era, server: &ServerIdentity, result: &ResultBody) -> Bytes {
    response_of(id, era, server, result, None)
}

/// A response; the response of a listen has its subscription.
fn response_of(
    id: &Id,
    era: Era,
    server: &ServerIdentity,
    result: &ResultBody,
    subscription: Option<&SubscriptionId>,
) -> Bytes {
    let members = &result.body[1..result.body.len() - 1];
    let mut out = BytesMut::with_capacity(result.body.len() + 160 + server.meta_member.len());
    open_response(&mut out, id);
    out.put_slice(b"\"result\":{");
    let mut separator = Separator::default();
    if era.results_are_typed() {
        separator.put(&mut out);
        let is: &[u8] = if result.is_task { b"task" } else { b"complete" };
        out.put_slice(b"\"resultType\":\"");
        out.put_slice(is);
        out.put_u8(b'"');
        if let Some(cache) = result.cache {
            let scope = match cache.scope {
                CacheScope::Public => "public",
                _ => "private",
            };
            let _ = write!(out, ",\"ttlMs\":{},\"cacheScope\":\"{scope}\"", cache.ttl_ms);
        }
    }
    let own = result.meta.as_ref().filter(|meta| !meta.is_empty());
    if own.is_some() || era.results_are_typed() {
        separator.put(&mut out);
        out.put_slice(b"\"_meta\":{");
        let mut inner = Separator::default();
        if era.results_are_typed() {
            inner.put(&mut out);
            out.put_slice(&server.meta_member);
        }
        if let Some(subscription) = subscription {
            inner.put(&mut out);
            put_string(&mut out, meta_key::SUBSCRIPTION_ID);
            out.put_u8(b':');
            out.put_slice(subscription.as_json());
        }
        for (key, value) in own.into_iter().flatten() {
            if key != meta_key::SERVER_INFO {
                inner.put(&mut out);
                put_string(&mut out, key);
                out.put_u8(b':');
                put_json(&mut out, value);
            }
        }
        out.put_u8(b'}');
    }
    if !members.iter().all(u8::is_ascii_whitespace) {
        separator.put(&mut out);
        out.put_slice(members);
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// A request of the server to the client, without an id.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// One of [`request`](crate::request).
    pub method: &'static str,
    /// Its parameters, an object.
    pub params: Value,
}

/// A response that asks for input before there can be a result (2026-07-28, basic/patterns/mrtr).
#[must_use]
pub fn input_required<'a>(
    id: &Id,
    server: &ServerIdentity,
    questions: impl IntoIterator<Item = (&'a str, &'a Question)>,
    request_state: Option<&str>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    open_response(&mut out, id);
    out.put_slice(b"\"result\":{\"resultType\":\"input_required\",\"_meta\":{");
    out.put_slice(&server.meta_member);
    out.put_slice(b"},\"inputRequests\":{");
    let mut separator = Separator::default();
    for (key, question) in questions {
        separator.put(&mut out);
        put_string(&mut out, key);
        out.put_slice(b":{\"method\":");
        put_string(&mut out, question.method);
        out.put_slice(b",\"params\":");
        put_json(&mut out, &question.params);
        out.put_u8(b'}');
    }
    out.put_u8(b'}');
    if let Some(state) = request_state {
        out.put_slice(b",\"requestState\":");
        put_string(&mut out, state);
    }
    out.put_slice(b"}}");
    out.freeze()
}

/// A request of the server to a legacy client.
#[must_use]
pub fn request(id: &Id, question: &Question) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    open_response(&mut out, id);
    out.put_slice(b"\"method\":");
    put_string(&mut out, question.method);
    out.put_slice(b",\"params\":");
    put_json(&mut out, &question.params);
    out.put_u8(b'}');
    out.freeze()
}

/// A failed response; without an id if the id of the request could not be read.
#[must_use]
pub fn error(id: Option<&Id>, error: &ErrorObject) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    match id {
        Some(id) => open_response(&mut out, id),
        None => out.put_slice(b"{\"jsonrpc\":\"2.0\","),
    }
    out.put_slice(b"\"error\":");
    put_json(&mut out, error);
    out.put_u8(b'}');
    out.freeze()
}

/// Appends `notifications/progress`.
///
/// `progress` and `total` must be finite. An empty message is left out.
pub fn progress(
    out: &mut BytesMut,
    token: &ProgressToken,
    progress: f64,
    total: Option<f64>,
    message: &str,
) {
    let method = notification::PROGRESS;
    let _ = write!(
        out,
        "{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{\"progressToken\":"
    );
    put_id(out, token);
    out.put_slice(b",\"progress\":");
    put_json(out, &progress);
    if let Some(total) = total {
        out.put_slice(b",\"total\":");
        put_json(out, &total);
    }
    if !message.is_empty() {
        out.put_slice(b",\"message\":");
        put_string(out, message);
    }
    out.put_slice(b"}}");
}

/// Copies a message without spare capacity: many of these may wait for a client.
fn exactly(out: &BytesMut) -> Bytes {
    Bytes::copy_from_slice(out)
}

/// `notifications/message`.
#[must_use]
pub fn log(level: LogLevel, logger: Option<&str>, data: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(160);
    let method = notification::MESSAGE;
    let _ = write!(
        out,
        "{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{\"level\":\"{level}\""
    );
    if let Some(logger) = logger {
        out.put_slice(b",\"logger\":");
        put_string(&mut out, logger);
    }
    out.put_slice(b",\"data\":");
    put_json(&mut out, data);
    out.put_slice(b"}}");
    exactly(&out)
}

/// A notification with any method.
#[must_use]
pub fn notification(method: &str, params: Option<&Value>) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":");
    put_string(&mut out, method);
    if let Some(params) = params {
        out.put_slice(b",\"params\":");
        put_json(&mut out, params);
    }
    out.put_u8(b'}');
    exactly(&out)
}

/// `notifications/subscriptions/acknowledged`: what a listen will receive.
#[must_use]
pub fn acknowledged(subscription: &SubscriptionId, granted: &NoticeFilter) -> Bytes {
    let mut out = BytesMut::with_capacity(224);
    let (method, key) = (notification::ACKNOWLEDGED, meta_key::SUBSCRIPTION_ID);
    let _ = write!(
        out,
        "{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{\"_meta\":{{\"{key}\":"
    );
    out.put_slice(subscription.as_json());
    out.put_slice(b"},\"notifications\":");
    put_json(&mut out, granted);
    out.put_slice(b"}}");
    out.freeze()
}

/// The response that ends a `subscriptions/listen` on purpose.
#[must_use]
pub fn listen_ended(id: &Id, server: &ServerIdentity) -> Bytes {
    let subscription = SubscriptionId::of(id);
    response_of(id, Era::Modern, server, &ResultBody::empty(), Some(&subscription))
}

#[derive(Default)]
struct Separator(bool);

impl Separator {
    fn put(&mut self, out: &mut BytesMut) {
        if self.0 {
            out.put_u8(b',');
        }
        self.0 = true;
    }
}

fn open_response(out: &mut BytesMut, id: &Id) {
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    put_id(out, id);
    out.put_u8(b',');
}

fn put_id(out: &mut BytesMut, id: &Id) {
    match id {
        Id::Number(number) => put_display(out, number),
        Id::Text(text) => put_string(out, text),
        Id::Literal(text) => out.put_slice(text.as_bytes()),
    }
}

fn put_display(out: &mut BytesMut, value: impl Display) {
    let _ = write!(out, "{value}");
}

fn put_string(out: &mut BytesMut, text: &str) {
    put_json(out, text);
}

/// Appends a value as JSON. Serializing into memory fails only for a value without a JSON form,
/// which then becomes `null`.
fn put_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    let start = out.len();
    if serde_json::to_writer(out.writer(), value).is_err() {
        out.truncate(start);
        out.put_slice(b"null");
    }
}

#[cfg(test)]
mod tests;
