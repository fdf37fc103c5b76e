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
mod serve;
mod state;
mod streams;

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::params;
use stentor_wire::{
    EncodedNotice, Era, ErrorObject, Method, Notification, ProtocolVersion, Request, RequestMeta,
    Response,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::core::Core;
use crate::events::EngineEvent;
use crate::hub::{HubMsg, Refilter, Subscriber, SubscriberKey};
use crate::outlet::Frame;
use crate::outlet::policy::Class;
use crate::peers::watch;
use crate::task::{self, CancelReason, Responder};
use crate::tasks;
pub(crate) use caller::Caller;
pub use entry::{EndReason, SessionKind, SessionView};
pub(crate) use entry::{MAX_WAITING_MESSAGES, SessionEntry};
pub use handover::SessionRecord;
pub(crate) use questions::Questions;
use serve::{Served, serve};
use state::{Decision, Subscription};
pub(crate) use state::{SessionState, grant};
pub(crate) use streams::{FinishStreams, Streams, of_stateless_call};

/// A message of the client.
#[derive(Debug)]
pub(crate) enum Inbound {
    Request(Request, Box<RequestMeta>, Responder),
    Told(Told),
}

/// A message of the client that wants no answer.
#[derive(Debug)]
pub(crate) enum Told {
    Notification(Notification),
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

/// What `initialize` is answered with.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult<'a> {
    protocol_version: &'a str,
    capabilities: &'a stentor_wire::model::ServerCapabilities,
    server_info: &'a stentor_wire::model::Implementation,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
}

/// A session at work: for its actor, and for a transport while no message of the client waits
/// for that.
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
            // Boxed, as the way of a request is long: an idle session is to be small.
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
            Inbound::Request(request, meta, responder) => {
                self.on_request(&myself.get_cell(), request, *meta, responder).await;
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

    /// Serves a request; what it begins is linked to the session's actor.
    pub(crate) async fn on_request(
        &self,
        actor: &ActorCell,
        request: Request,
        mut meta: RequestMeta,
        responder: Responder,
    ) {
        let decision = self.entry.state().on_request(&request, &mut meta);
        let answer = match decision {
            Decision::Initialized(version) => {
                responder.answer(self.initialize_result(version));
                // From here on the client hears notices. Not before its `initialize` is
                // answered, and before any other request of it is, so that a list it reads is
                // never older than this.
                let state = self.entry.state();
                if let Some(subscription) = state.heard_as_client() {
                    self.join(&state, subscription);
                }
                return;
            }
            Decision::Done => Ok(ResultBody::empty()),
            Decision::Watch(uri) => self.on_watch(uri),
            Decision::Unwatch(uri) => Ok(self.on_unwatch(&uri)),
            Decision::Listen(..) if self.core.is_draining() => {
                self.entry.state().end_listen(&request.id);
                Err(ErrorObject::unavailable("the server is shutting down"))
            }
            Decision::Listen(caller, mut listen, tasks) => {
                let mut elsewhere = None;
                if !tasks.is_empty() {
                    let (caller, mut tasks) = (caller.of(self.entry.principal().cloned()), tasks);
                    let granted = Box::pin(watch(&self.core, &caller, &request, &mut tasks)).await;
                    match Box::pin(tasks::owned(&self.core, tasks, &caller)).await {
                        Ok(owned) => {
                            let all = [&owned[..], &granted.tasks].concat();
                            listen.granted.task_ids = all;
                            elsewhere = Some((granted, owned));
                        }
                        Err(error) => {
                            self.entry.state().end_listen(&request.id);
                            return responder.answer(Err(error));
                        }
                    }
                    listen = self.entry.state().grant(&request.id, listen.granted);
                }
                // Its answer is the acknowledgment, and the result comes when it ends.
                responder.withhold();
                {
                    let mut state = self.entry.state();
                    if let Some(subscription) = state.heard(&request.id) {
                        self.join(&state, subscription);
                    }
                }
                let Some((granted, own)) = elsewhere else { return };
                if let Some(outlet) = self.entry.streams().notices() {
                    let watching = granted.tell(outlet, &request.id);
                    self.entry.state().watches(&request.id, watching);
                }
                let key = self.entry.key(Some(listen.subscription));
                return tasks::tell(&self.core, key, own);
            }
            Decision::Refuse(error) => Err(error),
            Decision::Dispatch(caller) => {
                let served = Served { caller, request, meta };
                if let Some(run) = serve(&self.core, &self.entry, served, responder) {
                    task::run(run, actor.clone()).await;
                }
                return;
            }
        };
        responder.answer(answer);
    }

    fn initialize_result(&self, version: ProtocolVersion) -> Result<ResultBody, ErrorObject> {
        ResultBody::new(&InitializeResult {
            protocol_version: version.as_str(),
            capabilities: &self.core.capabilities,
            server_info: self.core.identity.info(),
            instructions: self.core.instructions.as_deref(),
        })
    }

    fn on_watch(&self, uri: String) -> Result<ResultBody, ErrorObject> {
        if self.core.catalog().reader(&uri).is_none() {
            return Err(ErrorObject::resource_not_found(Era::Legacy, &uri));
        }
        let uri: Arc<str> = uri.into();
        let mut state = self.entry.state();
        state.watch(uri.clone())?;
        self.core.tell_hub(HubMsg::Refilter(self.entry.key(None), Refilter::Watch(uri)));
        Ok(ResultBody::empty())
    }

    fn on_unwatch(&self, uri: &str) -> ResultBody {
        let mut state = self.entry.state();
        state.unwatch(uri);
        let unwatch = Refilter::Unwatch(uri.into());
        self.core.tell_hub(HubMsg::Refilter(self.entry.key(None), unwatch));
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
        if self.entry.kind() == SessionKind::Listen {
            self.end_listens();
        }
        self.entry.close(&self.core);
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
