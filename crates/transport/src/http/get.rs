//! GET: the stream of a legacy session's messages that belong to no request.

use stentor_engine::{Seq, StreamId};
use stentor_wire::headers::LAST_EVENT_ID;

use super::auth::Caller;
use super::events::{EventIds, parse_event_id};
use super::guard::{self, Refusal};
use super::reply::event_ids;
use super::{Endpoint, Response, legacy, reply};

pub(super) async fn handle(endpoint: &Endpoint, caller: &Caller<'_>) -> Result<Response, Refusal> {
    let headers = &caller.head().headers;
    guard::accepts_event_stream(headers)?;
    let session = legacy::session(endpoint, headers, &caller.sender(&endpoint.config)).await?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let (receiver, ids) = match last {
        // An id that this server did not create names no stream, the same as the id of an ended
        // stream.
        Some(last) => {
            let (stream, next) = parse_event_id(last).unwrap_or((StreamId(u64::MAX), Seq(0)));
            (session.resume(stream, next).await?, EventIds::Each)
        }
        None => {
            let receiver = session.attach().await?;
            // The id at the beginning helps a client whose connection failed before it received
            // anything: it receives the frames written to the old connection, and takes that
            // connection's place.
            let primed = |next| event_ids(endpoint, &session, next);
            let ids = receiver.next_seq().map_or(EventIds::Each, primed);
            (receiver, ids)
        }
    };
    Ok(reply::stream(receiver, Vec::new(), ids, caller.streams_until(endpoint)))
}
