//! The metadata document of the endpoint (RFC 9728): where clients get tokens.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CACHE_CONTROL, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Map, Value};

use super::{Challenge, ResourceMetadata};
use crate::http::{Response, reply};

/// Stands between the host of the resource and its path.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// How long clients may keep the document.
const KEPT: HeaderValue = HeaderValue::from_static("max-age=3600");

/// How long a browser may keep that its pages may read the document, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

const ANYBODY: HeaderValue = HeaderValue::from_static("*");

/// A header that pages send with every request, also with this one.
const SETTABLE: &str = "mcp-protocol-version";

/// The document, and where it is. It is the same at each of its paths, made once.
#[derive(Debug)]
pub(in crate::http) struct Metadata {
    /// The URL that challenges name.
    pub(super) url: String,
    document: Bytes,
    /// The path of the URL, then those where clients look for it, too.
    paths: Vec<String>,
}

impl Metadata {
    /// `None` if there is no resource, or if its URL is not an absolute one of http or https.
    pub(super) fn new(challenge: &Challenge) -> Option<Self> {
        let metadata = challenge.metadata.as_ref()?;
        let Some((url, paths)) = locate(&metadata.resource) else {
            stentor_engine::log!(
                error,
                resource = metadata.resource,
                "the resource is no http or https URL, so clients are not told where tokens come from"
            );
            return None;
        };
        Some(Self { url, paths, document: document(metadata, &challenge.scopes) })
    }

    pub(in crate::http) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// The response to a request at one of the paths. Anybody may read it, and any page.
    pub(in crate::http) fn respond(&self, head: &Parts) -> Response {
        let mut response = match head.method {
            Method::GET | Method::HEAD => {
                let mut response = reply::json(StatusCode::OK, self.document.clone());
                response.headers_mut().insert(CACHE_CONTROL, KEPT);
                response
            }
            Method::OPTIONS => preflight(&head.headers),
            _ => {
                let mut response = reply::empty(StatusCode::METHOD_NOT_ALLOWED);
                let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
                response.headers_mut().insert(ALLOW, allowed);
                response
            }
        };
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANYBODY);
        response
    }
}

/// The URL of the document of a resource, and the paths where it is: first the one that belongs to
/// the resource alone, then the one of the whole host (2026-07-28, basic/authorization, "Protected
/// Resource Metadata Discovery Requirements").
fn locate(resource: &str) -> Option<(String, Vec<String>)> {
    let uri: Uri = resource.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    // Clients that insert the well-known part leave a slash at the end out, or keep it.
    let path = uri.path().trim_end_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{scheme}://{authority}{WELL_KNOWN}{path}{query}");
    let mut paths = vec![format!("{WELL_KNOWN}{path}")];
    for other in [format!("{WELL_KNOWN}{}", uri.path()), WELL_KNOWN.to_owned()] {
        let is_of_host = other.len() == WELL_KNOWN.len() + 1;
        if !is_of_host && !paths.contains(&other) {
            paths.push(other);
        }
    }
    Some((url, paths))
}

fn document(metadata: &ResourceMetadata, scopes: &[String]) -> Bytes {
    let ResourceMetadata { resource, authorization_servers, resource_name, resource_documentation } =
        metadata;
    let texts =
        |texts: &[String]| texts.iter().cloned().map(Value::from).collect::<Vec<_>>().into();
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("resource", resource.clone().into());
    add("authorization_servers", texts(authorization_servers));
    if !scopes.is_empty() {
        add("scopes_supported", texts(scopes));
    }
    add("bearer_methods_supported", vec![Value::from("header")].into());
    for (name, text) in
        [("resource_name", resource_name), ("resource_documentation", resource_documentation)]
    {
        if let Some(text) = text {
            add(name, text.clone().into());
        }
    }
    Value::Object(members).to_string().into()
}

/// The response to a browser that asks whether a page may read the document.
fn preflight(asked: &HeaderMap) -> Response {
    let mut names = SETTABLE.to_owned();
    for list in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        let list = list.to_str().unwrap_or_default().split(',');
        for name in list.filter_map(|name| HeaderName::try_from(name.trim()).ok()) {
            if name.as_str() != SETTABLE {
                names.push_str(", ");
                names.push_str(name.as_str());
            }
        }
    }
    let names = HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static(SETTABLE));
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_is_where_clients_look_for_it() {
        let root = "/.well-known/oauth-protected-resource";
        let of = |path: &str| format!("{root}{path}");
        for (resource, url, paths) in [
            (
                "https://h.example/mcp",
                "https://h.example/.well-known/oauth-protected-resource/mcp",
                vec![of("/mcp"), of("")],
            ),
            (
                "http://127.0.0.1:8000/a/b",
                "http://127.0.0.1:8000/.well-known/oauth-protected-resource/a/b",
                vec![of("/a/b"), of("")],
            ),
            (
                "https://h.example",
                "https://h.example/.well-known/oauth-protected-resource",
                vec![of("")],
            ),
            (
                "https://h.example/",
                "https://h.example/.well-known/oauth-protected-resource",
                vec![of("")],
            ),
            (
                "https://h.example/mcp/",
                "https://h.example/.well-known/oauth-protected-resource/mcp",
                vec![of("/mcp"), of("/mcp/"), of("")],
            ),
            (
                "https://h.example/mcp?a=b",
                "https://h.example/.well-known/oauth-protected-resource/mcp?a=b",
                vec![of("/mcp"), of("")],
            ),
            (
                "https://[::1]:8443/mcp",
                "https://[::1]:8443/.well-known/oauth-protected-resource/mcp",
                vec![of("/mcp"), of("")],
            ),
        ] {
            assert_eq!(locate(resource), Some((url.to_owned(), paths)), "{resource}");
        }
        for resource in
            ["", "/mcp", "h.example", "ftp://h.example/mcp", "urn:x:y", "https://", "a b"]
        {
            assert_eq!(locate(resource), None, "{resource}");
            let metadata = Some(ResourceMetadata::new(resource, ["https://as.example"]));
            assert!(Metadata::new(&Challenge { metadata, ..Challenge::default() }).is_none());
        }
    }

    #[test]
    fn a_document_has_what_is_known() {
        let mut metadata = ResourceMetadata::new("https://h/mcp", ["https://a", "https://b"]);
        assert_eq!(
            document(&metadata, &[]),
            r#"{"resource":"https://h/mcp","authorization_servers":["https://a","https://b"],"bearer_methods_supported":["header"]}"#,
        );
        metadata.resource_name = Some("\"Notes\"".to_owned());
        metadata.resource_documentation = Some("https://h/docs".to_owned());
        let document: Value =
            serde_json::from_slice(&document(&metadata, &["r".to_owned(), "w".to_owned()]))
                .unwrap();
        assert_eq!(document["scopes_supported"], serde_json::json!(["r", "w"]));
        assert_eq!(document["resource_name"], "\"Notes\"");
        assert_eq!(document["resource_documentation"], "https://h/docs");
    }

    proptest! {
        #[test]
        fn any_resource_has_a_place_or_none(resource in "https?://[a-z.:]{0,8}[ -~]{0,12}|\\PC{0,20}") {
            if let Some((url, paths)) = locate(&resource) {
                prop_assert!(url.contains(WELL_KNOWN));
                prop_assert!(paths.contains(&WELL_KNOWN.to_owned()));
                prop_assert!(paths.iter().all(|path| path.starts_with(WELL_KNOWN)));
            }
        }
    }
}
