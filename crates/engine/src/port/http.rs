//! A legacy session over HTTP, as its transport sees it: here, or on another node.

use std::sync::{Arc, OnceLock};

use futures::TryFutureExt as _;
use futures::future::Either;
use stentor_wire::{EncodedNotice, Id, Message, Notification, ProtocolVersion, Request, Response};

use super::Refused;
use super::deliver::{ask, tell};
use crate::core::Core;
use crate::engine::Engine;
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Inlet, Outlet};
use crate::peers::{Act, Distant, Relayed, Spoken};
use crate::session::{EndReason, SessionEntry, Told};

/// A legacy session over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSession {
    core: Arc<Core>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Here(Arc<SessionEntry>),
    There(Arc<Distant>),
}

impl HttpSession {
    pub(super) fn here(core: Arc<Core>, entry: Arc<SessionEntry>) -> Self {
        Self { core, place: Place::Here(entry) }
    }

    pub(crate) fn there(
        engine: Engine,
        node: NodeId,
        session: SessionId,
        principal: Option<&str>,
    ) -> Self {
        let (core, version) = (engine.core().clone(), OnceLock::new());
        let principal = principal.map(Arc::from);
        let distant = Distant { engine, node, session, principal, version };
        Self { core, place: Place::There(Arc::new(distant)) }
    }

    /// The value of `Mcp-Session-Id`.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        match &self.place {
            Place::Here(entry) => entry.id(),
            Place::There(distant) => &distant.session,
        }
    }

    /// The negotiated version, once `initialize` was answered; of a session on another node, once
    /// one of its streams was opened.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        match &self.place {
            Place::Here(entry) => entry.version(),
            Place::There(distant) => distant.version.get().copied(),
        }
    }

    /// Hands in a request. The inlet yields what its call says and,
    /// last, its response. Dropping it cancels nothing.
    ///
    /// What takes no time is done before there is a future, which so needs no room for the request.
    /// Dropping the future, polled or not, ends a call that has no actor yet with an error.
    ///
    /// # Errors
    ///
    /// [`Refused::TooManyRequests`], [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub fn request(
        &self,
        request: Box<Request>,
    ) -> impl Future<Output = Result<Inlet, Refused>> + Send + use<'_> {
        match &self.place {
            Place::Here(entry) => {
                let outlet = entry.open_stream(&self.core, &request.id);
                let inlet = outlet.attach();
                let asked = ask(&self.core, entry, request, outlet);
                Either::Left(asked.map_ok(|()| inlet))
            }
            Place::There(distant) => Either::Right(Box::pin(distant.request(request))),
        }
    }

    /// Hands in a notification.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn notification(&self, notification: Box<Notification>) -> Result<(), Refused> {
        match &self.place {
            Place::Here(entry) => tell(&self.core, entry, Told::Notification(notification)).await,
            Place::There(distant) => {
                let message = Message::Notification(notification).encode();
                Box::pin(distant.act(Act::Message(message))).await
            }
        }
    }

    /// Hands in the answer to a question.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn response(&self, response: Response) -> Result<(), Refused> {
        match &self.place {
            Place::Here(entry) => tell(&self.core, entry, Told::Response(response)).await,
            Place::There(distant) => {
                let message = Message::Response(response).encode();
                Box::pin(distant.act(Act::Message(message))).await
            }
        }
    }

    /// Reads what belongs to no request: everything since the session was opened, or since
    /// the last reader left. One that is still there ends: the client has come back, and what was on
    /// the way to it may be lost, so that all lists are told as changed.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`], [`Refused::Unreachable`].
    pub async fn attach(&self) -> Result<Inlet, Refused> {
        let entry = match &self.place {
            Place::Here(entry) => entry,
            Place::There(distant) => return distant.open(Act::Attach, None).await,
        };
        entry.presence().touch();
        let outlet = entry.streams().notices().ok_or(Refused::SessionEnded)?;
        let takes_over = outlet.is_attached();
        let inlet = outlet.attach();
        if takes_over {
            tell_of_everything(entry, outlet);
        }
        Ok(inlet)
    }

    /// Keeps the stream of a request for a client that may come back to it. For a transport
    /// that tells the client the names of its frames; `read` is all that it has read so far.
    pub fn keep(&self, inlet: &Inlet, read: &[Delivered]) {
        // Another node has kept it already.
        if let (Place::Here(entry), Some(outlet)) = (&self.place, inlet.outlet()) {
            let runs = !outlet.is_finished();
            entry.keep_stream(&self.core, outlet, read);
            if runs {
                self.core.session_changed(entry);
            }
        }
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
        let entry = match &self.place {
            Place::Here(entry) => entry,
            Place::There(distant) => {
                return distant.open(Act::Resume(stream.0, next.0), None).await;
            }
        };
        let (inlet, complete) = match self.find_stream(entry, stream, next).await {
            Some(found) => found,
            None => {
                let notices = entry.streams().notices().ok_or(Refused::SessionEnded)?;
                (notices.attach(), false)
            }
        };
        if !complete && let Some(outlet) = entry.streams().notices() {
            tell_of_everything(entry, outlet);
        }
        Ok(inlet)
    }

    /// Reads on the stream of a request whose node was lost: for a node that somebody waits at, who
    /// does not come back by themselves. The session's notices are not given in its place, as their
    /// reader may be there.
    pub(crate) async fn read_again(
        &self,
        stream: StreamId,
        next: Seq,
        request: Option<Id>,
    ) -> Result<Inlet, Refused> {
        let entry = match &self.place {
            Place::Here(entry) => entry,
            Place::There(distant) => {
                return distant.open(Act::ReadAgain(stream.0, next.0), request).await;
            }
        };
        let found = self.find_stream(entry, stream, next).await;
        found.map(|(inlet, _)| inlet).ok_or(Refused::SessionEnded)
    }

    /// A stream of this session from a frame on, and whether nothing of it is missing.
    async fn find_stream(
        &self,
        entry: &SessionEntry,
        stream: StreamId,
        next: Seq,
    ) -> Option<(Inlet, bool)> {
        entry.presence().touch();
        if next >= Seq::END {
            return Some((Inlet::there(Relayed::over(stream)), true));
        }
        let outlet = match entry.find_stream(stream) {
            Some(outlet) => outlet,
            None => entry.earlier_stream(&self.core, stream).await?,
        };
        Some(outlet.resume(next).await)
    }

    /// Adds notices that the node heard which had the session before.
    pub(crate) async fn missed(&self, notices: Vec<Spoken>) {
        if let Place::Here(entry) = &self.place
            && let Some(outlet) = entry.streams().notices()
        {
            outlet.add_missed(notices).await;
        }
    }

    /// Ends the session: the next request with its id gets a 404. When dropped early, it may go on
    /// if it is on another node.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`]; [`Refused::Unreachable`], after which it may have ended or not.
    pub async fn end(&self, reason: EndReason) -> Result<(), Refused> {
        match &self.place {
            Place::Here(entry) => {
                entry.end(&self.core, reason);
                Ok(())
            }
            Place::There(distant) => distant.act(Act::End(reason)).await,
        }
    }
}

/// Tells a client that may have missed some notices of all that it may have missed.
fn tell_of_everything(entry: &SessionEntry, outlet: &Outlet) {
    let heard = entry.state().heard_as_client();
    for notice in heard.iter().flat_map(|heard| heard.filter.everything()) {
        let class = Class::of(&notice);
        outlet.notice(class, Arc::new(EncodedNotice::new(notice)), None);
    }
}
