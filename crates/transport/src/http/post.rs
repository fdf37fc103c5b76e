//! POST: one message of a client. This module decides to which era it belongs.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use stentor_wire::{Era, ErrorObject, Message, Method, ProtocolVersion, RequestMeta, code};

use super::auth::Caller;
use super::guard::{self, Refusal};
use super::{BodyError, Endpoint, Response, legacy, modern, names, reply, upload};

pub(super) async fn handle<B>(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    body: &mut B,
) -> Result<Response, Refusal>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BodyError>,
{
    let headers = &caller.head().headers;
    let wants = guard::negotiate_post(headers)?;
    guard::check_content_type(headers)?;
    let Some(body) = upload::read(endpoint, body).await? else {
        // The client broke off; nobody reads this response.
        return Ok(reply::empty(StatusCode::BAD_REQUEST));
    };
    caller.check_good(endpoint)?;
    let message = match endpoint.engine.decode(body).await {
        Ok(message) => message,
        Err(error) => {
            let id = error.id.clone();
            return Ok(reply::error(StatusCode::BAD_REQUEST, id.as_ref(), &error.into()));
        }
    };
    let id = match &message {
        Message::Request(request) => Some(request.id.clone()),
        _ => None,
    };
    let era = match era(headers, &message) {
        Ok(era) => era,
        Err(error) => return Ok(reply::error(StatusCode::BAD_REQUEST, id.as_ref(), &error)),
    };
    // Boxed: two small futures cost less than one of more than a kilobyte.
    let answered = match (era, message) {
        (Era::Modern, Message::Request(request)) => {
            Box::pin(modern::request(endpoint, caller, wants, request)).await
        }
        // A modern client's notifications have no effect: the client cancels a request by closing
        // its stream (2026-07-28, basic/transports/streamable-http, "Sending Messages").
        (Era::Modern, Message::Notification(_)) => Ok(reply::accepted()),
        (Era::Modern, Message::Response(response)) => {
            let error = ErrorObject::new(code::INVALID_REQUEST, "a client must not send responses");
            Ok(reply::error(StatusCode::BAD_REQUEST, Some(&response.id), &error))
        }
        (Era::Legacy, message) => Box::pin(legacy::message(endpoint, caller, wants, message)).await,
    };
    Ok(answered.unwrap_or_else(|refusal| reply::refused(&refusal, id.as_ref())))
}

/// Decides the era of a message. A message with a protocol version in `_meta` is modern. Of the
/// others, `initialize` and messages of a session are legacy, whatever version their header names.
/// For the rest the version in the header decides; without that header they are legacy (2026-07-28,
/// basic/versioning, "Backward Compatibility").
fn era(headers: &HeaderMap, message: &Message) -> Result<Era, ErrorObject> {
    let says_so = match message {
        Message::Request(request) => request.meta.protocol_version.is_some(),
        Message::Notification(notification) => {
            RequestMeta::read(&notification.params)?.protocol_version.is_some()
        }
        Message::Response(_) => false,
    };
    let named =
        headers.get(&names::PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or_default());
    let opens =
        matches!(message, Message::Request(request) if request.method == Method::Initialize);
    let is_of_session = opens || headers.contains_key(&names::SESSION_ID);
    match (says_so, named) {
        (true, _) => Ok(Era::Modern),
        (false, _) if is_of_session => Ok(Era::Legacy),
        (false, Some(named)) => ProtocolVersion::parse(named)
            .map(ProtocolVersion::era)
            .ok_or_else(|| ErrorObject::unsupported_version(named)),
        (false, None) => Ok(Era::Legacy),
    }
}
