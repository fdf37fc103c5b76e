//! What a transport needs: it delivers a client's messages, and reads what goes back.
//!
//! Applications do not use this module; `stentor-transport` and other transports do. A transport
//! decodes bytes into [`Message`]s, delivers them here, and writes the
//! [`Frame`](stentor_delivery::Frame)s that a [`StreamReceiver`] yields, in their order.
//!
//! [`Message`]: stentor_wire::Message

mod pipe;

use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use stentor_delivery::StreamReceiver;
use stentor_wire::headers::HeaderMismatch;
use stentor_wire::{DecodeError, Message, Method, Params, ProtocolVersion, Request, params};

use crate::caller::Caller;
use crate::catalog::Offer;
pub use crate::dispatch::Answer;
use crate::dispatch::Scope;
use crate::engine::Engine;
use crate::handler::Arguments;
use crate::items::ItemKind;
pub use crate::reasons::Refused;
pub use crate::remote::HttpSession;
pub use crate::request_sender::{Header, RequestSender};
pub use crate::shares::Connection;
pub use crate::viewers::ForgetRights;
pub use pipe::Pipe;

impl Engine {
    /// Counts an HTTP request that was refused with this status, for the metrics.
    pub fn count_refusal(&self, status: u16) {
        self.core().metrics.refused(status);
    }

    /// Opens a session for the one client at the other end of a pipe, in either era: the user who
    /// started this process.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_pipe(&self) -> Result<(Pipe, StreamReceiver), Refused> {
        self.open_pipe_for(RequestSender::local()).await
    }

    /// As [`open_pipe`](Self::open_pipe), for a client that the transport has authenticated. All
    /// requests of the session come from this sender.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_pipe_for(
        &self,
        source: RequestSender,
    ) -> Result<(Pipe, StreamReceiver), Refused> {
        let opened = self.core().sessions.open_pipe(source).await?;
        let (session, sender, receiver) = opened;
        Ok((Pipe::new(session, sender, self.drain_timeout()), receiver))
    }

    /// Opens a legacy session over HTTP, for a client that is about to send `initialize`. Only the
    /// same principal with the same OAuth client can find the session.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_http_session(&self, source: RequestSender) -> Result<HttpSession, Refused> {
        let session = self.core().sessions.open_http(source).await?;
        Ok(HttpSession::local(session))
    }

    /// Finds a legacy session over HTTP by its `Mcp-Session-Id`, for the principal and the OAuth
    /// client that opened it. For anybody else it does not exist.
    ///
    /// The session is on this node or, as its id says, on another one. A session whose node died
    /// continues on this node if there is a [`SessionStore`](crate::SessionStore).
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`]. If another node does not know the
    /// session, the error comes when the session is used.
    pub async fn http_session(
        &self,
        id: &str,
        sender: &RequestSender,
    ) -> Result<HttpSession, Refused> {
        self.core().remote.http_session(id, sender).await
    }

    /// Answers a modern request over HTTP, whose `_meta` and headers have been checked.
    ///
    /// Work that takes no time is done before there is a future, so that the future does not
    /// contain the request. Dropping the future, polled or not, cancels the call.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the reason that the client must receive instead.
    pub fn answer<S: Into<RequestSender>>(
        &self,
        version: ProtocolVersion,
        request: Box<Request>,
        source: S,
    ) -> impl Future<Output = Result<Answer, Refused>> + Send + use<'_, S> {
        let caller = Caller::modern(version, &request.meta, None).sent_by(&source.into());
        if request.method == Method::Listen {
            return Either::Right(Either::Left(Box::pin(
                self.core().sessions.open_listen(request, caller),
            )));
        }
        if self.core().dispatcher.opens_stream(&request.method) {
            let opened = self.core().sessions.open_stream(request, caller, Scope::All);
            return Either::Right(Either::Right(Box::pin(opened)));
        }
        let begun = self.core().dispatcher.begin(caller, request, None, Scope::All);
        Either::Left(async move { Ok(begun?.answer().await) })
    }

    /// Decodes a client's message within the bounds of this engine, a large one on another thread.
    /// Cancel safe: decoding changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        self.core().calls.decode(input).await
    }

    /// The time after which a transport closes the connection of a client that reads nothing:
    /// [`Config::stall_timeout`](crate::Config::stall_timeout).
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.core().config.stall_timeout
    }

    /// Compares the `Mcp-Param-*` headers of a `tools/call` with its arguments, as the tool's
    /// schema says (2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom
    /// Headers"). `header` finds a header by its lowercase name.
    ///
    /// Large arguments are read on another thread. Cancel safe.
    ///
    /// # Errors
    ///
    /// The header that does not match.
    pub async fn check_param_headers<'a>(
        &self,
        params: &Params,
        sender: &RequestSender,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), HeaderMismatch> {
        // Errors in the parameters are reported later.
        let Ok(called) = params::CallTool::read(params) else { return Ok(()) };
        let registry = &self.core().registry;
        let catalog = registry.catalog();
        // A hidden tool is answered as an unknown one.
        let viewer = registry.viewer(&catalog, &sender.who);
        if !catalog.sees(viewer.as_ref(), ItemKind::Tools, &called.name) {
            return Ok(());
        }
        let headers = match catalog.tool(&called.name) {
            Some(Offer::Local(tool)) => tool.headers(),
            Some(Offer::Remote(remote)) => remote.headers(),
            None => return Ok(()),
        };
        if headers.is_empty() {
            return Ok(());
        }
        let arguments = called.arguments.map(|raw| Arguments::new(params.share(raw)));
        let arguments = match arguments {
            Some(large) if large.are_large() => {
                self.core().calls.offload.run(move || large.read().ok()).await
            }
            arguments => arguments.and_then(|arguments| arguments.read().ok()),
        };
        headers.check(arguments.as_ref(), header)
    }
}
