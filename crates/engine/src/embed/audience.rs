//! Who is to hear a notification of the application's own.

use std::sync::Arc;

use stentor_wire::{Era, ProtocolVersion};

use crate::ids::SessionId;
use crate::session::SessionEntry;

/// Some of the sessions: those for which all that is said here holds.
///
/// ```
/// use stentor_engine::Audience;
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

    /// Those that this principal opened.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<Arc<str>>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Those whose client gives itself this name.
    #[must_use]
    pub fn client(mut self, name: impl Into<Arc<str>>) -> Self {
        self.client = Some(name.into());
        self
    }

    /// Those that speak this version.
    #[must_use]
    pub fn version(mut self, version: ProtocolVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Those of this era. Modern clients hear only what they listen to, which the protocol
    /// limits to its own notices: nobody of [`Era::Modern`] hears a custom one.
    #[must_use]
    pub fn era(mut self, era: Era) -> Self {
        self.era = Some(era);
        self
    }

    pub(crate) fn is_everybody(&self) -> bool {
        matches!(
            self,
            Self { session: None, principal: None, client: None, version: None, era: None }
        )
    }

    /// The one session that it can be at most.
    pub(crate) fn only(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    pub(crate) fn has(&self, entry: &SessionEntry) -> bool {
        fn fits<T: PartialEq + ?Sized>(asked: Option<&T>, found: Option<&T>) -> bool {
            asked.is_none() || asked == found
        }
        let (version, client) = entry.client();
        let name = client.as_ref().map(|client| &*client.name);
        fits(self.session.as_ref(), Some(entry.id()))
            && fits(self.principal.as_deref(), entry.principal().map(|it| &**it))
            && fits(self.client.as_deref(), name)
            && fits(self.version.as_ref(), version.as_ref())
            && fits(self.era.as_ref(), version.map(ProtocolVersion::era).as_ref())
    }
}
