//! What can be seen of a session from outside.

use std::sync::Arc;
use std::time::Duration;

use stentor_delivery::CountersView;
use stentor_wire::model::Implementation;
use stentor_wire::{Id, ProtocolVersion};

use crate::ids::SessionId;
use crate::reasons::SessionKind;

/// A session at one moment.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionView {
    /// The session's id.
    pub id: SessionId,
    /// The kind of client that it serves.
    pub kind: SessionKind,
    /// The principal that opened it, if the transport knows one.
    pub principal: Option<Arc<str>>,
    /// The negotiated version of a legacy session.
    pub version: Option<ProtocolVersion>,
    /// The client of a legacy session, as it describes itself.
    pub client: Option<Arc<Implementation>>,
    /// Whether a legacy client has sent `notifications/initialized`.
    pub initialized: bool,
    /// How long the session has been open; in JSON in milliseconds.
    #[serde(serialize_with = "crate::millis::of")]
    pub age: Duration,
    /// Whether a client reads its notices now.
    pub attached: bool,
    /// Unread frames on the stream of its notices.
    pub unread: usize,
    /// Number of its streams: the stream of its notices, and streams of requests that a client may
    /// resume.
    pub streams: usize,
    /// Number of its listens and watched resources.
    pub subscriptions: usize,
    /// The requests whose calls run now.
    pub open_calls: Vec<Id>,
    /// Messages of the client that wait for the session's actor.
    pub mailbox: usize,
    /// Restarts of its actor within the last minute.
    pub recent_restarts: usize,
    /// What became of the frames that were sent to it, by class.
    pub counters: CountersView,
}
