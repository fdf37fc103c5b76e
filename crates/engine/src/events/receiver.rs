//! Events for async code.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::ring::Ring;
use super::{EngineEvent, EventSubscriber, Events};
use crate::ids::SessionId;

pub(super) struct Inbox {
    state: Mutex<State>,
    reader: AtomicWaker,
}

struct State {
    ring: Ring,
    closed: bool,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { ring: Ring::new(capacity), closed: false };
        Self { state: Mutex::new(state), reader: AtomicWaker::new() }
    }
}

impl EventSubscriber for Inbox {
    fn push(&self, event: &EngineEvent) -> bool {
        {
            let mut state = self.state.lock();
            // The subscription may be closed while an event arrives: no event follows the end.
            if state.closed {
                return false;
            }
            state.ring.push(event.clone());
        }
        self.reader.wake();
        true
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.reader.wake();
    }
}

/// The events of an engine or of one session, in order; from
/// [`Engine::events`](crate::Engine::events) or [`SessionRef::events`](crate::SessionRef::events).
///
/// Also a [`Stream`]. Dropping it ends the subscription.
pub struct EventReceiver {
    inbox: Arc<Inbox>,
    events: Events,
    /// `None` for the events of all sessions.
    session: Option<SessionId>,
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReceiver").finish_non_exhaustive()
    }
}

impl EventReceiver {
    pub(super) fn new(inbox: Arc<Inbox>, events: Events, session: Option<SessionId>) -> Self {
        Self { inbox, events, session }
    }

    /// The next event; `None` once the engine has stopped, or the session has ended, and all events
    /// have been read.
    ///
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next event, if one waits already.
    pub fn try_next(&mut self) -> Option<EngineEvent> {
        self.inbox.state.lock().ring.pop()
    }

    fn poll_event(&mut self, cx: &Context<'_>) -> Poll<Option<EngineEvent>> {
        // Registered first, so that an event between the two steps wakes the reader.
        self.inbox.reader.register(cx.waker());
        let mut state = self.inbox.state.lock();
        match state.ring.pop() {
            None if !state.closed => Poll::Pending,
            ready => Poll::Ready(ready),
        }
    }
}

impl Stream for EventReceiver {
    type Item = EngineEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EngineEvent>> {
        self.poll_event(cx)
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        match &self.session {
            Some(session) => self.events.remove_of_session(session, self.inbox.as_ref()),
            None => self.events.remove(self.inbox.as_ref()),
        }
    }
}
