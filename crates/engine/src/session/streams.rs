//! The streams of a session: how each is opened, and which are kept for a client that reconnects.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::Core;
use crate::ids::{Seq, SessionId, StreamId};
use crate::reasons::EndReason;
use crate::task::{Cancel, CancelWhenGone};
use stentor_delivery::policy::Class;
use stentor_delivery::{Counters, Log, Notified, StreamRecord, StreamSender, Terms, WhenGone};

#[derive(Clone, Debug)]
pub(crate) enum Streams {
    /// One stream for everything: of a pipe, or of a listen.
    One(StreamSender),
    /// A standalone stream for what belongs to no request; each request has its own.
    Http(StreamSender),
    /// Each request has its own stream, and nothing else is sent.
    None,
}

impl Streams {
    /// The one stream of a pipe, or of a listen, which ends with its reply. The session ends when
    /// the reader disconnects.
    pub(crate) fn one(core: &Arc<Core>, id: &SessionId, one_reply: bool) -> Self {
        let gone = Box::new(EndWhenGone(core.clone(), id.clone()));
        let terms = Terms { limits: core.config.limits, one_reply };
        let stream = StreamId::STANDALONE;
        Self::One(StreamSender::new(
            stream,
            terms,
            core.session_counters(),
            WhenGone::Close(gone),
            None,
        ))
    }

    pub(crate) fn http(core: &Arc<Core>, id: &SessionId) -> Self {
        let gone = Box::new(LeaveWhenGone(core.clone(), id.clone()));
        let log = log(core, id, StreamId::STANDALONE);
        let terms = Terms { limits: core.config.limits, one_reply: false };
        let stream = StreamId::STANDALONE;
        Self::Http(StreamSender::new(
            stream,
            terms,
            core.session_counters(),
            WhenGone::Notify(gone),
            Some(log),
        ))
    }

    /// The standalone stream of a session that another node had.
    pub(super) fn from_record(core: &Core, log: Log, record: StreamRecord) -> Self {
        let terms = Terms { limits: core.config.limits, one_reply: false };
        let stream = StreamId::STANDALONE;
        let sender =
            StreamSender::new(stream, terms, core.session_counters(), WhenGone::Wait, None);
        sender.restore(log, record);
        Self::Http(sender)
    }

    pub(crate) fn notices(&self) -> Option<&StreamSender> {
        match self {
            Self::One(sender) | Self::Http(sender) => Some(sender),
            Self::None => None,
        }
    }
}

/// The stream of one request on a legacy HTTP session.
///
/// It outlives its reader, because a client that disconnects has not cancelled. It has no log
/// before it is kept for a client that reconnects, because most answers are one message.
pub(super) fn of_request(core: &Core, stream: StreamId, counters: Arc<Counters>) -> StreamSender {
    let terms = Terms { limits: core.config.limits, one_reply: true };
    StreamSender::new(stream, terms, counters, WhenGone::Wait, None)
}

/// The stream of a modern HTTP call, which is cancelled when the client closes it.
pub(crate) fn of_stateless_call(core: &Core, cancel: &Cancel) -> StreamSender {
    let terms = Terms { limits: core.config.limits, one_reply: true };
    let gone = WhenGone::Close(Box::new(CancelWhenGone(cancel.clone())));
    StreamSender::new(StreamId(1), terms, core.stateless_counters.clone(), gone, None)
}

pub(super) fn log(core: &Core, session: &SessionId, stream: StreamId) -> Log {
    let retention = core.config.retention;
    Log::new(core.config.event_store.open(session, stream, retention), retention)
}

/// Reopens the log of a stream whose node died, and continues the stream. Its numbers go on at
/// `first`, above all numbers that the node gave out, even those that it had not written yet.
pub(crate) async fn reopen(
    core: &Core,
    session: &SessionId,
    stream: StreamId,
    first: Seq,
) -> Option<(Log, StreamRecord)> {
    let retention = core.config.retention;
    let reopened = core.config.event_store.reopen(session, stream, retention).await?;
    let (last, class) = reopened.last;
    let record = StreamRecord::begins_at(stream, first.max(Seq(last.0 + 1)));
    let record = match stream {
        StreamId::STANDALONE => record,
        // Nothing follows an answer. A stream without an answer ended with its node.
        _ => record.over(class == Class::Reply),
    };
    Some((Log::new(reopened.log, retention), record))
}

/// Ends a session when its reader has disconnected for good.
#[derive(Debug)]
struct EndWhenGone(Arc<Core>, SessionId);

impl Notified for EndWhenGone {
    fn notify(self: Box<Self>) {
        if let Some(entry) = self.0.directory.get(self.1.as_str()) {
            entry.end(&self.0, EndReason::Disconnected);
        }
    }
}

/// Counts a session as left when its client disconnects and has not used it.
#[derive(Debug)]
struct LeaveWhenGone(Arc<Core>, SessionId);

impl Notified for LeaveWhenGone {
    fn notify(self: Box<Self>) {
        let core = &self.0;
        if let Some(entry) = core.directory.get(self.1.as_str())
            && entry.unused_since().is_some()
            && let Some(oldest) = core.directory.leave(&entry, core.config.max_left_sessions)
        {
            oldest.end(core, EndReason::Unused);
        }
    }
}

/// Ends the streams of a session when the last owner that may still answer on them drops it. Owners
/// are the session itself, and each of its calls.
#[derive(Debug)]
pub(crate) struct FinishStreams(pub(super) Streams);

impl Drop for FinishStreams {
    fn drop(&mut self) {
        if let Some(sender) = self.0.notices() {
            sender.finish();
        }
    }
}

/// Streams of requests that a client may resume, oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<StreamSender>>);

impl Kept {
    /// Keeps a stream while its call runs, and after that among the last `answered` ones.
    pub(super) fn keep(&self, sender: StreamSender, answered: usize) {
        Self::put(&mut self.0.lock(), sender, answered);
    }

    fn put(streams: &mut VecDeque<StreamSender>, sender: StreamSender, answered: usize) {
        let finished = streams.iter().filter(|stream| stream.is_finished()).count();
        if finished >= answered
            && let Some(oldest) = streams.iter().position(StreamSender::is_finished)
        {
            streams.remove(oldest);
        }
        streams.push_back(sender);
    }

    /// Like [`keep`](Self::keep), unless the same stream is kept already. Returns the kept stream.
    pub(super) fn keep_once(&self, sender: StreamSender, answered: usize) -> StreamSender {
        let mut streams = self.0.lock();
        if let Some(kept) = streams.iter().find(|kept| kept.stream_id() == sender.stream_id()) {
            // The kept stream continues the log.
            sender.leave_log();
            return kept.clone();
        }
        Self::put(&mut streams, sender.clone(), answered);
        sender
    }

    pub(super) fn find(&self, stream: StreamId) -> Option<StreamSender> {
        self.0.lock().iter().find(|sender| sender.stream_id() == stream).cloned()
    }

    pub(super) fn all(&self) -> Vec<StreamSender> {
        self.0.lock().iter().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
