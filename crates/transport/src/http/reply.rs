//! Responses: their status and headers.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use stentor_delivery::{Delivered, Frame, StreamReceiver};
use stentor_engine::Seq;
use stentor_engine::transport_api::{HttpSession, Refused};
use stentor_wire::{Era, ErrorObject, Id, code, encode};

use tokio::time::{Instant, timeout};

use super::auth::{Caller, LACKS_SCOPE, lacks_scope};
use super::body::Content;
use super::events::{EventIds, Events};
use super::guard::{Refusal, Wants};
use super::{Endpoint, Response};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The status of a response, by the code of its error. In the legacy era the status describes the
/// transport only: every response has 200, also one with an error.
fn status(era: Era, error: Option<i32>) -> StatusCode {
    match (era, error) {
        (Era::Legacy, _) | (_, None) => StatusCode::OK,
        (Era::Modern, Some(error)) => match error {
            code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            code::INVALID_REQUEST
            | code::HEADER_MISMATCH
            | code::MISSING_CAPABILITY
            | code::UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
            code::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        },
    }
}

pub(super) fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Content::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

pub(super) fn error(status: StatusCode, id: Option<&Id>, error: &ErrorObject) -> Response {
    json(status, encode::error(id, error))
}

/// 202: the message was accepted and has no response.
pub(super) fn accepted() -> Response {
    empty(StatusCode::ACCEPTED)
}

pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Content::Full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The response to a request that the endpoint refuses by itself; with the id of the request, if it
/// was read. It has no challenge: see [`auth::refused`](super::auth::refused).
pub(super) fn refused(refusal: &Refusal, id: Option<&Id>) -> Response {
    let code = match refusal.status() {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => code::UNAVAILABLE,
        _ => code::INVALID_REQUEST,
    };
    let mut response = error(refusal.status(), id, &ErrorObject::new(code, refusal.to_string()));
    if *refusal == Refusal::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
    }
    if matches!(refusal, Refusal::ContentEncoding { .. }) {
        // The encoding that the server accepts (RFC 9110, section 12.5.3).
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    response
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooManySessions => Self::TooManySessions,
            Refused::TooManyRequests => Self::TooManyRequests,
            Refused::SessionEnded => Self::UnknownSession,
            Refused::Revoked => Self::InvalidCredential,
            Refused::Unreachable => Self::NodeUnreachable,
            _ => Self::ShuttingDown,
        }
    }
}

/// A response that is ready at once, in the form that the client prefers.
pub(super) fn now(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    (era, wants): (Era, Wants),
    body: &Bytes,
    error: Option<i32>,
) -> Response {
    if error == Some(LACKS_SCOPE)
        && let Some(refused) = lacks_scope(endpoint.gate.as_deref(), caller.is_somebody(), body)
    {
        return refused;
    }
    match (wants, status(era, error)) {
        (Wants::EventStream, StatusCode::OK) => {
            let event = [b"data: ", &body[..], b"\n\n"].concat();
            with_event_headers(Content::Full(event.into()))
        }
        (_, status) => json(status, body.clone()),
    }
}

/// The response of a call: plain JSON if it is ready soon and nothing comes before it, else an
/// event stream. The `bool` is whether the request has failed already.
pub(super) async fn call(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    session: Option<&HttpSession>,
    wants: Wants,
    mut receiver: StreamReceiver,
) -> (Response, bool) {
    let era = if session.is_some() { Era::Legacy } else { Era::Modern };
    let mut batch = Vec::new();
    // Elapsed or not, the frames read so far are in the batch.
    let _ = timeout(endpoint.config.json_grace, receiver.next(&mut batch)).await;
    if let [Delivered { frame: Frame::Reply(bytes, error), .. }] = &batch[..]
        && receiver.is_drained()
    {
        return (now(endpoint, caller, (era, wants), bytes, *error), error.is_some());
    }
    let ids = session.map_or(EventIds::None, |session| {
        session.keep(&receiver, &batch);
        event_ids(endpoint, session, Seq(0))
    });
    (stream(receiver, batch, ids, None), false)
}

/// The event ids of a legacy session.
pub(super) fn event_ids(endpoint: &Endpoint, session: &HttpSession, next: Seq) -> EventIds {
    match session.version() {
        Some(version) if version.primes_streams() => {
            let retry = endpoint.config.retry;
            let retry = (retry / 2).saturating_add(retry.mul_f64(endpoint.spread.next()));
            EventIds::Primed { next, retry }
        }
        _ => EventIds::Each,
    }
}

/// A stream, which is closed at `until` even if it has not ended.
pub(super) fn stream(
    receiver: StreamReceiver,
    batch: Vec<Delivered>,
    ids: EventIds,
    until: Option<Instant>,
) -> Response {
    with_event_headers(Content::Events(Box::new(Events::new(receiver, batch, ids, until))))
}

fn with_event_headers(content: Content) -> Response {
    let mut response = Response::new(content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENTS);
    headers.insert(CACHE_CONTROL, NO_STORE);
    // Some proxies hold a response back until a buffer is full.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}
