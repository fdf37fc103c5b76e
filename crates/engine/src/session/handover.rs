//! A session on its way to another node: all that its client would miss.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Streams;
use super::caller::Caller;
use super::entry::{SessionEntry, SessionKind};
use super::state::SessionState;
use super::streams::{self, Kept};
use crate::core::Core;
use crate::directory::Seat;
use crate::ids::SessionId;
use crate::outlet::StreamRecord;
use crate::peers::Sender;
use crate::task::CancelReason;
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

    /// Without what its client has read: who comes back for that is told that it may have missed
    /// something.
    #[must_use]
    pub fn without_past(mut self) -> Self {
        for stream in self.kept.iter_mut().chain([&mut self.notices]) {
            stream.forget_past();
        }
        self
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
            notices,
            kept,
        })
    }

    /// The session that another node had.
    pub(crate) fn carried_on(core: &Core, record: SessionRecord, seat: Seat) -> Self {
        let SessionRecord { id, principal, client, initialized, watched, .. } = record;
        let streams = Streams::carried_on(core, &id, record.notices);
        let max = core.config.max_subscriptions;
        let state = SessionState::carried_on(
            id.clone(),
            max,
            Caller::of_peer(client),
            initialized,
            watched,
        );
        let kind = SessionKind::Http;
        let entry = Self::new(core, id.clone(), kind, streams, state, principal, Some(seat))
            .with_next_stream(record.next_stream);
        entry.used();
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

impl Kept {
    fn restore(&self, streams: Vec<crate::outlet::Outlet>) {
        for stream in streams {
            self.keep(stream, usize::MAX);
        }
    }
}
