//! **Owns** what one client said and may hear: its identity, its open calls, its streams.
//! **Receives** the client's messages from a transport, and word that it is to end.
//! **Sends** joins and leaves to the hub, answers into the outlet of their request, and
//! starts a linked task actor for each call.
//! **Dies when** its client ends it or stays away too long, or the engine stops.
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
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::params;
use stentor_wire::{EncodedNotice, Era, ErrorObject, Method, Notification, Request, Response};
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
use serve::{Served, serve};
use state::{Decision, Listen, Subscription};
pub(crate) use state::{SessionState, grant};
pub use store::{Claim, SessionStore, SessionStoreError};
pub(crate) use streams::{FinishStreams, Streams, of_stateless_call};

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
    /// With the right to be in the mailbox, which is held until the message is handled.
    Inbound(Box<Inbound>, OwnedSemaphorePermit),
    /// A new hub knows nobody.
    Rejoin,
    /// No new work is coming: end what only waits.
    Drain,
    /// It is to end; the entry says why.
    End,
    Observe(RpcReplyPort<SessionView>),
}

crate::message!(SessionMsg);

pub(crate) struct SessionArgs {
    pub(crate) core: Arc<Core>,
    pub(crate) entry: Arc<SessionEntry>,
    /// Whether it takes the place of one that crashed.
    pub(crate) restarted: bool,
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
    pub(crate) async fn done(self, actor: ActorCell) {
        match self {
            Self::Nothing => {}
            Self::Run(run) => task::run(run, actor).await,
            Self::Listen(listening) => listening.await,
        }
    }
}

/// A session at work: for its actor, and for a transport while no message of the client waits
/// for that.
#[derive(Clone)]
pub(crate) struct Session {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
}

pub(crate) struct SessionActor;

impl Actor for SessionActor {
    type Msg = SessionMsg;
    type State = Session;
    type Arguments = SessionArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMsg>,
        args: SessionArgs,
    ) -> Result<Session, ActorProcessingErr> {
        let SessionArgs { core, entry, restarted } = args;
        entry.set_actor(myself.clone());
        let session = Session { core, entry };
        session.on_start(&myself, restarted);
        Ok(session)
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // Boxed, as an idle session is to be small.
            SessionMsg::Inbound(inbound, _turn) => {
                Box::pin(session.on_inbound(&myself, *inbound)).await;
            }
            SessionMsg::Rejoin => session.on_rejoin(),
            SessionMsg::Drain => session.on_drain(&myself),
            SessionMsg::End => session.on_end(&myself),
            SessionMsg::Observe(reply) => session.on_observe(reply),
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
            tracing::error!(session = ?session.entry.id(), %error, "a call failed");
        }
        Ok(())
    }
}

impl Session {
    pub(crate) fn new(core: Arc<Core>, entry: Arc<SessionEntry>) -> Self {
        Self { core, entry }
    }

    fn on_start(&self, myself: &ActorRef<SessionMsg>, restarted: bool) {
        if restarted {
            self.on_rejoin();
        } else {
            let mut state = self.entry.state();
            for subscription in state.subscriptions() {
                self.join(&state, subscription);
            }
        }
        // Told to end while there was no actor to hear it.
        if self.entry.ending().is_some() {
            self.on_end(myself);
        }
    }

    async fn on_inbound(&self, myself: &ActorRef<SessionMsg>, inbound: Inbound) {
        self.entry.touch();
        match inbound {
            Inbound::Request(request, responder) => {
                let next = self.on_request(request, responder);
                next.done(myself.get_cell()).await;
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
            tracing::debug!(%id, "nobody waits for this response");
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
                self.entry.state().end_listen(&request.id);
                Err(ErrorObject::unavailable("the server is shutting down"))
            }
            Decision::Listen(_, _, tasks) if tasks.is_empty() => {
                self.hear(&request, responder);
                return Next::Nothing;
            }
            Decision::Listen(caller, listen, tasks) => {
                let listening = self.clone().hear_of(request, caller, listen, tasks, responder);
                return Next::Listen(Box::pin(listening));
            }
            Decision::Refuse(error) => Err(error),
            Decision::Dispatch(caller) => {
                let served = Served { caller, request };
                let run = serve(&self.core, &self.entry, served, responder);
                return run.map_or(Next::Nothing, Next::Run);
            }
        };
        responder.answer(answer);
        Next::Nothing
    }

    /// A listen begins. Its answer is the acknowledgment, and the result comes when it ends.
    fn hear(&self, request: &Request, responder: Responder) {
        responder.withhold();
        let mut state = self.entry.state();
        if let Some(subscription) = state.heard(&request.id) {
            self.join(&state, subscription);
        }
    }

    /// A listen begins that wants to hear of tasks: of those that are its client's.
    async fn hear_of(
        self,
        request: Box<Request>,
        caller: Caller,
        mut listen: Listen,
        mut tasks: Vec<String>,
        responder: Responder,
    ) {
        let caller = caller.of(self.entry.principal().cloned());
        let elsewhere = watch(&self.core, &caller, &request, &mut tasks).await;
        let own = match tasks::owned(&self.core, tasks, &caller).await {
            Ok(own) => own,
            Err(error) => {
                self.entry.state().end_listen(&request.id);
                return responder.answer(Err(error));
            }
        };
        listen.granted.task_ids = [&own[..], &elsewhere.tasks].concat();
        let listen = self.entry.state().grant(&request.id, listen.granted);
        self.hear(&request, responder);
        if let Some(outlet) = self.entry.streams().notices() {
            let watching = elsewhere.tell(outlet, &request.id);
            self.entry.state().watches(&request.id, watching);
        }
        tasks::tell(&self.core, self.entry.key(Some(listen.subscription)), own);
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
                Err(error) => tracing::debug!(%error, "ignored"),
            },
            Method::Initialized => self.on_initialized(),
            _ => tracing::debug!(method = %notification.method, "ignored notification"),
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
        let listen = self.entry.state().end_listen(&cancelled.request_id);
        match listen {
            Some(subscription) => {
                self.core.tell_hub(HubMsg::Leave(self.entry.key(Some(subscription))));
            }
            None => {
                let reason = CancelReason::Client(cancelled.reason);
                // One that is over needs no word.
                self.entry.calls().cancel(&cancelled.request_id, reason);
            }
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
    fn on_rejoin(&self) {
        let Some(outlet) = self.entry.streams().notices() else { return };
        let missed_some = self.entry.hub_was_lost();
        let mut state = self.entry.state();
        for subscription in state.subscriptions() {
            // One that was not acknowledged was told nothing so far, and misses nothing.
            let may_miss = missed_some && subscription.unsaid.is_none();
            let id = subscription.id.clone();
            let told: Vec<_> = subscription.filter.everything().filter(|_| may_miss).collect();
            self.join(&state, subscription);
            // What the old hub was told and did not get round to tell. After the join, so that
            // nothing falls in between.
            for notice in told {
                let class = Class::of(&notice);
                outlet.notice(class, Arc::new(EncodedNotice::new(notice)), id.clone());
            }
        }
    }

    fn on_drain(&self, myself: &ActorRef<SessionMsg>) {
        self.end_listens();
        if self.entry.kind() == SessionKind::Listen {
            self.entry.end(EndReason::Shutdown);
            self.on_end(myself);
        }
    }

    fn on_end(&self, myself: &ActorRef<SessionMsg>) {
        let reason = self.entry.ending();
        tracing::debug!(session = ?self.entry.id(), ?reason, "session ends");
        // Who has gone reads no answer.
        if self.entry.kind() == SessionKind::Listen && reason != Some(EndReason::Disconnected) {
            self.end_listens();
        }
        self.entry.close(&self.core);
        // The root has nothing to do for a session that ended in good order, and is not woken. A
        // shutdown waits for its children.
        if !self.core.is_draining()
            && let Some(root) = myself.try_get_supervisor()
        {
            myself.unlink(root);
        }
        myself.stop(None);
    }

    /// Answers the listens, which ends them.
    fn end_listens(&self) {
        let listens = self.entry.state().end_listens();
        for (request, subscription) in listens {
            self.core.tell_hub(HubMsg::Leave(self.entry.key(Some(subscription))));
            if let Some(outlet) = self.entry.streams().notices() {
                outlet.reply(encode::listen_ended(&request, &self.core.identity), None);
            }
        }
    }

    fn on_observe(&self, reply: RpcReplyPort<SessionView>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.entry.view());
    }
}
