//! GET: the stream of what belongs to no request of a legacy session.

use axum::extract::Request;
use axum::response::Response;
use stentor_engine::{Seq, StreamId};
use stentor_wire::headers::LAST_EVENT_ID;

use super::body::{EventIds, parse_event_id};
use super::guard::{self, Refusal};
use super::{Endpoint, legacy, principal, reply};

pub(super) async fn handle(endpoint: &Endpoint, request: Request) -> Result<Response, Refusal> {
    let (head, _) = request.into_parts();
    guard::accepts_event_stream(&head.headers)?;
    let principal = principal(&head.extensions);
    let session = legacy::session(endpoint, &head.headers, principal.as_deref())?;
    let last = head.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let inlet = match last {
        // An id that this server did not give names no stream, as one that is gone.
        Some(last) => {
            let (stream, next) = parse_event_id(last).unwrap_or((StreamId(u64::MAX), Seq(0)));
            session.resume(stream, next).await?
        }
        None => session.attach()?,
    };
    // It knows how to come back already, so nothing is primed.
    Ok(reply::stream(endpoint, inlet, Vec::new(), EventIds::Each))
}
