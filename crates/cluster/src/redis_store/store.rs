//! The handle of the store. `events.rs` and `sessions.rs` implement the engine's traits for it.

use std::fmt;
use std::sync::Arc;

use redis::aio::ConnectionManager;

use super::writer::WriterHandle;

/// Keeps sessions and their streams on a Redis server that all nodes share, so that the legacy HTTP
/// sessions of a dead node continue on another node.
///
/// ```no_run
/// # async fn f(builder: stentor::EngineBuilder) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stentor::cluster::{RedisConfig, RedisStore};
///
/// let store = Arc::new(RedisStore::connect(RedisConfig::new("redis://10.0.0.9")).await?);
/// let engine = builder.configure(|config| {
///     config.sessions.store = Some(store.clone());
///     config.event_store = store;
/// });
/// # Ok(())
/// # }
/// ```
///
/// Clients do not wait for the server. While it is slow or unreachable, sessions continue from
/// memory, and frames that cannot be written are missing for clients that resume. This is logged
/// once, and counted as `stentor.redis.lost` (frames) and `stentor.session_store.errors`. Only a
/// client that asks for a session that is on no node, or for frames that it has read already, waits:
/// for [`timeout`](crate::RedisConfig::timeout), or a few times as long.
///
/// Redis answers before it has written to a disk or a replica, so it may lose data. Anyone who can
/// write to it can take sessions over; anyone who can read it can read what clients were sent.
///
/// Clones share one connection.
#[derive(Clone)]
pub struct RedisStore {
    pub(super) connection: ConnectionManager,
    pub(super) prefix: Arc<str>,
    pub(super) writer: Arc<WriterHandle>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
