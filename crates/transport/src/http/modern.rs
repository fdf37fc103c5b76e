//! A modern request: it is complete in itself, with its body and headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use stentor_engine::transport_api::{Answer, RequestSender};
use stentor_wire::headers::{HeaderMismatch, check_protocol_version, check_standard};
use stentor_wire::{Era, ErrorObject, Method, ProtocolVersion, Request};

use super::auth::Caller;
use super::events::EventIds;
use super::guard::{Refusal, Wants};
use super::{Endpoint, Response, names, reply};

pub(super) async fn request(
    endpoint: &Endpoint,
    caller: &Caller<'_>,
    wants: Wants,
    request: Box<Request>,
) -> Result<Response, Refusal> {
    let headers = &caller.head().headers;
    let sender = caller.sender(&endpoint.config);
    let version = match check(endpoint, headers, &sender, &request).await {
        Ok(version) => version,
        Err(error) => {
            return Ok(reply::error(StatusCode::BAD_REQUEST, Some(&request.id), &error));
        }
    };
    let listens = request.method == Method::Listen;
    let answer = endpoint.engine.answer(version, request, sender).await?;
    Ok(match answer {
        Answer::Now(body, error) => {
            reply::now(endpoint, caller, (Era::Modern, wants), &body, error)
        }
        Answer::Stream(receiver) if listens => {
            let until = caller.streams_until(endpoint);
            reply::stream(receiver, Vec::new(), EventIds::None, until)
        }
        Answer::Stream(receiver) => reply::call(endpoint, caller, None, wants, receiver).await.0,
    })
}

/// Compares the headers with the body (2026-07-28, basic/transports/streamable-http, "Request
/// Metadata"). The version is checked first, so that a client of another version receives a version
/// error, whatever else differs.
async fn check(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    sender: &RequestSender,
    request: &Request,
) -> Result<ProtocolVersion, ErrorObject> {
    let header = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(version) = &request.meta.protocol_version {
        check_protocol_version(version, header(&names::PROTOCOL_VERSION))?;
    }
    let version = request.meta.require_modern()?;
    // One client in use sends no `Mcp-Name` with `tasks/*`, and the official conformance suite
    // accepts that. A wrong value is refused.
    let may_lack = request.method.is_of_tasks() && !headers.contains_key(&names::NAME);
    let name = named(request).filter(|_| !may_lack);
    let method = request.method.as_str();
    check_standard(method, name.as_deref(), header(&names::METHOD), header(&names::NAME))?;
    if request.method == Method::ToolsCall {
        let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        endpoint.engine.check_param_headers(&request.params, sender, header).await.map_err(lift)?;
    }
    Ok(version)
}

fn lift(mismatch: HeaderMismatch) -> ErrorObject {
    mismatch.into()
}

/// The value that the `Mcp-Name` header mirrors, for a method that has one. A body without it is
/// refused later, for its parameters.
fn named(request: &Request) -> Option<Cow<'_, str>> {
    request.params.string(request.method.name_member()?).ok()?
}
