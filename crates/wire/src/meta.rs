//! The `_meta` of a request.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;

use bytes::Bytes;
use rmcp::model::{ClientCapabilities, Implementation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bounds::{MAX_ID, MAX_META, shortened};
use crate::client::{read_capabilities, read_client_info};
use crate::params::Member;
use crate::{ErrorObject, Id, LogLevel, Params, ProtocolVersion};

/// The keys of `_meta` that the protocol reserves (2026-07-28, basic/index, "`_meta`").
pub mod meta_key {
    /// The protocol version of the request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// The client that sends the request.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// The capabilities of the client.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// The severity of the least severe log message that the client wants.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The `subscriptions/listen` that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The server that answers.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
}

/// The token by which a client recognizes the progress of its request: a string or a number,
/// returned with the same JSON type.
pub type ProgressToken = Id;

/// W3C trace context, as the client sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The `tracestate` header's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The `baggage` header's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
}

/// The `_meta` of a request, in either era. Members that the protocol does not define are only in
/// [`raw`](Self::raw).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestMeta {
    /// The token for progress notifications, if the client wants them.
    pub progress_token: Option<ProgressToken>,
    /// The protocol version of a modern request.
    pub protocol_version: Option<String>,
    /// The client that sends a modern request.
    pub client_info: Option<Arc<Implementation>>,
    /// The capabilities of the client that sends a modern request.
    pub client_capabilities: Option<Arc<ClientCapabilities>>,
    /// The severity of the least severe log message that a modern request wants.
    pub log_level: Option<LogLevel>,
    /// The trace that the request belongs to.
    pub trace: TraceContext,
    /// The whole `_meta` as raw JSON; empty if there was none.
    pub raw: Bytes,
}

#[derive(Deserialize)]
struct ProtocolMembers<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<String>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientInfo")]
    client_info: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<LogLevel>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    tracestate: Option<String>,
    #[serde(default)]
    baggage: Option<String>,
}

impl RequestMeta {
    /// Reads the `_meta` of a request's parameters.
    ///
    /// If it is exactly the same text as the previous one, as with most clients, it is not parsed
    /// again.
    ///
    /// # Errors
    ///
    /// -32602 if `_meta` is not an object, a reserved member has the wrong type, or either is
    /// longer than [`bounds`](crate::bounds) allow. A trace context that is too long is left out,
    /// because it is optional and no reason to refuse a request.
    pub fn read(params: &Params) -> Result<Arc<Self>, ErrorObject> {
        let raw = params.member(Member::Meta)?.unwrap_or_default();
        let known =
            |last: &Option<Arc<Self>>| last.as_ref().filter(|last| last.raw == raw).cloned();
        if let Some(same) = META.with_borrow(known) {
            return Ok(same);
        }
        let meta = Arc::new(Self::parse(raw)?);
        if raw.len() <= MAX_KEPT {
            META.set(Some(meta.clone()));
        }
        Ok(meta)
    }

    fn parse(raw: &str) -> Result<Self, ErrorObject> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        // Serde would accept a list for a struct, too.
        if !raw.starts_with('{') {
            return Err(ErrorObject::invalid_params("invalid params._meta: must be an object"));
        }
        if raw.len() > MAX_META {
            return Err(too_long("params._meta", MAX_META));
        }
        let known: ProtocolMembers<'_> = serde_json::from_str(raw).map_err(|error| {
            ErrorObject::invalid_params(format!("invalid params._meta: {}", shortened(error)))
        })?;
        let progress_token = known.progress_token.map(|raw| progress_token(raw.get()));
        let info = known
            .client_info
            .map(|raw| read_once(&INFO, meta_key::CLIENT_INFO, raw, read_client_info));
        let capabilities = known.client_capabilities.map(|raw| {
            read_once(&CAPABILITIES, meta_key::CLIENT_CAPABILITIES, raw, read_capabilities)
        });
        Ok(Self {
            progress_token: progress_token.transpose()?.flatten(),
            protocol_version: known.protocol_version,
            client_info: info.transpose()?,
            client_capabilities: capabilities.transpose()?,
            log_level: known.log_level,
            trace: TraceContext {
                traceparent: known.traceparent.filter(|text| text.len() <= MAX_TRACE_PARENT),
                tracestate: known.tracestate.filter(|text| text.len() <= MAX_TRACE_STATE),
                baggage: known.baggage.filter(|text| text.len() <= MAX_BAGGAGE),
            },
            raw: Bytes::copy_from_slice(raw.as_bytes()),
        })
    }

    /// Checks that this is the `_meta` of a modern request, and returns its protocol version
    /// (2026-07-28, basic/index, "Per-request protocol fields").
    ///
    /// # Errors
    ///
    /// -32602 if a required member is missing, -32022 if the version is unknown or belongs to the
    /// legacy era.
    pub fn require_modern(&self) -> Result<ProtocolVersion, ErrorObject> {
        let missing = |key| ErrorObject::invalid_params(format!("missing params._meta[\"{key}\"]"));
        let requested =
            self.protocol_version.as_deref().ok_or_else(|| missing(meta_key::PROTOCOL_VERSION))?;
        let version = ProtocolVersion::parse(requested)
            .filter(|version| version.era() == crate::Era::Modern)
            .ok_or_else(|| ErrorObject::unsupported_version(requested))?;
        if self.client_capabilities.is_none() {
            return Err(missing(meta_key::CLIENT_CAPABILITIES));
        }
        Ok(version)
    }
}

/// Reads a progress token from raw JSON. A number keeps its value. A number that nobody could read
/// again (`1e999`) counts as no token: it is no reason to refuse a call.
fn progress_token(raw: &str) -> Result<Option<ProgressToken>, ErrorObject> {
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    match ProgressToken::from_json(raw) {
        None if !is_number => Err(ErrorObject::invalid_params(format!(
            "invalid params._meta.progressToken: must be a string or a number of at most {MAX_ID} bytes"
        ))),
        token => Ok(token),
    }
}

/// A longer trace context is ignored (W3C Trace Context, section 3; W3C Baggage, section 3.3).
const MAX_TRACE_PARENT: usize = 128;
const MAX_TRACE_STATE: usize = 512;
const MAX_BAGGAGE: usize = 8 * 1024;

fn too_long(what: &str, most: usize) -> ErrorObject {
    ErrorObject::invalid_params(format!("{what} has more than {most} bytes"))
}

/// The text that was read last, and its value.
type Last<T> = RefCell<Option<(Box<str>, Arc<T>)>>;

/// The longest text that is kept for the next request, in bytes.
const MAX_KEPT: usize = 4096;

thread_local! {
    static META: RefCell<Option<Arc<RequestMeta>>> = const { RefCell::new(None) };
    static INFO: Last<Implementation> = const { RefCell::new(None) };
    static CAPABILITIES: Last<ClientCapabilities> = const { RefCell::new(None) };
}

/// Reads what a client repeats in every request. The same text as last time is not parsed again.
fn read_once<T>(
    last: &'static LocalKey<Last<T>>,
    key: &str,
    raw: &RawValue,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Arc<T>, ErrorObject> {
    let text = raw.get();
    let known = last.with_borrow(|last| {
        last.as_ref().filter(|(before, _)| **before == *text).map(|(_, value)| value.clone())
    });
    if let Some(value) = known {
        return Ok(value);
    }
    let value = read(text).map_err(|error| {
        ErrorObject::invalid_params(format!("invalid params._meta[\"{key}\"]: {error}"))
    })?;
    let value = Arc::new(value);
    if text.len() <= MAX_KEPT {
        last.set(Some((text.into(), value.clone())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    fn read(json: serde_json::Value) -> Result<Arc<RequestMeta>, ErrorObject> {
        RequestMeta::read(&Params::from_json(json.to_string()))
    }

    #[test]
    fn a_modern_request_must_have_a_version_and_capabilities() {
        let meta = read(serde_json::json!({"_meta": {meta_key::PROTOCOL_VERSION: "2026-07-28"}}));
        let error = meta.unwrap().require_modern().unwrap_err();
        assert_eq!(error.code, code::INVALID_PARAMS);
        assert!(error.message.contains(meta_key::CLIENT_CAPABILITIES), "{error}");

        let error = read(serde_json::json!({})).unwrap().require_modern().unwrap_err();
        assert!(error.message.contains(meta_key::PROTOCOL_VERSION), "{error}");

        let meta = read(serde_json::json!({"_meta": {
            meta_key::PROTOCOL_VERSION: "v999.0.0", meta_key::CLIENT_CAPABILITIES: {},
        }}));
        let error = meta.unwrap().require_modern().unwrap_err();
        assert_eq!(error.code, code::UNSUPPORTED_VERSION);
        assert_eq!(error.data.unwrap()["requested"], "v999.0.0");
    }

    #[test]
    fn a_reserved_member_of_the_wrong_type_is_named() {
        for meta in [
            serde_json::json!({"progressToken": {}}),
            serde_json::json!({"progressToken": true}),
            serde_json::json!({meta_key::LOG_LEVEL: "loud"}),
            serde_json::json!({meta_key::CLIENT_INFO: "me"}),
            serde_json::json!("text"),
            serde_json::json!([]),
        ] {
            let error = read(serde_json::json!({ "_meta": meta })).unwrap_err();
            assert_eq!(error.code, code::INVALID_PARAMS);
            assert!(error.message.contains("_meta"), "{error}");
        }
    }

    #[test]
    fn a_progress_token_that_is_any_number_is_echoed_and_refuses_no_call() {
        for (token, echoed) in [
            ("7", Some("7")),
            ("7.0", Some("7")),
            ("1.50", Some("1.50")),
            ("18446744073709551616", Some("18446744073709551616")),
            ("1e999", None),
            ("null", None),
        ] {
            let params = format!(r#"{{"_meta":{{"progressToken":{token}}}}}"#);
            let meta = RequestMeta::read(&Params::from_json(params)).unwrap();
            let told = meta.progress_token.as_ref().map(Id::to_json);
            assert_eq!(told.as_deref(), echoed, "{token}");
        }
    }

    #[test]
    fn client_info_is_bounded_and_long_icons_are_dropped() {
        let info = |name: &str, icon: &str| {
            serde_json::json!({"_meta": {meta_key::CLIENT_INFO: {
                "name": name, "version": "1", "icons": [{"src": icon}],
            }}})
        };
        let client = |json| read(json).map(|meta| meta.client_info.clone().unwrap());
        assert!(client(info("c", "data:x")).unwrap().icons.is_some());
        let large = client(info("c", &"x".repeat(30_000))).unwrap();
        assert_eq!((&*large.name, &large.icons), ("c", &None));
        let error = client(info(&"x".repeat(5_000), "x")).unwrap_err();
        assert!(error.message.contains("4096 bytes") && error.message.len() < 300, "{error}");
        let many = serde_json::json!({"experimental": {"x": {"y": "z".repeat(20_000)}}});
        let error = read(serde_json::json!({"_meta": {meta_key::CLIENT_CAPABILITIES: many}}));
        assert!(error.unwrap_err().message.contains("16384 bytes"));
    }

    #[test]
    fn a_trace_that_is_too_long_is_left_out() {
        let meta = read(serde_json::json!({"_meta": {
            "traceparent": "x".repeat(1_000), "tracestate": "x".repeat(500), "baggage": "b",
        }}));
        let trace = meta.unwrap().trace.clone();
        assert_eq!((trace.traceparent, trace.baggage.as_deref()), (None, Some("b")));
        assert!(trace.tracestate.is_some());
    }

    #[test]
    fn client_info_is_parsed_again_when_it_differs() {
        let name = |name: &str| {
            let info = serde_json::json!({"name": name, "version": "1"});
            let read = read(serde_json::json!({"_meta": {meta_key::CLIENT_INFO: info}}));
            read.unwrap().client_info.clone().unwrap()
        };
        let (one, same, other) = (name("one"), name("one"), name("other"));
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!((&*one.name, &*other.name, &*name("one").name), ("one", "other", "one"));
        let none = read(serde_json::json!({"_meta": {meta_key::CLIENT_INFO: null}}));
        assert_eq!(none.unwrap().client_info, None);
    }

    #[test]
    fn unknown_members_are_kept_exactly() {
        let meta = RequestMeta::read(&Params::from_json(
            r#"{"_meta":{"com.example/x": {"b":1,"a":2.50}}}"#,
        ));
        assert_eq!(&meta.unwrap().raw[..], br#"{"com.example/x": {"b":1,"a":2.50}}"#);
    }
}
