//! The session store: a hash for each session, with its node, its number of moves, and its JSON.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, RedisError};
use stentor_engine::identity::Owner;
use stentor_engine::{
    NodeId, SessionId, SessionRecord, SessionStore, SessionStoreError as Failed, TakeOver,
};

use super::store::RedisStore;

// Scripts, because each operation reads stored values, and then does nothing or everything.

const SAVE: &str = "
local known = redis.call('HMGET', KEYS[1], 'node', 'moves')
if known[1] then
  local before, now = tonumber(known[2]), tonumber(ARGV[2])
  if before > now or (before == now and known[1] ~= ARGV[1]) then return 0 end
end
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'moves', ARGV[2], 'record', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1";

const TAKE_OVER: &str = "
local node = redis.call('HGET', KEYS[1], 'node')
if not node then return {} end
local record = redis.call('HGET', KEYS[1], 'record')
local owner, asked = cjson.decode(record), cjson.decode(ARGV[3])
local function differ(name)
  local one, other = owner[name], asked[name]
  if one == cjson.null then one = nil end
  if other == cjson.null then other = nil end
  return one ~= other
end
if differ('principal') or differ('oauth_client') then return {} end
if node ~= ARGV[1] then return {node} end
redis.call('HSET', KEYS[1], 'node', ARGV[2])
local moves = redis.call('HINCRBY', KEYS[1], 'moves', 1)
return {node, tostring(moves), record}";

const REMOVE: &str = "
if redis.call('HGET', KEYS[1], 'node') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0";

impl RedisStore {
    fn script(&self, script: &str, session: &SessionId) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(format!("{}session:{session}", self.prefix));
        command
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failed {
    Failed(error.into())
}

async fn run<T: FromRedisValue>(
    command: &Cmd,
    mut connection: ConnectionManager,
) -> Result<T, Failed> {
    command.query_async(&mut connection).await.map_err(|error: RedisError| failed(error))
}

fn millis(time: Duration) -> u64 {
    // Redis accepts no larger value, and adds the current time to it.
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, u64::MAX >> 16)
}

/// Decodes the result of the `TAKE_OVER` script.
fn parse_take_over(mut answer: Vec<String>) -> Result<TakeOver, Failed> {
    let (record, moves) = (answer.pop(), answer.pop());
    match (record, moves) {
        (Some(record), Some(moves)) => {
            let record: SessionRecord = serde_json::from_str(&record).map_err(failed)?;
            Ok(TakeOver::Given(Box::new(record.with_moves(moves.parse().map_err(failed)?))))
        }
        (Some(node), None) => Ok(TakeOver::Held(NodeId::new(node).map_err(failed)?)),
        (None, _) => Ok(TakeOver::Unknown),
    }
}

impl SessionStore for RedisStore {
    fn save<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionRecord,
        keep_for: Duration,
    ) -> BoxFuture<'a, Result<bool, Failed>> {
        async move {
            let record = serde_json::to_string(session).map_err(failed)?;
            let mut save = self.script(SAVE, session.id());
            save.arg(node.as_str()).arg(session.moves()).arg(record).arg(millis(keep_for));
            run(&save, self.connection.clone()).await
        }
        .boxed()
    }

    fn take_over<'a>(
        &'a self,
        session: &'a SessionId,
        owner: &'a Owner,
        from: &'a NodeId,
        by: &'a NodeId,
    ) -> BoxFuture<'a, Result<TakeOver, Failed>> {
        async move {
            let mut take_over = self.script(TAKE_OVER, session);
            let owner = serde_json::to_string(owner).map_err(failed)?;
            take_over.arg(from.as_str()).arg(by.as_str()).arg(owner);
            parse_take_over(run(&take_over, self.connection.clone()).await?)
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), Failed>> {
        async move {
            let mut remove = self.script(REMOVE, session);
            remove.arg(node.as_str());
            run::<u64>(&remove, self.connection.clone()).await.map(|_| ())
        }
        .boxed()
    }
}
