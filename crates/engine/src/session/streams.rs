//! The streams of a session: how each is opened, and which are kept for a client that reconnects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use stentor_delivery::policy::Class;
use stentor_delivery::{
    Counters, Delivered, Log, Next, Notified, RemoteSource, StreamReceiver, StreamRecord,
    StreamSender, Terms, WhenGone,
};

use crate::ids::{Seq, SessionId, StreamId};
use crate::reasons::EndReason;
use crate::session::Sessions;

/// The one stream of a pipe, or of a listen, which ends with its reply. The session ends when the
/// reader disconnects.
pub(super) fn of_one(sessions: &Arc<Sessions>, id: &SessionId, one_reply: bool) -> StreamSender {
    let gone = Box::new(EndWhenGone(sessions.clone(), id.clone()));
    let terms = sessions.streams.terms(one_reply);
    let (stream, gone) = (StreamId::STANDALONE, WhenGone::Close(gone));
    StreamSender::new(stream, terms, sessions.streams.session_counters(), gone, None)
}

/// The stream of an extension's stream method, which ends with its reply.
pub(super) fn of_extension(sessions: &Arc<Sessions>, id: &SessionId) -> StreamSender {
    let gone = Box::new(EndWhenGone(sessions.clone(), id.clone()));
    let terms = Terms { heartbeats: true, ..sessions.streams.terms(true) };
    let (stream, gone) = (StreamId::STANDALONE, WhenGone::Close(gone));
    StreamSender::new(stream, terms, sessions.streams.session_counters(), gone, None)
}

/// The standalone stream of a legacy HTTP session, for what belongs to no request; each request has
/// a stream of its own.
pub(super) fn of_http(sessions: &Arc<Sessions>, id: &SessionId) -> StreamSender {
    let gone = Box::new(LeaveWhenGone(sessions.clone(), id.clone()));
    let terms = sessions.streams.terms(false);
    let (stream, gone) = (StreamId::STANDALONE, WhenGone::Notify(gone));
    let log = log(sessions, id, stream);
    StreamSender::new(stream, terms, sessions.streams.session_counters(), gone, Some(log))
}

/// The standalone stream of a session that another node had.
pub(super) fn from_record(sessions: &Sessions, log: Log, record: StreamRecord) -> StreamSender {
    let terms = sessions.streams.terms(false);
    let stream = StreamId::STANDALONE;
    let counters = sessions.streams.session_counters();
    let sender = StreamSender::new(stream, terms, counters, WhenGone::Wait, None);
    sender.restore(log, record);
    sender
}

/// The stream of one request on a legacy HTTP session.
///
/// It outlives its reader, because a client that disconnects has not cancelled. It has no log
/// before it is kept for a client that reconnects, because most answers are one message.
pub(super) fn of_request(
    sessions: &Sessions,
    stream: StreamId,
    counters: Arc<Counters>,
) -> StreamSender {
    let terms = sessions.streams.terms(true);
    StreamSender::new(stream, terms, counters, WhenGone::Wait, None)
}

pub(super) fn log(sessions: &Sessions, session: &SessionId, stream: StreamId) -> Log {
    let retention = sessions.streams.retention;
    Log::new(sessions.streams.event_store.open(session, stream, retention), retention)
}

/// Reopens the log of a stream whose node died, and continues the stream. Its numbers go on at
/// `first`, above all numbers that the node gave out, even those that it had not written yet.
pub(crate) async fn reopen(
    sessions: &Sessions,
    session: &SessionId,
    stream: StreamId,
    first: Seq,
) -> Option<(Log, StreamRecord)> {
    let retention = sessions.streams.retention;
    let reopened = sessions.streams.event_store.reopen(session, stream, retention).await?;
    let (last, class) = reopened.last;
    let record = StreamRecord::begins_at(stream, first.max(Seq(last.0 + 1)));
    let record = match stream {
        StreamId::STANDALONE => record,
        // Nothing follows an answer. A stream without an answer ended with its node.
        _ => record.over(class == Class::Reply),
    };
    Some((Log::new(reopened.log, retention), record))
}

/// A stream that its client has read to the end.
#[derive(Debug)]
struct Over(StreamId);

impl RemoteSource for Over {
    fn stream_id(&self) -> StreamId {
        self.0
    }

    fn next_seq(&self) -> Option<Seq> {
        None
    }

    fn is_drained(&self) -> bool {
        true
    }

    fn poll_next(&mut self, _cx: &mut Context<'_>, _batch: &mut Vec<Delivered>) -> Poll<Next> {
        Poll::Ready(Next::End)
    }
}

/// The receiver of a stream that its client has read to the end.
pub(super) fn over(stream: StreamId) -> StreamReceiver {
    StreamReceiver::remote(Over(stream))
}

/// Ends a session when its reader has disconnected for good.
#[derive(Debug)]
struct EndWhenGone(Arc<Sessions>, SessionId);

impl Notified for EndWhenGone {
    fn notify(self: Box<Self>) {
        if let Some(entry) = self.0.directory.get(self.1.as_str()) {
            entry.end(&self.0, EndReason::Disconnected);
        }
    }
}

/// Counts a session as left when its client disconnects and has not used it.
#[derive(Debug)]
struct LeaveWhenGone(Arc<Sessions>, SessionId);

impl Notified for LeaveWhenGone {
    fn notify(self: Box<Self>) {
        let sessions = &self.0;
        if let Some(entry) = sessions.directory.get(self.1.as_str())
            && entry.unused_since().is_some()
            && let Some(oldest) =
                sessions.directory.leave(&entry, sessions.config.max_left_sessions)
        {
            oldest.end(sessions, EndReason::Unused);
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
        Self::drop_oldest(streams, answered.saturating_sub(1));
        streams.push_back(sender);
    }

    /// Drops the oldest answered streams down to this number. Calls end without telling, so this has
    /// to be called regularly.
    pub(super) fn trim(&self, answered: usize) {
        let mut streams = self.0.lock();
        if streams.len() > answered {
            Self::drop_oldest(&mut streams, answered);
        }
    }

    fn drop_oldest(streams: &mut VecDeque<StreamSender>, answered: usize) {
        let finished = streams.iter().filter(|stream| stream.is_finished()).count();
        let mut too_many = finished.saturating_sub(answered);
        streams.retain(|stream| {
            let dropped = too_many > 0 && stream.is_finished();
            too_many -= usize::from(dropped);
            !dropped
        });
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
