//! The sender of a request, as its transport knows it.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::{Identity, Who};
use crate::shares::Connection;

/// A header of a request: its name in lower case, and its value.
pub type Header = (Arc<str>, Arc<str>);

/// The sender of a request, as far as its transport knows. The default is a stranger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RequestSender {
    #[serde(default)]
    pub(crate) who: Who,
    /// The other node has one of its own.
    #[serde(skip)]
    pub(crate) connection: Option<Connection>,
    /// Headers of the request that handlers may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<Arc<[Header]>>,
    /// The address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
}

impl RequestSender {
    /// Somebody whose credential was checked.
    #[must_use]
    pub fn known(identity: Identity) -> Self {
        Self { who: Who::Known(identity), ..Self::default() }
    }

    /// The user who started this process: sees everything, and may do everything.
    #[must_use]
    pub fn local() -> Self {
        Self { who: Who::Local, ..Self::default() }
    }

    /// Sets the connection of the request. It separates the shares of callers without a principal;
    /// callers without both have one share together.
    #[must_use]
    pub fn on(mut self, connection: Option<Connection>) -> Self {
        self.connection = connection;
        self
    }

    /// Sets headers of the request that handlers may read.
    #[must_use]
    pub fn with_headers(mut self, headers: Option<Arc<[Header]>>) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the address of the client.
    #[must_use]
    pub fn at(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// The identity of the sender, if it is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.who.identity()
    }
}

impl From<Option<Identity>> for RequestSender {
    fn from(identity: Option<Identity>) -> Self {
        Self { who: identity.into(), ..Self::default() }
    }
}
