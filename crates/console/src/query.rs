//! What a console asks a node, and what it tells a node to do.

use serde::{Deserialize, Serialize};

/// What one node is asked. Each node answers for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase")]
pub(crate) enum Query {
    Overview,
    Actors,
    Sessions(SessionsQuery),
    Session { id: String },
    Catalog { principal: Option<String> },
    Events,
    Tasks,
    Log { after: Option<u64>, limit: usize },
}

/// Which sessions are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SessionsQuery {
    /// The beginning of an id, or a part of the name of the client or the principal.
    pub(crate) text: String,
    pub(crate) principal: String,
    pub(crate) kind: String,
    pub(crate) order: Order,
    pub(crate) limit: Option<usize>,
    pub(crate) offset: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    /// Those first that have the most unread.
    #[default]
    Slow,
    Newest,
    Oldest,
    Id,
}

/// What a node is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub(crate) enum Action {
    EndSession { session: String },
    RestartSession { session: String },
    CancelCall { call: u64 },
    Revoke { principal: String },
    Follow { session: String },
    Unfollow { session: String },
    Drain,
}

/// A message between consoles.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerMessage {
    Ask(Query),
    Act { action: Action, operator: Option<String> },
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Acted {
    #[serde(rename = "done")]
    Done(String),
    #[serde(rename = "notFound")]
    NotFound(String),
    #[serde(rename = "forbidden")]
    Forbidden(String),
}
