//! A session on its way to another node: all that its client would miss.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Streams;
use super::caller::Caller;
use super::entry::{SessionEntry, SessionKind};
use super::state::SessionState;
use super::streams::reopen;
use super::streams::{self, Kept};
use crate::core::Core;
use crate::directory::Seat;
use crate::ids::{Seq, SessionId, StreamId};
use crate::outlet::{Log, Outlet, StreamRecord};
use crate::peers::Sender;
use crate::shares::Share;
use crate::task::CancelReason;
use stentor_wire::{ErrorObject, Id, encode};
use tokio::time::{Duration, timeout};

/// A legacy session over HTTP, to be carried on elsewhere: who it is, what it hears, and what its
/// client has not read or may want to read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    pub(crate) id: SessionId,
    pub(super) principal: Option<Arc<str>>,
    pub(super) client: Sender,
    pub(super) initialized: bool,
    pub(super) watched: Vec<Arc<str>>,
    pub(super) next_stream: u64,
    /// Calls that run, and the streams that answer them: for the case that their node dies.
    #[serde(default)]
    pub(super) unanswered: Vec<(u64, Id)>,
    /// How often it has moved to another node.
    #[serde(default)]
    pub(super) moves: u64,
    /// The stream of its notices.
    pub(super) notices: StreamRecord,
    /// Streams of requests that its client may come back to.
    pub(super) kept: Vec<StreamRecord>,
}

impl SessionRecord {
    /// The session's name.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Who opened it; `None` is who came without a principal. It is nobody else's.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// How often it has moved from one node to another.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// The same, after so many moves. For stores that give it to another node.
    #[must_use]
    pub fn with_moves(mut self, moves: u64) -> Self {
        self.moves = moves;
        self
    }

    /// It is more than can be sent. At first it goes without what its client has read: who comes back
    /// for that is told that it may have missed something. Then the largest answer that was not read
    /// becomes an error, or the largest message is left out. `false` if nothing can be left out any more.
    pub fn leave_out_some(&mut self) -> bool {
        let streams = self.kept.iter_mut().chain([&mut self.notices]);
        let past = streams.fold(false, |some, stream| stream.forget_past() | some);
        let streams = self.kept.iter_mut().chain([&mut self.notices]);
        past || streams
            .max_by_key(|stream| stream.largest_unread())
            .is_some_and(StreamRecord::leave_out_largest)
    }
}

impl SessionEntry {
    /// Takes out all that the session is, to be carried on elsewhere: what is under way may end
    /// within this time. It goes on to hear notices, which are lost if nobody takes them. `None` if
    /// its client has not said who it is.
    ///
    /// To be called once nobody finds it any more. When dropped early, it may be of no use.
    pub(crate) async fn hand_over(&self, core: &Core, patience: Duration) -> Option<SessionRecord> {
        let all = u32::try_from(core.config.max_requests()).unwrap_or(u32::MAX);
        if timeout(patience, self.permits().acquire_many(all)).await.is_err() {
            self.calls().cancel_all(&CancelReason::Shutdown);
            // Each is answered by its end, which may be read elsewhere.
            let _ = timeout(crate::engine::LAST_MOMENT, self.permits().acquire_many(all)).await;
        }
        let (client, initialized, watched) = {
            let state = self.state();
            let client = Sender::from(state.legacy()?);
            (client, state.is_initialized(), state.watched().cloned().collect())
        };
        let notices = self.streams().notices()?.hand_over().await;
        let mut kept = Vec::new();
        for stream in self.kept().all() {
            kept.push(stream.hand_over().await);
        }
        Some(SessionRecord {
            id: self.id().clone(),
            principal: self.principal().cloned(),
            client,
            initialized,
            watched,
            next_stream: self.next_stream(),
            unanswered: Vec::new(),
            moves: self.moves() + 1,
            notices,
            kept,
        })
    }

    /// What identifies the session, without its streams. `None` if its client has not said who it
    /// is.
    pub(super) fn record(&self) -> Option<SessionRecord> {
        let running = self.kept().all().into_iter().filter(|stream| !stream.is_finished());
        let unanswered =
            running.filter_map(|stream| Some((stream.stream().0, stream.request()?.clone())));
        let unanswered = unanswered.collect();
        let state = self.state();
        Some(SessionRecord {
            id: self.id().clone(),
            principal: self.principal().cloned(),
            client: Sender::from(state.legacy()?),
            initialized: state.is_initialized(),
            watched: state.watched().cloned().collect(),
            next_stream: self.next_stream(),
            unanswered,
            moves: self.moves(),
            notices: StreamRecord::begins_at(StreamId::STANDALONE, Seq(0)),
            kept: Vec::new(),
        })
    }

    /// A session whose node died: its streams go on as the store of events has them, or begin
    /// again. Their numbers, and the names of new ones, are above all that the other node gave out,
    /// which the store need not know.
    pub(crate) async fn claimed(core: &Core, mut record: SessionRecord, seat: Seat) -> Self {
        let first = record.moves.saturating_mul(NUMBERS_PER_NODE);
        record.next_stream = record.next_stream.max(first);
        let (stream, next) = (StreamId::STANDALONE, Seq(first));
        let reopened = reopen(core, &record.id, stream, next).await;
        let (log, notices) = reopened.unwrap_or_else(|| {
            (streams::log(core, &record.id, stream), StreamRecord::begins_at(stream, next))
        });
        record.notices = notices;
        let unanswered = std::mem::take(&mut record.unanswered);
        Self::with_log(core, record, seat, log).with_first_stream(first, unanswered)
    }

    /// The stream of a request to the node that had the session before and died, as far as the
    /// store has it. A call that ran there has ended, which is its answer.
    pub(crate) async fn earlier_stream(&self, core: &Core, stream: StreamId) -> Option<Outlet> {
        if stream.0 >= self.first_stream() {
            return None;
        }
        let first = Seq(self.first_stream());
        let (log, mut record) = match reopen(core, self.id(), stream, first).await {
            Some(reopened) => reopened,
            // Nothing was said on it.
            None if self.unanswered(stream).is_some() => {
                let record = StreamRecord::begins_at(stream, first).over(false);
                (streams::log(core, self.id(), stream), record)
            }
            None => return None,
        };
        if let Some(request) = self.unanswered(stream).filter(|_| !record.is_whole()) {
            let error = ErrorObject::unavailable("the node that ran the call has gone");
            record = record.answered(encode::error(Some(request), &error), Some(error.code));
        }
        let outlet = streams::of_request(core, record.id(), self.tally());
        outlet.carry_on(log, record);
        Some(self.kept().keep_once(outlet, core.config.kept_streams))
    }

    /// The session that another node had.
    pub(crate) fn carried_on(core: &Core, record: SessionRecord, seat: Seat) -> Self {
        let log = streams::log(core, &record.id, StreamId::STANDALONE);
        Self::with_log(core, record, seat, log)
    }

    fn with_log(core: &Core, record: SessionRecord, seat: Seat, notices: Log) -> Self {
        let SessionRecord { id, principal, client, initialized, watched, .. } = record;
        let streams = Streams::carried_on(core, notices, record.notices);
        let max = core.config.max_subscriptions;
        let state = SessionState::carried_on(
            id.clone(),
            max,
            Caller::of_peer(client),
            initialized,
            watched,
            &core.session_meter(&Share::of(principal.as_ref(), Some(&id), None)),
        );
        let kind = SessionKind::Http;
        let entry = Self::new(core, id.clone(), kind, streams, state, principal, Some(seat))
            .with_next_stream(record.next_stream)
            .with_moves(record.moves);
        entry.presence().used();
        let terms = |stream: &StreamRecord| streams::of_request(core, stream.id(), entry.tally());
        let kept = record.kept.into_iter().map(|stream| {
            let outlet = terms(&stream);
            outlet.carry_on(streams::log(core, &id, stream.id()), stream);
            outlet
        });
        entry.kept().restore(kept.collect());
        entry
    }
}

/// Streams, and frames of one stream, that a node gives out at most while it has a session: numbers
/// of the next node begin above them.
const NUMBERS_PER_NODE: u64 = 1 << 32;

impl Kept {
    fn restore(&self, streams: Vec<crate::outlet::Outlet>) {
        for stream in streams {
            self.keep(stream, usize::MAX);
        }
    }
}
