//! What a transport needs: it delivers a client's messages, and reads what goes back.
//!
//! Applications do not use this module; `stentor-transport` and other transports do. A transport
//! decodes bytes into [`Message`]s, delivers them here, and writes the
//! [`Frame`](stentor_delivery::Frame)s that a [`StreamReceiver`] yields, in their order.
//!
//! [`Message`]: stentor_wire::Message

mod deliver;
mod http;
mod pipe;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use stentor_wire::headers::HeaderMismatch;
use stentor_wire::params::NoticeFilter;
use stentor_wire::{
    DecodeError, ErrorObject, Message, Method, Params, ProtocolVersion, Request, SubscriptionId,
    encode, params,
};
use tokio::time::Instant;

use crate::Engine;
use crate::catalog::Offer;
use crate::core::Core;
use crate::dispatch::{Dispatch, Scope, dispatch};
use crate::events::EngineEvent;
use crate::handler::Arguments;
use crate::ids::SessionId;
use crate::reasons::CallOutcome;
use crate::reasons::{EndReason, SessionKind};
use crate::remote::{Granted, watch};
use crate::request_budget::cost_of_call;
use crate::session::{
    Caller, PendingRequests, Session, SessionEntry, SessionRecord, SessionState, Streams, grant,
    of_stateless_call,
};
use crate::shares::{Connection, Share};
use crate::task::{self, Responder, Run};
use crate::tasks;
pub use http::HttpSession;
pub use pipe::Pipe;
use stentor_delivery::StreamReceiver;

/// Why a request of a transport is refused before any actor receives it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refused {
    /// As many sessions are open as the limit allows.
    #[error("too many sessions are open")]
    TooManySessions,
    /// As many requests run as the limit allows.
    #[error("too many requests are running")]
    TooManyRequests,
    /// The engine shuts down or has stopped.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The session is on a node that cannot be reached now.
    #[error("the node that has the session cannot be reached")]
    Unreachable,
}

/// The sender of a request, as far as its transport knows.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The authenticated principal.
    pub principal: Option<Arc<str>>,
    /// The connection of the request. It separates the shares of callers without a principal;
    /// callers without both have one share together.
    pub connection: Option<Connection>,
}

impl From<Option<Arc<str>>> for Source {
    fn from(principal: Option<Arc<str>>) -> Self {
        Self { principal, connection: None }
    }
}

/// A request that has begun. It has its answer after its call, if there is one, was
/// [run](Self::answer).
pub(crate) struct Begun {
    answer: Answer,
    run: Option<(Box<Run>, Session)>,
}

impl Begun {
    fn now((bytes, code): (Bytes, Option<i32>)) -> Self {
        Self { answer: Answer::Now(bytes, code), run: None }
    }

    pub(crate) async fn answer(self) -> Answer {
        if let Some((run, session)) = self.run {
            task::run(run, &session).await;
        }
        self.answer
    }
}

/// Begins to answer a request that belongs to no session of this engine. `questions` is for the
/// questions of its call to a legacy client.
///
/// Not an `async fn`, so that no future contains the whole request.
pub(crate) fn stateless(
    core: &Arc<Core>,
    caller: Caller,
    request: Box<Request>,
    questions: Option<PendingRequests>,
    scope: Scope,
) -> Result<Begun, Refused> {
    // An immediate answer, too, takes memory until the client reads it.
    if core.requests.is_too_much(&caller.share()) {
        return Err(Refused::TooManyRequests);
    }
    let (era, received_at) = (caller.era(), Instant::now());
    let target = match dispatch(core, &caller, &request, scope) {
        Dispatch::Answer(outcome) => {
            let call_outcome = CallOutcome::of(&outcome);
            core.metrics.operation(&request.method, call_outcome, received_at.elapsed());
            return Ok(Begun::now(task::answer_now(core, &caller, &request.id, &outcome)));
        }
        Dispatch::Call(target) => target,
    };
    let bytes = cost_of_call(&request);
    let permit = core.stateless_calls.enter(&caller, bytes).ok_or(Refused::TooManyRequests)?;
    let session = core.stateless.load_full().ok_or(Refused::ShuttingDown)?;
    let session = Session::new(core.clone(), session);
    // Charged before `enter`, because a retry uses up the state of the call that waits.
    let meter = core.requests.of(&caller.share());
    let charge = task::charge(core, &meter, &caller, bytes);
    let charge = charge.map_err(|_| Refused::TooManyRequests)?;
    let entry = match task::enter(core, &caller, &request, &target) {
        Ok(entry) => entry,
        Err(error) => {
            let bytes = encode::error(Some(&request.id), &error);
            return Ok(Begun::now((bytes, Some(error.code))));
        }
    };
    let cancel = entry.cancel();
    permit.is_of(&cancel);
    let sender = of_stateless_call(core, &cancel);
    let receiver = sender.attach();
    let responder = Responder::new(core.clone(), sender, era, &request, permit, meter);
    let (open, streams) = (None, None);
    #[rustfmt::skip]
    let start = task::Start {
        request, caller, target, entry, cancel, open, streams, questions, charge,
    };
    let run = task::begin(core, start, responder).map(|run| (run, session));
    Ok(Begun { answer: Answer::Stream(receiver), run })
}

/// The answer to a modern request over HTTP.
#[derive(Debug)]
pub enum Answer {
    /// One message, and its error code if it is an error.
    Now(Bytes, Option<i32>),
    /// The frames of a call, its response last. Dropping the receiver cancels the call.
    Stream(StreamReceiver),
}

impl Engine {
    /// Opens a session for the one client at the other end of a pipe, in either era.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_pipe(&self) -> Result<(Pipe, StreamReceiver), Refused> {
        let core = self.core();
        let (id, kind) = (crate::ids::new_session_id(&core.config.node), SessionKind::Pipe);
        // Everything goes out on one stream, so a response does not end it.
        let streams = Streams::one(core, &id, false);
        let sender = streams.notices().cloned().ok_or(Refused::SessionEnded)?;
        // Each pipe is a caller of its own.
        let share = Share::of(None, Some(&id), None);
        let (max, meter) = (core.config.max_subscriptions, core.session_meter(&share));
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, streams, state, None)?;
        self.install(&entry)?;
        let receiver = sender.attach();
        Ok((Pipe { core: core.clone(), entry, sender }, receiver))
    }

    /// Opens a legacy session over HTTP, for a client that is about to send `initialize`. Only the
    /// same principal can find the session.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_http_session(&self, source: Source) -> Result<HttpSession, Refused> {
        let core = self.core();
        let meter =
            core.session_meter(&Share::of(source.principal.as_ref(), None, source.connection));
        let (id, kind) = (crate::ids::new_session_id(&core.config.node), SessionKind::Http);
        let streams = Streams::http(core, &id);
        let max = core.config.max_subscriptions;
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, streams, state, source.principal)?;
        self.install(&entry)?;
        Ok(HttpSession::local(core.clone(), entry))
    }

    /// Finds a legacy session over HTTP by its `Mcp-Session-Id`, for the principal that opened it.
    ///
    /// The session is on this node or, as its id says, on another one. A session whose node died
    /// continues on this node if there is a [`SessionStore`](crate::SessionStore).
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`]. If another node does not know the
    /// session, the error comes when the session is used.
    pub async fn http_session(
        &self,
        id: &str,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        let core = self.core();
        core.migrations.settled(id).await;
        if let Some(session) = self.own_http_session(id, principal) {
            return Ok(session);
        }
        // Boxed to keep the common future small: most sessions are on this node.
        Box::pin(self.find_session(&SessionId::new(id), principal)).await
    }

    /// Continues a session that another node had.
    pub(crate) async fn accept_migration(&self, record: SessionRecord) -> Result<(), Refused> {
        let core = self.core();
        if core.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        if core.directory.get(record.id().as_str()).is_some() {
            return Ok(());
        }
        let permit = core.directory.permit().ok_or(Refused::TooManySessions)?;
        self.install_migrated(&Arc::new(SessionEntry::from_record(core, record, permit)))
    }

    /// Installs a session that another node had.
    pub(crate) fn install_migrated(&self, entry: &Arc<SessionEntry>) -> Result<(), Refused> {
        // Notices may have been lost while the session was on its way.
        entry.mark_missed();
        self.install(entry)?;
        self.core().session_changed(entry);
        Ok(())
    }

    /// Like [`http_session`](Self::http_session), for the sessions of this engine only.
    pub(crate) fn own_http_session(
        &self,
        id: &str,
        principal: Option<&str>,
    ) -> Option<HttpSession> {
        let core = self.core();
        let entry = core
            .directory
            .get(id)
            .filter(|entry| entry.kind() == SessionKind::Http && entry.is_of(principal))?;
        Some(HttpSession::local(core.clone(), entry))
    }

    /// Answers a modern request over HTTP, whose `_meta` and headers have been checked.
    ///
    /// Work that takes no time is done before there is a future, so that the future does not
    /// contain the request. Dropping the future, polled or not, cancels the call.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the reason that the client must receive instead.
    pub fn answer<S: Into<Source>>(
        &self,
        version: ProtocolVersion,
        request: Box<Request>,
        source: S,
    ) -> impl Future<Output = Result<Answer, Refused>> + Send + use<'_, S> {
        let Source { principal, connection } = source.into();
        let caller = Caller::modern(version, &request.meta, None).of(principal).on(connection);
        if request.method == Method::Listen {
            return Either::Right(Box::pin(self.listen(request, caller)));
        }
        let begun = stateless(self.core(), caller, request, None, Scope::All);
        Either::Left(async move { Ok(begun?.answer().await) })
    }

    /// Decodes a client's message within the bounds of this engine, a large one on another thread.
    /// Cancel safe: decoding changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        self.core().decode(input).await
    }

    /// The time after which a transport closes the connection of a client that reads nothing:
    /// [`Config::stall_timeout`](crate::Config::stall_timeout).
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.core().config.stall_timeout
    }

    pub(crate) async fn listen(
        &self,
        request: Box<Request>,
        caller: Caller,
    ) -> Result<Answer, Refused> {
        let core = self.core();
        let params = params::Listen::read(&request.params);
        let granted = params.and_then(|params| grant(params, core.config.max_subscriptions));
        let granted = match granted {
            Ok(granted) if !granted.task_ids.is_empty() => {
                // Boxed to keep the common future small: few listens ask for tasks.
                Box::pin(self.grant_tasks(&request, &caller, granted)).await
            }
            granted => granted.map(|granted| (granted, None)),
        };
        let (granted, tasks) = match granted {
            Ok(granted) => granted,
            Err(error) => {
                let bytes = encode::error(Some(&request.id), &error);
                return Ok(Answer::Now(bytes, Some(error.code)));
            }
        };
        let id = crate::ids::new_session_id(&core.config.node);
        let streams = Streams::one(core, &id, true);
        let sender = streams.notices().cloned().ok_or(Refused::ShuttingDown)?;
        let (receiver, request_id) = (sender.attach(), request.id.clone());
        let grants_nothing = granted == NoticeFilter::default();
        let meter = core.session_meter(&caller.share());
        let state = match SessionState::listening(id, request_id.clone(), &granted, &meter) {
            Ok(state) => state,
            Err(error) => {
                let bytes = encode::error(Some(&request.id), &error);
                return Ok(Answer::Now(bytes, Some(error.code)));
            }
        };
        let principal = caller.principal;
        let entry = self.new_session(SessionKind::Listen, streams, state, principal)?;
        self.install(&entry)?;
        if grants_nothing {
            // A listen that was granted nothing can receive nothing: it ends after its
            // acknowledgment.
            entry.end(core, EndReason::Ended);
        } else if let Some((remote, local)) = tasks {
            let watching = remote.tell(&sender, &request_id);
            entry.state().watches(&request_id, watching);
            tasks::send_current_state(
                core,
                entry.key(Some(SubscriptionId::of(&request_id))),
                local,
            );
        }
        Ok(Answer::Stream(receiver))
    }

    /// Finds out which tasks a listen may receive: those of its caller, on any node.
    async fn grant_tasks(
        &self,
        request: &Request,
        caller: &Caller,
        mut granted: NoticeFilter,
    ) -> Result<(NoticeFilter, Option<(Granted, Vec<String>)>), ErrorObject> {
        let mut asked = std::mem::take(&mut granted.task_ids);
        let remote = watch(self.core(), caller, request, &mut asked).await;
        let local = tasks::owned(self.core(), asked, caller).await?;
        granted.task_ids = [&local[..], &remote.tasks].concat();
        Ok((granted, Some((remote, local))))
    }

    /// Compares the `Mcp-Param-*` headers of a `tools/call` with its arguments, as the tool's
    /// schema says (2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom
    /// Headers"). `header` finds a header by its lowercase name.
    ///
    /// Large arguments are read on another thread. Cancel safe.
    ///
    /// # Errors
    ///
    /// The header that does not match.
    pub async fn check_param_headers<'a>(
        &self,
        params: &Params,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), HeaderMismatch> {
        // Errors in the parameters are reported later.
        let Ok(called) = params::CallTool::read(params) else { return Ok(()) };
        let catalog = self.core().registry.catalog();
        let headers = match catalog.tool(&called.name) {
            Some(Offer::Own(tool)) => tool.headers(),
            Some(Offer::Remote(remote)) => remote.headers(),
            None => return Ok(()),
        };
        if headers.is_empty() {
            return Ok(());
        }
        let arguments = called.arguments.map(|raw| Arguments::new(params.share(raw)));
        let arguments = match arguments {
            Some(large) if large.are_large() => {
                self.core().offload.run(move || large.read().ok()).await
            }
            arguments => arguments.and_then(|arguments| arguments.read().ok()),
        };
        headers.check(arguments.as_ref(), header)
    }

    /// Makes a session that no lookup finds yet.
    fn new_session(
        &self,
        kind: SessionKind,
        streams: Streams,
        state: SessionState,
        principal: Option<Arc<str>>,
    ) -> Result<Arc<SessionEntry>, Refused> {
        let core = self.core();
        if core.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let permit = Some(core.directory.permit().ok_or(Refused::TooManySessions)?);
        let id = state.id().clone();
        Ok(Arc::new(SessionEntry::new(core, id, kind, streams, state, principal, permit)))
    }

    /// From here on, lookups find the session, and it receives what it subscribes to.
    fn install(&self, entry: &Arc<SessionEntry>) -> Result<(), Refused> {
        let core = self.core();
        core.events.emit(|| EngineEvent::SessionOpened {
            session: entry.id().clone(),
            kind: entry.kind(),
            principal: entry.principal().cloned(),
        });
        core.directory.insert(entry.clone());
        // Checked after the insert, because a supervisor that ends also ends the sessions it finds.
        if core.lifecycle.is_draining() {
            entry.end(core, EndReason::Shutdown);
            return Err(Refused::ShuttingDown);
        }
        Session::new(core.clone(), entry.clone()).rejoin();
        Ok(())
    }
}
