//! The harness of the suites: a server with small tools, and a client that speaks exactly the
//! bytes of the protocol.
//!
//! A [`Server`] serves one engine over HTTP on a free port and over any number of in-memory
//! pipes, both eras on each. A [`Client`] is at home in one [`Lane`]; whatever differs between
//! lanes is inside of it, so that a flow is written once. For what no client should do there
//! are [`Call`] (one HTTP request, byte for byte) and [`RawPipe`] (one line after the other).
//!
//! Waits end when the thing happens, and fail after [`PATIENCE`]. That something does *not*
//! arrive is shown by [`Server::mark`]: what follows the mark would have come before it.

mod activity;
#[path = "../../examples/cluster/balancer.rs"]
mod balancer;
mod client;
mod fixture;
mod neighbours;
mod network;
mod nodes;
mod pipe;
mod process;
mod server;
mod web;

use std::future::Future;
use std::time::Duration;

pub use activity::{Activity, SessionActivity, untold};
pub use client::{Answer, Client, Exchange, Notices};
pub use fixture::{MARK, Phase, Stage};
pub use network::Network;
pub use nodes::{Node, NodeAddresses, NodeCensus, NodeOrder, NodeSettings, Nodes};
pub use pipe::RawPipe;
pub use process::{Addresses, Census, Command, Process, Settings, description, long_uri, resident};
pub use server::Server;
pub use stentor::Era;
pub use web::{Call, Event, Reply};

/// How long a thing may take that happens at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The newest version that is opened by `initialize`.
pub const LEGACY_VERSION: &str = "2025-11-25";
/// The version without a handshake.
pub const MODERN_VERSION: &str = "2026-07-28";

/// The key of a modern request's version in `_meta`.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key of a modern client's name in `_meta`.
pub const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// The key of a modern client's capabilities in `_meta`.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The key of a modern request's log level in `_meta`.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// The key of a notice's subscription in `_meta`.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// The key of the server's name in `_meta`.
pub const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A pipe, with stdio's framing.
    Stdio,
    /// Streamable HTTP.
    Http,
}

/// One way of using the server: a transport and an era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// How the client is connected.
    pub transport: Transport,
    /// Which era it speaks.
    pub era: Era,
}

impl Lane {
    /// A pipe, opened by `initialize`.
    pub const STDIO_LEGACY: Self = Self { transport: Transport::Stdio, era: Era::Legacy };
    /// A pipe, without a handshake.
    pub const STDIO_MODERN: Self = Self { transport: Transport::Stdio, era: Era::Modern };
    /// An HTTP session.
    pub const HTTP_LEGACY: Self = Self { transport: Transport::Http, era: Era::Legacy };
    /// HTTP without sessions.
    pub const HTTP_MODERN: Self = Self { transport: Transport::Http, era: Era::Modern };
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::STDIO_LEGACY, Self::STDIO_MODERN, Self::HTTP_LEGACY, Self::HTTP_MODERN];

    /// Whether its era is the legacy one.
    #[must_use]
    pub fn is_legacy(self) -> bool {
        self.era == Era::Legacy
    }

    /// Whether its transport is HTTP.
    #[must_use]
    pub fn is_http(self) -> bool {
        self.transport == Transport::Http
    }
}

/// Makes four tests of each flow, an `async fn(Lane)`: one for each lane.
#[macro_export]
macro_rules! in_every_lane {
    ($($flow:ident),* $(,)?) => {$(
        mod $flow {
            use $crate::Lane;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn stdio_legacy() {
                super::$flow(Lane::STDIO_LEGACY).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn stdio_modern() {
                super::$flow(Lane::STDIO_MODERN).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http_legacy() {
                super::$flow(Lane::HTTP_LEGACY).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn http_modern() {
                super::$flow(Lane::HTTP_MODERN).await;
            }
        }
    )*};
}

/// Waits for something that happens at once.
///
/// # Panics
///
/// After [`PATIENCE`].
pub async fn soon<T>(what: impl std::fmt::Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Waits for a state that nothing announces: looks again and again, in short intervals.
///
/// # Panics
///
/// After [`PATIENCE`].
pub async fn eventually(what: impl std::fmt::Display, mut is: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
