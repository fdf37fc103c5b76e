//! GET: the stream of what belongs to no request of a legacy session.

use axum::extract::Request;
use axum::response::Response;

use super::guard::{self, Refusal};
use super::{Endpoint, legacy, principal, reply};

pub(super) fn handle(endpoint: &Endpoint, request: &Request) -> Result<Response, Refusal> {
    guard::accepts_event_stream(request.headers())?;
    let principal = principal(request.extensions());
    let inlet = legacy::session(endpoint, request.headers(), principal.as_deref())?.attach()?;
    Ok(reply::stream(&endpoint.config, inlet, Vec::new()))
}
