//! The record of a session for another node: everything that its client would miss without it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stentor_delivery::{Log, StreamRecord, StreamSender};
use stentor_wire::model::JsonObject;
use stentor_wire::{ErrorObject, Id, encode};
use tokio::time::{Duration, timeout};

use super::entry::SessionEntry;
use super::state::SessionState;
use super::streams::{self, Kept, reopen};
use crate::caller::{Caller, RemoteCaller};
use crate::identity::Owner;
use crate::ids::{Seq, SessionId, StreamId};
use crate::reasons::{CancelReason, SessionKind};
use crate::session::Sessions;
use crate::session::directory::SessionPermit;
use crate::shares::Share;

/// A legacy session over HTTP, as another node continues it: its client, its subscriptions, and the
/// frames that its client has not read or may read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    pub(crate) id: SessionId,
    #[serde(flatten)]
    pub(super) owner: Owner,
    pub(super) client: RemoteCaller,
    pub(super) initialized: bool,
    pub(super) watched: Vec<Arc<str>>,
    pub(super) next_stream: u64,
    /// Calls that run, and the ids of the streams that answer them, in case their node dies.
    #[serde(default)]
    pub(super) unanswered: Vec<(u64, Id)>,
    /// What the reader of a stream has to have, by its id, in case their node dies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<(u64, Vec<Arc<str>>)>,
    #[serde(default)]
    pub(super) moves: u64,
    pub(super) notices: StreamRecord,
    /// Streams of requests that the client may resume.
    pub(super) kept: Vec<StreamRecord>,
}

impl SessionRecord {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Who opened the session. Nobody else may use it.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// How often the session has moved from one node to another.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Sets the number of moves. For stores that give the session to another node.
    #[must_use]
    pub fn with_moves(mut self, moves: u64) -> Self {
        self.moves = moves;
        self
    }

    /// Makes a record smaller that is too large to be sent.
    ///
    /// The first call removes the frames that the client has read: a client that wants to read them
    /// again is notified that it may have missed something. Each later call turns the largest
    /// unread answer into an error, or removes the largest message. `false` if nothing can be
    /// removed any more.
    pub fn leave_out_some(&mut self) -> bool {
        let streams = self.kept.iter_mut().chain([&mut self.notices]);
        let past = streams.fold(false, |some, stream| stream.forget_past() | some);
        let streams = self.kept.iter_mut().chain([&mut self.notices]);
        past || streams
            .max_by_key(|stream| stream.largest_unread())
            .and_then(StreamRecord::leave_out_largest)
            .inspect(|bytes| crate::log::left_out(*bytes))
            .is_some()
    }
}

/// The client of a session, with the rights of its last request. `None` before `initialize`.
fn client_of(state: &SessionState) -> Option<RemoteCaller> {
    // A store is no place for claims, and labels are to be those of then.
    let who = state.who.map(|identity| identity.claims(JsonObject::new()).without_carried());
    Some(RemoteCaller::from(&state.legacy()?.clone().with_who(who)))
}

impl SessionEntry {
    /// Takes everything out of the session, so that another node can continue it.
    ///
    /// Running calls may end within `drain_timeout`. The session still receives notices, which are
    /// lost if nobody takes them. `None` before `initialize`.
    ///
    /// Must be called after lookups no longer find the session. When dropped early, the session may
    /// be of no use.
    pub(crate) async fn migrate(
        &self,
        sessions: &Sessions,
        drain_timeout: Duration,
    ) -> Option<SessionRecord> {
        let all = sessions.max_requests();
        if timeout(drain_timeout, self.request_permits().acquire_many(all)).await.is_err() {
            self.calls().cancel_all(&CancelReason::Shutdown);
            // A cancelled call answers as it ends. The client may read the answer on the other
            // node.
            let _ =
                timeout(crate::lifecycle::CANCEL_GRACE, self.request_permits().acquire_many(all))
                    .await;
        }
        let (client, initialized, watched) = {
            let state = self.state();
            let client = client_of(&state)?;
            (client, state.is_initialized(), state.watched().cloned().collect())
        };
        let notices = self.notices().migrate().await;
        let mut kept = Vec::new();
        for stream in self.kept().all() {
            kept.push(stream.migrate().await);
        }
        Some(SessionRecord {
            id: self.id().clone(),
            owner: self.owner().clone(),
            client,
            initialized,
            watched,
            next_stream: self.next_stream(),
            unanswered: Vec::new(),
            needs: Vec::new(),
            moves: self.moves() + 1,
            notices,
            kept,
        })
    }

    /// The identity of the session, without its streams. `None` before `initialize`.
    pub(super) fn record(&self) -> Option<SessionRecord> {
        let running = self.kept().all().into_iter().filter(|stream| !stream.is_finished());
        let unanswered =
            running.filter_map(|stream| Some((stream.stream_id().0, stream.request()?.clone())));
        let unanswered = unanswered.collect();
        let needs = self.kept().all().into_iter().filter_map(|stream| {
            let needs = stream.needs();
            (!needs.is_empty()).then(|| (stream.stream_id().0, needs))
        });
        let needs = needs.collect();
        let state = self.state();
        Some(SessionRecord {
            id: self.id().clone(),
            owner: self.owner().clone(),
            client: client_of(&state)?,
            initialized: state.is_initialized(),
            watched: state.watched().cloned().collect(),
            next_stream: self.next_stream(),
            unanswered,
            needs,
            moves: self.moves(),
            notices: StreamRecord::begins_at(StreamId::STANDALONE, Seq(0)),
            kept: Vec::new(),
        })
    }

    /// Continues a session whose node died.
    ///
    /// Its streams continue as the event store contains them, or begin again. New frame numbers and
    /// new stream ids are above all that the other node gave out, even those that the store does
    /// not know.
    pub(crate) async fn taken_over(
        sessions: &Sessions,
        mut record: SessionRecord,
        permit: SessionPermit,
    ) -> Self {
        let first = record.moves.saturating_mul(NUMBERS_PER_NODE);
        record.next_stream = record.next_stream.max(first);
        let (stream, next) = (StreamId::STANDALONE, Seq(first));
        let reopened = reopen(sessions, &record.id, stream, next).await;
        let (log, notices) = reopened.unwrap_or_else(|| {
            (streams::log(sessions, &record.id, stream), StreamRecord::begins_at(stream, next))
        });
        record.notices = notices;
        let unanswered = std::mem::take(&mut record.unanswered);
        let needs = std::mem::take(&mut record.needs);
        Self::with_log(sessions, record, permit, log).with_first_stream(first, unanswered, needs)
    }

    /// The stream of a request to the node that had the session before and died, as far as the
    /// event store contains it. A call that ran there has ended, and is answered with an error.
    pub(crate) async fn earlier_stream(
        &self,
        sessions: &Sessions,
        stream: StreamId,
    ) -> Option<StreamSender> {
        if stream.0 >= self.first_stream() {
            return None;
        }
        let first = Seq(self.first_stream());
        let (log, mut record) = match reopen(sessions, self.id(), stream, first).await {
            Some(reopened) => reopened,
            // Nothing was written to the stream.
            None if self.unanswered(stream).is_some() => {
                let record = StreamRecord::begins_at(stream, first).over(false);
                (streams::log(sessions, self.id(), stream), record)
            }
            None => return None,
        };
        if let Some(request) = self.unanswered(stream).filter(|_| !record.is_whole()) {
            let error = ErrorObject::unavailable("the node that ran the call has gone");
            record = record.answered(encode::error(Some(request), &error), Some(error.code));
        }
        let sender = streams::of_request(sessions, record.id(), self.counters());
        self.needs_of(stream).for_each(|need| sender.need(need));
        sender.restore(log, record);
        Some(self.kept().keep_once(sender, sessions.config.kept_streams))
    }

    /// Continues a session that another node had.
    pub(crate) fn from_record(
        sessions: &Sessions,
        record: SessionRecord,
        permit: SessionPermit,
    ) -> Self {
        let log = streams::log(sessions, &record.id, StreamId::STANDALONE);
        Self::with_log(sessions, record, permit, log)
    }

    fn with_log(
        sessions: &Sessions,
        record: SessionRecord,
        permit: SessionPermit,
        notices: Log,
    ) -> Self {
        let SessionRecord { id, client, initialized, watched, .. } = record;
        let who = client.who.clone();
        let notices = streams::from_record(sessions, notices, record.notices);
        let max = sessions.config.max_subscriptions;
        let state = SessionState::from_record(
            id.clone(),
            max,
            Caller::from(client),
            initialized,
            watched,
            &sessions.calls.requests.session_meter(&Share::of(who.principal(), Some(&id), None)),
        );
        let kind = SessionKind::Http;
        let entry = Self::new(sessions, id.clone(), kind, notices, state, who, permit)
            .with_next_stream(record.next_stream)
            .with_moves(record.moves);
        entry.mark_used();
        let open =
            |stream: &StreamRecord| streams::of_request(sessions, stream.id(), entry.counters());
        let kept = record.kept.into_iter().map(|stream| {
            let sender = open(&stream);
            sender.restore(streams::log(sessions, &id, stream.id()), stream);
            sender
        });
        entry.kept().restore(kept.collect());
        entry
    }
}

/// The most streams, and the most frames of one stream, that a node gives out while it has a
/// session. The numbers of the next node begin above them.
const NUMBERS_PER_NODE: u64 = 1 << 32;

impl Kept {
    fn restore(&self, streams: Vec<stentor_delivery::StreamSender>) {
        for stream in streams {
            self.keep(stream, usize::MAX);
        }
    }
}
