//! Events: what happens in an engine, for subscribers that never delay it.
//!
//! Each subscriber has a ring of its own. The engine writes an event into the ring and goes on.
//! When the ring is full, the oldest event is dropped, and the subscriber receives how many it
//! missed.

mod batch;
mod losses;
mod receiver;
mod reported;
mod ring;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use ractor::ActorRef;
use stentor_delivery::policy::Class;
use stentor_wire::model::Implementation;
use stentor_wire::{ListKind, Method, ProtocolVersion};

use crate::ids::{NodeId, Revision, SessionId};
use crate::items::Conflict;
use crate::reasons::{CallOutcome, CallRef, CancelReason, EndReason, SessionKind};
use batch::ActorSubscriber;
pub use batch::EventBatch;
pub(crate) use losses::report_losses;
pub use receiver::EventReceiver;
use receiver::Inbox;
pub use reported::ExtensionEvent;

/// An event of an engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EngineEvent {
    /// A client opened a session.
    SessionOpened {
        /// The session's id.
        session: SessionId,
        /// The kind of client that the session serves.
        kind: SessionKind,
        /// The principal of the session, if the transport knows it.
        principal: Option<Arc<str>>,
    },
    /// A legacy client initialized its session.
    SessionInitialized {
        /// The session.
        session: SessionId,
        /// The negotiated version.
        version: ProtocolVersion,
        /// The client, as it describes itself.
        client: Option<Arc<Implementation>>,
    },
    /// A session ended.
    SessionClosed {
        /// The session's id.
        session: SessionId,
        /// Why it ended.
        reason: EndReason,
    },
    /// The actor of a session failed.
    SessionCrashed {
        /// The session.
        session: SessionId,
    },
    /// A session that had crashed is served by a new actor.
    SessionRestarted {
        /// The session.
        session: SessionId,
    },
    /// A call began.
    CallStarted {
        /// The call.
        call: CallRef,
        /// The method of the request.
        method: Method,
    },
    /// A call reported progress.
    CallProgressed {
        /// The call.
        call: CallRef,
        /// The progress so far.
        progress: f64,
        /// The total, if the call knows it.
        total: Option<f64>,
    },
    /// A call was answered.
    CallFinished {
        /// The call.
        call: CallRef,
        /// What the response contains.
        outcome: CallOutcome,
        /// How long the call took.
        took: Duration,
    },
    /// A call was cancelled before its code returned.
    CallCancelled {
        /// The call.
        call: CallRef,
        /// Why it was cancelled.
        reason: CancelReason,
        /// How long the call had run.
        took: Duration,
    },
    /// Lists of the catalog changed. Readers already see the new lists.
    CatalogChanged {
        /// The latest revision.
        revision: Revision,
        /// The lists that differ.
        lists: Vec<ListKind>,
    },
    /// Nodes of a cluster now define an item differently.
    CatalogConflict {
        /// The item, and the nodes with another definition.
        conflict: Conflict,
    },
    /// An actor that serves all clients failed, and a new one replaced it.
    ActorRestarted {
        /// `"registry"` or `"hub"`.
        actor: &'static str,
    },
    /// Frames were dropped because their client fell behind.
    FramesDropped {
        /// The session of the stream; `None` if the stream belongs to no session.
        session: Option<SessionId>,
        /// The class of the frames.
        class: Class,
        /// How many.
        count: u64,
    },
    /// Streams were closed because their client stopped reading them.
    StreamsClosed {
        /// The session of the streams; `None` if they belong to no session.
        session: Option<SessionId>,
        /// How many.
        count: u64,
    },
    /// Something has become of another node of the cluster.
    PeerChanged {
        /// The node.
        node: NodeId,
        /// What.
        change: PeerChange,
    },
    /// An extension reports something of its own.
    Extension {
        /// The identifier of the extension.
        identifier: Arc<str>,
        /// What it reports: a type of the extension.
        event: ExtensionEvent,
    },
    /// This many events were dropped here because the subscriber was slow.
    Missed(u64),
    /// The engine has stopped. No event follows.
    Stopped,
}

/// What has become of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PeerChange {
    /// There is a link to it.
    Connected,
    /// The link is gone: it froze, the network is broken, or it ended.
    Disconnected,
    /// It has left, or was given up. What it offered is gone.
    Gone,
}

impl EngineEvent {
    /// The session that the event is about, also if it is about a call of that session.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match self {
            Self::SessionOpened { session, .. }
            | Self::SessionInitialized { session, .. }
            | Self::SessionClosed { session, .. }
            | Self::SessionCrashed { session }
            | Self::SessionRestarted { session } => Some(session),
            Self::CallStarted { call, .. }
            | Self::CallProgressed { call, .. }
            | Self::CallFinished { call, .. }
            | Self::CallCancelled { call, .. } => call.session.as_ref(),
            Self::FramesDropped { session, .. } | Self::StreamsClosed { session, .. } => {
                session.as_ref()
            }
            Self::CatalogChanged { .. }
            | Self::CatalogConflict { .. }
            | Self::ActorRestarted { .. }
            | Self::PeerChanged { .. }
            | Self::Extension { .. }
            | Self::Missed(_)
            | Self::Stopped => None,
        }
    }
}

trait EventSubscriber: Send + Sync {
    /// Passes an event on without waiting; `false` if the subscriber has ended.
    fn push(&self, event: &EngineEvent) -> bool;

    fn close(&self);
}

type Subscribers = Vec<Arc<dyn EventSubscriber>>;

/// The subscribers of one engine. Empty once the engine has stopped. Clones share them.
#[derive(Clone)]
pub(crate) struct Events(Arc<Shared>);

struct Shared {
    subscribers: ArcSwapOption<Subscribers>,
    /// The subscribers of the events of one session.
    of_sessions: DashMap<SessionId, Subscribers, RandomState>,
    /// Whether there may be subscribers. Each event checks this, and usually there are none.
    any: AtomicBool,
}

impl Default for Events {
    fn default() -> Self {
        let subscribers = ArcSwapOption::from_pointee(Subscribers::new());
        let (of_sessions, any) = (DashMap::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { subscribers, of_sessions, any }))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscribers = self.0.subscribers.load().as_deref().map(Vec::len);
        f.debug_struct("Events").field("subscribers", &subscribers).finish()
    }
}

impl Events {
    /// Sends an event to every subscriber. Never waits; without a subscriber the event is not made.
    ///
    /// Not to be called under a lock: a subscriber may run the host's code.
    #[inline]
    pub(crate) fn emit(&self, make: impl FnOnce() -> EngineEvent) {
        if self.0.any.load(Ordering::Acquire) {
            self.deliver(make);
        }
    }

    fn deliver(&self, make: impl FnOnce() -> EngineEvent) {
        let subscribers = self.0.subscribers.load();
        let subscribers = subscribers.as_deref().map(Vec::as_slice).unwrap_or_default();
        if subscribers.is_empty() && self.0.of_sessions.is_empty() {
            return;
        }
        let event = make();
        for subscriber in subscribers {
            if !subscriber.push(&event) {
                self.remove(subscriber.as_ref());
            }
        }
        if let EngineEvent::SessionClosed { session, .. } = &event {
            self.close_session(session, &event);
        } else if let Some(session) = event.session() {
            self.deliver_to_session(session, &event);
        }
    }

    fn deliver_to_session(&self, session: &SessionId, event: &EngineEvent) {
        // Cloned, because a subscriber may run the host's code.
        let subscribers = self.0.of_sessions.get(session).map(|found| found.value().clone());
        for subscriber in subscribers.into_iter().flatten() {
            if !subscriber.push(event) {
                self.remove_of_session(session, subscriber.as_ref());
            }
        }
    }

    /// Ends the subscriptions to a session with this last event.
    fn close_session(&self, session: &SessionId, last: &EngineEvent) {
        let removed = self.0.of_sessions.remove(session);
        for subscriber in removed.into_iter().flat_map(|(_, subscribers)| subscribers) {
            subscriber.push(last);
            subscriber.close();
        }
    }

    /// Ends all subscriptions, and those that are added later: the engine has stopped.
    pub(crate) fn close(&self) {
        self.emit(|| EngineEvent::Stopped);
        for subscriber in self.0.subscribers.swap(None).iter().flat_map(|all| all.iter()) {
            subscriber.close();
        }
        let sessions: Vec<_> = self.0.of_sessions.iter().map(|it| it.key().clone()).collect();
        for session in sessions {
            self.close_session(&session, &EngineEvent::Stopped);
        }
    }

    fn add(&self, subscriber: Arc<dyn EventSubscriber>) {
        // Set before the subscriber is added, so that it receives all later events.
        self.0.any.store(true, Ordering::Release);
        let before = self.0.subscribers.rcu(|all| {
            all.as_deref().map(|all| {
                let added = std::iter::once(&subscriber);
                Arc::new(all.iter().chain(added).cloned().collect::<Subscribers>())
            })
        });
        if before.is_none() {
            subscriber.close();
        }
    }

    fn remove(&self, gone: &dyn EventSubscriber) {
        self.0.subscribers.rcu(|all| {
            all.as_deref().map(|all| {
                let left = all.iter().filter(|other| !std::ptr::addr_eq(other.as_ref(), gone));
                Arc::new(left.cloned().collect::<Subscribers>())
            })
        });
    }

    fn add_to_session(&self, session: &SessionId, subscriber: Arc<dyn EventSubscriber>) {
        self.0.any.store(true, Ordering::Release);
        self.0.of_sessions.entry(session.clone()).or_default().push(subscriber);
    }

    fn remove_of_session(&self, session: &SessionId, gone: &dyn EventSubscriber) {
        self.0.of_sessions.remove_if_mut(session, |_, subscribers| {
            subscribers.retain(|other| !std::ptr::addr_eq(other.as_ref(), gone));
            subscribers.is_empty()
        });
    }

    /// A receiver of all events.
    pub(crate) fn receiver(&self, capacity: usize) -> EventReceiver {
        let inbox = Arc::new(Inbox::new(capacity));
        self.add(inbox.clone());
        EventReceiver::new(inbox, self.clone(), None)
    }

    /// Sends all events to an actor of the host.
    pub(crate) fn subscribe<M: ractor::Message>(
        &self,
        actor: ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.add(Arc::new(ActorSubscriber::new(actor, capacity, wrap)));
    }

    /// A receiver of the events of one session.
    pub(crate) fn session_receiver(&self, session: &SessionId, capacity: usize) -> EventReceiver {
        let inbox = Arc::new(Inbox::new(capacity));
        self.add_to_session(session, inbox.clone());
        EventReceiver::new(inbox, self.clone(), Some(session.clone()))
    }

    /// Sends the events of one session to an actor of the host.
    pub(crate) fn subscribe_to_session<M: ractor::Message>(
        &self,
        session: &SessionId,
        actor: ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.add_to_session(session, Arc::new(ActorSubscriber::new(actor, capacity, wrap)));
    }

    /// Ends subscriptions to a session that was closed before they were added.
    pub(crate) fn session_was_closed(&self, session: &SessionId, reason: EndReason) {
        let last = EngineEvent::SessionClosed { session: session.clone(), reason };
        self.close_session(session, &last);
    }
}

#[cfg(test)]
mod tests;
