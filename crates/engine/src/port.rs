//! What a transport needs: hand in a client's messages, read what goes back.
//!
//! Applications do not use this; `stentor-transport` does, and whoever writes a transport of
//! their own. A transport decodes bytes into [`Message`]s, hands them in here, and writes the
//! [`Frame`](crate::outlet::Frame)s that an [`Inlet`] yields, in their order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stentor_wire::headers::HeaderMismatch;
use stentor_wire::{
    DecodeError, EncodedNotice, Era, ErrorObject, ListKind, Message, Method, Notice, Notification,
    Params, ProtocolVersion, Request, RequestMeta, Response, SubscriptionId, code, encode, params,
};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::Engine;
use crate::core::Core;
use crate::dispatch::{Dispatch, dispatch};
use crate::engine::LAST_MOMENT;
use crate::events::{CallOutcome, EngineEvent};
use crate::ids::{Seq, SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Inlet, Outlet};
use crate::root::spawn_session;
use crate::session::{
    Caller, EndReason, Inbound, MAX_WAITING_MESSAGES, Session, SessionEntry, SessionKind,
    SessionMsg, SessionState, Streams, grant, of_stateless_call,
};
use crate::task::{self, Responder};
use crate::tasks;

/// Why a transport's request is refused before any actor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Somebody reads the session's notices already.
    #[error("the session's notices are being read already")]
    StreamTaken,
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
        let (id, kind) = (SessionId::random(), SessionKind::Pipe);
        // Everything goes out on one stream, so a response does not end it.
        let streams = Streams::one(core, &id, false);
        let outlet = streams.notices().cloned().ok_or(Refused::SessionEnded)?;
        let state = SessionState::new(id, kind.serves_modern(), core.config.max_subscriptions);
        let entry = self.open_session(kind, streams, state, None).await?;
        let inlet = outlet.attach();
        Ok((Pipe { core: core.clone(), entry, outlet }, inlet))
    }

    /// Opens a legacy session over HTTP, for a client that is about to send `initialize`. From
    /// then on only the same principal finds it.
    ///
    /// # Errors
    ///
    /// [`Refused::ShuttingDown`], [`Refused::TooManySessions`].
    pub async fn open_http_session(
        &self,
        principal: Option<Arc<str>>,
    ) -> Result<HttpSession, Refused> {
        let core = self.core();
        let (id, kind) = (SessionId::random(), SessionKind::Http);
        let streams = Streams::http(core, &id);
        let state = SessionState::new(id, kind.serves_modern(), core.config.max_subscriptions);
        let entry = self.open_session(kind, streams, state, principal).await?;
        Ok(HttpSession { core: core.clone(), entry })
    }

    /// Finds a legacy session over HTTP by its `Mcp-Session-Id`, for the principal that
    /// opened it.
    #[must_use]
    pub fn http_session(&self, id: &str, principal: Option<&str>) -> Option<HttpSession> {
        let core = self.core();
        let entry = core.directory.get(id).filter(|entry| {
            entry.kind() == SessionKind::Http
                && entry.principal().map(|opened_by| &**opened_by) == principal
        })?;
        Some(HttpSession { core: core.clone(), entry })
    }

    /// Answers a modern request over HTTP, whose `_meta` and headers have been checked.
    ///
    /// # Errors
    ///
    /// [`Refused`], with what the client is to be told instead.
    pub async fn answer(
        &self,
        version: ProtocolVersion,
        request: Request,
        mut meta: RequestMeta,
        principal: Option<Arc<str>>,
    ) -> Result<Answer, Refused> {
        if request.method == Method::Listen {
            let caller = Caller::modern(version, &mut meta, None).of(principal);
            // Boxed, as all requests make room for what is awaited here.
            return Box::pin(self.listen(request, caller)).await;
        }
        let (core, came_in) = (self.core(), Instant::now());
        let caller = Caller::modern(version, &mut meta, None).of(principal);
        match dispatch(core, &caller, &request) {
            Dispatch::Answer(outcome) => {
                let said = CallOutcome::of(&outcome);
                core.metrics.operation(&request.method, said, came_in.elapsed());
                let (bytes, code) = task::answer_now(core, Era::Modern, &request.id, &outcome);
                Ok(Answer::Now(bytes, code))
            }
            Dispatch::Call(target) => {
                let permit = core.stateless_calls.clone().try_acquire_owned();
                let permit = permit.map_err(|_| Refused::TooManyRequests)?;
                let parent = core.stateless.load_full().and_then(|entry| entry.actor());
                let parent = parent.ok_or(Refused::ShuttingDown)?.get_cell();
                let entry = match task::enter(core, &caller, &request) {
                    Ok(entry) => entry,
                    Err(error) => {
                        let bytes = encode::error(Some(&request.id), &error);
                        return Ok(Answer::Now(bytes, Some(error.code)));
                    }
                };
                let cancel = entry.cancel();
                let outlet = of_stateless_call(core, &cancel);
                let inlet = outlet.attach();
                let era = Era::Modern;
                let responder = Responder::new(core.clone(), outlet, era, &request, permit);
                let (open, streams, questions) = (None, None, None);
                #[rustfmt::skip]
                let start = task::Start {
                    request, meta, caller, target, entry, cancel, open, streams, questions,
                };
                if let Some(run) = task::begin(core, start, responder) {
                    task::run(run, parent).await;
                }
                Ok(Answer::Stream(inlet))
            }
        }
    }

    /// After which time a transport closes the connection of a client that takes nothing:
    /// [`Config::stall_timeout`](crate::Config::stall_timeout).
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.core().config.stall_timeout
    }

    async fn listen(&self, request: Request, caller: Caller) -> Result<Answer, Refused> {
        let core = self.core();
        let params = request.params.parse::<params::Listen>();
        let granted = params.and_then(|params| grant(&params, core.config.max_subscriptions));
        let granted = match granted {
            Ok(mut granted) if !granted.task_ids.is_empty() => {
                let asked = std::mem::take(&mut granted.task_ids);
                let owned = tasks::owned(core, asked, &caller).await;
                owned.map(|owned| {
                    granted.task_ids = owned;
                    granted
                })
            }
            granted => granted,
        };
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => {
                let bytes = encode::error(Some(&request.id), &error);
                return Ok(Answer::Now(bytes, Some(error.code)));
            }
        };
        let id = SessionId::random();
        let streams = Streams::one(core, &id, true);
        let inlet = streams.notices().map(Outlet::attach).ok_or(Refused::ShuttingDown)?;
        let (task_ids, subscription) = (granted.task_ids.clone(), SubscriptionId::of(&request.id));
        let state = SessionState::listening(id, request.id, granted);
        let principal = caller.principal;
        let entry = self.open_session(SessionKind::Listen, streams, state, principal).await?;
        tasks::tell(core, entry.key(Some(subscription)), task_ids);
        Ok(Answer::Stream(inlet))
    }

    /// Compares the `Mcp-Param-*` headers of a `tools/call` with its arguments, as the tool's
    /// schema says (2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom
    /// Headers"). `header` finds a header by its lowercase name.
    ///
    /// # Errors
    ///
    /// What does not match.
    pub fn check_param_headers<'a>(
        &self,
        params: &Params,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), HeaderMismatch> {
        // What is wrong with the parameters is said later.
        let Ok(called) = params::CallTool::read(params) else { return Ok(()) };
        let catalog = self.core().catalog();
        let Some(tool) = catalog.tool(&called.name).filter(|tool| !tool.headers().is_empty())
        else {
            return Ok(());
        };
        let arguments = called.arguments.and_then(|raw| serde_json::from_str(raw).ok());
        tool.headers().check(arguments.as_ref(), header)
    }

    async fn open_session(
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
        let entry = SessionEntry::new(core, id, kind, streams, state, principal, seat);
        let entry = Arc::new(entry);
        core.directory.insert(entry.clone());
        let root = self.root().get_cell();
        if spawn_session(core, entry.clone(), root, false).await.is_err() {
            entry.close(core);
            return Err(Refused::ShuttingDown);
        }
        core.events.emit(|| EngineEvent::SessionOpened {
            session: entry.id().clone(),
            kind,
            principal: entry.principal().cloned(),
        });
        Ok(entry)
    }
}

/// The session of one client at the other end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
    outlet: Outlet,
}

impl Pipe {
    /// Hands in what was decoded from one line of the client.
    ///
    /// Waits while many messages of the client wait for the session, or many answers for the
    /// client; a request over the limit of running ones is answered with an error. Cancel safe:
    /// it is handed in or not.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn deliver(&self, decoded: Result<Message, DecodeError>) -> Result<(), Refused> {
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                let (id, code) = (error.id.clone(), error.code);
                self.outlet.reply(encode::error(id.as_ref(), &error.into()), Some(code));
                return Ok(());
            }
        };
        // A client that does not read its answers must not ask for more.
        self.outlet.answers_read().await;
        let request = match message {
            Message::Request(request) => request,
            Message::Notification(notification) => {
                return notify(&self.core, &self.entry, notification).await;
            }
            Message::Response(response) => return respond(&self.core, &self.entry, response).await,
        };
        let id = request.id.clone();
        let refuse = |error: ErrorObject| {
            self.outlet.reply(encode::error(Some(&id), &error), Some(error.code));
            Ok(())
        };
        let meta = match RequestMeta::read(&request.params) {
            Ok(meta) => meta,
            Err(error) => return refuse(error),
        };
        match ask(&self.core, &self.entry, request, meta, self.outlet.clone()).await {
            Err(Refused::TooManyRequests) => {
                refuse(ErrorObject::unavailable(Refused::TooManyRequests.to_string()))
            }
            asked => asked,
        }
    }

    /// The client sends nothing more. Lets what it asked for be answered, for as long as a
    /// shutdown would, and ends the session; then the inlet ends, too.
    pub async fn finish(&self) {
        let (turns, permits) = (self.entry.turns(), self.entry.permits());
        // All turns are back when every message was handled, all permits when every request
        // was answered.
        let answered = async {
            let _turns = turns.acquire_many(MAX_WAITING_MESSAGES).await;
            let _permits = permits.acquire_many(self.core.config.max_requests() as u32).await;
        };
        let _ = tokio::time::timeout(self.core.config.drain_timeout, answered).await;
        self.entry.end(EndReason::Disconnected);
        // Calls that were ended answer, too, and the last of them ends the stream.
        let all = self.core.config.max_requests() as u32;
        if tokio::time::timeout(LAST_MOMENT, permits.acquire_many(all)).await.is_err() {
            // One that cannot be ended must not hold it open.
            self.outlet.finish();
        }
    }

    /// Tells the client that a line was longer than it may be.
    pub fn refuse_long_line(&self, limit: usize) {
        let error = ErrorObject::new(
            code::INVALID_REQUEST,
            format!("a message must not be longer than {limit} bytes"),
        );
        self.outlet.reply(encode::error(None, &error), Some(error.code));
    }

    /// Whether the engine shuts down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }
}

/// A legacy session over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSession {
    core: Arc<Core>,
    entry: Arc<SessionEntry>,
}

impl HttpSession {
    /// The value of `Mcp-Session-Id`.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        self.entry.id()
    }

    /// The negotiated version, once `initialize` was answered.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.entry.version()
    }

    /// Hands in a request, whose `_meta` has been read. The inlet yields what its call says and, last, its response.
    /// Dropping it cancels nothing.
    ///
    /// # Errors
    ///
    /// [`Refused::TooManyRequests`], [`Refused::SessionEnded`].
    pub async fn request(&self, request: Request, meta: RequestMeta) -> Result<Inlet, Refused> {
        let outlet = self.entry.open_stream(&self.core);
        let inlet = outlet.attach();
        ask(&self.core, &self.entry, request, meta, outlet).await?;
        Ok(inlet)
    }

    /// Hands in a notification.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn notification(&self, notification: Notification) -> Result<(), Refused> {
        notify(&self.core, &self.entry, notification).await
    }

    /// Hands in the answer to a question.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn response(&self, response: Response) -> Result<(), Refused> {
        respond(&self.core, &self.entry, response).await
    }

    /// Reads what belongs to no request: everything since the session was opened, or since
    /// the last reader left.
    ///
    /// # Errors
    ///
    /// [`Refused::StreamTaken`] while another reader is there.
    pub fn attach(&self) -> Result<Inlet, Refused> {
        self.entry.touch();
        let Some(outlet) = self.entry.streams().notices() else {
            return Err(Refused::SessionEnded);
        };
        if outlet.is_attached() {
            return Err(Refused::StreamTaken);
        }
        Ok(outlet.attach())
    }

    /// Keeps the stream of a request for a client that may come back to it. For a transport
    /// that tells the client the names of its frames; `read` is all that it has read so far.
    pub fn keep(&self, inlet: &Inlet, read: &[Delivered]) {
        self.entry.keep_stream(&self.core, inlet.outlet(), read);
    }

    /// Reads on from a frame that the client names. Another reader of the stream ends: the
    /// client would not come back if it had it still.
    ///
    /// Where frames are gone that the client has not seen, it gets what is left of the stream,
    /// and all lists are told as changed; where the stream is gone, too, this is
    /// [`attach`](Self::attach). When dropped early, the stream has no reader.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    pub async fn resume(&self, stream: StreamId, next: Seq) -> Result<Inlet, Refused> {
        self.entry.touch();
        let inlet = match self.entry.find_stream(stream) {
            Some(outlet) => match outlet.resume(next).await {
                (inlet, true) => return Ok(inlet),
                (inlet, false) => inlet,
            },
            None => self.attach()?,
        };
        if let Some(outlet) = self.entry.streams().notices() {
            for kind in ListKind::ALL {
                let notice = Arc::new(EncodedNotice::new(Notice::ListChanged(kind)));
                outlet.notice(Class::ListChanged, notice, None);
            }
        }
        Ok(inlet)
    }

    /// Ends the session: the next request with its id gets a 404.
    pub fn end(&self, reason: EndReason) {
        self.entry.end(reason);
    }
}

/// Serves a request of a session, or hands it to the session's actor if a message that came before
/// still waits there. Refuses it over the limit of running ones.
async fn ask(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    request: Request,
    meta: RequestMeta,
    outlet: Outlet,
) -> Result<(), Refused> {
    if request.method != Method::Initialize {
        entry.used();
    }
    let permit = || {
        let permit = entry.permits().clone().try_acquire_owned();
        permit.map_err(|_| Refused::TooManyRequests)
    };
    let era = if meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
    let responder =
        |request: &Request, permit| Responder::new(core.clone(), outlet, era, request, permit);
    // A listen may wait for the store of tasks.
    if request.method != Method::Listen
        && let Some(actor) = entry.free_actor()
    {
        let responder = responder(&request, permit()?);
        entry.touch();
        let session = Session::new(core.clone(), entry.clone());
        session.on_request(&actor.get_cell(), request, meta, responder).await;
        return Ok(());
    }
    let turn = turn(entry).await?;
    let responder = responder(&request, permit()?);
    let inbound = Inbound::Request(request, Box::new(meta), responder);
    hand_in_at(entry, inbound, turn).await
}

/// As [`ask`], for a notification of the client.
async fn notify(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    notification: Notification,
) -> Result<(), Refused> {
    if entry.free_actor().is_none() {
        return hand_in(entry, Inbound::Notification(notification)).await;
    }
    entry.touch();
    Session::new(core.clone(), entry.clone()).on_notification(&notification);
    Ok(())
}

/// As [`ask`], for the client's answer to a question.
async fn respond(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    response: Response,
) -> Result<(), Refused> {
    if entry.free_actor().is_none() {
        return hand_in(entry, Inbound::Response(response)).await;
    }
    entry.touch();
    Session::new(core.clone(), entry.clone()).on_response(response);
    Ok(())
}

/// Waits for a turn, so that a client cannot fill the mailbox.
async fn turn(entry: &SessionEntry) -> Result<OwnedSemaphorePermit, Refused> {
    entry.turns().clone().acquire_owned().await.map_err(|_| Refused::SessionEnded)
}

/// Hands a message to the session's actor.
async fn hand_in(entry: &SessionEntry, inbound: Inbound) -> Result<(), Refused> {
    let turn = turn(entry).await?;
    hand_in_at(entry, inbound, turn).await
}

async fn hand_in_at(
    entry: &SessionEntry,
    inbound: Inbound,
    turn: OwnedSemaphorePermit,
) -> Result<(), Refused> {
    let handed_in = entry.hand_in(SessionMsg::Inbound(Box::new(inbound), turn)).await;
    handed_in.then_some(()).ok_or(Refused::SessionEnded)
}
