//! What the HTTP endpoint refuses before anything is parsed.
//!
//! Pure functions of the request's headers: what a client must accept and send, how much, and one
//! [`Refusal`] for everything the endpoint turns away by itself. Who may call is in
//! [`origins`](super::origins).
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint" and
//! "Sending Messages"; `basic/transports` of 2025-11-25, "Streamable HTTP".

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use stentor_wire::headers::quoted;

/// Why the HTTP endpoint turns a request away. Its text is the message of the JSON-RPC error in the
/// response body: what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request names no host where the policy wants to know it.
    #[error("the Host header is missing; it must name {wanted}")]
    HostMissing { wanted: &'static str },
    /// The request is for a host that is not ours, as after DNS rebinding.
    #[error("host '{found}' is not served here; the one Host header must name {wanted}")]
    HostRefused { found: String, wanted: &'static str },
    /// The request comes from a web page that may not call us.
    #[error("origin '{found}' is not allowed; the one Origin header must be absent or {wanted}")]
    OriginRefused { found: String, wanted: &'static str },
    /// Nothing is at this path.
    #[error("nothing is served at this path; the endpoint is '{path}'")]
    NotHere { path: String },
    /// The request is nobody's, where only those of somebody are served.
    #[error("the request has no identity; authenticate, then send it again")]
    NoIdentity,
    /// What authenticated the request says that it is somebody without a name.
    #[error("the request has a blank principal; authenticate as somebody, then send it again")]
    BlankPrincipal,
    /// A POST does not accept both forms of an answer.
    #[error("the Accept header must allow both application/json and text/event-stream")]
    NotAcceptable,
    /// A GET does not accept a stream.
    #[error("the Accept header must allow text/event-stream")]
    StreamNotAcceptable,
    /// The body is not declared to be JSON.
    #[error("the Content-Type header must be application/json")]
    UnsupportedMediaType,
    /// The body is in a charset that JSON is not in.
    #[error("the charset '{found}' is not supported; send JSON in UTF-8")]
    Charset { found: String },
    /// The body is compressed.
    #[error("the content encoding '{found}' is not supported; send the body as it is")]
    ContentEncoding { found: String },
    /// A header that must be unambiguous is there more than once.
    #[error("the {name} header is repeated; send it once")]
    HeaderRepeated { name: HeaderName },
    /// The headers are larger than the configured limit.
    #[error("the headers are larger than {limit} bytes; send fewer or shorter ones")]
    HeadersTooLarge { limit: usize },
    /// The body is larger than the configured limit.
    #[error("the body is larger than {limit} bytes; send a smaller message")]
    BodyTooLarge { limit: usize },
    /// The body comes too slowly.
    #[error(
        "the body came more slowly than {rate} bytes a second; send it faster, or a smaller one"
    )]
    BodyTooSlow { rate: usize },
    /// Too much is held of requests that have not come to their end.
    #[error("the server has no room for the rest of the body just now; try again later")]
    NoRoomForBody,
    /// The HTTP method has no meaning here.
    #[error("this method is not allowed; send messages with POST")]
    MethodNotAllowed,
    /// No session may be added.
    #[error("the server has no room for another session; end one or try again later")]
    TooManySessions,
    /// No request may be added.
    #[error("too many requests are running; wait for one to end, then try again")]
    TooManyRequests,
    /// The request names a protocol version that is not spoken here.
    #[error("unsupported protocol version '{found}'")]
    UnsupportedVersion { found: String },
    /// A request that only has a meaning within a session names none.
    #[error("the Mcp-Session-Id header is required")]
    SessionRequired,
    /// The session never was, or is over.
    #[error("the session is unknown or has ended; start a new one with initialize")]
    UnknownSession,
    /// The session lives on another node of the cluster, which may be back soon.
    #[error("the node that has the session cannot be reached just now; try again")]
    NodeUnreachable,
    /// The server is going away.
    #[error("the server is shutting down; try again later")]
    ShuttingDown,
}

impl Refusal {
    /// The status of the HTTP response.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::HostMissing { .. } | Self::HostRefused { .. } | Self::OriginRefused { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::NoIdentity | Self::BlankPrincipal => StatusCode::UNAUTHORIZED,
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
            | Self::NoRoomForBody => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::NotHere { .. } | Self::UnknownSession => StatusCode::NOT_FOUND,
        }
    }
}

/// Which form of an answer to a POST the client likes better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// `application/json`: one object.
    Json,
    /// `text/event-stream`: a stream.
    EventStream,
}

/// Checks that the `Accept` header of a POST allows both forms of an answer, and tells which one
/// the client prefers: the one with the higher weight, or else the one listed first.
pub(crate) fn negotiate_post(headers: &HeaderMap) -> Result<Wants, Refusal> {
    let mut all = headers.get_all(ACCEPT).iter();
    if let (Some(only), None) = (all.next(), all.next()) {
        // Nearly all requests say it like this.
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
    /// The place in the `Accept` header of the range that allows the type.
    position: usize,
}

impl Preference {
    /// Finds the most specific range for a media type, `None` if there is none or it excludes the
    /// type. Ranges that are malformed count as absent, and so do parameters other than `q`.
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

/// How closely a media range fits a media type, and its weight in thousandths.
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

/// Reads a weight of RFC 9110, section 12.4.2, in thousandths.
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

/// Checks that the body is declared to be JSON, in UTF-8 if that is said, and as it is: what is compressed
/// or in another charset would be no JSON to who reads it as that. Other parameters do not matter.
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

/// Checks that no `Mcp-*` header is there twice. Whoever routes by such a header might take the
/// other one than we do, and so it would not have been compared with the body.
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

/// The value of a header that may be there once. The error shows what there is instead.
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
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
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

/// Takes the optional whitespace of RFC 9110 away.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
pub(super) mod tests {
    use http::header::HOST;

    use super::*;

    pub(in crate::http) fn map(headers: &[(HeaderName, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn post(accept: &str) -> Result<Wants, Refusal> {
        negotiate_post(&map(&[(ACCEPT, accept)]))
    }

    /// Every text of up to five pieces.
    pub(in crate::http) fn texts(pieces: &[&str]) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..5 {
            last = last
                .iter()
                .flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn every_refusal_has_its_status_and_says_what_is_right() {
        let wanted = "localhost";
        for (refusal, status, message) in [
            (Refusal::HostMissing { wanted }, 403, "must name localhost"),
            (Refusal::HostRefused { found: "a".into(), wanted }, 403, "must name localhost"),
            (Refusal::OriginRefused { found: "a".into(), wanted }, 403, "absent or localhost"),
            (Refusal::NotHere { path: "/mcp".into() }, 404, "the endpoint is '/mcp'"),
            (Refusal::NoIdentity, 401, "authenticate"),
            (Refusal::BlankPrincipal, 401, "authenticate"),
            (Refusal::NotAcceptable, 406, "application/json and text/event-stream"),
            (Refusal::StreamNotAcceptable, 406, "text/event-stream"),
            (Refusal::UnsupportedMediaType, 415, "application/json"),
            (Refusal::HeaderRepeated { name: HOST }, 400, "once"),
            (Refusal::HeadersTooLarge { limit: 7 }, 431, "7 bytes"),
            (Refusal::BodyTooLarge { limit: 7 }, 413, "7 bytes"),
            (Refusal::MethodNotAllowed, 405, "POST"),
            (Refusal::TooManySessions, 503, "try again later"),
            (Refusal::TooManyRequests, 429, "try again"),
            (Refusal::SessionRequired, 400, "the Mcp-Session-Id header is required"),
            (Refusal::UnknownSession, 404, "initialize"),
            (Refusal::ShuttingDown, 503, "try again later"),
            (Refusal::Charset { found: "x".into() }, 415, "charset 'x'"),
            (Refusal::ContentEncoding { found: "gzip".into() }, 415, "content encoding 'gzip'"),
        ] {
            assert_eq!(refusal.status().as_u16(), status);
            let text = refusal.to_string();
            assert!(text.contains(message), "{text}");
            assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn the_first_listed_form_is_preferred() {
        for (accept, wants) in [
            ("application/json, text/event-stream", Wants::Json),
            ("text/event-stream, application/json", Wants::EventStream),
            ("text/event-stream,application/json", Wants::EventStream),
            ("TEXT/Event-Stream , Application/JSON", Wants::EventStream),
            ("text/html, application/json;v=1, text/event-stream;charset=utf-8", Wants::Json),
            ("application/*, text/*", Wants::Json),
            ("text/*, application/*", Wants::EventStream),
            ("*/*", Wants::Json),
            ("*/*, text/event-stream", Wants::Json),
            ("text/event-stream, */*", Wants::EventStream),
            ("*/*, application/json", Wants::EventStream),
            (",, text/event-stream ,, application/json ,", Wants::EventStream),
            ("text/x;t=\"a, \\\" application/json\", text/event-stream, */*", Wants::EventStream),
        ] {
            assert_eq!(post(accept), Ok(wants), "{accept}");
        }
    }

    #[test]
    fn the_higher_weight_is_preferred() {
        for (accept, wants) in [
            ("application/json;q=0.5, text/event-stream", Wants::EventStream),
            ("text/event-stream;q=0.9, application/json", Wants::Json),
            ("text/event-stream; Q = 0.9, application/json;q=0.899", Wants::EventStream),
            ("text/event-stream;q=1.000, application/json;q=1", Wants::EventStream),
            ("application/json;q=0.1, text/event-stream;q=0.25", Wants::EventStream),
            ("*/*;q=0.1, application/json;q=0.2", Wants::Json),
            ("*/*, application/json;q=0.2", Wants::EventStream),
            ("application/json;charset=\";q=0\";q=0.5, text/event-stream;q=0.4", Wants::Json),
        ] {
            assert_eq!(post(accept), Ok(wants), "{accept}");
        }
    }

    #[test]
    fn a_post_must_accept_both_forms() {
        for accept in [
            "",
            "application/json",
            "text/event-stream",
            "text/*",
            "application/*",
            "text/html, image/*",
            "application/json;q=0, text/event-stream",
            "application/json, text/event-stream;q=0.000",
            "application/json;q=0, */*",
            "*/*, text/*;q=0",
            "*/*;q=0",
            "*/json, text/event-stream",
            "application/json;q=2, text/event-stream",
            "application/json;q=1.001, text/event-stream",
            "application/json;q=.5, text/event-stream",
            "application/json;q=0.1234, text/event-stream",
            "application/json;q=, text/event-stream",
            "application/json text/event-stream",
            "application/json;x=\", text/event-stream",
            "application/jsonx, text/event-streams",
        ] {
            assert_eq!(post(accept), Err(Refusal::NotAcceptable), "{accept}");
        }
        assert_eq!(negotiate_post(&HeaderMap::new()), Err(Refusal::NotAcceptable));
    }

    #[test]
    fn several_accept_headers_are_one_list() {
        let both = map(&[(ACCEPT, "text/event-stream"), (ACCEPT, "application/json")]);
        assert_eq!(negotiate_post(&both), Ok(Wants::EventStream));
        let unreadable = map(&[(ACCEPT, "é"), (ACCEPT, "*/*")]);
        assert_eq!(negotiate_post(&unreadable), Ok(Wants::Json));
    }

    #[test]
    fn a_get_must_accept_a_stream() {
        for accept in ["text/event-stream", "text/*", "*/*", "a/b, text/event-stream;q=0.1"] {
            assert_eq!(accepts_event_stream(&map(&[(ACCEPT, accept)])), Ok(()));
        }
        for accept in ["", "application/json", "text/event-stream;q=0, */*"] {
            assert_eq!(
                accepts_event_stream(&map(&[(ACCEPT, accept)])),
                Err(Refusal::StreamNotAcceptable)
            );
        }
        assert_eq!(accepts_event_stream(&HeaderMap::new()), Err(Refusal::StreamNotAcceptable));
    }

    #[test]
    fn no_accept_header_makes_it_panic() {
        for text in texts(&["*/*", ",", ";q=", "0.", "1", "\"", "\\", "é", "text/*"]) {
            let headers = map(&[(ACCEPT, &text)]);
            let _ = negotiate_post(&headers);
            let _ = check_content_type(&map(&[(CONTENT_TYPE, &text)]));
        }
    }

    #[test]
    fn the_body_must_be_declared_json() {
        for value in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json\t;charset=\"utf-8\"",
            " application/json ",
        ] {
            assert_eq!(check_content_type(&map(&[(CONTENT_TYPE, value)])), Ok(()), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "application/jsonl",
            "application/json-rpc",
            "application/vnd.api+json",
            "application/json, text/plain",
            "text/plain; application/json",
            "é",
        ] {
            assert_eq!(
                check_content_type(&map(&[(CONTENT_TYPE, value)])),
                Err(Refusal::UnsupportedMediaType),
                "{value}"
            );
        }
        assert_eq!(check_content_type(&HeaderMap::new()), Err(Refusal::UnsupportedMediaType));
        let json = "application/json";
        assert!(check_content_type(&map(&[(CONTENT_TYPE, json), (CONTENT_TYPE, json)])).is_err());
    }

    #[test]
    fn the_size_of_all_headers_is_limited() {
        let headers = map(&[(HOST, "abc"), (ACCEPT, "a/b"), (ACCEPT, "é")]);
        let size = "host".len() + 3 + "accept".len() + 3 + "accept".len() + 2;
        assert_eq!(check_header_size(&headers, size), Ok(()));
        let limit = size - 1;
        assert_eq!(check_header_size(&headers, limit), Err(Refusal::HeadersTooLarge { limit }));
        assert_eq!(check_header_size(&HeaderMap::new(), 0), Ok(()));
    }

    #[test]
    fn no_header_of_the_protocol_may_be_repeated() {
        let name = HeaderName::from_static("mcp-param-region");
        let other = HeaderName::from_static("mcp-name");
        let once = map(&[(name.clone(), "a"), (other.clone(), "a"), (ACCEPT, "a"), (ACCEPT, "b")]);
        assert_eq!(check_repeated(&once), Ok(()));
        let twice = map(&[(name.clone(), "a"), (other, "a"), (name.clone(), "a")]);
        assert_eq!(check_repeated(&twice), Err(Refusal::HeaderRepeated { name }));
    }
}
