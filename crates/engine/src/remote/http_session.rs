//! A legacy session over HTTP, for its transport: on this node, or on another one.

use std::sync::{Arc, OnceLock};

use futures::future::FutureExt as _;
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_wire::{Id, Message, Notification, ProtocolVersion, Request, Response};

use super::session::RemoteSession;
use super::{Remote, SessionOp};
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::reasons::{EndReason, Refused};
use crate::session::Session;

/// A legacy session over HTTP. Clones are the same session.
#[derive(Clone, Debug)]
pub struct HttpSession(Location);

#[derive(Clone, Debug)]
enum Location {
    Local(Session),
    Remote(Arc<RemoteSession>),
}

impl HttpSession {
    pub(crate) fn local(session: Session) -> Self {
        Self(Location::Local(session))
    }

    pub(super) fn remote(
        remote: Remote,
        node: NodeId,
        session: SessionId,
        principal: Option<&str>,
    ) -> Self {
        let (version, principal) = (OnceLock::new(), principal.map(Arc::from));
        let remote = RemoteSession { remote, node, session, principal, version };
        Self(Location::Remote(Arc::new(remote)))
    }

    /// The value of `Mcp-Session-Id`.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        match &self.0 {
            Location::Local(session) => session.id(),
            Location::Remote(remote) => &remote.session,
        }
    }

    /// The negotiated version, after `initialize` was answered. For a session on another node,
    /// after one of its streams was opened.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        match &self.0 {
            Location::Local(session) => session.version(),
            Location::Remote(remote) => remote.version.get().copied(),
        }
    }

    /// Delivers a request. The receiver yields the frames of its call, the response last. Dropping
    /// the receiver cancels nothing.
    ///
    /// Dropping the future early delivers the request or not.
    ///
    /// # Errors
    ///
    /// [`Refused::TooManyRequests`], [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub fn request(
        &self,
        request: Box<Request>,
    ) -> impl Future<Output = Result<StreamReceiver, Refused>> + Send + use<'_> {
        match &self.0 {
            Location::Local(session) => session.request(request).boxed(),
            Location::Remote(remote) => Box::pin(remote.request(request)),
        }
    }

    /// Delivers a notification.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn notification(&self, notification: Box<Notification>) -> Result<(), Refused> {
        match &self.0 {
            Location::Local(session) => session.notification(notification).await,
            Location::Remote(remote) => {
                let message = Message::Notification(notification).encode();
                Box::pin(remote.act(SessionOp::Message(message))).await
            }
        }
    }

    /// Delivers the answer to a question.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn response(&self, response: Response) -> Result<(), Refused> {
        match &self.0 {
            Location::Local(session) => session.response(response).await,
            Location::Remote(remote) => {
                let message = Message::Response(response).encode();
                Box::pin(remote.act(SessionOp::Message(message))).await
            }
        }
    }

    /// Reads what belongs to no request: everything since the session was opened, or since the last
    /// reader left.
    ///
    /// A reader that is still attached ends: the client has reconnected, and frames on their way to
    /// it may be lost. So all lists are announced as changed.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn attach(&self) -> Result<StreamReceiver, Refused> {
        match &self.0 {
            Location::Local(session) => Ok(session.attach()),
            Location::Remote(remote) => remote.open(SessionOp::Attach, None).await,
        }
    }

    /// Keeps the stream of a request for a client that may come back to it. For transports that
    /// send the ids of frames to the client. `read` contains all that the client has read so far.
    pub fn keep(&self, receiver: &StreamReceiver, read: &[Delivered]) {
        // The node of a remote session has kept the stream already.
        if let Location::Local(session) = &self.0 {
            session.keep(receiver, read);
        }
    }

    /// Resumes a stream at a frame that the client names. Another reader of the stream ends,
    /// because a client that comes back has lost its stream.
    ///
    /// If frames are lost that the client has not seen, it gets the rest of the stream, and all
    /// lists are announced as changed. If the whole stream is lost, this is
    /// [`attach`](Self::attach). When dropped early, the stream has no reader.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub async fn resume(&self, stream: StreamId, next: Seq) -> Result<StreamReceiver, Refused> {
        match &self.0 {
            Location::Local(session) => Ok(session.resume(stream, next).await),
            Location::Remote(remote) => {
                remote.open(SessionOp::Resume(stream.0, next.0), None).await
            }
        }
    }

    /// Resumes the stream of a request whose node was lost, for a node on which a client still
    /// waits for the answer: such a client does not come back by itself.
    pub(super) async fn read_again(
        &self,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Result<StreamReceiver, Refused> {
        match &self.0 {
            Location::Local(session) => session.read_again(stream, next).await,
            Location::Remote(remote) => {
                remote.open(SessionOp::ReadAgain(stream.0, next.0), Some(request)).await
            }
        }
    }

    /// Ends the session: the next request with its id gets a 404. When dropped early, a session on
    /// another node may continue.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`]; [`Refused::Unreachable`], after which the session may have ended
    /// or not.
    pub async fn end(&self, reason: EndReason) -> Result<(), Refused> {
        match &self.0 {
            Location::Local(session) => {
                session.end(reason);
                Ok(())
            }
            Location::Remote(remote) => remote.act(SessionOp::End(reason)).await,
        }
    }
}
