//! Hearing what happens in an engine, without ever holding it up.
//!
//! Every subscriber has a ring of its own. Whoever emits writes into it and goes on; when it
//! is full the oldest event makes room, and the subscriber hears how many it missed.

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
use crate::outlet::policy::Class;
use crate::registry::Conflict;
use crate::session::{EndReason, SessionKind};
use crate::task::CancelReason;
use batch::Bell;
pub use batch::EventBatch;
pub use receiver::EventReceiver;
use receiver::Inbox;

/// Something that happened in an engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EngineEvent {
    /// A client opened a session.
    SessionOpened {
        /// Its name.
        session: SessionId,
        /// What kind of client it serves.
        kind: SessionKind,
        /// Who it was opened for, where the transport knows.
        principal: Option<Arc<str>>,
    },
    /// A legacy client shook hands.
    SessionInitialized {
        /// Its session.
        session: SessionId,
        /// The negotiated version.
        version: ProtocolVersion,
        /// The client, as it says itself.
        client: Option<Arc<Implementation>>,
    },
    /// A session ended.
    SessionClosed {
        /// Its name.
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
        /// Which call.
        call: CallRef,
        /// What the client asked for.
        method: Method,
    },
    /// A call reported progress.
    CallProgressed {
        /// Which call.
        call: CallRef,
        /// How far it is.
        progress: f64,
        /// How far it goes, if it knows.
        total: Option<f64>,
    },
    /// A call was answered.
    CallFinished {
        /// Which call.
        call: CallRef,
        /// What the answer says.
        outcome: CallOutcome,
        /// How long it took.
        took: Duration,
    },
    /// A call was told to end before its code returned.
    CallCancelled {
        /// Which call.
        call: CallRef,
        /// Why.
        reason: CancelReason,
        /// How long it had run.
        took: Duration,
    },
    /// Lists of the catalog changed; readers see them already.
    CatalogChanged {
        /// The revision that is the latest now.
        revision: Revision,
        /// The lists that differ.
        lists: Vec<ListKind>,
    },
    /// Nodes of a cluster define an item differently, which they did not before.
    CatalogConflict {
        /// Which, and who.
        conflict: Conflict,
    },
    /// An actor that serves all clients failed, and a new one took its place.
    ActorRestarted {
        /// `"registry"`, `"hub"` or `"session of stateless calls"`.
        actor: &'static str,
    },
    /// Frames were dropped, as their client had fallen behind.
    FramesDropped {
        /// Whose they were; `None` where the stream belongs to no session.
        session: Option<SessionId>,
        /// What they were.
        class: Class,
        /// How many.
        count: u64,
    },
    /// Streams were closed, as their client had stopped reading them.
    StreamsClosed {
        /// Whose they were; `None` where they belong to no session.
        session: Option<SessionId>,
        /// How many.
        count: u64,
    },
    /// So many events are missing here, as their subscriber was slow.
    Missed(u64),
    /// The engine has stopped. Nothing follows.
    Stopped,
}

/// What the answer to a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallOutcome {
    /// It has a result, or questions.
    Ok,
    /// It has a result that tells of a failure: `isError`.
    Failed,
    /// It is an error of the protocol, with this JSON-RPC code.
    Error(i32),
}

impl CallOutcome {
    pub(crate) fn of(answer: &Result<ResultBody, ErrorObject>) -> Self {
        match answer {
            Ok(result) if result.says_failed() => Self::Failed,
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

/// Which call an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallRef {
    /// Its name within the engine.
    pub id: CallId,
    /// The session of the call; modern requests over HTTP have none.
    pub session: Option<SessionId>,
    /// The id of its request, which the client chose.
    pub request: Id,
    /// The name that is called, or the URI that is read.
    pub subject: Arc<str>,
}

/// Somebody who is told of events.
trait Subscriber: Send + Sync {
    /// Hands over an event without waiting; `false` if there is nobody to hear it any more.
    fn push(&self, event: &EngineEvent) -> bool;

    /// No event will come after this.
    fn close(&self);
}

type Subscribers = Vec<Arc<dyn Subscriber>>;

/// The subscribers of one engine; none at all once it has stopped. Clones share them.
#[derive(Clone)]
pub(crate) struct Events(Arc<Heard>);

struct Heard {
    subscribers: ArcSwapOption<Subscribers>,
    /// Whether there may be some: all that happens is asked this, and mostly there are none.
    any: AtomicBool,
}

impl Default for Events {
    fn default() -> Self {
        let subscribers = ArcSwapOption::from_pointee(Subscribers::new());
        Self(Arc::new(Heard { subscribers, any: AtomicBool::new(false) }))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscribers = self.0.subscribers.load().as_deref().map(Vec::len);
        f.debug_struct("Events").field("subscribers", &subscribers).finish()
    }
}

impl Events {
    /// Tells every subscriber. Never waits; without a subscriber nothing is even made.
    ///
    /// Not to be called under a lock: a subscriber may run the host's code.
    #[inline]
    pub(crate) fn emit(&self, make: impl FnOnce() -> EngineEvent) {
        if self.0.any.load(Ordering::Acquire) {
            self.tell(make);
        }
    }

    fn tell(&self, make: impl FnOnce() -> EngineEvent) {
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

    /// Ends every subscription, and every one that is made later: the engine has stopped.
    pub(crate) fn close(&self) {
        self.emit(|| EngineEvent::Stopped);
        for subscriber in self.0.subscribers.swap(None).iter().flat_map(|all| all.iter()) {
            subscriber.close();
        }
    }

    fn add(&self, subscriber: Arc<dyn Subscriber>) {
        // Before it is there, so that it hears of all that comes after.
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
    /// Hears what happens in the engine from now on.
    ///
    /// At most `capacity` events wait to be read, and at least one can. The engine never
    /// waits for a subscriber: when it is slow the oldest events are dropped, and an
    /// [`EngineEvent::Missed`] stands in their place. What one actor of the engine does comes
    /// in its order.
    ///
    /// On an engine that has stopped there is nothing to hear.
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

    /// Has an actor of this process told what happens in the engine from now on, as messages
    /// of its own type.
    ///
    /// A mailbox of ractor has no bound, so at most one message of a subscription is in it:
    /// `wrap` makes it from an [`EventBatch`], and the next one is sent once that has been
    /// read. At most `capacity` events wait meanwhile, and at least one can; when more come
    /// the oldest are dropped, and an [`EngineEvent::Missed`] stands in their place.
    ///
    /// `wrap` runs inside of the engine, and should do nothing but wrap. The subscription
    /// ends when the actor or the engine does, or `wrap` panics.
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
