//! GET: the stream of what belongs to no request of a legacy session.

use axum::extract::Request;
use axum::response::Response;
use stentor_engine::{Seq, StreamId};
use stentor_wire::headers::LAST_EVENT_ID;

use super::body::{EventIds, parse_event_id};
use super::guard::{self, Refusal};
use super::{Endpoint, legacy, principal, reply};

pub(super) fn handle(endpoint: &Endpoint, request: &Request) -> Result<Response, Refusal> {
    guard::accepts_event_stream(request.headers())?;
    let principal = principal(request.extensions());
    let session = legacy::session(endpoint, request.headers(), principal.as_deref())?;
    let last = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let (inlet, ids) = match last {
        // It knows how to come back already, so nothing is primed.
        Some(last) => match parse_event_id(last) {
            Some((stream, next)) => (session.resume(stream, next)?, EventIds::Each),
            // An id that this server did not give names no stream, as one that is gone.
            None => (session.resume(StreamId(u64::MAX), Seq(0))?, EventIds::Each),
        },
        None => (session.attach()?, EventIds::Each),
    };
    Ok(reply::stream(endpoint, inlet, Vec::new(), ids))
}
