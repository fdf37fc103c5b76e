//! **Owns** the state of one client: its identity, its open calls, its streams.
//! **Receives** every message of its client, one after the other.
//! **Sends** joins and leaves to the hub, answers into the stream of their request, and calls to
//! the task pool.
//! **Dies when** it is idle and not needed, when it is killed, or when the engine stops. When no
//! message of its session is left, the session is passive, and the actor serves another one.
//! **Restarts as** an actor of the same session, from its [`entry`]: only the calls that ran are
//! answered with an error.

mod client;
mod directory;
mod entry;
mod listen;
mod open;
mod record;
mod rights;
mod saver;
mod serve;
mod sessions;
mod state;
mod store;
mod streams;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr};
use stentor_delivery::Frame;
use stentor_delivery::policy::Class;
use stentor_wire::encode::ResultBody;
use stentor_wire::params;
use stentor_wire::{
    EncodedNotice, Era, ErrorObject, Method, Notification, ProtocolVersion, Request, Response,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::access::ViewerClass;
use crate::actor_pool::{ActorPool, PoolMember, Pooled};
use crate::audience::Listener;
use crate::call::{FinishStreams, Responder};
use crate::caller::Caller;
use crate::catalog::Readable;
use crate::events::EngineEvent;
use crate::hub::{HubMsg, Refilter, Subscriber, SubscriberKey};
use crate::reasons::CancelReason;
use crate::request_sender::RequestSender;
pub use entry::SessionView;
pub(crate) use entry::{SessionEntry, TO_BE_USED};
pub use record::SessionRecord;
pub(crate) use saver::Saver;
pub use sessions::SessionConfig;
pub(crate) use sessions::Sessions;
use state::{Decision, SessionState, Subscription};
pub use store::{SessionStore, SessionStoreError, TakeOver};

/// The supervisor replaces the dead actor of a session within this time.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// Sessions that join a new hub before the loop yields to other work.
const REJOIN_AT_ONCE: usize = 64;

/// A message of the client.
#[derive(Debug)]
pub(crate) enum SessionMsg {
    /// A message of the client of this session.
    Client(Session, ClientMessage, MailboxPermit),
}

#[derive(Debug)]
pub(crate) enum ClientMessage {
    Request(Box<Request>, Box<Responder>),
    Notification(Box<Notification>),
    Response(Response),
}

crate::message!(SessionMsg);

impl SessionMsg {
    /// Answers a request that no actor handles any more.
    fn refuse(self) {
        let Self::Client(_, message, _permit) = self;
        if let ClientMessage::Request(_, responder) = message {
            responder.answer(Err(ErrorObject::unavailable("the session has ended")));
        }
    }
}

/// The right of a message to be in the mailbox.
///
/// It is kept until the message is handled or dropped; a dropped request is answered as well. Until
/// then the streams of that answer stay open.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drops")]
pub(crate) struct MailboxPermit {
    permit: OwnedSemaphorePermit,
    streams: Option<Arc<FinishStreams>>,
}

impl MailboxPermit {
    /// Waits for a permit, so that a client cannot fill the mailbox. `None` if none can come any
    /// more.
    async fn of(entry: &SessionEntry) -> Option<Self> {
        let permit = entry.mailbox_permits().clone().acquire_owned().await.ok()?;
        Some(Self { permit, streams: entry.finish_streams() })
    }
}

/// A session on this node, as one sender uses it. Clones are the same session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    entry: Arc<SessionEntry>,
    sender: RequestSender,
}

/// Gives the actor of a closed session back, if a permit is not dropped in the actor. To be
/// dropped after the permit.
struct LeaveWhenClosed<'a>(&'a Session);

impl Drop for LeaveWhenClosed<'_> {
    fn drop(&mut self) {
        let Session { sessions, entry, .. } = self.0;
        if let Some(actor) = entry.leave_when_closed() {
            sessions.pool.give_back(actor);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct SessionActor;

impl Pooled for SessionActor {}

impl Actor for SessionActor {
    type Msg = SessionMsg;
    type State = PoolMember<Self>;
    type Arguments = Arc<ActorPool<Self>>;

    async fn pre_start(
        &self,
        _myself: ActorRef<SessionMsg>,
        pool: Arc<ActorPool<Self>>,
    ) -> Result<PoolMember<Self>, ActorProcessingErr> {
        Ok(pool.member())
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        member: &mut PoolMember<Self>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMsg::Client(session, message, permit) => {
                session.entry.note_message();
                session.on_message(message).await;
                drop(permit);
                if session.entry.leave_actor(myself.get_id(), session.sessions.keeps_actors()) {
                    member.pool().give_back(myself);
                }
            }
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(sessions: Arc<Sessions>, entry: Arc<SessionEntry>) -> Self {
        Self { sessions, entry, sender: RequestSender::default() }
    }

    /// The same session, for the messages of this sender.
    pub(crate) fn used_by(mut self, sender: RequestSender) -> Self {
        self.sender = sender;
        self
    }

    /// Returns the actor, and gives the session one if it is passive. `None` if the session has ended
    /// or the engine stops. When dropped early, the session may have an actor or not.
    pub(crate) async fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        let pool = &self.sessions.pool;
        while !self.entry.is_closed() {
            if let Some(actor) = self.entry.actor() {
                return Some(actor);
            }
            let actor = pool.get().await?;
            if !self.entry.accept_actor(&actor) {
                pool.give_back(actor);
            }
        }
        None
    }

    async fn on_message(&self, message: ClientMessage) {
        match message {
            // Boxed to keep idle actors small.
            ClientMessage::Request(request, responder) => {
                Box::pin(self.on_request(request, *responder)).await;
            }
            ClientMessage::Notification(notification) => self.on_notification(&notification),
            ClientMessage::Response(response) => self.on_response(response),
        }
    }

    /// Sends a message to the actor, or to the next one if it has died. `false` if there will be
    /// none.
    async fn hand_in(&self, message: ClientMessage, permit: MailboxPermit) -> bool {
        // Declared before the message, and dropped after it and its permit.
        let _leaving = LeaveWhenClosed(self);
        let mut message = SessionMsg::Client(self.clone(), message, permit);
        loop {
            // Created before the actor is looked up, so that no change is missed in between.
            let changed = self.entry.changed();
            let Some(actor) = self.actor().await else {
                message.refuse();
                return false;
            };
            match actor.cast(message) {
                Ok(()) => return true,
                Err(MessagingErr::SendErr(returned)) => message = returned,
                Err(_) => return false,
            }
            // The supervisor replaces the actor, unless it was not told of its end.
            if timeout(REPLACED_WITHIN, changed).await.is_err() {
                self.entry.lost_actor(actor.get_id());
            }
        }
    }

    fn on_response(&self, response: Response) {
        let id = response.id.clone();
        if !self.entry.questions().answer(response) {
            crate::log!(debug, %id, "nobody waits for this response");
        }
    }

    async fn on_request(&self, request: Box<Request>, responder: Responder) {
        self.follow_sender();
        let decision = {
            let opens = self.sessions.dispatcher.opens_stream(&request.method);
            self.entry.state().on_request(&request, &self.sessions.members, opens)
        };
        let answer = match decision {
            Decision::Initialized(version) => {
                responder.answer(self.sessions.dispatcher.hello().initialize(version));
                // From here on the client receives notices: after the answer to `initialize`, and
                // before any other request of the client is served. So a list that the client reads
                // is never older than this subscription.
                let state = self.entry.state();
                if let Some(subscription) = state.legacy_subscription() {
                    self.join(&state, subscription);
                }
                drop(state);
                self.sessions.session_changed(&self.entry);
                return;
            }
            Decision::Done => {
                self.sessions.session_changed(&self.entry);
                Ok(ResultBody::empty())
            }
            Decision::Watch(uri) => self.on_watch(uri),
            Decision::Unwatch(uri) => Ok(self.on_unwatch(&uri)),
            Decision::Listen(..) | Decision::OpenStream(..)
                if self.sessions.lifecycle.is_draining() =>
            {
                let error = ErrorObject::unavailable("the server is shutting down");
                return self.refuse(&request, responder, error);
            }
            Decision::Listen(caller, granted, asked) => {
                // Boxed to keep the common future small.
                let listening = self.begin_listen(request, caller, granted, asked, responder);
                return Box::pin(listening).await;
            }
            Decision::OpenStream(caller) => {
                let opening = self.open_stream(request, caller, responder);
                return Box::pin(opening).await;
            }
            Decision::Refuse(error) => Err(error),
            Decision::Dispatch(caller) => {
                if let Some(run) = self.serve(caller, request, responder) {
                    self.sessions.calls.run(run).await;
                }
                return;
            }
        };
        responder.answer(answer);
    }

    fn on_watch(&self, uri: String) -> Result<ResultBody, ErrorObject> {
        let catalog = self.sessions.registry.catalog();
        let (access, viewers) = (catalog.access_to_uri(&uri), &self.sessions.registry.viewers);
        let who = &self.sender.who;
        let is_seen = access.is_none_or(|access| access.rule.admits(&viewers.viewer(who)));
        let Some(readable) = catalog.reader(&uri).filter(|_| is_seen) else {
            return Err(ErrorObject::resource_not_found(Era::Legacy, &uri));
        };
        let mut scopes = match &readable {
            Readable::Local(reader) => reader.scopes_of(&uri)?,
            // The node that has it knows them.
            Readable::Remote(_) => BTreeSet::new(),
        };
        scopes.extend(access.iter().flat_map(|access| access.scopes.iter().cloned()));
        if !scopes.is_empty() {
            viewers.check_scopes(who, Era::Legacy, &scopes)?;
        }
        let uri: Arc<str> = uri.into();
        let mut state = self.entry.state();
        state.watch(uri.clone())?;
        let (key, watch) = (self.entry.key(None), Refilter::Watch(uri));
        self.sessions.hub.subscribe(|epoch| HubMsg::Refilter(key, watch, epoch));
        drop(state);
        self.sessions.session_changed(&self.entry);
        Ok(ResultBody::empty())
    }

    fn on_unwatch(&self, uri: &str) -> ResultBody {
        let mut state = self.entry.state();
        state.unwatch(uri);
        let unwatch = Refilter::Unwatch(uri.into());
        let key = self.entry.key(None);
        self.sessions.hub.subscribe(|epoch| HubMsg::Refilter(key, unwatch, epoch));
        drop(state);
        self.sessions.session_changed(&self.entry);
        ResultBody::empty()
    }

    fn on_notification(&self, notification: &Notification) {
        match notification.method {
            Method::Cancelled => match notification.params.parse::<params::Cancelled>() {
                Ok(cancelled) => self.on_cancelled(cancelled),
                // Malformed cancellations are ignored (2026-07-28, basic/patterns/cancellation).
                Err(error) => crate::log!(debug, %error, "ignored"),
            },
            Method::Initialized => self.on_initialized(),
            _ => crate::log!(debug, method = %notification.method, "ignored notification"),
        }
    }

    fn on_initialized(&self) {
        let caller = {
            let mut state = self.entry.state();
            let first = state.on_initialized();
            state.legacy().filter(|_| first).cloned()
        };
        if let Some(Caller { version, client, .. }) = caller {
            self.sessions.session_changed(&self.entry);
            let session = self.entry.id().clone();
            let initialized = || EngineEvent::SessionInitialized { session, version, client };
            self.sessions.events.emit(initialized);
        }
    }

    fn on_cancelled(&self, cancelled: params::Cancelled) {
        let request = &cancelled.request_id;
        let was_listen = self.entry.forget_listen(&self.sessions, request).is_some();
        if !was_listen {
            // Has no effect on a call that has ended.
            self.entry.calls().cancel(request, CancelReason::Client(cancelled.reason));
        }
    }

    /// Subscribes the client to the notices that match the filter.
    ///
    /// The state stays locked until the hub is notified. So the hub receives changes in the order
    /// in which they were made, and none after the session has left.
    fn join(&self, locked: &SessionState, subscription: Subscription) {
        let sender = self.entry.notices().clone();
        if self.entry.is_closed() {
            return;
        }
        let Subscription { id, filter, unsaid } = subscription;
        let legacy = locked.legacy().filter(|_| id.is_none());
        let listener = Listener {
            principal: self.entry.principal().cloned(),
            version: legacy.map_or(ProtocolVersion::V2026_07_28, |caller| caller.version),
            client: legacy.and_then(|caller| caller.client.clone()),
            viewer: locked.viewer.clone(),
        };
        let key = self.entry.key(id);
        let subscriber = Box::new(Subscriber {
            sender: sender.clone(),
            filter,
            listener,
            class: ViewerClass::default(),
        });
        let join = || self.sessions.hub.subscribe(|epoch| HubMsg::Join(key, subscriber, epoch));
        match unsaid {
            // Queued before the join, so that it is the first frame; and the hub receives the join
            // before the client can read it, so that no change after it is lost. Its class is never
            // dropped: without its acknowledgment a listen sends nothing.
            Some(acknowledgment) => {
                sender.push_then(Class::Reply, Frame::Message(acknowledgment), join);
            }
            None => join(),
        }
    }

    /// Joins the hub with all subscriptions of the session. The hub may contain them already. A
    /// listen that is not acknowledged was sent nothing yet, and joins when it is.
    pub(crate) fn rejoin(&self) {
        let sender = self.entry.notices();
        let mark_missed = self.entry.take_missed();
        let state = self.entry.state();
        for subscription in state.subscriptions() {
            let id = subscription.id.clone();
            let missed: Vec<_> = subscription.filter.everything().filter(|_| mark_missed).collect();
            let states = mark_missed.then(|| self.sessions.states(&subscription.filter));
            self.join(&state, subscription);
            // The old hub may have received these and not sent them. Written after the join, so
            // that no notice is lost in between.
            for notice in missed {
                let class = Class::of(&notice);
                sender.notice(class, Arc::new(EncodedNotice::new(notice)), id.clone());
            }
            if let Some(states) = states {
                states.send(&self.entry.key(id));
            }
        }
    }
}

/// Makes every session join the hub again after notices may have been lost. Each client is notified
/// of everything that it may have missed.
pub(crate) fn rejoin_all(sessions: &Arc<Sessions>) {
    let (sessions, all) = (sessions.clone(), sessions.directory.all());
    for entry in &all {
        entry.mark_missed();
    }
    // Spawned, because there may be thousands of sessions and the caller has other work.
    tokio::spawn(async move {
        for batch in all.chunks(REJOIN_AT_ONCE) {
            for entry in batch {
                Session::new(sessions.clone(), entry.clone()).rejoin();
            }
            tokio::task::yield_now().await;
        }
        sessions.hub.send(HubMsg::Rejoined);
    });
}
