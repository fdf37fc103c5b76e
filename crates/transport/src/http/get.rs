//! GET: the stream of what belongs to no request of a legacy session.

use axum::response::Response;
use http::HeaderMap;

use super::guard::{self, Refusal};
use super::{Endpoint, legacy, reply};

pub(super) fn handle(endpoint: &Endpoint, headers: &HeaderMap) -> Result<Response, Refusal> {
    guard::accepts_event_stream(headers)?;
    let inlet = legacy::session(endpoint, headers)?.attach()?;
    Ok(reply::stream(&endpoint.config, inlet, Vec::new()))
}
