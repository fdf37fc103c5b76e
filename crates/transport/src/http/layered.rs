//! The endpoint as a service, and the layers of an application around it.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use stentor_wire::{ErrorObject, code};
use tower_layer::Layer;
use tower_service::Service;

use super::auth::Caller;
use super::body::{Outer, ResponseBody};
use super::flow::Flow;
use super::upload::Upload;
use super::{BodyError, Endpoint, at_other_path, handle, reply};

/// The endpoint, as the innermost service of the layers that [`serve_layered`](super::serve_layered)
/// puts around it.
///
/// It is always ready. It takes any body, so that layers may wrap the body of a request.
#[derive(Clone, Debug)]
pub struct EndpointService(Endpoint);

impl EndpointService {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self(endpoint)
    }
}

impl<B> Service<Request<B>> for EndpointService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let response = if head.uri.path() == endpoint.config.path {
                let peer = head.extensions.get::<ConnectInfo<SocketAddr>>();
                let mut caller = Caller::new(&head, peer.map(|ConnectInfo(peer)| *peer));
                handle(&endpoint, &mut caller, Upload::within_layers(pin!(body))).await
            } else {
                at_other_path(&endpoint, &head)
            };
            let flow = head.extensions.get::<Flow>().cloned();
            Ok(response.map(|content| content.into_body(endpoint.config.keep_alive, flow)))
        })
    }
}

/// The body of a request, as its connection reads it.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    flow: Flow,
    over: bool,
    /// Whether somebody waits for the next piece.
    awaited: bool,
}

impl RequestBody {
    fn new(body: Incoming, flow: Flow) -> Self {
        let over = body.is_end_stream();
        flow.unread(!over);
        Self { body, flow, over, awaited: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // The connection may serve another request by now.
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if !std::mem::replace(&mut self.awaited, true) {
                self.flow.awaits_more();
            }
            return Poll::Pending;
        };
        self.over = match &frame {
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if self.over {
            self.flow.unread(false);
        }
        // The connection was closed to make room for another one; dropping it drops this task.
        if std::mem::take(&mut self.awaited) && !self.flow.got_more() {
            return Poll::Pending;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The layers with the endpoint inside, whatever their types are.
pub(super) trait Layers: Send + Sync {
    fn answer(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Outer>>;
}

impl fmt::Debug for dyn Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

/// Puts layers around the endpoint.
pub(super) type Wrap = Box<dyn FnOnce(EndpointService) -> Box<dyn Layers> + Send>;

pub(super) fn wrap<L, B>(layer: L) -> Wrap
where
    L: Layer<EndpointService> + Send + 'static,
    L::Service: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BodyError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    Box::new(move |endpoint| Box::new(Outermost(layer.layer(endpoint))))
}

struct Outermost<S>(S);

impl<S, B> Layers for Outermost<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BodyError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    fn answer(&self, request: Request<RequestBody>) -> BoxFuture<'static, Response<Outer>> {
        let mut service = self.0.clone();
        let answered = async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        };
        let answered = answered.map(|answered| match answered {
            Ok(response) => response.map(Outer::new),
            Err(error) => failed(&error.into()),
        });
        Box::pin(answered)
    }
}

/// The response in place of one that layers should have given.
fn failed(error: &BodyError) -> Response<Outer> {
    stentor_engine::log!(error, %error, "a layer failed, and the request with it");
    let said = ErrorObject::new(code::INTERNAL_ERROR, "the server could not answer the request");
    let response = reply::error(StatusCode::INTERNAL_SERVER_ERROR, None, &said);
    response.map(|content| Outer::Untouched(content.into_body(std::time::Duration::MAX, None)))
}

/// A request for layers.
pub(super) fn request(
    request: Request<Incoming>,
    flow: Flow,
    peer: Option<SocketAddr>,
) -> Request<RequestBody> {
    let (mut head, body) = request.into_parts();
    if let Some(peer) = peer {
        head.extensions.insert(ConnectInfo(peer));
    }
    // Layers may wrap the body, and so the endpoint does not find it there.
    head.extensions.insert(flow.clone());
    Request::from_parts(head, RequestBody::new(body, flow))
}

/// Whether a response with this status may have a body.
pub(super) fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

/// Removes what a stream's own writer says of it.
pub(super) fn remove_framing(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}
