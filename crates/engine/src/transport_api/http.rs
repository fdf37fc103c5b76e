//! A legacy session over HTTP, for its transport: on this node, or on another one.

use std::sync::{Arc, OnceLock};

use futures::TryFutureExt as _;
use futures::future::Either;
use stentor_wire::{EncodedNotice, Id, Message, Notification, ProtocolVersion, Request, Response};

use super::Refused;
use super::deliver::{ask, tell};
use crate::core::Core;
use crate::engine::Engine;
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::reasons::EndReason;
use crate::remote::{RemoteSession, RemoteStream, SessionOp};
use crate::session::{OneWay, SessionEntry};
use stentor_delivery::SerializedFrame;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, StreamReceiver, StreamSender};

/// A legacy session over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSession {
    core: Arc<Core>,
    location: Location,
}

#[derive(Clone, Debug)]
enum Location {
    Local(Arc<SessionEntry>),
    Remote(Arc<RemoteSession>),
}

impl HttpSession {
    pub(super) fn local(core: Arc<Core>, entry: Arc<SessionEntry>) -> Self {
        Self { core, location: Location::Local(entry) }
    }

    pub(crate) fn remote(
        engine: Engine,
        node: NodeId,
        session: SessionId,
        principal: Option<&str>,
    ) -> Self {
        let (core, version) = (engine.core().clone(), OnceLock::new());
        let principal = principal.map(Arc::from);
        let remote = RemoteSession { engine, node, session, principal, version };
        Self { core, location: Location::Remote(Arc::new(remote)) }
    }

    /// The value of `Mcp-Session-Id`.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        match &self.location {
            Location::Local(entry) => entry.id(),
            Location::Remote(remote) => &remote.session,
        }
    }

    /// The negotiated version, after `initialize` was answered. For a session on another node,
    /// after one of its streams was opened.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        match &self.location {
            Location::Local(entry) => entry.version(),
            Location::Remote(remote) => remote.version.get().copied(),
        }
    }

    /// Delivers a request. The receiver yields the frames of its call, the response last. Dropping
    /// the receiver cancels nothing.
    ///
    /// Work that takes no time is done before there is a future, so that the future does not
    /// contain the request. Dropping the future, polled or not, ends a call that has no actor yet
    /// with an error.
    ///
    /// # Errors
    ///
    /// [`Refused::TooManyRequests`], [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub fn request(
        &self,
        request: Box<Request>,
    ) -> impl Future<Output = Result<StreamReceiver, Refused>> + Send + use<'_> {
        match &self.location {
            Location::Local(entry) => {
                let sender = entry.open_stream(&self.core, &request.id);
                let receiver = sender.attach();
                let asked = ask(&self.core, entry, request, sender);
                Either::Left(asked.map_ok(|()| receiver))
            }
            Location::Remote(remote) => Either::Right(Box::pin(remote.request(request))),
        }
    }

    /// Delivers a notification.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn notification(&self, notification: Box<Notification>) -> Result<(), Refused> {
        match &self.location {
            Location::Local(entry) => {
                tell(&self.core, entry, OneWay::Notification(notification)).await
            }
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
        match &self.location {
            Location::Local(entry) => tell(&self.core, entry, OneWay::Response(response)).await,
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
        let entry = match &self.location {
            Location::Local(entry) => entry,
            Location::Remote(remote) => return remote.open(SessionOp::Attach, None).await,
        };
        entry.presence().touch();
        let sender = entry.streams().notices().ok_or(Refused::SessionEnded)?;
        let had_reader = sender.is_attached();
        let receiver = sender.attach();
        if had_reader {
            notify_of_everything(entry, sender);
        }
        Ok(receiver)
    }

    /// Keeps the stream of a request for a client that may come back to it. For transports that
    /// send the ids of frames to the client. `read` contains all that the client has read so far.
    pub fn keep(&self, receiver: &StreamReceiver, read: &[Delivered]) {
        // The node of a remote session has kept the stream already.
        if let (Location::Local(entry), Some(sender)) = (&self.location, receiver.sender()) {
            let runs = !sender.is_finished();
            entry.keep_stream(&self.core, sender, read);
            if runs {
                self.core.session_changed(entry);
            }
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
        let entry = match &self.location {
            Location::Local(entry) => entry,
            Location::Remote(remote) => {
                return remote.open(SessionOp::Resume(stream.0, next.0), None).await;
            }
        };
        let (receiver, complete) = match self.find_stream(entry, stream, next).await {
            Some(found) => found,
            None => {
                let notices = entry.streams().notices().ok_or(Refused::SessionEnded)?;
                (notices.attach(), false)
            }
        };
        if !complete && let Some(sender) = entry.streams().notices() {
            notify_of_everything(entry, sender);
        }
        Ok(receiver)
    }

    /// Resumes the stream of a request whose node was lost, for a node on which a client still
    /// waits for the answer: such a client does not come back by itself.
    ///
    /// This never returns the session's notices in place of the stream, because they may have a
    /// reader.
    pub(crate) async fn read_again(
        &self,
        stream: StreamId,
        next: Seq,
        request: Option<Id>,
    ) -> Result<StreamReceiver, Refused> {
        let entry = match &self.location {
            Location::Local(entry) => entry,
            Location::Remote(remote) => {
                return remote.open(SessionOp::ReadAgain(stream.0, next.0), request).await;
            }
        };
        let found = self.find_stream(entry, stream, next).await;
        found.map(|(receiver, _)| receiver).ok_or(Refused::SessionEnded)
    }

    /// A stream of this session from the frame `next` on, and whether no frame of it is missing.
    async fn find_stream(
        &self,
        entry: &SessionEntry,
        stream: StreamId,
        next: Seq,
    ) -> Option<(StreamReceiver, bool)> {
        entry.presence().touch();
        if next >= Seq::END {
            return Some((StreamReceiver::remote(RemoteStream::over(stream)), true));
        }
        let sender = match entry.find_stream(stream) {
            Some(sender) => sender,
            None => entry.earlier_stream(&self.core, stream).await?,
        };
        Some(sender.resume(next).await)
    }

    /// Adds notices that the session's former node has received for it.
    pub(crate) async fn missed(&self, notices: Vec<SerializedFrame>) {
        if let Location::Local(entry) = &self.location
            && let Some(sender) = entry.streams().notices()
        {
            sender.add_missed(notices).await;
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
        match &self.location {
            Location::Local(entry) => {
                entry.end(&self.core, reason);
                Ok(())
            }
            Location::Remote(remote) => remote.act(SessionOp::End(reason)).await,
        }
    }
}

/// Notifies a client of everything that it may have missed.
fn notify_of_everything(entry: &SessionEntry, sender: &StreamSender) {
    let subscription = entry.state().legacy_subscription();
    for notice in subscription.iter().flat_map(|subscription| subscription.filter.everything()) {
        let class = Class::of(&notice);
        sender.notice(class, Arc::new(EncodedNotice::new(notice)), None);
    }
}
