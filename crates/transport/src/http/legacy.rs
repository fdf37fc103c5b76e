//! A legacy message: it belongs to a session, or opens one.

use http::{HeaderMap, HeaderValue, StatusCode};
use stentor_engine::EndReason;
use stentor_engine::transport_api::{HttpSession, RequestSender};
use stentor_wire::bounds::quoted;
use stentor_wire::{Message, Method, ProtocolVersion, Request};

use super::auth::Caller;
use super::guard::{Refusal, Wants};
use super::{Endpoint, Response, names, reply};

pub(super) async fn message(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    wants: Wants,
    message: Message,
) -> Result<Response, Refusal> {
    let headers = &caller.head().headers;
    match message {
        Message::Request(request)
            if request.method == Method::Initialize
                && !headers.contains_key(&names::SESSION_ID) =>
        {
            // Boxed to keep the common future small: few requests open a session.
            Box::pin(initialize(endpoint, caller, wants, request)).await
        }
        Message::Request(request) => {
            let session = session(endpoint, headers, &caller.sender(&endpoint.config)).await?;
            let receiver = session.request(request).await?;
            Ok(reply::call(endpoint, caller, Some(&session), wants, receiver).await.0)
        }
        Message::Notification(notification) => {
            let session = session(endpoint, headers, &caller.sender(&endpoint.config)).await?;
            session.notification(notification).await?;
            Ok(reply::accepted())
        }
        Message::Response(response) => {
            let session = session(endpoint, headers, &caller.sender(&endpoint.config)).await?;
            session.response(response).await?;
            Ok(reply::accepted())
        }
    }
}

async fn initialize(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    wants: Wants,
    request: Box<Request>,
) -> Result<Response, Refusal> {
    let sender = caller.sender(&endpoint.config);
    let session = endpoint.engine.open_http_session(sender).await?;
    let receiver = session.request(request).await?;
    let (mut response, failed) =
        reply::call(endpoint, caller, Some(&session), wants, receiver).await;
    if failed {
        // The session exists: it was opened just now.
        let _ = session.end(EndReason::Refused).await;
    } else if let Ok(id) = HeaderValue::from_str(session.id().as_str()) {
        response.headers_mut().insert(&names::SESSION_ID, id);
    }
    Ok(response)
}

/// The session that a request names.
pub(super) async fn session(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    sender: &RequestSender,
) -> Result<HttpSession, Refusal> {
    if let Some(version) = headers.get(&names::PROTOCOL_VERSION) {
        let version = version.to_str().unwrap_or_default();
        if ProtocolVersion::parse(version).is_none() {
            return Err(Refusal::UnsupportedVersion { found: quoted(version) });
        }
    }
    let id = headers.get(&names::SESSION_ID).ok_or(Refusal::SessionRequired)?;
    let id = id.to_str().map_err(|_| Refusal::UnknownSession)?;
    Ok(endpoint.engine.http_session(id, sender).await?)
}

/// DELETE: ends the session.
pub(super) async fn end(endpoint: &Endpoint, caller: &Caller<'_>) -> Result<Response, Refusal> {
    let session =
        session(endpoint, &caller.head().headers, &caller.sender(&endpoint.config)).await?;
    session.end(EndReason::Deleted).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
