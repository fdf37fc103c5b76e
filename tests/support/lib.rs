//! The test harness: a server with small tools, and a client that sends exactly the bytes of the
//! protocol.
//!
//! A [`Server`] serves one engine over HTTP on a free port and over any number of in-memory pipes,
//! with both eras on each. A [`Client`] uses one [`Lane`] and hides the differences between lanes,
//! so each flow is written once. [`Call`] (one HTTP request, byte for byte) and [`RawPipe`] (single
//! lines) can send what no correct client sends.
//!
//! Waits end as soon as the awaited event happens, and fail after [`PATIENCE`]. To show that
//! something does *not* arrive, tests use [`Server::mark`]: everything sent before the mark arrives
//! before it.

mod activity;
#[path = "../../examples/cluster/balancer.rs"]
mod balancer;
mod client;
mod fixture;
mod network;
mod nodes;
mod other_nodes;
mod pipe;
mod process;
mod server;
mod tokens;
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
pub use stentor::protocol::Era;
pub use tokens::{Tokens, token};
pub use web::{Call, Event, Reply};

/// How long something that should happen at once may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The newest version that uses `initialize`.
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

/// The transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A pipe with stdio's framing.
    Stdio,
    /// Streamable HTTP.
    Http,
}

/// One transport in one era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The client's transport.
    pub transport: Transport,
    /// The client's era.
    pub era: Era,
}

impl Lane {
    /// A pipe with `initialize`.
    pub const STDIO_LEGACY: Self = Self { transport: Transport::Stdio, era: Era::Legacy };
    /// A pipe without a handshake.
    pub const STDIO_MODERN: Self = Self { transport: Transport::Stdio, era: Era::Modern };
    /// HTTP with a session.
    pub const HTTP_LEGACY: Self = Self { transport: Transport::Http, era: Era::Legacy };
    /// HTTP without sessions.
    pub const HTTP_MODERN: Self = Self { transport: Transport::Http, era: Era::Modern };
    /// All four lanes.
    pub const ALL: [Self; 4] =
        [Self::STDIO_LEGACY, Self::STDIO_MODERN, Self::HTTP_LEGACY, Self::HTTP_MODERN];

    /// Whether the era is legacy.
    #[must_use]
    pub fn is_legacy(self) -> bool {
        self.era == Era::Legacy
    }

    /// Whether the transport is HTTP.
    #[must_use]
    pub fn is_http(self) -> bool {
        self.transport == Transport::Http
    }
}

/// Makes four tests of each flow, an `async fn(Lane)`: one test for each lane.
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

/// Waits for something that should happen at once.
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

/// Polls in short intervals for a state that nothing announces.
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
