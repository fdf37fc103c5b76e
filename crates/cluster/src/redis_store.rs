//! Sessions and their streams on a Redis server that all nodes share.
//!
//! * `events.rs`: what was sent on streams, as its logs see it.
//! * `writer.rs`: the one task that writes what the logs append.
//! * `sessions.rs`: who has which session.

mod events;
mod sessions;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use writer::Link;

/// How a node reaches the Redis server that all nodes share.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where it is: `redis://[user:password@]host[:port][/database]`. Without TLS: what is on the
    /// network between is to be trusted.
    pub url: String,
    /// What all keys begin with. Servers of different kinds that share a database need different
    /// ones. Default `stentor:`.
    pub prefix: String,
    /// For how long a stream is kept of which nobody says that it is there any more: clients of a
    /// node that died can come back for so long. To be more than
    /// [`session_idle_timeout`](stentor_engine::Config). Default 1 hour.
    pub keep: Duration,
    /// Bytes of frames that may wait in memory to be written; of more, those that come last are
    /// not written. Default 16 MiB.
    pub max_waiting: usize,
    /// How long to wait for the server to answer. Default 2 s.
    pub timeout: Duration,
}

impl RedisConfig {
    /// The server at this address, with everything else as by default.
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

/// Why there is no store on a Redis server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisStoreError {
    /// What was given is no address of a server. It is not repeated, as it may contain a password.
    #[error("this is no address of a Redis server: {0}")]
    Address(#[source] RedisError),
    /// The server cannot be reached, or does not let this node in.
    #[error("the Redis server cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// The server is too old: 6.2 is the least.
    #[error("the Redis server does not know what is needed, as those before 6.2: {0}")]
    Unfit(#[source] RedisError),
}

/// Keeps sessions and their streams on a Redis server that all nodes share, so that the legacy HTTP
/// sessions of a node that dies go on on another one.
///
/// ```no_run
/// # async fn f(builder: stentor_engine::EngineBuilder) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stentor_cluster::{RedisConfig, RedisStore};
///
/// let store = Arc::new(RedisStore::connect(RedisConfig::new("redis://10.0.0.9")).await?);
/// let engine = builder.configure(|config| {
///     config.session_store = Some(store.clone());
///     config.event_store = store;
/// });
/// # Ok(())
/// # }
/// ```
///
/// No client waits for the server: while it is slow or gone, sessions go on from memory, and what
/// cannot be written is not there for those that come back. That is logged once, and counted as
/// `stentor.redis.lost` (frames) and `stentor.session_store.errors`. Only who asks for a session
/// that is on no node, or for frames that it has read already, waits, for
/// [`timeout`](RedisConfig::timeout) or a few times as long.
///
/// Redis answers before it has written to a disk or a replica: what it loses is lost. Whoever
/// can write to it can take sessions over, and whoever can read it reads what clients were sent.
///
/// Clones share one connection.
#[derive(Clone)]
pub struct RedisStore {
    connection: ConnectionManager,
    prefix: Arc<str>,
    link: Arc<Link>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects to the server, which has to be there now; later it may come and go.
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
        // What is needed of 6.2, done to nothing.
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
        let link = Link::start(connection.clone(), keep, max_waiting);
        Ok(Self { connection, prefix: prefix.into(), link })
    }
}
