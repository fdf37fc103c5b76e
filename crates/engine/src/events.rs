//! Events: what happens in an engine, for subscribers that never delay it.
//!
//! Each subscriber has a ring of its own. The engine writes an event into the ring and goes on.
//! When the ring is full, the oldest event is dropped, and the subscriber receives how many it
//! missed.

mod batch;
mod losses;
mod receiver;
mod ring;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use stentor_delivery::policy::Class;
use stentor_wire::model::Implementation;
use stentor_wire::{ListKind, Method, ProtocolVersion};

use crate::ids::{Revision, SessionId};
use crate::items::Conflict;
use crate::reasons::{CallOutcome, CallRef, CancelReason, EndReason, SessionKind};
use batch::Bell;
pub use batch::EventBatch;
pub(crate) use losses::ReportedLosses;
pub use receiver::EventReceiver;
use receiver::Inbox;

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
    /// This many events were dropped here because the subscriber was slow.
    Missed(u64),
    /// The engine has stopped. No event follows.
    Stopped,
}

trait Subscriber: Send + Sync {
    /// Passes an event on without waiting; `false` if the subscriber has ended.
    fn push(&self, event: &EngineEvent) -> bool;

    fn close(&self);
}

type Subscribers = Vec<Arc<dyn Subscriber>>;

/// The subscribers of one engine. Empty once the engine has stopped. Clones share them.
#[derive(Clone)]
pub(crate) struct Events(Arc<Shared>);

struct Shared {
    subscribers: ArcSwapOption<Subscribers>,
    /// Whether there may be subscribers. Each event checks this, and usually there are none.
    any: AtomicBool,
}

impl Default for Events {
    fn default() -> Self {
        let subscribers = ArcSwapOption::from_pointee(Subscribers::new());
        Self(Arc::new(Shared { subscribers, any: AtomicBool::new(false) }))
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
        let Some(subscribers) = subscribers.as_deref().filter(|all| !all.is_empty()) else {
            return;
        };
        let event = make();
        for subscriber in subscribers {
            if !subscriber.push(&event) {
                self.remove(subscriber.as_ref());
            }
        }
    }

    /// Ends all subscriptions, and those that are added later: the engine has stopped.
    pub(crate) fn close(&self) {
        self.emit(|| EngineEvent::Stopped);
        for subscriber in self.0.subscribers.swap(None).iter().flat_map(|all| all.iter()) {
            subscriber.close();
        }
    }

    fn add(&self, subscriber: Arc<dyn Subscriber>) {
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

    fn remove(&self, gone: &dyn Subscriber) {
        self.0.subscribers.rcu(|all| {
            all.as_deref().map(|all| {
                let left = all.iter().filter(|other| !std::ptr::addr_eq(other.as_ref(), gone));
                Arc::new(left.cloned().collect::<Subscribers>())
            })
        });
    }

    pub(crate) fn receiver(&self, capacity: usize) -> EventReceiver {
        let inbox = Arc::new(Inbox::new(capacity));
        self.add(inbox.clone());
        EventReceiver::new(inbox, self.clone())
    }

    pub(crate) fn subscribe<M: ractor::Message>(
        &self,
        actor: ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.add(Arc::new(Bell::new(actor, capacity, wrap)));
    }
}

#[cfg(test)]
mod tests;
