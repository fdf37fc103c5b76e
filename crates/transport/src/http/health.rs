//! Whether the server works and takes requests, for those who start and stop it.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use stentor_engine::{Ended, Engine};

use super::body::Content;
use super::{Response, reply};

/// Whether the process is to be started anew.
pub(super) const LIVE: &str = "/livez";
/// Whether new requests are to be sent here.
pub(super) const READY: &str = "/readyz";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The response to a request at one of the paths; `None` at any other. Everybody may ask: it says no
/// more than what each refused request says.
pub(super) fn respond(engine: &Engine, head: &Parts) -> Option<Response> {
    let reason = match head.uri.path() {
        LIVE => not_live(engine),
        READY => not_live(engine).or_else(|| engine.not_ready().map(str::to_owned)),
        _ => return None,
    };
    if !matches!(head.method, Method::GET | Method::HEAD) {
        let mut response = reply::empty(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = reason.map_or(Bytes::from_static(b"ok\n"), |reason| format!("{reason}\n").into());
    let mut response = Response::new(Content::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    Some(response)
}

/// Why the engine is dead. One that was asked to end is not.
fn not_live(engine: &Engine) -> Option<String> {
    engine.ended().filter(|ended| *ended != Ended::Shutdown).map(|ended| match ended {
        // Why it failed is for its log.
        Ended::Failed(_) => "failed".to_owned(),
        _ => "killed".to_owned(),
    })
}
