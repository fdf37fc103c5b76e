//! What the client of a session does: it sends messages, and reads what goes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, Resumed, SerializedFrame, StreamReceiver, StreamSender};
use stentor_wire::{
    DecodeError, EncodedNotice, Era, Message, Method, Notification, ProtocolVersion, Request,
    Response,
};
use tokio::time::timeout;

use super::{ClientMessage, LeaveWhenClosed, MailboxPermit, Session, streams};
use crate::call::Responder;
use crate::ids::{Seq, SessionId, StreamId};
use crate::lifecycle::CANCEL_GRACE;
use crate::reasons::{EndReason, Refused};

/// Calls of an ended session that cannot be cancelled still run.
#[derive(Debug)]
pub(crate) struct CallsLeft;

impl Session {
    pub(crate) fn id(&self) -> &SessionId {
        self.entry.id()
    }

    /// The negotiated version, after `initialize` was answered.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.entry.version()
    }

    /// Delivers a request, whose answer goes to this stream. Waits while many messages of the
    /// client wait for the session. Cancel safe: the request is delivered or not.
    ///
    /// # Errors
    ///
    /// [`Refused::TooManyRequests`], [`Refused::SessionEnded`].
    pub(crate) async fn deliver_request(
        &self,
        request: Box<Request>,
        sender: StreamSender,
    ) -> Result<(), Refused> {
        if request.method != Method::Initialize {
            self.entry.mark_used();
        }
        // Declared before the permit, and dropped after it.
        let _leaving = LeaveWhenClosed(self);
        let permit = self.mailbox_permit().await?;
        let responder = Box::new(self.responder(&request, sender)?);
        self.deliver(ClientMessage::Request(request, responder), permit).await
    }

    fn responder(&self, request: &Request, sender: StreamSender) -> Result<Responder, Refused> {
        let permit = self.entry.request_permits().clone().try_acquire_owned();
        let permit = permit.map_err(|_| Refused::TooManyRequests)?;
        let era = if request.meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
        let (calls, meter) = (self.sessions.calls.clone(), self.entry.requests().clone());
        Ok(Responder::new(calls, sender, era, request, permit, meter))
    }

    /// Delivers a request on a stream of its own. The receiver yields the frames of its call, the
    /// response last. Dropping the receiver cancels nothing.
    pub(crate) async fn request(&self, request: Box<Request>) -> Result<StreamReceiver, Refused> {
        let sender = self.entry.open_stream(&self.sessions, &request.id);
        let receiver = sender.attach();
        self.deliver_request(request, sender).await?;
        Ok(receiver)
    }

    /// Delivers a notification, like [`deliver_request`](Self::deliver_request).
    pub(crate) async fn notification(
        &self,
        notification: Box<Notification>,
    ) -> Result<(), Refused> {
        let permit = self.mailbox_permit().await?;
        self.deliver(ClientMessage::Notification(notification), permit).await
    }

    /// Delivers the answer to a question, like [`deliver_request`](Self::deliver_request).
    pub(crate) async fn response(&self, response: Response) -> Result<(), Refused> {
        let permit = self.mailbox_permit().await?;
        self.deliver(ClientMessage::Response(response), permit).await
    }

    async fn mailbox_permit(&self) -> Result<MailboxPermit, Refused> {
        MailboxPermit::of(&self.entry).await.ok_or(Refused::SessionEnded)
    }

    async fn deliver(&self, message: ClientMessage, permit: MailboxPermit) -> Result<(), Refused> {
        self.hand_in(message, permit).await.then_some(()).ok_or(Refused::SessionEnded)
    }

    /// Reads what belongs to no request: everything since the session was opened, or since the last
    /// reader left.
    ///
    /// A reader that is still attached ends: the client has reconnected, and frames on their way to
    /// it may be lost. So all lists are announced as changed.
    pub(crate) fn attach(&self) -> StreamReceiver {
        self.entry.mark_seen();
        self.follow_sender();
        let sender = self.entry.notices();
        let had_reader = sender.is_attached();
        let receiver = sender.attach();
        if had_reader {
            self.notify_of_everything();
        }
        receiver
    }

    /// Keeps the stream of a request for a client that may come back to it. `read` contains all
    /// that the client has read so far.
    pub(crate) fn keep(&self, receiver: &StreamReceiver, read: &[Delivered]) {
        let Some(sender) = receiver.sender() else { return };
        let is_told = !sender.is_finished() || !sender.needs().is_empty();
        self.entry.keep_stream(&self.sessions, sender, read);
        if is_told {
            self.sessions.session_changed(&self.entry);
        }
    }

    /// Resumes a stream at a frame that the client names. Another reader of the stream ends,
    /// because a client that comes back has lost its stream.
    ///
    /// If frames are lost that the client has not seen, it gets the rest of the stream, and all
    /// lists are announced as changed. If the whole stream is lost, this is
    /// [`attach`](Self::attach). When dropped early, the stream has no reader.
    pub(crate) async fn resume(&self, stream: StreamId, next: Seq) -> StreamReceiver {
        self.follow_sender();
        let found = self.find_stream(stream, next).await;
        let attach = || Resumed { receiver: self.entry.notices().attach(), complete: false };
        let found = found.unwrap_or_else(attach);
        if !found.complete {
            self.notify_of_everything();
        }
        found.receiver
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
    ) -> Result<StreamReceiver, Refused> {
        let found = self.find_stream(stream, next).await;
        found.map(|found| found.receiver).ok_or(Refused::SessionEnded)
    }

    /// A stream of this session from the frame `next` on.
    async fn find_stream(&self, stream: StreamId, next: Seq) -> Option<Resumed> {
        self.entry.mark_seen();
        if next >= Seq::END {
            return Some(Resumed { receiver: streams::over(stream), complete: true });
        }
        let sender = match self.entry.find_stream(stream) {
            Some(sender) => sender,
            None => self.entry.earlier_stream(&self.sessions, stream).await?,
        };
        loop {
            // A weaker credential must not read what a stronger one asked for: for it, there is no
            // such stream.
            let needs = sender.needs();
            if !needs.is_empty() {
                let viewer = self.sessions.registry.viewers.viewer(&self.sender.who);
                if !needs.iter().all(|need| viewer.meets(need)) {
                    return None;
                }
            }
            let resumed = sender.resume(next).await;
            // A need that came before the reader did not end it.
            if sender.needs().len() == needs.len() {
                return Some(resumed);
            }
        }
    }

    /// Adds notices that the session's former node has received for it.
    pub(crate) async fn missed(&self, notices: Vec<SerializedFrame>) {
        self.entry.notices().add_missed(notices).await;
    }

    /// Ends the session: the next request with its id gets a 404.
    pub(crate) fn end(&self, reason: EndReason) {
        self.entry.end(&self.sessions, reason);
    }

    /// Ends the session after its client has sent everything: its listens get their results, and
    /// its calls may run on for `drain_timeout`, as during a shutdown.
    ///
    /// # Errors
    ///
    /// [`CallsLeft`] if a call cannot be cancelled, and is not answered.
    pub(crate) async fn finish(
        &self,
        reason: EndReason,
        drain_timeout: Duration,
    ) -> Result<(), CallsLeft> {
        let (sessions, entry) = (&self.sessions, &self.entry);
        let permits = entry.request_permits();
        let all = sessions.max_requests();
        // All permits of requests are free when every request was answered.
        let answered = async {
            let _leaving = LeaveWhenClosed(self);
            let _turn = entry.turn().await;
            entry.questions().close();
            entry.end_listens(sessions);
            let _permits = permits.acquire_many(all).await;
        };
        let _ = timeout(drain_timeout, answered).await;
        self.end(reason);
        // Cancelled calls answer, too, and the last of them ends the stream.
        timeout(CANCEL_GRACE, permits.acquire_many(all)).await.map(drop).map_err(|_| CallsLeft)
    }

    /// Decodes a message of the client.
    pub(crate) async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        self.sessions.calls.decode(input).await
    }

    /// Whether the engine shuts down.
    pub(crate) fn is_draining(&self) -> bool {
        self.sessions.lifecycle.is_draining()
    }

    /// Notifies the client of everything that it may have missed.
    fn notify_of_everything(&self) {
        let subscription = self.entry.state().legacy_subscription();
        let missed = subscription.iter().flat_map(|subscription| subscription.filter.everything());
        for notice in missed {
            let class = Class::of(&notice);
            self.entry.notices().notice(class, Arc::new(EncodedNotice::new(notice)), None);
        }
    }
}
