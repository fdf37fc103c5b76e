//! **Owns** what one client said and may hear: its identity, its open calls, its streams. Begins
//! with the first work that is for an actor: a call that runs, or a message that waits.
//! **Receives** the client's messages that cannot be served where they came in.
//! **Sends** joins and leaves to the hub, answers into the outlet of their request, and
//! starts a linked task actor for each call.
//! **Dies when** its session ends: its client ends it or stays away too long, or the engine stops.
//! **Restarts as** the same session, from its [`entry`]: only the calls that ran are answered
//! with an error.

mod caller;
mod entry;
mod handover;
mod questions;
mod saver;
mod serve;
mod state;
mod store;
mod streams;

use std::sync::Arc;

use futures::future::BoxFuture;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent,
};
use stentor_wire::encode::ResultBody;
use stentor_wire::params::{self, NoticeFilter};
use stentor_wire::{
    EncodedNotice, Era, ErrorObject, Method, Notification, Request, Response, SubscriptionId,
    encode,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::core::Core;
use crate::events::EngineEvent;
use crate::hub::{HubMsg, Refilter, Subscriber, SubscriberKey};
use crate::outlet::Frame;
use crate::outlet::policy::Class;
use crate::peers::watch;
use crate::task::{self, CancelReason, Responder, Run};
use crate::tasks;
pub(crate) use caller::Caller;
pub use entry::{EndReason, SessionKind, SessionView};
pub(crate) use entry::{MAX_WAITING_MESSAGES, SessionEntry, TO_BE_USED};
pub use handover::SessionRecord;
pub(crate) use questions::Questions;
pub(crate) use saver::Saver;
use serve::serve;
use state::{Decision, Subscription};
pub(crate) use state::{SessionState, grant};
pub use store::{Claim, SessionStore, SessionStoreError};
pub(crate) use streams::{FinishStreams, Streams, of_stateless_call};

/// So many sessions join a new hub before others get a turn.
const REJOIN_AT_ONCE: usize = 64;

/// A message of the client.
#[derive(Debug)]
pub(crate) enum Inbound {
    Request(Box<Request>, Responder),
    Told(Told),
}

/// A message of the client that wants no answer.
#[derive(Debug)]
pub(crate) enum Told {
    Notification(Box<Notification>),
    Response(Response),
}

#[derive(Debug)]
pub(crate) enum SessionMsg {
    Inbound(Box<Inbound>, Turn),
}

crate::message!(SessionMsg);

/// The right to be in the mailbox, which is held until the message is handled, or dropped and so
/// answered: the streams it is answered on do not end before.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their drops")]
pub(crate) struct Turn {
    permit: OwnedSemaphorePermit,
    streams: Option<Arc<FinishStreams>>,
}

impl Turn {
    /// Waits for one, so that a client cannot fill the mailbox. `None` if there will be none.
    pub(crate) async fn of(entry: &SessionEntry) -> Option<Self> {
        let permit = entry.turns().clone().acquire_owned().await.ok()?;
        Some(Self { permit, streams: entry.finish_streams() })
    }
}

/// What is left to do of a request that was looked at.
pub(crate) enum Next {
    Nothing,
    /// Its call runs.
    Run(Box<Run>),
    /// It waits for what others know.
    Listen(BoxFuture<'static, ()>),
}

impl Next {
    /// Does it; what it begins is linked to the session's actor.
    pub(crate) async fn done(self, session: &Session) {
        match self {
            Self::Nothing => {}
            Self::Run(run) => task::run(run, session).await,
            Self::Listen(listening) => listening.await,
        }
    }
}

/// A session at work: for its actor, and for a transport while no message of the client waits
/// for that.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) core: Arc<Core>,
    pub(crate) entry: Arc<SessionEntry>,
}

pub(crate) struct SessionActor;

impl Actor for SessionActor {
    type Msg = SessionMsg;
    type State = Session;
    type Arguments = Session;

    async fn pre_start(
        &self,
        _myself: ActorRef<SessionMsg>,
        session: Session,
    ) -> Result<Session, ActorProcessingErr> {
        Ok(session)
    }

    async fn handle(
        &self,
        _myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // Boxed, as an idle session is to be small.
            SessionMsg::Inbound(inbound, _turn) => Box::pin(session.on_inbound(*inbound)).await,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<SessionMsg>,
        event: SupervisionEvent,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        // A task that ends, in whatever way, has answered its caller and harms nobody else.
        if let SupervisionEvent::ActorFailed(_, error) = event {
            crate::log!(error, session = ?session.entry.id(), %error, "a call failed");
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(core: Arc<Core>, entry: Arc<SessionEntry>) -> Self {
        Self { core, entry }
    }

    /// Its actor, which begins now if it has not before. `None` if the session has ended, or the
    /// engine stops. When dropped early, it has begun or not.
    pub(crate) async fn actor(&self) -> Option<ActorRef<SessionMsg>> {
        if let Some(actor) = self.entry.actor() {
            return Some(actor);
        }
        if self.entry.is_closed() {
            return None;
        }
        let root = self.core.refs.root.load_full()?;
        Box::pin(self.begin_actor(root.get_cell(), None)).await;
        self.entry.actor()
    }

    /// Begins its actor, in the place of the one with that name or of none. `false` if it cannot, or
    /// another was first.
    pub(crate) async fn begin_actor(&self, root: ActorCell, place: Option<ActorId>) -> bool {
        let begun = Actor::spawn_linked(None, SessionActor, self.clone(), root.clone()).await;
        let Ok((actor, _)) = begun else { return false };
        let takes = self.entry.take_actor(&actor, place);
        if !takes {
            actor.unlink(root);
            actor.stop(None);
        }
        takes
    }

    /// Hands a message to the actor, if need be to the next one. `false` if there will be none.
    pub(crate) async fn hand_in(&self, mut message: SessionMsg) -> bool {
        loop {
            // Before the look at the actor, so that no change falls in between.
            let changed = self.entry.changed();
            let Some(actor) = self.actor().await else { return false };
            match actor.cast(message) {
                Ok(()) => return true,
                Err(MessagingErr::SendErr(returned)) => message = returned,
                Err(_) => return false,
            }
            changed.await;
        }
    }

    async fn on_inbound(&self, inbound: Inbound) {
        self.entry.presence().touch();
        match inbound {
            Inbound::Request(request, responder) => {
                self.on_request(request, responder).done(self).await;
            }
            Inbound::Told(told) => self.on_told(told),
        }
    }

    pub(crate) fn on_told(&self, told: Told) {
        match told {
            Told::Notification(notification) => self.on_notification(&notification),
            Told::Response(response) => self.on_response(response),
        }
    }

    fn on_response(&self, response: Response) {
        let id = response.id.clone();
        if !self.entry.questions().answer(response) {
            crate::log!(debug, %id, "nobody waits for this response");
        }
    }

    /// Serves a request, as far as that takes no time.
    ///
    /// No `async fn`, so that no future has room for all that a request is made of.
    pub(crate) fn on_request(&self, request: Box<Request>, responder: Responder) -> Next {
        let decision = self.entry.state().on_request(&request);
        let answer = match decision {
            Decision::Initialized(version) => {
                responder.answer(self.core.welcome.initialize(version));
                // From here on the client hears notices. Not before its `initialize` is
                // answered, and before any other request of it is, so that a list it reads is
                // never older than this.
                let state = self.entry.state();
                if let Some(subscription) = state.heard_as_client() {
                    self.join(&state, subscription);
                }
                drop(state);
                self.core.session_changed(&self.entry);
                return Next::Nothing;
            }
            Decision::Done => {
                self.core.session_changed(&self.entry);
                Ok(ResultBody::empty())
            }
            Decision::Watch(uri) => self.on_watch(uri),
            Decision::Unwatch(uri) => Ok(self.on_unwatch(&uri)),
            Decision::Listen(..) if self.core.is_draining() => {
                let error = ErrorObject::unavailable("the server is shutting down");
                self.refuse(&request, responder, error);
                return Next::Nothing;
            }
            Decision::Listen(_, _, tasks) if tasks.is_empty() => {
                self.hear(&request, responder);
                return Next::Nothing;
            }
            Decision::Listen(caller, granted, tasks) => {
                let listening = self.clone().hear_of(request, caller, granted, tasks, responder);
                return Next::Listen(Box::pin(listening));
            }
            Decision::Refuse(error) => Err(error),
            Decision::Dispatch(caller) => {
                let run = serve(&self.core, &self.entry, caller, request, responder);
                return run.map_or(Next::Nothing, Next::Run);
            }
        };
        responder.answer(answer);
        Next::Nothing
    }

    /// A listen begins, unless it has ended. Its answer is the acknowledgment, and the result comes
    /// when it ends.
    fn hear(&self, request: &Request, responder: Responder) {
        responder.withhold();
        let mut state = self.entry.state();
        let Some(subscription) = state.heard(&request.id) else { return };
        let is_deaf = subscription.filter.is_deaf();
        self.join(&state, subscription);
        // Nothing can ever come: who was granted nothing is told so, and does not wait for it.
        if is_deaf && let Some(id) = state.end_listen(&request.id) {
            self.core.tell_hub(HubMsg::Leave(self.entry.key(Some(id))));
            if let Some(outlet) = self.entry.streams().notices() {
                outlet.reply(encode::listen_ended(&request.id, &self.core.identity), None);
            }
        }
    }

    /// A listen begins that wants to hear of tasks: of those that are its client's.
    async fn hear_of(
        self,
        request: Box<Request>,
        caller: Caller,
        mut granted: NoticeFilter,
        mut tasks: Vec<String>,
        responder: Responder,
    ) {
        let caller = caller.of(self.entry.principal().cloned());
        let elsewhere = watch(&self.core, &caller, &request, &mut tasks).await;
        let own = match tasks::owned(&self.core, tasks, &caller).await {
            Ok(own) => own,
            Err(error) => return self.refuse(&request, responder, error),
        };
        granted.task_ids = [&own[..], &elsewhere.tasks].concat();
        let goes_on = self.entry.state().grant(&request.id, granted);
        self.hear(&request, responder);
        if !goes_on {
            return;
        }
        if let Some(outlet) = self.entry.streams().notices() {
            let watching = elsewhere.tell(outlet, &request.id);
            self.entry.state().watches(&request.id, watching);
        }
        tasks::tell(&self.core, self.entry.key(Some(SubscriptionId::of(&request.id))), own);
    }

    /// A listen is not to be. One that has ended meanwhile has its answer.
    fn refuse(&self, request: &Request, responder: Responder, error: ErrorObject) {
        let ended = self.entry.state().end_listen(&request.id);
        match ended {
            Some(_) => responder.answer(Err(error)),
            None => responder.withhold(),
        }
    }

    fn on_watch(&self, uri: String) -> Result<ResultBody, ErrorObject> {
        if self.core.catalog().reader(&uri).is_none() {
            return Err(ErrorObject::resource_not_found(Era::Legacy, &uri));
        }
        let uri: Arc<str> = uri.into();
        let mut state = self.entry.state();
        state.watch(uri.clone())?;
        self.core.tell_hub(HubMsg::Refilter(self.entry.key(None), Refilter::Watch(uri)));
        drop(state);
        self.core.session_changed(&self.entry);
        Ok(ResultBody::empty())
    }

    fn on_unwatch(&self, uri: &str) -> ResultBody {
        let mut state = self.entry.state();
        state.unwatch(uri);
        let unwatch = Refilter::Unwatch(uri.into());
        self.core.tell_hub(HubMsg::Refilter(self.entry.key(None), unwatch));
        drop(state);
        self.core.session_changed(&self.entry);
        ResultBody::empty()
    }

    fn on_notification(&self, notification: &Notification) {
        match notification.method {
            Method::Cancelled => match notification.params.parse::<params::Cancelled>() {
                Ok(cancelled) => self.on_cancelled(cancelled),
                // Malformed ones are ignored (2026-07-28, basic/patterns/cancellation).
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
            self.core.session_changed(&self.entry);
            let session = self.entry.id().clone();
            let initialized = || EngineEvent::SessionInitialized { session, version, client };
            self.core.events.emit(initialized);
        }
    }

    fn on_cancelled(&self, cancelled: params::Cancelled) {
        let request = &cancelled.request_id;
        let was_listen = {
            // Locked until the hub is told, see `join`.
            let mut state = self.entry.state();
            let ended = state.end_listen(request);
            ended.map(|id| self.core.tell_hub(HubMsg::Leave(self.entry.key(Some(id))))).is_some()
        };
        if !was_listen {
            // One that is over needs no word.
            self.entry.calls().cancel(request, CancelReason::Client(cancelled.reason));
        }
    }

    /// From here on the client hears what the filter lets through.
    ///
    /// The hub is told of what a session hears while its state is locked: it learns of each change
    /// in the order in which it was made, by the actor or by a transport, and of none after the
    /// session has left.
    fn join(&self, _locked: &SessionState, subscription: Subscription) {
        let Some(outlet) = self.entry.streams().notices().cloned() else { return };
        if self.entry.is_closed() {
            return;
        }
        let Subscription { id, filter, unsaid } = subscription;
        if let Some(acknowledgment) = unsaid {
            // Before it joins, so that it comes first. Of the class that is never dropped: without
            // it a listen says nothing.
            outlet.push(Class::Reply, Frame::Message(acknowledgment));
        }
        let subscriber = Box::new(Subscriber { outlet, filter });
        self.core.tell_hub(HubMsg::Join(self.entry.key(id), subscriber));
    }

    /// Takes the session's places in the hub, which may be there already.
    pub(crate) fn rejoin(&self) {
        let Some(outlet) = self.entry.streams().notices() else { return };
        let missed_some = self.entry.hub_was_lost();
        let mut state = self.entry.state();
        for subscription in state.subscriptions() {
            // One that was not acknowledged was told nothing so far, and misses nothing.
            let may_miss = missed_some && subscription.unsaid.is_none();
            let id = subscription.id.clone();
            let told: Vec<_> = subscription.filter.everything().filter(|_| may_miss).collect();
            let tasks = subscription.filter.tasks().iter().filter(|_| may_miss);
            let tasks = tasks.map(ToString::to_string).collect();
            self.join(&state, subscription);
            // What the old hub was told and did not get round to tell. After the join, so that
            // nothing falls in between.
            for notice in told {
                let class = Class::of(&notice);
                outlet.notice(class, Arc::new(EncodedNotice::new(notice)), id.clone());
            }
            tasks::tell(&self.core, self.entry.key(id), tasks);
        }
    }
}

/// What clients heard may be not all: every session takes its places in the hub, and its client is
/// told what it may have missed.
pub(crate) fn rejoin_all(core: &Arc<Core>) {
    let (core, sessions) = (core.clone(), core.directory.all());
    for session in &sessions {
        session.missed_some();
    }
    // On its own, as there may be thousands, and whoever says so has more to do.
    tokio::spawn(async move {
        for some in sessions.chunks(REJOIN_AT_ONCE) {
            for session in some {
                Session::new(core.clone(), session.clone()).rejoin();
            }
            tokio::task::yield_now().await;
        }
    });
}
