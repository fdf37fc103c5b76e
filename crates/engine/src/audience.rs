//! The sessions that receive a notification of the application's own.

use std::sync::Arc;

use stentor_wire::model::Implementation;
use stentor_wire::{Era, ProtocolVersion};

use crate::access::Viewer;
use crate::ids::SessionId;

/// The client of a subscriber, as an [`Audience`] describes it. A modern one has no name here.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    /// What it sees.
    pub(crate) viewer: Viewer,
}

/// A selection of sessions: those that fulfil all conditions.
///
/// ```
/// use stentor::Audience;
///
/// let everybody = Audience::all();
/// let anns_editors = Audience::all().principal("ann").client("editor");
/// # let _ = (everybody, anns_editors);
/// ```
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Audience {
    session: Option<SessionId>,
    principal: Option<Arc<str>>,
    client: Option<Arc<str>>,
    version: Option<ProtocolVersion>,
    era: Option<Era>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Arc<str>>,
}

impl Audience {
    /// Every session.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// One session.
    #[must_use]
    pub fn session(session: SessionId) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    /// Only sessions that this principal opened.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<Arc<str>>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Only sessions whose client has this name.
    #[must_use]
    pub fn client(mut self, name: impl Into<Arc<str>>) -> Self {
        self.client = Some(name.into());
        self
    }

    /// Only sessions with this protocol version.
    #[must_use]
    pub fn version(mut self, version: ProtocolVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Only sessions of this era. Modern clients receive only what they listen to: of the
    /// application's own notifications, those of an [`Extension`](crate::Extension).
    #[must_use]
    pub fn era(mut self, era: Era) -> Self {
        self.era = Some(era);
        self
    }

    /// Only sessions of senders who have this [label](crate::identity::Labels).
    ///
    /// ```
    /// use stentor::Audience;
    ///
    /// let admins = Audience::all().label("admin");
    /// # let _ = admins;
    /// ```
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The one session that the audience is limited to, if there is one.
    pub(crate) fn only(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    pub(crate) fn has(&self, session: &SessionId, listener: &Listener) -> bool {
        fn fits<T: PartialEq + ?Sized>(asked: Option<&T>, found: Option<&T>) -> bool {
            asked.is_none() || asked == found
        }
        let name = listener.client.as_ref().map(|client| &*client.name);
        fits(self.session.as_ref(), Some(session))
            && fits(self.principal.as_deref(), listener.principal.as_deref())
            && fits(self.client.as_deref(), name)
            && fits(self.version.as_ref(), Some(&listener.version))
            && fits(self.era.as_ref(), Some(&listener.version.era()))
            && self.label.as_ref().is_none_or(|label| listener.viewer.has_label(label))
    }
}
