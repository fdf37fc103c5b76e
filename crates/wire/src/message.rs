//! The messages of a client, and how they are decoded.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::bounds::{MAX_ARGUMENT_VALUES, MAX_ID, MAX_METHOD, MAX_VALUES, shortened};
use crate::params::{Seen, values_of};
use crate::{ErrorObject, Id, Method, Params, RequestMeta, code};

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request, which needs a response.
    Request(Box<Request>),
    /// A notification, which has no response.
    Notification(Box<Notification>),
    /// A response to a request of the server; legacy only.
    Response(Response),
}

/// A request of the client.
///
/// [`Request::new`] and [`Message::decode`] create it: its `meta` is the `_meta` of its `params`.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id, which the response repeats.
    pub id: Id,
    /// The method.
    pub method: Method,
    /// The parameters.
    pub params: Params,
    /// The `_meta` of its parameters.
    pub meta: Arc<RequestMeta>,
}

impl Request {
    /// A request with its `_meta`.
    ///
    /// # Errors
    ///
    /// As [`RequestMeta::read`].
    pub fn new(id: Id, method: Method, params: Params) -> Result<Self, ErrorObject> {
        let meta = RequestMeta::read(&params)?;
        Ok(Self { id, method, params, meta })
    }

    /// The request as JSON, to forward it. [`Message::decode`] reads it again.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (id, method) = (self.id.to_json(), string(self.method.as_str()));
        object(&[
            ("id", id.as_bytes()),
            ("method", method.as_bytes()),
            ("params", self.params.as_json()),
        ])
    }
}

impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        // The parameters contain the `_meta`.
        (&self.id, &self.method, &self.params) == (&other.id, &other.method, &other.params)
    }
}

impl Eq for Request {}

/// A notification of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The method.
    pub method: Method,
    /// The parameters.
    pub params: Params,
}

/// A response of the client to a request of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The id of the server's request.
    pub id: Id,
    /// The result or the error.
    pub outcome: ResponseOutcome,
}

impl Response {
    /// A response with an error.
    #[must_use]
    pub fn failed(id: Id, error: &ErrorObject) -> Self {
        let error = serde_json::to_vec(error).unwrap_or_else(|_| b"{}".to_vec());
        Self { id, outcome: ResponseOutcome::Error(error.into()) }
    }
}

/// The outcome of a client's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOutcome {
    /// The raw JSON of the result.
    Result(Bytes),
    /// The raw JSON of the error.
    Error(Bytes),
}

/// Why bytes are not a message, with the id of the request if it could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The id for the error response, if there was one.
    pub id: Option<Id>,
    /// [`code::PARSE_ERROR`], [`code::INVALID_REQUEST`], or [`code::INVALID_PARAMS`] for the
    /// `_meta` of a request.
    pub code: i32,
    /// What is wrong, and where.
    pub message: String,
}

impl DecodeError {
    fn invalid(id: Option<Id>, message: impl Into<String>) -> Self {
        Self { id, code: code::INVALID_REQUEST, message: message.into() }
    }

    fn too_many_values(id: Option<Id>, most: usize) -> Self {
        Self::invalid(id, format!("the message has more than {most} values"))
    }
}

impl From<DecodeError> for ErrorObject {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code, error.message)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    // Some clients write each unused member as `null`.
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "Option::deserialize")]
    params: Option<Seen<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Distinguishes `null` from an absent member.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

impl Message {
    /// Decodes one JSON-RPC 2.0 message. Its parameters stay raw and share `input`'s buffer.
    ///
    /// The parts of a message that a server keeps are short: see [`bounds`](crate::bounds). The
    /// response to a question that has more values than [`MAX_VALUES`] is decoded as an error, so
    /// that the caller is notified.
    ///
    /// # Errors
    ///
    /// [`code::PARSE_ERROR`] if `input` is not JSON, [`code::INVALID_REQUEST`] if it is a batch, or
    /// not a message for any other reason (2026-07-28, basic/index, "Messages");
    /// [`code::INVALID_PARAMS`] as [`RequestMeta::read`].
    pub fn decode(input: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_within(input, MAX_ARGUMENT_VALUES)
    }

    /// As [`decode`](Self::decode), with another limit of values for a tool call.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decode_within(input: &Bytes, max_argument_values: usize) -> Result<Self, DecodeError> {
        // A byte order mark is not JSON, but some clients write one (RFC 8259, section 8.1).
        let without = input.strip_prefix(b"\xef\xbb\xbf").map(|text| input.slice_ref(text));
        let input = without.as_ref().unwrap_or(input);
        let first = input.iter().find(|byte| !byte.is_ascii_whitespace());
        let parse_error = |error: &dyn fmt::Display| DecodeError {
            id: None,
            code: code::PARSE_ERROR,
            message: format!("parse error: {}", shortened(error)),
        };
        // JSON is UTF-8 (RFC 8259), also in parts that a parser may skip.
        let text = ByteString::try_from(input.clone()).map_err(|error| parse_error(&error))?;
        let envelope: Envelope<'_> = match serde_json::from_str(&text) {
            Ok(envelope) if first == Some(&b'{') => envelope,
            Ok(_) => return Err(not_an_object(input)),
            Err(error) => {
                // A second pass tells a text that is not JSON from JSON that is not a message.
                return Err(match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
                    Err(error) => parse_error(&error),
                    Ok(_) if first != Some(&b'{') => not_an_object(input),
                    Ok(_) => {
                        let message = format!("invalid message: {}", shortened(error));
                        DecodeError::invalid(id(&text), message)
                    }
                });
            }
        };
        envelope.into_message(&text, max_argument_values)
    }

    /// The message as JSON, to forward it. [`decode`](Self::decode) reads it again.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Request(request) => request.encode(),
            Self::Notification(notification) => {
                let method = string(notification.method.as_str());
                let params = notification.params.as_json();
                object(&[("method", method.as_bytes()), ("params", params)])
            }
            Self::Response(response) => {
                let outcome: (_, &[u8]) = match &response.outcome {
                    ResponseOutcome::Result(json) => ("result", json),
                    ResponseOutcome::Error(json) => ("error", json),
                };
                object(&[("id", response.id.to_json().as_bytes()), outcome])
            }
        }
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A message with these members. Their values are JSON.
fn object(members: &[(&str, &[u8])]) -> Bytes {
    let mut out = b"{\"jsonrpc\":\"2.0\"".to_vec();
    for (name, json) in members {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(json);
    }
    out.push(b'}');
    out.into()
}

/// The id of JSON that is otherwise not a message.
fn id(text: &str) -> Option<Id> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    Id::of_request(serde_json::from_str::<Named<'_>>(text).ok()?.id.get())
}

fn not_an_object(input: &Bytes) -> DecodeError {
    let batch = input.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    DecodeError::invalid(
        None,
        if batch {
            "a batch is not supported: send one message at a time"
        } else {
            "a message must be a JSON object"
        },
    )
}

impl Envelope<'_> {
    fn into_message(
        self,
        input: &ByteString,
        max_argument_values: usize,
    ) -> Result<Message, DecodeError> {
        let id = match self.id.map(RawValue::get) {
            None => None,
            Some("null") if self.is_notification() => None,
            Some(raw) if raw.len() > MAX_ID => {
                let message = format!("invalid id: it has more than {MAX_ID} bytes");
                return Err(DecodeError::invalid(None, message));
            }
            Some(raw) => Some(Id::of_request(raw).ok_or_else(|| {
                DecodeError::invalid(None, "invalid id: must be a string or an integer")
            })?),
        };
        if self.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
            return Err(DecodeError::invalid(id, "invalid jsonrpc: must be \"2.0\""));
        }
        let Some(method) = self.method else { return self.into_response(id, input) };
        if method.get().len() > MAX_METHOD {
            let message = format!("invalid method: it has more than {MAX_METHOD} bytes");
            return Err(DecodeError::invalid(id, message));
        }
        let method = match serde_json::from_str::<std::borrow::Cow<'_, str>>(method.get()) {
            Ok(name) => Method::parse(&name),
            Err(_) => return Err(DecodeError::invalid(id, "invalid method: must be a string")),
        };
        let result = self.result.filter(|result| result.get() != "null");
        if result.is_some() || self.error.is_some() {
            return Err(DecodeError::invalid(id, "a message is a request or a response, not both"));
        }
        let most = match method {
            Method::ToolsCall => max_argument_values.max(MAX_VALUES),
            _ => MAX_VALUES,
        };
        let values = values_of(input, most);
        if values > most {
            return Err(DecodeError::too_many_values(id, most));
        }
        let params = match self.params {
            None => Params::default(),
            Some(seen) => Params::of_message(input, &seen, values),
        };
        Ok(match id {
            Some(id) => match RequestMeta::read(&params) {
                Ok(meta) => Message::Request(Box::new(Request { id, method, params, meta })),
                Err(error) => {
                    let (code, message) = (error.code, error.message);
                    return Err(DecodeError { id: Some(id), code, message });
                }
            },
            None => Message::Notification(Box::new(Notification { method, params })),
        })
    }

    /// Whether this is a notification. The id of a notification may be `null`, unlike the id of a
    /// request, because nothing waits for a response.
    fn is_notification(&self) -> bool {
        let method = self.method.map_or("", RawValue::get);
        method.starts_with("\"notifications/")
    }

    fn into_response(self, id: Option<Id>, input: &ByteString) -> Result<Message, DecodeError> {
        if let (Some(id), true) = (&id, values_of(input, MAX_VALUES) > MAX_VALUES) {
            let error = ErrorObject::from(DecodeError::too_many_values(None, MAX_VALUES));
            let error = serde_json::to_vec(&error).unwrap_or_default().into();
            let outcome = ResponseOutcome::Error(error);
            return Ok(Message::Response(Response { id: id.clone(), outcome }));
        }
        let raw = |value: &RawValue| input.slice_ref(value.get()).into_bytes();
        // A result of `null` beside an error counts as absent.
        let result = self.result.filter(|result| result.get() != "null" || self.error.is_none());
        let outcome = match (result, self.error) {
            (Some(result), None) => ResponseOutcome::Result(raw(result)),
            (None, Some(error)) => ResponseOutcome::Error(raw(error)),
            (None, None) => return Err(DecodeError::invalid(id, "missing method")),
            (Some(_), Some(_)) => {
                return Err(DecodeError::invalid(id, "a response has a result or an error"));
            }
        };
        match id {
            Some(id) => Ok(Message::Response(Response { id, outcome })),
            None => Err(DecodeError::invalid(None, "a response needs an id")),
        }
    }
}

#[cfg(test)]
mod tests;
