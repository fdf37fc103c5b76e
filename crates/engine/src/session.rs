//! **Owns** what one client said and may hear: its identity, its open calls, its streams.
//! **Receives** the client's messages from a transport, and word that it has gone.
//! **Sends** joins and leaves to the hub, answers into the outlet of their request, and
//! starts a linked task actor for each call.
//! **Dies when** its client ends it or stays away too long, or the engine stops.
//! **Restarts as** nothing yet: its client is told with a 404 and opens another.

mod caller;
mod entry;
mod questions;
mod state;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use stentor_wire::encode::{self, ResultBody};
use stentor_wire::params::{self, NoticeFilter};
use stentor_wire::{
    EncodedNotice, Era, ErrorObject, Id, Message, Method, Notification, ProtocolVersion, Request,
    RequestMeta, SubscriptionId,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::core::Core;
use crate::directory::Seat;
use crate::dispatch::{Dispatch, dispatch};
use crate::hub::filter::Filter;
use crate::hub::{HubMsg, Refilter, Subscriber, SubscriberKey};
use crate::ids::SessionId;
use crate::outlet::Outlet;
use crate::outlet::policy::Class;
use crate::task::{self, Cancel, CancelReason, CancelWhenGone, Claim, Held, OpenCall};
pub(crate) use caller::Caller;
pub use entry::{EndReason, SessionKind, SessionView};
pub(crate) use entry::{FinishStreams, MAX_WAITING_MESSAGES, SessionEntry, Streams};
pub(crate) use questions::Questions;
pub(crate) use state::grant;
use state::{Decision, SessionState};

/// A message of the client, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) message: Message,
    pub(crate) reply: Outlet,
    /// The right of a request to be running; held until it is answered.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// The right to be in the mailbox; held until the message is handled.
    pub(crate) turn: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum SessionMsg {
    Inbound(Box<Inbound>),
    /// The transport lost the client for good.
    Gone,
    /// A new hub knows nobody.
    Rejoin,
    /// No new work is coming: end what only waits.
    Drain,
    End(EndReason),
    Observe(RpcReplyPort<SessionView>),
}

crate::message!(SessionMsg);

pub(crate) struct SessionArgs {
    pub(crate) core: Arc<Core>,
    pub(crate) id: SessionId,
    pub(crate) kind: SessionKind,
    pub(crate) streams: Streams,
    pub(crate) seat: Option<Seat>,
    pub(crate) principal: Option<Arc<str>>,
    /// For a session that is one listen: its request and what it was granted.
    pub(crate) listen: Option<(Id, NoticeFilter)>,
}

pub(crate) struct Session {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
    state: SessionState,
    filters: Vec<(SubscriberKey, Filter)>,
    streams: Arc<FinishStreams>,
}

/// A call that may run.
struct Admitted {
    caller: Caller,
    entry: task::Entry,
    cancel: Cancel,
    open: OpenCall,
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
        let SessionArgs { core, id, kind, streams, seat, principal, listen } = args;
        let max = core.config.max_subscriptions;
        let entry =
            Arc::new(SessionEntry::new(id.clone(), kind, myself, streams, seat, principal, &core));
        core.directory.insert(entry.clone());
        let state = SessionState::new(id, kind.serves_modern(), max);
        let streams = Arc::new(FinishStreams(entry.streams().clone()));
        let mut session = Session { core, entry, state, filters: Vec::new(), streams };
        if let Some((request, granted)) = listen {
            session.join_listen(SubscriptionId::of(&request), &granted);
            session.entry.set_listen(request);
        }
        Ok(session)
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        session: &mut Session,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMsg::Inbound(inbound) => session.on_inbound(&myself, *inbound).await,
            SessionMsg::Gone => session.on_gone(&myself),
            SessionMsg::Rejoin => session.on_rejoin(),
            SessionMsg::Drain => session.on_drain(&myself),
            SessionMsg::End(reason) => session.on_end(&myself, reason),
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
    async fn on_inbound(&mut self, myself: &ActorRef<SessionMsg>, inbound: Inbound) {
        let Inbound { message, reply, permit, turn: _turn } = inbound;
        self.entry.touch();
        match message {
            Message::Request(request) => self.on_request(myself, request, reply, permit).await,
            Message::Notification(notification) => self.on_notification(&notification),
            Message::Response(response) => {
                let id = response.id.clone();
                if !self.entry.questions().answer(response) {
                    tracing::debug!(%id, "nobody waits for this response");
                }
            }
        }
    }

    async fn on_request(
        &mut self,
        myself: &ActorRef<SessionMsg>,
        request: Request,
        reply: Outlet,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let meta = match RequestMeta::read(&request.params) {
            Ok(meta) => meta,
            Err(error) => {
                drop(permit);
                return self.answer(&reply, Era::Legacy, &request.id, &Err(error));
            }
        };
        let era = if meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
        let answered = match self.state.on_request(&request, &meta) {
            Decision::Initialized(version) => {
                let answer = self.initialize_result(version);
                drop(permit);
                self.answer(&reply, era, &request.id, &answer);
                return self.join_legacy();
            }
            Decision::Done => Ok(ResultBody::empty()),
            Decision::Watch(uri) => self.on_watch(uri),
            Decision::Unwatch(uri) => Ok(self.on_unwatch(&uri)),
            Decision::Listen(..) if self.core.is_draining() => {
                self.state.end_listen(&request.id);
                Err(ErrorObject::unavailable("the server is shutting down"))
            }
            Decision::Listen(subscription, granted) => {
                // Its answer is the acknowledgment, and the result comes when it ends.
                return self.join_listen(subscription, &granted);
            }
            Decision::Refuse(error) => Err(error),
            Decision::Dispatch(caller) => match dispatch(&self.core, caller.era(), &request) {
                Dispatch::Answer(outcome) => outcome,
                Dispatch::Call(target) => match self.admit(caller, &request) {
                    Ok(admitted) => {
                        let Admitted { caller, entry, cancel, open } = admitted;
                        let held = Held {
                            claim: Claim { open: Some(open), permit },
                            streams: Some(self.streams.clone()),
                            ..Held::default()
                        };
                        let questions = Some(self.entry.questions().clone());
                        let start =
                            task::Start { request, meta, caller, outlet: reply, cancel, held };
                        let parent = myself.get_cell();
                        return task::start(&self.core, parent, entry, target, questions, start)
                            .await;
                    }
                    Err(error) => Err(error),
                },
            },
        };
        // First, so that who reads the answer finds room for one more.
        drop(permit);
        self.answer(&reply, era, &request.id, &answered);
    }

    /// Lets a call in: a new one, or the retry of one that waits.
    fn admit(&self, caller: Caller, request: &Request) -> Result<Admitted, ErrorObject> {
        let calls = self.entry.calls();
        let in_use =
            || ErrorObject::new(stentor_wire::code::INVALID_REQUEST, "the request id is in use");
        // Asked first, as a retry uses up the state of the call that waits.
        if calls.is_open(&request.id) {
            return Err(in_use());
        }
        let resumes = self.entry.kind() == SessionKind::Http;
        let caller = caller.of(self.entry.principal().cloned()).resuming(resumes);
        let entry = task::enter(&self.core, &caller, request)?;
        let cancel = entry.cancel(&self.core);
        let open = calls.open(&request.id, &cancel).ok_or_else(in_use)?;
        Ok(Admitted { caller, entry, cancel, open })
    }

    fn answer(&self, reply: &Outlet, era: Era, id: &Id, outcome: &Result<ResultBody, ErrorObject>) {
        let (bytes, error_code) = task::answer_now(&self.core, era, id, outcome);
        reply.reply(bytes, error_code);
    }

    fn initialize_result(&self, version: ProtocolVersion) -> Result<ResultBody, ErrorObject> {
        if let Some(caller) = self.state.legacy() {
            self.entry.set_client(caller);
        }
        let mut result = serde_json::json!({
            "protocolVersion": version.as_str(),
            "capabilities": self.core.capabilities,
            "serverInfo": self.core.identity.info(),
        });
        if let Some(instructions) = &self.core.instructions {
            result["instructions"] = instructions.as_str().into();
        }
        ResultBody::new(&result)
    }

    /// From here on the client hears notices. Not before its `initialize` is answered, and
    /// before any other request of it is, so that a list it reads is never older than this.
    fn join_legacy(&mut self) {
        if let Some(outlet) = self.entry.streams().notices().cloned() {
            self.join(None, outlet, Filter::legacy(), None);
        }
    }

    fn on_watch(&mut self, uri: String) -> Result<ResultBody, ErrorObject> {
        if self.core.catalog().reader(&uri).is_none() {
            return Err(ErrorObject::resource_not_found(Era::Legacy, &uri));
        }
        self.state.watched(&uri);
        let uri: Arc<str> = uri.into();
        self.refilter(|filter| filter.watch(uri.clone()), Refilter::Watch(uri.clone()));
        Ok(ResultBody::empty())
    }

    fn on_unwatch(&mut self, uri: &str) -> ResultBody {
        self.refilter(|filter| filter.unwatch(uri), Refilter::Unwatch(uri.into()));
        ResultBody::empty()
    }

    /// Changes what the legacy client hears: in the hub, and in what a new hub would be told.
    fn refilter(&mut self, change: impl FnOnce(&mut Filter), told: Refilter) {
        let key = self.key(None);
        if let Some((_, filter)) = self.filters.iter_mut().find(|(held, _)| *held == key) {
            change(filter);
        }
        self.core.tell_hub(HubMsg::Refilter(key, told));
    }

    fn on_notification(&mut self, notification: &Notification) {
        match notification.method {
            Method::Cancelled => match notification.params.parse::<params::Cancelled>() {
                Ok(cancelled) => match self.state.end_listen(&cancelled.request_id) {
                    Some(subscription) => self.leave(Some(subscription)),
                    None => self
                        .entry
                        .calls()
                        .cancel(&cancelled.request_id, CancelReason::Client(cancelled.reason)),
                },
                // Malformed ones are ignored (2026-07-28, basic/patterns/cancellation).
                Err(error) => tracing::debug!(%error, "ignored"),
            },
            Method::Initialized => self.entry.set_initialized(),
            _ => tracing::debug!(method = %notification.method, "ignored notification"),
        }
    }

    fn join_listen(&mut self, subscription: SubscriptionId, granted: &NoticeFilter) {
        let Some(outlet) = self.entry.streams().notices().cloned() else { return };
        let acknowledgment = encode::acknowledged(&subscription, granted);
        self.join(Some(subscription), outlet, Filter::granted(granted), Some(acknowledgment));
    }

    fn join(
        &mut self,
        subscription: Option<SubscriptionId>,
        outlet: Outlet,
        filter: Filter,
        acknowledgment: Option<bytes::Bytes>,
    ) {
        let key = self.key(subscription);
        self.filters.push((key.clone(), filter.clone()));
        let subscriber = Subscriber { outlet, filter, acknowledgment };
        self.core.tell_hub(HubMsg::Join(key, Box::new(subscriber)));
    }

    fn leave(&mut self, subscription: Option<SubscriptionId>) {
        let key = self.key(subscription);
        self.filters.retain(|(held, _)| *held != key);
        self.core.tell_hub(HubMsg::Leave(key));
    }

    fn key(&self, subscription: Option<SubscriptionId>) -> SubscriberKey {
        SubscriberKey { session: self.entry.id().clone(), subscription }
    }

    fn on_gone(&mut self, myself: &ActorRef<SessionMsg>) {
        self.on_end(myself, EndReason::Disconnected);
    }

    fn on_rejoin(&mut self) {
        let Some(outlet) = self.entry.streams().notices() else { return };
        for (key, filter) in &self.filters {
            let subscriber =
                Subscriber { outlet: outlet.clone(), filter: filter.clone(), acknowledgment: None };
            self.core.tell_hub(HubMsg::Join(key.clone(), Box::new(subscriber)));
            // What the old hub was told and did not get round to tell. After the join, so that
            // nothing falls in between.
            for notice in filter.everything() {
                let class = Class::of(&notice);
                let notice = Arc::new(EncodedNotice::new(notice));
                outlet.notice(class, notice, key.subscription.clone());
            }
        }
    }

    fn on_drain(&mut self, myself: &ActorRef<SessionMsg>) {
        for (request, subscription) in self.state.end_listens() {
            self.leave(Some(subscription));
            if let Some(outlet) = self.entry.streams().notices() {
                outlet.reply(encode::listen_ended(&request, &self.core.identity), None);
            }
        }
        if self.entry.kind() == SessionKind::Listen {
            self.on_end(myself, EndReason::Shutdown);
        }
    }

    fn on_end(&mut self, myself: &ActorRef<SessionMsg>, reason: EndReason) {
        tracing::debug!(session = ?self.entry.id(), ?reason, "session ends");
        if let Some(request) = self.entry.take_listen()
            && let Some(outlet) = self.entry.streams().notices()
        {
            outlet.reply(encode::listen_ended(&request, &self.core.identity), None);
        }
        let cancelled = match reason {
            EndReason::Shutdown => CancelReason::Shutdown,
            _ => CancelReason::SessionEnded,
        };
        self.entry.calls().cancel_all(&cancelled);
        myself.stop(None);
    }

    fn on_observe(&self, reply: RpcReplyPort<SessionView>) {
        // Whoever asked may have gone.
        let _ = reply.send(self.entry.view());
    }
}

/// Whatever ends the actor, also a kill or a panic, ends what belongs to it.
impl Drop for Session {
    fn drop(&mut self) {
        self.core.directory.remove(self.entry.id());
        for (key, _) in self.filters.drain(..) {
            self.core.tell_hub(HubMsg::Leave(key));
        }
        // They answer as they end, and the streams end after the last of them.
        self.entry.calls().cancel_all(&CancelReason::SessionEnded);
    }
}

/// Opens a modern HTTP call's stream, which cancels the call when the client closes it.
pub(crate) fn stateless_outlet(core: &Core, cancel: &Cancel) -> Outlet {
    entry::request_outlet(
        core,
        core.tally.clone(),
        crate::outlet::WhenGone::Close(Box::new(CancelWhenGone(cancel.clone()))),
    )
}
