//! The streams of a session: how each is opened, and which are kept for a client that comes
//! back.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::EndReason;
use crate::core::Core;
use crate::ids::{Seq, SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Log, Notified, Outlet, StreamRecord, Tally, Terms, WhenGone};
use crate::task::{Cancel, CancelWhenGone};

/// The streams that a session writes to.
#[derive(Clone, Debug)]
pub(crate) enum Streams {
    /// One pipe or listen for everything.
    One(Outlet),
    /// A standalone stream for what belongs to no request; each request has its own.
    Http(Outlet),
    /// Each request has its own, and nothing else is said.
    None,
}

impl Streams {
    /// The one stream of a pipe, or of a listen, which ends with its reply. Its session ends
    /// when its reader goes away.
    pub(crate) fn one(core: &Arc<Core>, id: &SessionId, one_reply: bool) -> Self {
        let gone = Box::new(EndWhenGone(core.clone(), id.clone()));
        let terms = Terms { limits: core.config.limits, one_reply };
        let stream = StreamId::STANDALONE;
        Self::One(Outlet::new(stream, terms, core.session_tally(), WhenGone::Close(gone), None))
    }

    /// The standalone stream of a legacy HTTP session.
    pub(crate) fn http(core: &Arc<Core>, id: &SessionId) -> Self {
        let gone = Box::new(LeaveWhenGone(core.clone(), id.clone()));
        let log = log(core, id, StreamId::STANDALONE);
        let terms = Terms { limits: core.config.limits, one_reply: false };
        let stream = StreamId::STANDALONE;
        Self::Http(Outlet::new(
            stream,
            terms,
            core.session_tally(),
            WhenGone::Tell(gone),
            Some(log),
        ))
    }

    /// The standalone stream of a session that another node had.
    pub(super) fn carried_on(core: &Core, log: Log, record: StreamRecord) -> Self {
        let terms = Terms { limits: core.config.limits, one_reply: false };
        let stream = StreamId::STANDALONE;
        let outlet = Outlet::new(stream, terms, core.session_tally(), WhenGone::Wait, None);
        outlet.carry_on(log, record);
        Self::Http(outlet)
    }

    /// Where notices go.
    pub(crate) fn notices(&self) -> Option<&Outlet> {
        match self {
            Self::One(outlet) | Self::Http(outlet) => Some(outlet),
            Self::None => None,
        }
    }
}

/// The stream of one request on a legacy HTTP session. It outlives its reader: a client that
/// goes away has not cancelled. It has no log before it is kept for a client that comes back:
/// most answers are one message.
pub(super) fn of_request(core: &Core, stream: StreamId, tally: Arc<Tally>) -> Outlet {
    let terms = Terms { limits: core.config.limits, one_reply: true };
    Outlet::new(stream, terms, tally, WhenGone::Wait, None)
}

/// The stream of a modern HTTP call, which is cancelled when the client closes it.
pub(crate) fn of_stateless_call(core: &Core, cancel: &Cancel) -> Outlet {
    let terms = Terms { limits: core.config.limits, one_reply: true };
    let gone = WhenGone::Close(Box::new(CancelWhenGone(cancel.clone())));
    Outlet::new(StreamId(1), terms, core.stateless_tally.clone(), gone, None)
}

pub(super) fn log(core: &Core, session: &SessionId, stream: StreamId) -> Log {
    let retention = core.config.retention;
    Log::new(core.config.event_store.open(session, stream, retention), retention)
}

/// The log of a stream of a node that died, and the stream as it goes on: with numbers from
/// `first` on, which that node has not given out, whatever it did not get round to write.
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
        // Nothing follows an answer; else it ended with its node.
        _ => record.over(class == Class::Reply),
    };
    Some((Log::new(reopened.log, retention), record))
}

/// Tells a session that its reader is gone for good.
#[derive(Debug)]
struct EndWhenGone(Arc<Core>, SessionId);

impl Notified for EndWhenGone {
    fn notify(self: Box<Self>) {
        if let Some(entry) = self.0.directory.get(self.1.as_str()) {
            entry.end(&self.0, EndReason::Disconnected);
        }
    }
}

/// Tells that a client has gone that may have opened its session for nothing.
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

/// Ends the streams of a session when the last one drops it that may still answer on them:
/// the session itself, and each of its calls.
#[derive(Debug)]
pub(crate) struct FinishStreams(pub(super) Streams);

impl Drop for FinishStreams {
    fn drop(&mut self) {
        if let Some(outlet) = self.0.notices() {
            outlet.finish();
        }
    }
}

/// Streams of requests that a client may come back to, oldest first.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<VecDeque<Outlet>>);

impl Kept {
    /// Keeps one while its call runs, and for some calls more.
    pub(super) fn keep(&self, outlet: Outlet, answered: usize) {
        Self::put(&mut self.0.lock(), outlet, answered);
    }

    fn put(streams: &mut VecDeque<Outlet>, outlet: Outlet, answered: usize) {
        let finished = streams.iter().filter(|stream| stream.is_finished()).count();
        if finished >= answered
            && let Some(oldest) = streams.iter().position(Outlet::is_finished)
        {
            streams.remove(oldest);
        }
        streams.push_back(outlet);
    }

    /// As [`keep`](Self::keep), unless the same stream is kept already; returns the one that is.
    pub(super) fn keep_once(&self, outlet: Outlet, answered: usize) -> Outlet {
        let mut streams = self.0.lock();
        if let Some(kept) = streams.iter().find(|kept| kept.stream() == outlet.stream()) {
            // The other one goes on with the log.
            outlet.leave_log();
            return kept.clone();
        }
        Self::put(&mut streams, outlet.clone(), answered);
        outlet
    }

    pub(super) fn find(&self, stream: StreamId) -> Option<Outlet> {
        self.0.lock().iter().find(|outlet| outlet.stream() == stream).cloned()
    }

    pub(super) fn all(&self) -> Vec<Outlet> {
        self.0.lock().iter().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
