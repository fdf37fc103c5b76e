//! Who hears of occurrences.

use std::fmt;
use std::sync::Arc;

use stentor_engine::Requester;
use stentor_engine::identity::Identity;

/// How occurrences come to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The client asks again and again.
    Poll,
    /// A stream that the client keeps open.
    Push,
    /// Requests to an endpoint of the client.
    Webhook,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Poll, Self::Push, Self::Webhook];

    /// The name in the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Push => "push",
            Self::Webhook => "webhook",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who subscribes, as the functions of an event type see it.
#[derive(Clone, Debug)]
pub struct Subscriber {
    pub(crate) requester: Requester,
    pub(crate) mode: Mode,
    pub(crate) id: Option<Arc<str>>,
    /// For a webhook of somebody without an identity of its own.
    pub(crate) principal: Option<Arc<str>>,
}

impl Subscriber {
    pub(crate) fn new(requester: Requester, mode: Mode, id: Option<Arc<str>>) -> Self {
        let principal = requester.principal().cloned();
        Self { requester, mode, id, principal }
    }

    /// The principal; `None` for a stranger, and for the user who started this process.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// The identity, if the transport has found one. Of a webhook: the one that subscribed last.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.requester.identity()
    }

    /// How the occurrences are delivered.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The id of the subscription; a poll has none.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}
