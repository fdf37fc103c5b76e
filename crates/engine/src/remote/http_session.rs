//! A legacy session over HTTP, for its transport: on this node, or on another one.
//!
//! For a session on another node, each operation is a peer request to that node. A
//! `RemoteStream` reads the answer, and searches for the rest of it when the node is lost.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::FutureExt as _;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, Frame, Next, RemoteSource, SerializedFrame, StreamReceiver};
use stentor_wire::{
    ErrorObject, Id, Message, Notification, ProtocolVersion, Request, Response, code, encode,
};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{PeerEvent, PeerRequest, PeerStream, Remote, SessionOp};
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::reasons::{EndReason, Refused};
use crate::request_sender::RequestSender;
use crate::session::Session;

/// A session that moves more often than this during one operation counts as ended.
const MAX_MOVES: usize = 4;

/// The pause between two searches for a session whose node was lost: the first, and the longest. A
/// broken link is restored about as fast, and a dead node is given up after seconds.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

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
        sender: RequestSender,
    ) -> Self {
        let version = OnceLock::new();
        let remote = RemoteSession { remote, node, session, sender, version };
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
            Location::Remote(remote) => {
                let message = SessionOp::Message(request.encode());
                Box::pin(remote.open(message, Some(request.id)))
            }
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
    async fn read_again(
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

/// A legacy session on another node, as far as this node knows it.
#[derive(Debug)]
struct RemoteSession {
    remote: Remote,
    node: NodeId,
    session: SessionId,
    sender: RequestSender,
    version: OnceLock<ProtocolVersion>,
}

impl RemoteSession {
    /// Asks the node that has the session, and follows the session if it has moved. Returns the
    /// first event of the answer.
    async fn ask(&self, op: SessionOp) -> Result<(PeerEvent, PeerStream), Refused> {
        let peers = self.remote.0.nodes.peers().ok_or(Refused::Unreachable)?;
        let mut node = self.node.clone();
        for _ in 0..MAX_MOVES {
            let (session, sender) = (self.session.clone(), self.sender.clone());
            let peer_request = PeerRequest::Session { session, sender, op: op.clone() };
            let mut peer_stream =
                peers.ask(&node, peer_request).map_err(|_| Refused::Unreachable)?;
            match peer_stream.next().await {
                Some(PeerEvent::Refused(refused)) => return Err(refused),
                Some(PeerEvent::Moved(to)) => node = to,
                Some(event) => return Ok((event, peer_stream)),
                None => return Err(Refused::Unreachable),
            }
        }
        Err(Refused::SessionEnded)
    }

    /// Runs an operation that opens no stream.
    async fn act(&self, op: SessionOp) -> Result<(), Refused> {
        self.ask(op).await.map(|_| ())
    }

    /// Opens a stream: of a request, or of the session's notices.
    async fn open(
        self: &Arc<Self>,
        op: SessionOp,
        request: Option<Id>,
    ) -> Result<StreamReceiver, Refused> {
        let (event, peer_stream) = self.ask(op).await?;
        let mut stream = RemoteStream {
            stream: StreamId(0),
            next: None,
            source: Source::Node(peer_stream),
            frames: VecDeque::new(),
            unanswered: None,
        };
        match event {
            PeerEvent::Started { stream: id, version, next } => {
                if let Some(version) = version {
                    // It is set once, because the version does not change.
                    let _ = self.version.set(version);
                }
                (stream.stream, stream.next) = (StreamId(id), next.map(Seq));
                stream.unanswered =
                    request.map(|request| Unanswered { request, session: self.clone() });
            }
            // An answer without a stream.
            event => stream.take(event),
        }
        Ok(StreamReceiver::remote(stream))
    }

    /// Finds the stream of a request whose node was lost, from the frame `next` on.
    ///
    /// It is on the same node, once that is reached again, or on the node that continues the
    /// session, which may be this one. `None` if the session has ended with its node, or if that is
    /// not known within `RemoteConfig::reconnect_timeout`.
    async fn find_stream(
        self: Arc<Self>,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Option<StreamReceiver> {
        let deadline = Instant::now() + self.remote.0.config.reconnect_timeout;
        let (mut pause, longest) = RETRY_PAUSE;
        loop {
            match self.read_again(stream, next, request.clone()).await {
                Ok(receiver) => return Some(receiver),
                // By now it is known that the session has ended, or does not have the stream.
                Err(Refused::SessionEnded) => return None,
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
            sleep(pause).await;
            pause = (2 * pause).min(longest);
        }
    }

    async fn read_again(
        &self,
        stream: StreamId,
        next: Seq,
        request: Id,
    ) -> Result<StreamReceiver, Refused> {
        let session = self.remote.http_session(self.session.as_str(), &self.sender).await?;
        session.read_again(stream, next, request).await
    }
}

/// The receiver of a stream on another node.
#[derive(Debug)]
struct RemoteStream {
    stream: StreamId,
    /// The number of the next frame, if it is known.
    next: Option<Seq>,
    source: Source,
    frames: VecDeque<Delivered>,
    /// The request that the stream must answer, until it is answered.
    unanswered: Option<Unanswered>,
}

#[derive(Debug)]
enum Source {
    Node(PeerStream),
    /// That node was lost. The session may continue there or on another node, and the stream with
    /// it.
    Lost(AbortOnDropHandle<Option<StreamReceiver>>),
    Ended,
}

#[derive(Debug)]
struct Unanswered {
    request: Id,
    session: Arc<RemoteSession>,
}

impl RemoteStream {
    /// Searches for the stream after its node was lost.
    ///
    /// The answer must come from the node that continues the session, as it does for a client that
    /// reconnects: an answer made up here could be followed by another one from there.
    fn find_again(&self) -> Source {
        let Some(Unanswered { request, session }) = &self.unanswered else { return Source::Ended };
        let from = self.next.unwrap_or(Seq(0));
        let search = session.clone().find_stream(self.stream, from, request.clone());
        Source::Lost(AbortOnDropHandle::new(tokio::spawn(search)))
    }

    fn take(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Frames { frames, last, .. } => {
                self.frames.extend(frames.into_iter().filter_map(SerializedFrame::into_delivered));
                if self.frames.iter().any(|event| event.class == Class::Reply) {
                    self.unanswered = None;
                }
                if last {
                    self.source = Source::Ended;
                }
            }
            // The client comes back for the rest.
            PeerEvent::Ended
            | PeerEvent::Detached
            | PeerEvent::Refused(_)
            | PeerEvent::Moved(_) => {
                self.source = Source::Ended;
            }
            PeerEvent::Started { .. } => {}
        }
    }
}

impl RemoteSource for RemoteStream {
    fn stream_id(&self) -> StreamId {
        self.stream
    }

    fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    fn is_drained(&self) -> bool {
        matches!(self.source, Source::Ended) && self.frames.is_empty()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Delivered>) -> Poll<Next> {
        while self.frames.is_empty() {
            match &mut self.source {
                Source::Node(peer_stream) => match ready!(peer_stream.poll_next(cx)) {
                    Some(event) => self.take(event),
                    None => self.source = self.find_again(),
                },
                Source::Lost(search) => {
                    let found = ready!(Pin::new(search).poll(cx));
                    let unanswered = self.unanswered.take();
                    self.source = Source::Ended;
                    match found {
                        Ok(Some(receiver)) => return Poll::Ready(Next::From(receiver)),
                        Ok(None) | Err(_) => {
                            self.frames.extend(unanswered.map(|it| lost_reply(&it.request)));
                        }
                    }
                }
                Source::Ended => return Poll::Ready(Next::End),
            }
        }
        self.next = self.frames.back().map(|event| Seq(event.seq.0 + 1));
        batch.extend(self.frames.drain(..));
        Poll::Ready(Next::Some)
    }
}

/// The error for a client whose request was lost with its node, and its session with it.
///
/// No node knows which numbers that node gave out. So the frame has the last number that exists: no
/// other frame gets it, and no frame follows it on any node.
fn lost_reply(request: &Id) -> Delivered {
    let error = ErrorObject::unavailable("the node that had the session has gone");
    let reply = encode::error(Some(request), &error);
    let frame = Frame::Reply(reply, Some(code::UNAVAILABLE));
    Delivered { seq: Seq(Seq::END.0 - 1), class: Class::Reply, frame }
}
