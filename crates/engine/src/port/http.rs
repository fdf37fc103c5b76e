//! A legacy session over HTTP, as its transport sees it.

use std::sync::Arc;

use stentor_wire::{
    EncodedNotice, ListKind, Notice, Notification, ProtocolVersion, Request, RequestMeta, Response,
};

use super::Refused;
use super::deliver::{ask, tell};
use crate::core::Core;
use crate::ids::{Seq, SessionId, StreamId};
use crate::outlet::policy::Class;
use crate::outlet::{Delivered, Inlet};
use crate::session::{EndReason, SessionEntry, Told};

/// A legacy session over HTTP.
#[derive(Clone, Debug)]
pub struct HttpSession {
    pub(super) core: Arc<Core>,
    pub(super) entry: Arc<SessionEntry>,
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

    /// Hands in a request, whose `_meta` has been read. The inlet yields what its call says and,
    /// last, its response. Dropping it cancels nothing.
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
        tell(&self.core, &self.entry, Told::Notification(notification)).await
    }

    /// Hands in the answer to a question.
    ///
    /// # Errors
    ///
    /// [`Refused::SessionEnded`].
    pub async fn response(&self, response: Response) -> Result<(), Refused> {
        tell(&self.core, &self.entry, Told::Response(response)).await
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
