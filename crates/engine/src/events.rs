//! Events: what happens in an engine, for subscribers that never delay it.
//!
//! Each subscriber has a ring of its own. The engine writes an event into the ring and goes on.
//! When the ring is full, the oldest event is dropped, and the subscriber receives how many it
//! missed.

mod batch;
mod receiver;
mod ring;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use stentor_wire::encode::ResultBody;
use stentor_wire::model::Implementation;
use stentor_wire::{ErrorObject, Id, ListKind, Method, ProtocolVersion};

use crate::engine::Engine;
use crate::ids::{CallId, Revision, SessionId};
use crate::registry::Conflict;
use crate::session::{EndReason, SessionKind};
use crate::task::CancelReason;
use batch::Bell;
pub use batch::EventBatch;
pub use receiver::EventReceiver;
use receiver::Inbox;
use stentor_delivery::policy::Class;

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
        /// `"registry"`, `"hub"` or `"session of stateless calls"`.
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

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The response has a result, or questions to the client.
    Ok,
    /// The response has a result that reports a failure: `isError`.
    Failed,
    /// The response is an error of the protocol, with this JSON-RPC code.
    Error(i32),
}

impl CallOutcome {
    pub(crate) fn of(answer: &Result<ResultBody, ErrorObject>) -> Self {
        match answer {
            Ok(result) if result.is_error() => Self::Failed,
            Ok(_) => Self::Ok,
            Err(error) => Self::Error(error.code),
        }
    }

    /// The value of `error.type` in metrics.
    pub(crate) fn error_type(self) -> Option<String> {
        match self {
            Self::Ok => None,
            Self::Failed => Some("tool_error".to_owned()),
            Self::Error(code) => Some(code.to_string()),
        }
    }
}

/// The call that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallRef {
    /// The call's id within the engine.
    pub id: CallId,
    /// The session of the call; modern requests over HTTP have none.
    pub session: Option<SessionId>,
    /// The id of the request, which the client chose.
    pub request: Id,
    /// The name of the called item, or the URI that is read.
    pub subject: Arc<str>,
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

    fn receiver(&self, capacity: usize) -> EventReceiver {
        let inbox = Arc::new(Inbox::new(capacity));
        self.add(inbox.clone());
        EventReceiver::new(inbox, self.clone())
    }

    fn subscribe<M: ractor::Message>(
        &self,
        actor: ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.add(Arc::new(Bell::new(actor, capacity, wrap)));
    }
}

impl Engine {
    /// Subscribes to the events of the engine from now on.
    ///
    /// At most `capacity` events wait to be read, and at least one can. The engine never waits for
    /// a subscriber: when the subscriber is slow, the oldest events are dropped, and an
    /// [`EngineEvent::Missed`] takes their place. Events of one actor of the engine come in order.
    ///
    /// If the engine has stopped, the receiver ends at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use stentor_engine::{Engine, EngineEvent, ToolError, tool};
    ///
    /// let engine = Engine::builder("s", "1").start().await?;
    /// let mut events = engine.events(256);
    /// engine.catalog().add(tool("noon", || async { Ok::<_, ToolError>("12:00") })).await?;
    ///
    /// match events.next().await {
    ///     Some(EngineEvent::CatalogChanged { lists, .. }) => assert_eq!(lists.len(), 1),
    ///     Some(EngineEvent::Missed(count)) => println!("{count} events were lost"),
    ///     other => println!("{other:?}"),
    /// }
    /// # engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self, capacity: usize) -> EventReceiver {
        self.core().events.receiver(capacity)
    }

    /// Sends the events of the engine to an actor of this process from now on, as messages of the
    /// actor's own type.
    ///
    /// A mailbox of ractor has no bound, so it contains at most one message of a subscription.
    /// `wrap` makes that message from an [`EventBatch`]; the next one is sent after the actor has
    /// read the batch. Meanwhile at most `capacity` events wait, and at least one can. When more
    /// come, the oldest are dropped, and an [`EngineEvent::Missed`] takes their place.
    ///
    /// `wrap` runs inside of the engine, and should only wrap. The subscription ends when the actor
    /// or the engine ends, or when `wrap` panics.
    ///
    /// ```
    /// # use ractor::ActorRef;
    /// use stentor_engine::{Engine, EventBatch};
    ///
    /// enum AuditMsg {
    ///     Events(EventBatch),
    /// }
    /// # #[cfg(feature = "cluster")]
    /// # impl ractor::Message for AuditMsg {}
    ///
    /// fn audit(engine: &Engine, auditor: &ActorRef<AuditMsg>) {
    ///     engine.subscribe(auditor, 1024, AuditMsg::Events);
    /// }
    ///
    /// // In the actor:
    /// fn handle(message: AuditMsg) {
    ///     match message {
    ///         AuditMsg::Events(batch) => {
    ///             for event in batch {
    ///                 println!("{event:?}");
    ///             }
    ///         }
    ///     }
    /// }
    /// # let _ = (audit, handle);
    /// ```
    pub fn subscribe<M: ractor::Message>(
        &self,
        actor: &ActorRef<M>,
        capacity: usize,
        wrap: impl Fn(EventBatch) -> M + Send + Sync + 'static,
    ) {
        self.core().events.subscribe(actor.clone(), capacity, wrap);
    }
}

#[cfg(test)]
mod tests;
