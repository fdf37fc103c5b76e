//! What the HTTP endpoint refuses before anything is parsed.
//!
//! Pure functions of the request's headers: who may call ([`OriginPolicy`]), what a client must
//! accept and send, how much, and one [`Refusal`] for everything the endpoint turns away by itself.
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint" and
//! "Sending Messages"; `basic/transports` of 2025-11-25, "Streamable HTTP".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN};
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
            Self::UnknownSession => StatusCode::NOT_FOUND,
        }
    }
}

/// Which `Host` and `Origin` headers the HTTP endpoint accepts. Any other request is answered with
/// 403 Forbidden.
///
/// A web page that a user of this machine visits can send requests to a server on it, and by DNS
/// rebinding even read the answers. Such a request is betrayed by its headers: `Host` names the
/// page's domain, or `Origin` does. The default is [`OriginPolicy::loopback`]; a server that others
/// reach by a name says so with [`OriginPolicy::hosts`].
///
/// `Origin: null`, several `Host` or `Origin` headers and values that are none are refused by every
/// policy but [`OriginPolicy::any`]. Where a request has no `Host` header, as in HTTP/2, its
/// authority takes the place.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Security & Endpoint".
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    hosts: Hosts,
    origins: Vec<Origin>,
}

#[derive(Debug, Clone)]
enum Hosts {
    Any,
    Loopback,
    Named(Vec<Authority>),
}

impl OriginPolicy {
    /// Accepts what this machine sends to itself: the host is `localhost`, in 127.0.0.0/8 or
    /// `[::1]`, with any port, and the origin is absent or an http or https one of such a host.
    pub fn loopback() -> Self {
        Self::of(Hosts::Loopback)
    }

    /// Accepts requests for these hosts, with an origin that is absent or an http or https one of
    /// these hosts.
    ///
    /// A host is a name or an IP address (`mcp.example.com`, `10.0.0.7`, `[fd00::7]`), compared
    /// without regard to case; `mcp.example.com:8443` accepts that port only. A name with non-ASCII
    /// letters is given in its punycode form, as clients send it. What is no host (a URL, for
    /// instance) matches no request.
    pub fn hosts<I>(hosts: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let parse = |host: I::Item| {
            let host = host.as_ref();
            match host.parse::<Ipv6Addr>() {
                Ok(address) => Some(Authority { host: Host::Address(address.into()), port: None }),
                Err(_) => Authority::parse(host),
            }
        };
        Self::of(Hosts::Named(hosts.into_iter().filter_map(parse).collect()))
    }

    /// Accepts one more origin: exactly this scheme, host and port, where 80 and 443 need not be
    /// written for http and https. What is no origin matches no request.
    #[must_use]
    pub fn with_origin(mut self, origin: impl AsRef<str>) -> Self {
        let origin = origin.as_ref();
        self.origins.extend(Origin::parse(origin.strip_suffix('/').unwrap_or(origin)));
        self
    }

    /// Accepts every request unchecked. Only right where something in front of the server checks
    /// the headers, or where everyone may call it from everywhere.
    pub fn any() -> Self {
        Self::of(Hosts::Any)
    }

    fn of(hosts: Hosts) -> Self {
        Self { hosts, origins: Vec::new() }
    }

    /// Checks the `Host` and `Origin` headers; `authority` is that of the request's URI, which
    /// stands in for an absent `Host`.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        authority: Option<&str>,
    ) -> Result<(), Refusal> {
        let wanted = match self.hosts {
            Hosts::Any => return Ok(()),
            Hosts::Loopback => "localhost, an address in 127.0.0.0/8 or [::1]",
            Hosts::Named(_) => "a host this server was configured with",
        };
        let refused = |found| Refusal::HostRefused { found, wanted };
        let host = match sole(headers, HOST).map_err(refused)? {
            Some(host) => host,
            None => authority.ok_or(Refusal::HostMissing { wanted })?,
        };
        if !Authority::parse(host).is_some_and(|host| self.accepts_host(&host)) {
            return Err(refused(quoted(host)));
        }

        let wanted = match self.hosts {
            Hosts::Loopback if self.origins.is_empty() => "one of this machine itself",
            _ => "one this server was configured with",
        };
        let refused = |found| Refusal::OriginRefused { found, wanted };
        match sole(headers, ORIGIN).map_err(refused)? {
            None => Ok(()),
            Some(origin) if Origin::parse(origin).is_some_and(|it| self.accepts_origin(&it)) => {
                Ok(())
            }
            Some(origin) => Err(refused(quoted(origin))),
        }
    }

    fn accepts_host(&self, found: &Authority) -> bool {
        match &self.hosts {
            Hosts::Any => true,
            Hosts::Loopback => found.host.is_loopback(),
            Hosts::Named(hosts) => hosts.iter().any(|host| {
                let port = match (host.port, found.port) {
                    (None, _) => true,
                    // Whether it was http or https, a proxy in front of us may have hidden.
                    (Some(port), None) => port == 80 || port == 443,
                    (Some(port), Some(found)) => port == found,
                };
                host.host == found.host && port
            }),
        }
    }

    fn accepts_origin(&self, found: &Origin) -> bool {
        let own = matches!(found.scheme.as_str(), "http" | "https")
            && self.accepts_host(&found.authority);
        own || self.origins.contains(found)
    }
}

impl Default for OriginPolicy {
    /// [`OriginPolicy::loopback`].
    fn default() -> Self {
        Self::loopback()
    }
}

/// A host and the port, where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// In lowercase.
    Name(String),
    Address(IpAddr),
}

impl Authority {
    /// Stricter than the grammar of RFC 3986: no user, no escapes, no characters that no host name
    /// on the network has.
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
        } else {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Host::parse(name)?, port)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if port.is_empty() => None,
            _ => return None,
        };
        Some(Self { host, port })
    }
}

impl Host {
    fn parse(name: &str) -> Option<Self> {
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let valid = !name.is_empty() && name.bytes().all(valid);
        valid.then(|| Self::Name(name.to_ascii_lowercase()))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }
}

/// An origin of RFC 6454 that is not `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// In lowercase.
    scheme: String,
    /// With the port written out, where the scheme has one by default.
    authority: Authority,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            || !scheme.bytes().all(valid)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let Authority { host, port } = Authority::parse(authority)?;
        let port = port.or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Self { scheme, authority: Authority { host, port } })
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
fn sole(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, String> {
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
mod tests {
    use super::*;

    fn map(headers: &[(HeaderName, &str)]) -> HeaderMap {
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

    fn host(policy: &OriginPolicy, host: &str) -> Result<(), Refusal> {
        policy.check(&map(&[(HOST, host)]), None)
    }

    fn origin(policy: &OriginPolicy, host: &str, origin: &str) -> Result<(), Refusal> {
        policy.check(&map(&[(HOST, host), (ORIGIN, origin)]), None)
    }

    fn post(accept: &str) -> Result<Wants, Refusal> {
        negotiate_post(&map(&[(ACCEPT, accept)]))
    }

    /// Every text of up to five pieces.
    fn texts(pieces: &[&str]) -> Vec<String> {
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
    fn loopback_accepts_this_machine_under_every_name_and_port() {
        let policy = OriginPolicy::default();
        for name in [
            "localhost",
            "LocalHost:3000",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.255.3.4",
            "[::1]",
            "[::1]:65535",
            "[0:0:0:0:0:0:0:1]:80",
        ] {
            assert_eq!(host(&policy, name), Ok(()), "{name}");
            for scheme in ["http", "https", "HTTP"] {
                assert_eq!(origin(&policy, "localhost", &format!("{scheme}://{name}")), Ok(()));
            }
        }
    }

    #[test]
    fn loopback_refuses_every_other_host() {
        let policy = OriginPolicy::loopback();
        for name in [
            "evil.example.com",
            "localhost.evil.example.com",
            "evil-localhost",
            "foo.localhost",
            "localhost.",
            "127.0.0.1.evil.example.com",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "128.0.0.1",
            "0.0.0.0",
            "::1",
            "[::]",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "[::1",
            "[::1]x",
            "[localhost]",
            "localhost:",
            "localhost:x",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "user@localhost",
            "localhost@evil.example.com",
            "localhost/",
            "http://localhost",
            "localhost,evil.example.com",
            " localhost",
            "localhost evil",
            "löcalhost",
            "",
        ] {
            assert_eq!(
                host(&policy, name).map_err(|refusal| refusal.status()),
                Err(StatusCode::FORBIDDEN),
                "{name}"
            );
            assert!(policy.check(&HeaderMap::new(), Some(name)).is_err(), "{name}");
            assert!(origin(&policy, "localhost", &format!("http://{name}")).is_err(), "{name}");
        }
        assert_eq!(
            host(&policy, "evil.example.com").unwrap_err().to_string(),
            "host 'evil.example.com' is not served here; the one Host header must name localhost, \
             an address in 127.0.0.0/8 or [::1]"
        );
    }

    #[test]
    fn loopback_refuses_every_other_origin() {
        let policy = OriginPolicy::loopback();
        for name in [
            "null",
            "",
            "localhost",
            "//localhost",
            "://localhost",
            "http:localhost",
            "http://localhost/",
            "http://localhost http://evil.example.com",
            "https://evil.example.com",
            "http://localhost.evil.example.com",
            "http://localhost@evil.example.com",
            "ftp://localhost",
            "file://",
            "1http://localhost",
            "chrome-extension://localhost",
        ] {
            assert_eq!(
                origin(&policy, "localhost", name).map_err(|refusal| refusal.status()),
                Err(StatusCode::FORBIDDEN),
                "{name}"
            );
        }
        assert_eq!(
            origin(&policy, "localhost", "null").unwrap_err().to_string(),
            "origin 'null' is not allowed; the one Origin header must be absent or one of this \
             machine itself"
        );
    }

    #[test]
    fn the_authority_stands_in_for_an_absent_host() {
        let none = HeaderMap::new();
        for policy in [OriginPolicy::loopback(), OriginPolicy::hosts(["localhost"])] {
            assert_eq!(policy.check(&none, Some("localhost:3000")), Ok(()));
            assert!(matches!(policy.check(&none, None), Err(Refusal::HostMissing { .. })));
            assert!(policy.check(&none, Some("evil.example.com")).is_err());
            assert!(policy.check(&map(&[(HOST, "evil")]), Some("localhost")).is_err());
        }
    }

    #[test]
    fn repeated_hosts_and_origins_are_refused() {
        let policy = OriginPolicy::loopback();
        let hosts = map(&[(HOST, "localhost"), (HOST, "localhost")]);
        assert_eq!(
            policy.check(&hosts, None).unwrap_err().to_string(),
            "host 'localhost, localhost' is not served here; the one Host header must name \
             localhost, an address in 127.0.0.0/8 or [::1]"
        );
        let origins =
            map(&[(HOST, "localhost"), (ORIGIN, "http://localhost"), (ORIGIN, "http://localhost")]);
        assert!(matches!(policy.check(&origins, None), Err(Refusal::OriginRefused { .. })));
    }

    #[test]
    fn named_hosts_accept_their_names_and_origins() {
        let policy = OriginPolicy::hosts(["MCP.example.com", "api.example.com:8443", "::7"]);
        for name in ["mcp.example.com", "mcp.EXAMPLE.com:9", "api.example.com:8443", "[::7]:1"] {
            assert_eq!(host(&policy, name), Ok(()), "{name}");
            assert_eq!(origin(&policy, "mcp.example.com", &format!("https://{name}")), Ok(()));
        }
        for name in ["localhost", "api.example.com", "api.example.com:443", "x.mcp.example.com"] {
            assert!(host(&policy, name).is_err(), "{name}");
            assert!(origin(&policy, "mcp.example.com", &format!("https://{name}")).is_err());
        }
        assert!(origin(&policy, "mcp.example.com", "null").is_err());
        assert!(origin(&policy, "mcp.example.com", "app://mcp.example.com").is_err());
    }

    #[test]
    fn a_configured_default_port_need_not_be_sent() {
        let policy = OriginPolicy::hosts(vec!["example.com:443".to_owned()]);
        assert_eq!(host(&policy, "example.com"), Ok(()));
        assert_eq!(host(&policy, "example.com:443"), Ok(()));
        assert!(host(&policy, "example.com:80").is_err());
        assert_eq!(origin(&policy, "example.com", "https://example.com"), Ok(()));
        assert!(origin(&policy, "example.com", "http://example.com").is_err());
    }

    #[test]
    fn what_is_no_host_in_the_configuration_matches_nothing() {
        let policy = OriginPolicy::hosts(["https://example.com", "", "*", "a b"]);
        for name in ["example.com", "https://example.com", "", "*", "a b"] {
            assert!(host(&policy, name).is_err(), "{name}");
        }
        assert!(host(&OriginPolicy::hosts([""; 0]), "localhost").is_err());
    }

    #[test]
    fn an_extra_origin_is_exact() {
        let policy = OriginPolicy::loopback()
            .with_origin("https://App.example.com/")
            .with_origin("http://dev.example.com:8080")
            .with_origin("chrome-extension://abcdefgh")
            .with_origin("null")
            .with_origin("");
        for name in [
            "https://app.example.com",
            "https://app.example.com:443",
            "http://dev.example.com:8080",
            "chrome-extension://abcdefgh",
            "http://localhost:5173",
        ] {
            assert_eq!(origin(&policy, "localhost", name), Ok(()), "{name}");
        }
        for name in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://x.app.example.com",
            "http://dev.example.com",
            "chrome-extension://abcdefghi",
            "null",
            "",
        ] {
            assert!(origin(&policy, "localhost", name).is_err(), "{name}");
        }
        assert!(host(&policy, "app.example.com").is_err());
    }

    #[test]
    fn any_checks_nothing() {
        let policy = OriginPolicy::any();
        assert_eq!(policy.check(&HeaderMap::new(), None), Ok(()));
        assert_eq!(origin(&policy, "evil.example.com", "null"), Ok(()));
    }

    #[test]
    fn no_host_and_no_origin_make_it_panic() {
        let policy = OriginPolicy::hosts(["a:1", "[::1]"]).with_origin("a://b");
        for text in texts(&["[", "]", ":", "://", "a", "1", "::1", "é", "."]) {
            let _ = host(&policy, &text);
            let _ = origin(&policy, "[::1]", &text);
            let _ = OriginPolicy::hosts([&text]).with_origin(&text);
        }
    }

    #[test]
    fn a_refused_value_is_shown_short_and_escaped() {
        let policy = OriginPolicy::loopback();
        let long = host(&policy, &"é".repeat(5000)).unwrap_err().to_string();
        assert!(long.contains("é...'") && long.chars().count() < 300, "{long}");
        let tab = host(&policy, "a\tb").unwrap_err().to_string();
        assert!(tab.starts_with("host 'a\\tb' is"), "{tab}");
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
