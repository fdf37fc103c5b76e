//! The checks of a request's headers, before anything is parsed.
//!
//! Pure functions: which content a client must accept and send, how large its headers may be, and
//! one [`Refusal`] for every request that the endpoint refuses by itself.
//! [`origins`](super::origins) decides which clients may call.
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint" and
//! "Sending Messages"; `basic/transports` of 2025-11-25, "Streamable HTTP".

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use stentor_wire::headers::quoted;

/// Why the HTTP endpoint refuses a request. Its text is the message of the JSON-RPC error in the
/// response body: it says what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request names no host, and the policy needs one.
    #[error("the Host header is missing; it must name {wanted}")]
    HostMissing { wanted: &'static str },
    /// The request names a host that is not this server's, as after DNS rebinding.
    #[error("host '{found}' is not served here; the one Host header must name {wanted}")]
    HostRefused { found: String, wanted: &'static str },
    /// The request comes from a web page that may not call this server.
    #[error("origin '{found}' is not allowed; the one Origin header must be absent or {wanted}")]
    OriginRefused { found: String, wanted: &'static str },
    #[error("nothing is served at this path; the endpoint is '{path}'")]
    WrongPath { path: String },
    /// The request has no principal, and the configuration requires one.
    #[error("the request has no identity; authenticate, then send it again")]
    NoIdentity,
    /// The middleware has set a principal without a name.
    #[error("the request has a blank principal; authenticate as somebody, then send it again")]
    BlankPrincipal,
    /// The credential of the request is not good.
    #[error("the credential is not accepted; get another one, then send the request again")]
    InvalidCredential,
    /// The credential lacks a scope that every request needs.
    #[error("the request needs a token with more scopes")]
    ScopesMissing,
    /// The authenticator cannot tell just now whether the credential is good. When it may be able
    /// to, in seconds.
    #[error("the credential cannot be checked just now; try again later")]
    CannotAuthenticate { retry_after: u64 },
    /// A POST does not accept both forms of a response.
    #[error("the Accept header must allow both application/json and text/event-stream")]
    NotAcceptable,
    /// A GET does not accept an event stream.
    #[error("the Accept header must allow text/event-stream")]
    StreamNotAcceptable,
    #[error("the Content-Type header must be application/json")]
    UnsupportedMediaType,
    /// The charset of the body is not one of JSON.
    #[error("the charset '{found}' is not supported; send JSON in UTF-8")]
    Charset { found: String },
    #[error("the content encoding '{found}' is not supported; send the body as it is")]
    ContentEncoding { found: String },
    /// A header that must be unambiguous occurs more than once.
    #[error("the {name} header is repeated; send it once")]
    HeaderRepeated { name: HeaderName },
    #[error("the headers are larger than {limit} bytes; send fewer or shorter ones")]
    HeadersTooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes; send a smaller message")]
    BodyTooLarge { limit: usize },
    #[error(
        "the body came more slowly than {rate} bytes a second; send it faster, or a smaller one"
    )]
    BodyTooSlow { rate: usize },
    /// Unfinished requests have used up their budget.
    #[error("the server has no room for the rest of the body just now; try again later")]
    NoRoomForBody,
    #[error("this method is not allowed; send messages with POST")]
    MethodNotAllowed,
    #[error("the server has no room for another session; end one or try again later")]
    TooManySessions,
    #[error("too many requests are running; wait for one to end, then try again")]
    TooManyRequests,
    #[error("unsupported protocol version '{found}'")]
    UnsupportedVersion { found: String },
    /// A request that belongs to a session names none.
    #[error("the Mcp-Session-Id header is required")]
    SessionRequired,
    /// The session never existed, or has ended.
    #[error("the session is unknown or has ended; start a new one with initialize")]
    UnknownSession,
    /// The session is on another node of the cluster, which may be reachable again soon.
    #[error("the node that has the session cannot be reached just now; try again")]
    NodeUnreachable,
    #[error("the server is shutting down; try again later")]
    ShuttingDown,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::HostMissing { .. }
            | Self::HostRefused { .. }
            | Self::OriginRefused { .. }
            | Self::ScopesMissing => StatusCode::FORBIDDEN,
            Self::NoIdentity | Self::BlankPrincipal | Self::InvalidCredential => {
                StatusCode::UNAUTHORIZED
            }
            Self::NotAcceptable | Self::StreamNotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType | Self::Charset { .. } | Self::ContentEncoding { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::HeaderRepeated { .. }
            | Self::UnsupportedVersion { .. }
            | Self::SessionRequired => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManySessions
            | Self::ShuttingDown
            | Self::NodeUnreachable
            | Self::CannotAuthenticate { .. }
            | Self::NoRoomForBody => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::WrongPath { .. } | Self::UnknownSession => StatusCode::NOT_FOUND,
        }
    }
}

/// The form of a response to a POST that the client prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Json,
    EventStream,
}

/// Checks that the `Accept` header of a POST allows both forms of a response. Returns the form that
/// the client prefers: the one with the higher weight, or else the one listed first.
pub(crate) fn negotiate_post(headers: &HeaderMap) -> Result<Wants, Refusal> {
    let mut all = headers.get_all(ACCEPT).iter();
    if let (Some(only), None) = (all.next(), all.next()) {
        // A shortcut: nearly all requests have one of these two values.
        match only.as_bytes() {
            b"application/json, text/event-stream" => return Ok(Wants::Json),
            b"text/event-stream, application/json" => return Ok(Wants::EventStream),
            _ => {}
        }
    }
    let json = Preference::find(headers, "application", "json").ok_or(Refusal::NotAcceptable)?;
    let stream = Preference::find(headers, "text", "event-stream").ok_or(Refusal::NotAcceptable)?;
    let better = stream.weight > json.weight
        || stream.weight == json.weight && stream.position < json.position;
    Ok(if better { Wants::EventStream } else { Wants::Json })
}

/// Checks that the `Accept` header of a GET allows a stream.
pub(crate) fn accepts_event_stream(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut all = headers.get_all(ACCEPT).iter();
    if let (Some(only), None) = (all.next(), all.next())
        && only.as_bytes() == b"text/event-stream"
    {
        return Ok(());
    }
    match Preference::find(headers, "text", "event-stream") {
        Some(_) => Ok(()),
        None => Err(Refusal::StreamNotAcceptable),
    }
}

/// How much a client wants a media type, by RFC 9110, section 12.5.1.
struct Preference {
    /// In thousandths, not 0.
    weight: u16,
    /// The position in the `Accept` header of the range that allows the type.
    position: usize,
}

impl Preference {
    /// Finds the most specific range for a media type, `None` if there is none or if it excludes
    /// the type. Malformed ranges are ignored, and so are parameters other than `q`.
    fn find(headers: &HeaderMap, kind: &str, subtype: &str) -> Option<Self> {
        let mut best = None;
        let ranges = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| split_unquoted(value, ','));
        for (position, range) in ranges.enumerate() {
            let Some((specificity, weight)) = match_range(range, kind, subtype) else {
                continue;
            };
            if best.as_ref().is_none_or(|(most, _)| specificity > *most) {
                best = Some((specificity, Self { weight, position }));
            }
        }
        best.map(|(_, preference)| preference).filter(|preference| preference.weight > 0)
    }
}

/// How specifically a media range matches a media type, and its weight in thousandths.
fn match_range(range: &str, kind: &str, subtype: &str) -> Option<(u8, u16)> {
    let mut parts = split_unquoted(range, ';').map(trim);
    let (found_kind, found_subtype) = parts.next()?.split_once('/')?;
    let specificity = if found_kind == "*" && found_subtype == "*" {
        0
    } else if !found_kind.eq_ignore_ascii_case(kind) {
        return None;
    } else if found_subtype == "*" {
        1
    } else if found_subtype.eq_ignore_ascii_case(subtype) {
        2
    } else {
        return None;
    };
    let q = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| trim(name).eq_ignore_ascii_case("q"));
    let weight = match q {
        Some((_, value)) => weight(trim(value))?,
        None => 1000,
    };
    Some((specificity, weight))
}

/// Parses a weight of RFC 9110, section 12.4.2, in thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Checks that the body is declared as plain JSON: in UTF-8 if it names a charset, and not
/// compressed. Other parameters are ignored.
pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Ok(Some(value)) = sole(headers, CONTENT_TYPE) else {
        return Err(Refusal::UnsupportedMediaType);
    };
    if value != "application/json" {
        let mut parts = split_unquoted(value, ';').map(trim);
        let essence = parts.next().unwrap_or_default();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::UnsupportedMediaType);
        }
        for (name, charset) in parts.filter_map(|part| part.split_once('=')) {
            let charset = trim(charset).trim_matches(['"', '\'']);
            let is_utf8 = |known: &&str| charset.eq_ignore_ascii_case(known);
            if trim(name).eq_ignore_ascii_case("charset")
                && !["utf-8", "utf8", "us-ascii"].iter().any(is_utf8)
            {
                return Err(Refusal::Charset { found: quoted(charset) });
            }
        }
    }
    for value in headers.get_all(CONTENT_ENCODING) {
        let codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for coding in codings {
            if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
                let found = quoted(&String::from_utf8_lossy(coding));
                return Err(Refusal::ContentEncoding { found });
            }
        }
    }
    Ok(())
}

/// Checks that the names and values of all headers together have at most `limit` bytes.
pub(crate) fn check_header_size(headers: &HeaderMap, limit: usize) -> Result<(), Refusal> {
    let size = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .fold(0, usize::saturating_add);
    if size > limit { Err(Refusal::HeadersTooLarge { limit }) } else { Ok(()) }
}

/// Checks that no `Mcp-*` header occurs twice. A router in front might use the other value, which
/// would then not be compared with the body.
pub(crate) fn check_repeated(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    let repeated = |name: &&HeaderName| {
        name.as_str().starts_with("mcp-") && headers.get_all(*name).iter().nth(1).is_some()
    };
    match headers.keys().find(repeated) {
        Some(name) => Err(Refusal::HeaderRepeated { name: name.clone() }),
        None => Ok(()),
    }
}

/// The value of a header that may occur once. The error shows the values found instead.
pub(super) fn sole(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, String> {
    let show = |value: &HeaderValue| quoted(&String::from_utf8_lossy(value.as_bytes()));
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| show(value)),
        (Some(value), Some(other)) => Err(format!("{}, {}", show(value), show(other))),
    }
}

/// Splits a header value where `separator` is not inside a quoted string.
pub(super) fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |char| {
        let was_escaped = std::mem::take(&mut escaped);
        match char {
            _ if was_escaped => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return char == separator && !quoted,
        }
        false
    })
}

/// Removes the optional whitespace of RFC 9110.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
pub(super) mod tests;
