//! What a transport needs: hand in a client's messages, read what goes back.
//!
//! Applications do not use this; `stentor-transport` does, and whoever writes a transport of
//! their own. A transport decodes bytes into [`Message`]s, hands them in here, and writes the
//! [`Frame`](crate::outlet::Frame)s that an [`Inlet`] yields, in their order.
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
use crate::core::Core;
use crate::dispatch::{Dispatch, Scope, dispatch};
use crate::events::{CallOutcome, EngineEvent};
use crate::handler::Arguments;
use crate::ids::SessionId;
use crate::outlet::Inlet;
use crate::peers::{Granted, watch};
use crate::registry::Offer;
use crate::request_budget::cost_of_call;
use crate::session::{
    Caller, EndReason, Questions, Session, SessionEntry, SessionKind, SessionRecord, SessionState,
    Streams, grant, of_stateless_call,
};
use crate::shares::{Connection, Share};
use crate::task::{self, Responder, Run};
use crate::tasks;
pub use http::HttpSession;
pub use pipe::Pipe;

/// Why a transport's request is refused before any actor sees it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refused {
    /// As many sessions are open as may be.
    #[error("too many sessions are open")]
    TooManySessions,
    /// As many requests are running as may be.
    #[error("too many requests are running")]
    TooManyRequests,
    /// The engine shuts down or has stopped.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The session is on a node that cannot be reached just now.
    #[error("the node that has the session cannot be reached")]
    Unreachable,
}

/// Who sends a request, as far as its transport knows.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Who has been authenticated.
    pub principal: Option<Arc<str>>,
    /// What the request came on. Of what all callers share, those that are nobody known share by this;
    /// without it they have one share together.
    pub connection: Option<Connection>,
}

impl From<Option<Arc<str>>> for Source {
    fn from(principal: Option<Arc<str>>) -> Self {
        Self { principal, connection: None }
    }
}

/// A request that has its answer once its call, if it begins one, was [run](Self::answer).
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

/// Begins to answer a request that belongs to no session of this engine. `questions` is where its
/// call asks a legacy client.
///
/// No `async fn`, so that no future has room for all that a request is made of.
pub(crate) fn stateless(
    core: &Arc<Core>,
    caller: Caller,
    request: Box<Request>,
    questions: Option<Questions>,
    scope: Scope,
) -> Result<Begun, Refused> {
    // Also what is answered at once may wait to be read.
    if core.requests.is_too_much(&caller.share()) {
        return Err(Refused::TooManyRequests);
    }
    let (era, came_in) = (caller.era(), Instant::now());
    let target = match dispatch(core, &caller, &request, scope) {
        Dispatch::Answer(outcome) => {
            let said = CallOutcome::of(&outcome);
            core.metrics.operation(&request.method, said, came_in.elapsed());
            return Ok(Begun::now(task::answer_now(core, &caller, &request.id, &outcome)));
        }
        Dispatch::Call(target) => target,
    };
    let bytes = cost_of_call(&request);
    let permit = core.stateless_calls.enter(&caller, bytes).ok_or(Refused::TooManyRequests)?;
    let session = core.stateless.load_full().ok_or(Refused::ShuttingDown)?;
    let session = Session::new(core.clone(), session);
    // Before it enters, as a retry uses up the state of the call that waits.
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
    let outlet = of_stateless_call(core, &cancel);
    let inlet = outlet.attach();
    let responder = Responder::new(core.clone(), outlet, era, &request, permit, meter);
    let (open, streams) = (None, None);
    #[rustfmt::skip]
    let start = task::Start {
        request, caller, target, entry, cancel, open, streams, questions, charge,
    };
    let run = task::begin(core, start, responder).map(|run| (run, session));
    Ok(Begun { answer: Answer::Stream(inlet), run })
}

/// What a modern request over HTTP comes to.
#[derive(Debug)]
pub enum Answer {
    /// One message, and the code of its error if it is one.
    Now(Bytes, Option<i32>),
    /// Whatever the call says, its response last. Dropping the inlet cancels the call.
    Stream(Inlet),
}

impl Engine {
    /// Opens a session for the one client at the other end of a pipe, in either era.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_pipe(&self) -> Result<(Pipe, Inlet), Refused> {
        let core = self.core();
        let (id, kind) = (SessionId::random(&core.config.node), SessionKind::Pipe);
        // Everything goes out on one stream, so a response does not end it.
        let streams = Streams::one(core, &id, false);
        let outlet = streams.notices().cloned().ok_or(Refused::SessionEnded)?;
        // Whoever has a pipe is a caller of its own.
        let share = Share::of(None, Some(&id), None);
        let (max, meter) = (core.config.max_subscriptions, core.session_meter(&share));
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, streams, state, None)?;
        self.install(&entry)?;
        let inlet = outlet.attach();
        Ok((Pipe { core: core.clone(), entry, outlet }, inlet))
    }

    /// Opens a legacy session over HTTP, for a client that is about to send `initialize`. From
    /// then on only the same principal finds it.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_http_session(&self, source: Source) -> Result<HttpSession, Refused> {
        let core = self.core();
        let meter =
            core.session_meter(&Share::of(source.principal.as_ref(), None, source.connection));
        let (id, kind) = (SessionId::random(&core.config.node), SessionKind::Http);
        let streams = Streams::http(core, &id);
        let max = core.config.max_subscriptions;
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, streams, state, source.principal)?;
        self.install(&entry)?;
        Ok(HttpSession::here(core.clone(), entry))
    }

    /// Finds a legacy session over HTTP by its `Mcp-Session-Id`, for the principal that
    /// opened it: here or, as its name tells, on another node. One whose node died goes on here, if
    /// there is a [`SessionStore`](crate::SessionStore).
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`]. That another node does not know it shows
    /// when it is used.
    pub async fn http_session(
        &self,
        id: &str,
        principal: Option<&str>,
    ) -> Result<HttpSession, Refused> {
        let core = self.core();
        core.moving.settled(id).await;
        if let Some(session) = self.own_http_session(id, principal) {
            return Ok(session);
        }
        // Boxed, as most sessions are here.
        Box::pin(self.find_session(&SessionId::named(id), principal)).await
    }

    /// Carries on a session that another node had.
    pub(crate) async fn adopt(&self, record: SessionRecord) -> Result<(), Refused> {
        let core = self.core();
        if core.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        if core.directory.get(record.id().as_str()).is_some() {
            return Ok(());
        }
        let seat = core.directory.seat().ok_or(Refused::TooManySessions)?;
        self.install_adopted(&Arc::new(SessionEntry::carried_on(core, record, seat)))
    }

    /// Lets a session begin that another node had.
    pub(crate) fn install_adopted(&self, entry: &Arc<SessionEntry>) -> Result<(), Refused> {
        // What changed while it was on its way.
        entry.missed_some();
        self.install(entry)?;
        self.core().session_changed(entry);
        Ok(())
    }

    /// As [`http_session`](Self::http_session), of this engine only.
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
        Some(HttpSession::here(core.clone(), entry))
    }

    /// Answers a modern request over HTTP, whose `_meta` and headers have been checked.
    ///
    /// What takes no time is done before there is a future, which so needs no room for the request.
    /// Dropping the future, polled or not, cancels the call.
    ///
    /// # Errors
    ///
    /// [`Refused`], with what the client is to be told instead.
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

    /// Decodes a message of a client within the bounds of this engine, a large one on another thread.
    /// Cancel safe: nothing has happened but that it was read.
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub async fn decode(&self, input: Bytes) -> Result<Message, DecodeError> {
        self.core().decode(input).await
    }

    /// After which time a transport closes the connection of a client that takes nothing:
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
                // Boxed, as few listen to tasks.
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
        let id = SessionId::random(&core.config.node);
        let streams = Streams::one(core, &id, true);
        let outlet = streams.notices().cloned().ok_or(Refused::ShuttingDown)?;
        let (inlet, request_id) = (outlet.attach(), request.id.clone());
        let is_deaf = granted == NoticeFilter::default();
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
        if is_deaf {
            // Nothing can ever come: it is told what it was granted, and ends.
            entry.end(core, EndReason::Ended);
        } else if let Some((elsewhere, own)) = tasks {
            let watching = elsewhere.tell(&outlet, &request_id);
            entry.state().watches(&request_id, watching);
            tasks::tell(core, entry.key(Some(SubscriptionId::of(&request_id))), own);
        }
        Ok(Answer::Stream(inlet))
    }

    /// Finds out of which of the tasks a listen may hear: wherever they are, its own only.
    async fn grant_tasks(
        &self,
        request: &Request,
        caller: &Caller,
        mut granted: NoticeFilter,
    ) -> Result<(NoticeFilter, Option<(Granted, Vec<String>)>), ErrorObject> {
        let mut asked = std::mem::take(&mut granted.task_ids);
        let elsewhere = watch(self.core(), caller, request, &mut asked).await;
        let own = tasks::owned(self.core(), asked, caller).await?;
        granted.task_ids = [&own[..], &elsewhere.tasks].concat();
        Ok((granted, Some((elsewhere, own))))
    }

    /// Compares the `Mcp-Param-*` headers of a `tools/call` with its arguments, as the tool's
    /// schema says (2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom
    /// Headers"). `header` finds a header by its lowercase name.
    ///
    /// Large arguments are read on another thread. Cancel safe.
    ///
    /// # Errors
    ///
    /// What does not match.
    pub async fn check_param_headers<'a>(
        &self,
        params: &Params,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), HeaderMismatch> {
        // What is wrong with the parameters is said later.
        let Ok(called) = params::CallTool::read(params) else { return Ok(()) };
        let catalog = self.core().catalog();
        let headers = match catalog.tool(&called.name) {
            Some(Offer::Own(tool)) => tool.headers(),
            Some(Offer::Abroad(abroad)) => abroad.headers(),
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

    /// A session that nobody finds yet.
    fn new_session(
        &self,
        kind: SessionKind,
        streams: Streams,
        state: SessionState,
        principal: Option<Arc<str>>,
    ) -> Result<Arc<SessionEntry>, Refused> {
        let core = self.core();
        if core.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let seat = Some(core.directory.seat().ok_or(Refused::TooManySessions)?);
        let id = state.id().clone();
        Ok(Arc::new(SessionEntry::new(core, id, kind, streams, state, principal, seat)))
    }

    /// From here on a session is found, and hears what it subscribes to.
    fn install(&self, entry: &Arc<SessionEntry>) -> Result<(), Refused> {
        let core = self.core();
        core.events.emit(|| EngineEvent::SessionOpened {
            session: entry.id().clone(),
            kind: entry.kind(),
            principal: entry.principal().cloned(),
        });
        core.directory.insert(entry.clone());
        // Looked at after it is there: the root ends those that it finds as it ends.
        if core.is_draining() {
            entry.end(core, EndReason::Shutdown);
            return Err(Refused::ShuttingDown);
        }
        Session::new(core.clone(), entry.clone()).rejoin();
        Ok(())
    }
}
