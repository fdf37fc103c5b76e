//! Webhooks and logs on a Redis server.
//!
//! A command that has timed out may still be under way, and the server may carry it out after a later
//! one. So each write has a number: the generation of the store, which a store gets when it connects,
//! and an attempt, which it counts. Scripts ignore what is older than what they know.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError};
use stentor_macros::Setters;
use tokio::sync::Mutex as AsyncMutex;

use super::sealed::StoreKey;
use super::{EventsStore, StoreError, StoredOccurrence, StoredWebhook};

/// Occurrences that are read with one command. Each may have a megabyte.
const OCCURRENCES: usize = 64;
/// Webhooks that are read or written with one command.
const WEBHOOKS: usize = 256;
/// How often a store tries to connect while others do so with the same name.
const TRIES: usize = 5;

/// The generation of now, and the next one, which is larger than all before: also if the time or the
/// number that is kept is lost.
const NEXT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGET', KEYS[1], 'generation') or '0'
return {before, string.format('%.0f', math.max(now, tonumber(before) + 1))}";

/// Begins the next generation, unless another store has begun one: so that a command that arrives late
/// ends no store that works.
const BEGIN: &str = "
local before = redis.call('HGET', KEYS[1], 'generation') or '0'
if before ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'attempt', 0)
return 1";

/// Writes webhooks, unless a later write was done.
const WRITE: &str = "
local writer = redis.call('HMGET', KEYS[1], 'generation', 'attempt')
local generation, attempt = tonumber(writer[1]) or 0, tonumber(writer[2]) or 0
local mine = tonumber(ARGV[1])
if generation > mine then return 0 end
if generation == mine and attempt >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'attempt', ARGV[2])
if ARGV[3] == 'put' then
  for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
else
  for i = 4, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 1";

/// Adds to a log. Between the last occurrence that is known to be kept and this one there are only
/// those whose callers were told that they are not: their numbers are used again. The server refuses
/// an id that is smaller than the last one, which ends the script.
const APPEND: &str = "
local generation = tonumber(redis.call('HGET', KEYS[1], 'generation')) or 0
if generation > tonumber(ARGV[1]) then return 0 end
local id, kept = ARGV[1] .. '-' .. ARGV[2], ARGV[1] .. '-' .. ARGV[3]
redis.call('XADD', KEYS[2], id, 'o', ARGV[5])
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. kept, '(' .. id)) do
  redis.call('XDEL', KEYS[2], entry[1])
end
redis.call('XTRIM', KEYS[2], 'MAXLEN', '=', ARGV[4])
return 1";

/// How a node reaches the Redis server that keeps its webhooks and logs.
#[derive(Clone, Setters)]
#[setters(own_new)]
#[non_exhaustive]
pub struct RedisEventsConfig {
    /// The address: `redis://[user:password@]host[:port][/database]`. The connection has no TLS, so
    /// the network must be trusted.
    pub url: String,
    /// Begins all keys. Different servers that share a database need different prefixes. Default
    /// `stentor`.
    pub prefix: String,
    /// The name of the node, which stays the same after a restart. Each node of a cluster needs its
    /// own: a node continues all webhooks that it finds, and the writes of the one that connected
    /// earlier with the same name fail. Default `node`, for a server without a cluster.
    pub node: String,
    /// How long to wait for each answer of the server. Default 2 s.
    pub timeout: Duration,
}

impl RedisEventsConfig {
    /// The server at this address, with defaults for everything else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "stentor".to_owned(),
            node: "node".to_owned(),
            timeout: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for RedisEventsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may contain a password.
        let mut config = f.debug_struct("RedisEventsConfig");
        config.field("prefix", &self.prefix).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Why a Redis server cannot keep webhooks and logs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisEventsError {
    /// The URL is not the address of a server. It is not repeated, because it may contain a
    /// password.
    #[error("this is no address of a Redis server: {0}")]
    Address(#[source] RedisError),
    /// The server cannot be reached, or refuses this node.
    #[error("the Redis server cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// The server is older than Redis 6.2, or does not let this node write.
    #[error("the Redis server does not do what is needed: {0}")]
    Unfit(#[source] RedisError),
}

/// Keeps webhooks and logs on a Redis server, at least of version 6.2. Webhooks are encrypted, logs are
/// not. Who can write to the server can change both.
///
/// ```no_run
/// # async fn f(events: stentor_events::Events) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use stentor_events::{RedisEventsConfig, RedisEventsStore, StoreKey};
///
/// # let random = [0; 32];
/// let config = RedisEventsConfig::new("redis://10.0.0.9").node("one");
/// let store = RedisEventsStore::connect(config, StoreKey::new(random)).await?;
/// let events = events.store(Arc::new(store));
/// # Ok(())
/// # }
/// ```
///
/// Each node has its own name on the server ([`RedisEventsConfig::node`]). Of two stores with the same
/// name, the one that connected later writes; writes of the other fail.
///
/// # What survives
///
/// All that the server has acknowledged survives this process, so the store
/// [is durable](EventsStore::is_durable). What survives a crash of the server is the server's own
/// matter:
///
/// * With `appendonly yes` and `appendfsync always`, everything. With `appendfsync everysec`, all but
///   the last second or two. Without `appendonly`, what the last snapshot has.
/// * A replica gets writes after they are acknowledged, and this store does not `WAIT` for replicas. So
///   a failover may lose the last ones; `min-replicas-to-write` only bounds how many.
/// * With a `maxmemory-policy` other than `noeviction`, the server may throw away logs and webhooks.
///
/// While the server is frozen or unreachable, each write fails after
/// [`timeout`](RedisEventsConfig::timeout) at the latest; later it works again. A write that has failed
/// may have reached the server: an occurrence whose emit failed may be in the log that the next process
/// reads, if nothing was emitted after it.
pub struct RedisEventsStore {
    connection: ConnectionManager,
    timeout: Duration,
    key: StoreKey,
    keys: Keys,
    generation: String,
    attempts: AtomicU64,
    /// One write of webhooks after the other.
    writing: AsyncMutex<()>,
    /// By type: the attempt of the last occurrence that is known to be kept. One append to a log after
    /// the other.
    logs: Mutex<HashMap<String, Arc<AsyncMutex<u64>>>>,
}

impl fmt::Debug for RedisEventsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEventsStore").field("keys", &self.keys.base).finish_non_exhaustive()
    }
}

impl RedisEventsStore {
    /// Connects to the server, which must be reachable now; later it may be unreachable for a while.
    ///
    /// From now on, writes of a store that has connected earlier with the same name of a node fail.
    ///
    /// # Errors
    ///
    /// [`RedisEventsError`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn connect(
        config: RedisEventsConfig,
        key: StoreKey,
    ) -> Result<Self, RedisEventsError> {
        let RedisEventsConfig { url, prefix, node, timeout } = config;
        let connection = ask(timeout, connection(url, timeout)?);
        let connection = connection.await.map_err(RedisEventsError::Unreachable)?;
        let keys = Keys::new(&prefix, &node);
        let unfit = |error: RedisError| match error.is_io_error() {
            true => RedisEventsError::Unreachable(error),
            false => RedisEventsError::Unfit(error),
        };
        // Without an exclusive start, which Redis 6.2 has, logs cannot be read.
        let mut exclusive = redis::cmd("XRANGE");
        exclusive.arg(&keys.none).arg("(0-1").arg("+");
        run::<Vec<Entry>>(&connection, timeout, &exclusive).await.map_err(unfit)?;
        let generation = begin(&connection, timeout, &keys.writer).await.map_err(unfit)?;
        Ok(Self {
            connection,
            timeout,
            key,
            keys,
            generation,
            attempts: AtomicU64::new(0),
            writing: AsyncMutex::new(()),
            logs: Mutex::new(HashMap::new()),
        })
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let answer = run(&self.connection, self.timeout, command).await;
        answer.map_err(|error| StoreError(error.to_string()))
    }

    /// A script for the key of the writer and another one, with the generation and the next attempt.
    fn script(&self, script: &str, key: &str) -> (Cmd, u64) {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(2).arg(&self.keys.writer).arg(key);
        command.arg(&self.generation).arg(attempt);
        (command, attempt)
    }

    /// Runs a script that writes, and returns 0 if it may not.
    async fn write(&self, script: &Cmd) -> Result<(), StoreError> {
        match self.run::<u64>(script).await? {
            0 => Err(StoreError("another store has connected as the same node".to_owned())),
            _ => Ok(()),
        }
    }
}

impl EventsStore for RedisEventsStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn put(&self, webhooks: Vec<StoredWebhook>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let sealed = self.key.seal_all(&webhooks)?;
            let _turn = self.writing.lock().await;
            for part in sealed.chunks(WEBHOOKS) {
                let (mut put, _) = self.script(WRITE, &self.keys.webhooks);
                put.arg("put");
                for (id, sealed) in part {
                    put.arg(id).arg(sealed.as_slice());
                }
                self.write(&put).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let _turn = self.writing.lock().await;
            for part in ids.chunks(WEBHOOKS) {
                let (mut remove, _) = self.script(WRITE, &self.keys.webhooks);
                remove.arg("remove").arg(part);
                self.write(&remove).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredWebhook>, StoreError>> {
        async move {
            // A scan may return one of them twice.
            let mut all = HashMap::new();
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&self.keys.webhooks).arg(&cursor).arg("COUNT").arg(WEBHOOKS);
                let (next, page): (String, Vec<(String, Vec<u8>)>) = self.run(&scan).await?;
                for (id, sealed) in page {
                    let webhook = self.key.open_webhook(&id, &sealed)?;
                    all.insert(id, webhook);
                }
                if next == "0" {
                    return Ok(all.into_values().collect());
                }
                cursor = next;
            }
        }
        .boxed()
    }

    fn append(
        &self,
        occurrence: StoredOccurrence,
        keep: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let json = serde_json::to_vec(&occurrence);
            let json = json.map_err(|error| StoreError(error.to_string()))?;
            let name = occurrence.event_type();
            let log = self.logs.lock().entry(name.to_owned()).or_default().clone();
            let mut kept = log.lock().await;
            let (mut append, attempt) = self.script(APPEND, &self.keys.log(name));
            append.arg(*kept).arg(keep.max(1)).arg(json);
            self.write(&append).await?;
            *kept = attempt;
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        event_type: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredOccurrence>, StoreError>> {
        async move {
            let (key, mut log, mut from) = (self.keys.log(event_type), Vec::new(), "-".to_owned());
            loop {
                let mut range = redis::cmd("XRANGE");
                range.arg(&key).arg(&from).arg("+").arg("COUNT").arg(OCCURRENCES);
                let page: Vec<Entry> = self.run(&range).await?;
                let Some((last, _)) = page.last().filter(|_| page.len() == OCCURRENCES) else {
                    parse(&page, &mut log)?;
                    return Ok(log);
                };
                from = format!("({last}");
                parse(&page, &mut log)?;
            }
        }
        .boxed()
    }
}

/// An entry of a log: its id, then alternating names and values.
type Entry = (String, Vec<Vec<u8>>);

fn parse(page: &[Entry], log: &mut Vec<StoredOccurrence>) -> Result<(), StoreError> {
    for (id, fields) in page {
        let [_, json] = &fields[..] else {
            return Err(StoreError(format!("the entry {id} of a log is no occurrence")));
        };
        let read = serde_json::from_slice(json);
        log.push(read.map_err(|error| StoreError(error.to_string()))?);
    }
    Ok(())
}

/// The keys of one node.
struct Keys {
    base: String,
    /// A hash: the generation of the store that may write, and its last attempt to write webhooks.
    writer: String,
    /// A hash: webhooks by their ids.
    webhooks: String,
    /// A key that does not exist.
    none: String,
}

impl Keys {
    fn new(prefix: &str, node: &str) -> Self {
        let base = format!("{}:durable-events:{}", encode(prefix), encode(node));
        Self {
            writer: format!("{base}:writer"),
            webhooks: format!("{base}:webhooks"),
            none: format!("{base}:none"),
            base,
        }
    }

    /// A stream: the log of a type.
    fn log(&self, event_type: &str) -> String {
        format!("{}:log:{}", self.base, encode(event_type))
    }
}

/// A name without the sign that separates the parts of a key. No two names are encoded in the same way.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The connection, which is renewed when it is lost.
fn connection(
    url: String,
    timeout: Duration,
) -> Result<impl Future<Output = Result<ConnectionManager, RedisError>>, RedisEventsError> {
    let info = url.into_connection_info().map_err(RedisEventsError::Address)?;
    // The server of a lost connection that nobody has closed is noticed after minutes otherwise.
    #[cfg(target_os = "linux")]
    let info = {
        let settings = info.tcp_settings().clone();
        info.set_tcp_settings(settings.set_user_timeout(timeout.saturating_mul(2)))
    };
    let client = Client::open(info).map_err(RedisEventsError::Address)?;
    let settings = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    Ok(ConnectionManager::new_with_config(client, settings))
}

/// Begins a generation of writes, and returns it.
async fn begin(
    connection: &ConnectionManager,
    timeout: Duration,
    writer: &str,
) -> Result<String, RedisError> {
    for _ in 0..TRIES {
        let mut next = redis::cmd("EVAL");
        next.arg(NEXT).arg(1).arg(writer);
        let (before, generation): (String, String) = run(connection, timeout, &next).await?;
        let mut begin = redis::cmd("EVAL");
        begin.arg(BEGIN).arg(1).arg(writer).arg(before).arg(&generation);
        if run::<u64>(connection, timeout, &begin).await? == 1 {
            return Ok(generation);
        }
    }
    Err((ErrorKind::Client, "other stores connect as the same node").into())
}

async fn run<T: FromRedisValue>(
    connection: &ConnectionManager,
    timeout: Duration,
    command: &Cmd,
) -> Result<T, RedisError> {
    let mut connection = connection.clone();
    ask(timeout, command.query_async(&mut connection)).await
}

/// Waits for an answer, also while the connection is renewed.
async fn ask<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let in_time = tokio::time::timeout(timeout, answer).await;
    in_time.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_names_have_different_keys(one in names(), other in names()) {
            let keys = |(prefix, node, event_type): &(String, String, String)| {
                Keys::new(prefix, node).log(event_type)
            };
            prop_assert_eq!(one == other, keys(&one) == keys(&other));
        }
    }

    fn names() -> impl Strategy<Value = (String, String, String)> {
        ("[a:%3]{0,3}", "[a:%3]{0,3}", "[a:%3]{0,3}")
    }
}
