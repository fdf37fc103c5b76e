//! GET: the stream of what belongs to no request of a legacy session.

use http::request::Parts;
use stentor_engine::{Seq, StreamId};
use stentor_wire::headers::LAST_EVENT_ID;

use super::events::{EventIds, parse_event_id};
use super::guard::{self, Refusal};
use super::reply::event_ids;
use super::{Endpoint, Response, legacy, principal, reply};

pub(super) async fn handle(endpoint: &Endpoint, head: &Parts) -> Result<Response, Refusal> {
    guard::accepts_event_stream(&head.headers)?;
    let principal = principal(&head.extensions);
    let session = legacy::session(endpoint, &head.headers, principal.as_deref()).await?;
    let last = head.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let (inlet, ids) = match last {
        // An id that this server did not give names no stream, as one that is gone.
        Some(last) => {
            let (stream, next) = parse_event_id(last).unwrap_or((StreamId(u64::MAX), Seq(0)));
            (session.resume(stream, next).await?, EventIds::Each)
        }
        None => {
            let inlet = session.attach().await?;
            // With an id from the beginning, a client is not lost whose path died before it heard
            // anything: it gets what was written to it, and takes the place of its old connection.
            let primed = |next| event_ids(endpoint, &session, next);
            let ids = inlet.next_seq().map_or(EventIds::Each, primed);
            (inlet, ids)
        }
    };
    Ok(reply::stream(inlet, Vec::new(), ids))
}
