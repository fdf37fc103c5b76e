//! How sessions are opened and found.

use std::sync::Arc;

use stentor_delivery::{StreamReceiver, StreamSender};
use stentor_wire::{ErrorObject, Request, encode};

use super::listen::Grants;
use super::state::{SessionState, read_listen};
use super::{Session, SessionEntry, SessionRecord, Sessions, streams};
use crate::caller::Caller;
use crate::dispatch::{Answer, Scope};
use crate::events::EngineEvent;
use crate::identity::Who;
use crate::ids::{SessionId, new_session_id};
use crate::principal_limits::Counted;
use crate::reasons::{EndReason, Refused, SessionKind};
use crate::request_budget::cost_of_params;
use crate::request_sender::RequestSender;
use crate::shares::Share;

impl Sessions {
    /// Opens a session for the one client at the other end of a pipe, in either era.
    pub(crate) async fn open_pipe(
        self: &Arc<Self>,
        from: RequestSender,
    ) -> Result<(Session, StreamSender, StreamReceiver), Refused> {
        let (id, kind) = (new_session_id(&self.calls.node), SessionKind::Pipe);
        // Everything goes out on one stream, so a response does not end it.
        let notices = streams::of_one(self, &id, false);
        // Each pipe without a principal is a caller of its own.
        let share = Share::of(from.who.principal(), Some(&id), from.connection);
        let meter = self.calls.requests.session_meter(&share);
        let max = self.config.max_subscriptions;
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, notices.clone(), state, from.who.clone())?;
        let session = self.install(&entry).await?.used_by(from);
        let receiver = notices.attach();
        Ok((session, notices, receiver))
    }

    /// Opens a legacy session over HTTP, for a client that is about to send `initialize`. Only its
    /// owner can find the session.
    pub(crate) async fn open_http(
        self: &Arc<Self>,
        from: RequestSender,
    ) -> Result<Session, Refused> {
        let share = Share::of(from.who.principal(), None, from.connection);
        let meter = self.calls.requests.session_meter(&share);
        let (id, kind) = (new_session_id(&self.calls.node), SessionKind::Http);
        let notices = streams::of_http(self, &id);
        let max = self.config.max_subscriptions;
        let state = SessionState::new(id, kind.serves_modern(), max, &meter);
        let entry = self.new_session(kind, notices, state, from.who.clone())?;
        Ok(self.install(&entry).await?.used_by(from))
    }

    /// Opens the session of a modern listen over HTTP.
    pub(crate) async fn open_listen(
        self: &Arc<Self>,
        request: Box<Request>,
        caller: Caller,
    ) -> Result<Answer, Refused> {
        let refuse = |error: ErrorObject| {
            let bytes = encode::error(Some(&request.id), &error);
            Ok(Answer::Now(bytes, Some(error.code)))
        };
        // Counted before anything is awaited, and until the listen has begun.
        let meter = self.calls.requests.session_meter(&caller.share());
        let charge = meter.charge(cost_of_params(&request.params));
        let _charge = charge.map_err(|_| Refused::TooManyRequests)?;
        let mut granted =
            match read_listen(&request.params, self.config.max_subscriptions, &self.members) {
                Ok(granted) => granted,
                Err(error) => return refuse(error),
            };
        let grants = match granted.take_owned() {
            asked if asked.is_empty() => Grants::nothing(),
            asked => {
                // Boxed to keep the common future small: few listens ask for what an extension
                // owns.
                let granting = Box::pin(self.grant_owned(&caller, &request, asked, &mut granted));
                match granting.await {
                    Ok(grants) => grants,
                    Err(error) => return refuse(error),
                }
            }
        };
        let id = new_session_id(&self.calls.node);
        let notices = streams::of_one(self, &id, true);
        let receiver = notices.attach();
        let principal = caller.principal();
        let watched = self.calls.per_principal.nothing(principal, Counted::Subscriptions);
        let opened = SessionState::listening(id, request.id.clone(), &granted, &meter, watched);
        let state = match opened {
            Ok(state) => state,
            Err(error) => return refuse(error),
        };
        let entry = self.new_session(SessionKind::Listen, notices.clone(), state, caller.who)?;
        let goes_on = self.install(&entry).await?.acknowledge(&request.id);
        match goes_on {
            true => grants.begin(&entry, &request.id),
            false => entry.end(self, EndReason::Ended),
        }
        Ok(Answer::Stream(receiver))
    }

    /// Opens the session of a modern stream of an extension over HTTP.
    pub(crate) async fn open_stream(
        self: &Arc<Self>,
        request: Box<Request>,
        caller: Caller,
        scope: Scope,
    ) -> Result<Answer, Refused> {
        let refuse = |error: ErrorObject| {
            let bytes = encode::error(Some(&request.id), &error);
            Ok(Answer::Now(bytes, Some(error.code)))
        };
        if self.registry.viewers.is_revoked(&caller.who) {
            return Err(Refused::Revoked);
        }
        // Counted before anything is awaited, and until the stream has begun.
        let meter = self.calls.requests.session_meter(&caller.share());
        let charge = meter.charge(cost_of_params(&request.params));
        let _charge = charge.map_err(|_| Refused::TooManyRequests)?;
        let begin = match self.dispatcher.open_stream(&caller, &request, scope).await {
            Ok(begin) => begin,
            Err(error) => return refuse(error),
        };
        let id = new_session_id(&self.calls.node);
        let state = match SessionState::streaming(id.clone(), &request, &meter) {
            Ok(state) => state,
            Err(error) => return refuse(error),
        };
        let notices = streams::of_extension(self, &id);
        let receiver = notices.attach();
        let entry = self.new_session(SessionKind::Listen, notices, state, caller.who)?;
        self.install(&entry).await?;
        entry.begin_stream(self, &request.id, begin);
        Ok(Answer::Stream(receiver))
    }

    /// Continues a session that another node had.
    pub(crate) async fn accept_migration(
        self: &Arc<Self>,
        record: SessionRecord,
    ) -> Result<(), Refused> {
        if self.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        if self.directory.get(record.id().as_str()).is_some() {
            return Ok(());
        }
        let permit = self.directory.permit().ok_or(Refused::TooManySessions)?;
        self.install_migrated(&Arc::new(SessionEntry::from_record(self, record, permit))).await
    }

    /// Installs a session that another node had.
    pub(crate) async fn install_migrated(
        self: &Arc<Self>,
        entry: &Arc<SessionEntry>,
    ) -> Result<(), Refused> {
        // Notices may have been lost while the session was on its way.
        entry.mark_missed();
        self.install(entry).await?.rejoin();
        self.session_changed(entry);
        Ok(())
    }

    /// Finds a legacy HTTP session of this engine by its id, for its owner, who uses it with the
    /// rights of this sender.
    pub(crate) fn find_http(self: &Arc<Self>, id: &str, from: &RequestSender) -> Option<Session> {
        let entry = self.directory.get(id);
        let entry =
            entry.filter(|entry| entry.kind() == SessionKind::Http && entry.is_of(&from.who))?;
        Some(Session::new(self.clone(), entry).used_by(from.clone()))
    }

    /// The ids of the legacy HTTP sessions on this engine.
    pub(crate) fn http_ids(&self) -> Vec<SessionId> {
        let sessions = self.directory.all().into_iter();
        let open = sessions.filter(|it| it.kind() == SessionKind::Http && it.ending().is_none());
        open.map(|entry| entry.id().clone()).collect()
    }

    /// Makes a session that no lookup finds yet.
    fn new_session(
        &self,
        kind: SessionKind,
        notices: StreamSender,
        state: SessionState,
        who: Who,
    ) -> Result<Arc<SessionEntry>, Refused> {
        if self.lifecycle.is_draining() {
            return Err(Refused::ShuttingDown);
        }
        let counted = match kind {
            SessionKind::Listen => Counted::Listens,
            _ => Counted::Sessions,
        };
        let own = self.calls.per_principal.one(who.principal(), counted);
        let permit = self.directory.permit().ok_or(Refused::TooManySessions)?;
        let permit = permit.of(own.ok_or(Refused::TooManySessions)?);
        let id = state.id().clone();
        let entry = SessionEntry::new(self, id, kind, notices, state, who, permit);
        self.sample(&entry);
        Ok(Arc::new(entry))
    }

    /// From here on, lookups find the session.
    async fn install(self: &Arc<Self>, entry: &Arc<SessionEntry>) -> Result<Session, Refused> {
        self.events.emit(|| EngineEvent::SessionOpened {
            session: entry.id().clone(),
            kind: entry.kind(),
            principal: entry.principal().cloned(),
        });
        self.directory.insert(entry.clone());
        // Checked after the insert, because a revocation and a refresh look only at the sessions that
        // they find.
        if self.registry.viewers.is_revoked(&entry.who()) {
            entry.end(self, EndReason::Revoked);
            return Err(Refused::Revoked);
        }
        self.look_again(entry);
        // Checked after the insert, because a supervisor that ends also ends the sessions it finds.
        if self.lifecycle.is_draining() {
            entry.end(self, EndReason::Shutdown);
            return Err(Refused::ShuttingDown);
        }
        let session = Session::new(self.clone(), entry.clone());
        if self.never_passive() {
            // An actor that is never passive exists from the beginning.
            Box::pin(session.actor()).await;
        }
        Ok(session)
    }
}
