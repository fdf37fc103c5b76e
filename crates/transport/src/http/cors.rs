//! CORS: response headers that allow a page of another origin to send its request, and to read
//! every response. The [policy](super::OriginPolicy) decides which pages.
//!
//! Credentials are not allowed, because the endpoint uses no cookies.
//!
//! Specification: <https://fetch.spec.whatwg.org/#http-cors-protocol>.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{Response, reply};

/// The headers that a page may set, for both eras, as one header value.
const SETTABLE: &str = "authorization, content-type, accept, mcp-protocol-version, mcp-session-id, \
                        last-event-id, mcp-method, mcp-name";

/// The prefix of the headers that mirror a tool's arguments. Their full list is not known here.
const PARAM: &str = "mcp-param-";

const READABLE: HeaderValue =
    HeaderValue::from_static("WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After");

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE");

/// How long a browser may cache a preflight response, in seconds; no browser caches it for longer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// A web page that may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page<'a> {
    /// Its origin, as its browser sends it.
    pub(super) origin: &'a HeaderValue,
    /// Whether the policy lists the origin by name.
    pub(super) is_named: bool,
}

impl<'a> Page<'a> {
    /// The page that sends the request, whatever its origin is.
    pub(super) fn sole(headers: &'a HeaderMap) -> Option<Self> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let (origin, other) = (origins.next()?, origins.next());
        other.is_none().then_some(Self { origin, is_named: false })
    }

    /// Lets the page read a response.
    pub(super) fn share(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }

    /// The response to the preflight request of the page's browser.
    pub(super) fn preflight(&self, asked: &HeaderMap) -> Response {
        let mut response = reply::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, settable(asked));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers"));
        let is_asked = asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
        if is_asked && self.is_named {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Whether a request is a browser's preflight: may a page send the real request?
pub(super) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers that a page may set. Each is named, because CORS has no wildcard for a part of a
/// name, and `*` does not include `authorization`.
fn settable(asked: &HeaderMap) -> HeaderValue {
    let mut names = SETTABLE.to_owned();
    for list in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        let list = list.to_str().unwrap_or_default().split(',');
        for name in list.filter_map(|name| HeaderName::try_from(name.trim()).ok()) {
            if name.as_str().strip_prefix(PARAM).is_some_and(|rest| !rest.is_empty()) {
                names.push_str(", ");
                names.push_str(name.as_str());
            }
        }
    }
    // The list contains only valid header names.
    HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static(SETTABLE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::guard::tests::{map, texts};

    const FIXED: [&str; 8] = [
        "authorization",
        "content-type",
        "accept",
        "mcp-protocol-version",
        "mcp-session-id",
        "last-event-id",
        "mcp-method",
        "mcp-name",
    ];

    fn asked(values: &[&str]) -> Vec<String> {
        let values: Vec<_> =
            values.iter().map(|value| (ACCESS_CONTROL_REQUEST_HEADERS, *value)).collect();
        let allowed = settable(&map(&values));
        allowed.to_str().unwrap().split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn a_page_may_set_the_headers_of_both_eras_and_those_of_parameters_it_asks_for() {
        assert_eq!(asked(&[]), FIXED);
        for none in [
            "",
            "x-evil, cookie, *",
            "mcp-param-",
            "mcp-param",
            "mcp-parameter-x",
            "mcp-param-a b",
            "mcp-param-ä",
            "a:mcp-param-x",
            ",,,",
        ] {
            assert_eq!(asked(&[none]), FIXED, "{none}");
        }
        for (lists, more) in [
            (&["mcp-param-zone"][..], &["mcp-param-zone"][..]),
            (
                &["authorization,Mcp-Param-Zone , x-evil,MCP-PARAM-Q"],
                &["mcp-param-zone", "mcp-param-q"],
            ),
            (&["mcp-param-a", "x", "mcp-param-b"], &["mcp-param-a", "mcp-param-b"]),
        ] {
            assert_eq!(asked(lists), [&FIXED[..], more].concat(), "{lists:?}");
        }
    }

    #[test]
    fn a_preflight_response_contains_only_header_names() {
        for text in texts(&["mcp-param-", "a", ",", " ", "\t", "*", "é", "\""]) {
            for name in asked(&[&text]) {
                assert!(FIXED.contains(&&*name) || name.starts_with(PARAM), "{text}: {name}");
                assert!(HeaderName::try_from(&*name).is_ok(), "{text}: {name}");
            }
        }
    }

    #[test]
    fn several_origin_headers_name_no_page() {
        let one = map(&[(ORIGIN, "https://a.example")]);
        assert_eq!(Page::sole(&one).unwrap().origin, "https://a.example");
        let two = map(&[(ORIGIN, "https://a.example"), (ORIGIN, "https://b.example")]);
        assert_eq!(Page::sole(&two), None);
        assert_eq!(Page::sole(&HeaderMap::new()), None);
    }
}
