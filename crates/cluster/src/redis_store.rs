//! A store for sessions and their streams on a Redis server that all nodes share.
//!
//! * `store.rs`: the handle of the store, which the other files share.
//! * `events.rs`: the event store, one Redis stream for each stream.
//! * `writer.rs`: the one task that writes the frames of all streams.
//! * `sessions.rs`: the session store, which knows the node of each session.

mod events;
mod sessions;
mod store;
mod writer;

use std::fmt;
use std::time::Duration;

use redis::RedisError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use stentor_macros::Setters;
pub use store::RedisStore;
use writer::WriterHandle;

/// How a node reaches the Redis server that all nodes share.
#[derive(Clone, Setters)]
#[setters(own_new)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The address: `redis://[user:password@]host[:port][/database]`. The connection has no TLS, so
    /// the network must be trusted.
    pub url: String,
    /// The prefix of all keys. Different servers that share a database need different prefixes.
    /// Default `stentor:`.
    pub prefix: String,
    /// How long a stream is kept after its node last renewed it: clients of a dead node can resume
    /// its streams for this long. Must be more than
    /// [`SessionConfig::idle_timeout`](stentor_engine::SessionConfig::idle_timeout).
    /// Default 1 hour.
    pub keep: Duration,
    /// Bytes of frames that may wait in memory to be written. Further frames are not stored.
    /// Default 16 MiB.
    pub max_waiting: usize,
    /// How long to wait for an answer of the server. Default 2 s.
    pub timeout: Duration,
}

impl RedisConfig {
    /// The server at this address, with defaults for everything else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "stentor:".to_owned(),
            keep: Duration::from_secs(60 * 60),
            max_waiting: 16 << 20,
            timeout: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may contain a password.
        f.debug_struct("RedisConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Why a node cannot use a Redis server as its store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisStoreError {
    /// The URL is not the address of a server. It is not repeated, because it may contain a
    /// password.
    #[error("this is no address of a Redis server: {0}")]
    Address(#[source] RedisError),
    /// The server cannot be reached, or refuses this node.
    #[error("the Redis server cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// The server is too old: at least Redis 6.2 is needed.
    #[error("the Redis server does not know what is needed, as those before 6.2: {0}")]
    Unfit(#[source] RedisError),
}

impl RedisStore {
    /// Connects to the server, which must be reachable now; later it may be unreachable for a
    /// while.
    ///
    /// When dropped early, nothing has changed.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn connect(config: RedisConfig) -> Result<Self, RedisStoreError> {
        let RedisConfig { url, prefix, keep, max_waiting, timeout } = config;
        let client = redis::Client::open(url).map_err(RedisStoreError::Address)?;
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let connection = ConnectionManager::new_with_config(client, settings)
            .await
            .map_err(RedisStoreError::Unreachable)?;
        // `XTRIM` with `MINID` needs Redis 6.2. The key does not exist, so nothing is trimmed.
        let mut asked = connection.clone();
        let trimmed = redis::cmd("XTRIM")
            .arg(format!("{prefix}none"))
            .arg(("MINID", "0"))
            .query_async::<u64>(&mut asked)
            .await;
        trimmed.map_err(|error| match error.is_io_error() || error.is_timeout() {
            true => RedisStoreError::Unreachable(error),
            false => RedisStoreError::Unfit(error),
        })?;
        let writer = WriterHandle::start(connection.clone(), keep, max_waiting);
        Ok(Self { connection, prefix: prefix.into(), writer })
    }
}
