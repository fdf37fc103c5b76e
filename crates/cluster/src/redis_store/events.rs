//! What was sent on streams: each is a Redis stream, whose ids are the numbers of the frames.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use redis::RedisResult;
use redis::aio::ConnectionManager;
use stentor_engine::outlet::policy::{Class, Retention};
use stentor_engine::outlet::{Delivered, EventLog, EventStore, Frame, Reopened, Replay};
use stentor_engine::{Seq, SessionId, StreamId};

use super::RedisStore;
use super::writer::{Link, Stream, id};

/// An entry of a Redis stream: its id, and names and values one after the other.
type Entry = (String, Vec<Vec<u8>>);

impl RedisStore {
    fn key(&self, session: &SessionId, stream: StreamId) -> String {
        format!("{}events:{session}:{stream}", self.prefix)
    }

    fn log(&self, stream: Stream, retention: Retention) -> RedisLog {
        RedisLog {
            connection: self.connection.clone(),
            link: self.link.clone(),
            stream: Arc::new(stream),
            index: VecDeque::new(),
            bytes: 0,
            kept: 0,
            retention,
            left: false,
        }
    }
}

impl EventStore for RedisStore {
    fn open(
        &self,
        session: &SessionId,
        stream: StreamId,
        retention: Retention,
    ) -> Box<dyn EventLog> {
        Box::new(self.log(Stream::new(self.key(session, stream), false, 0), retention))
    }

    fn reopen<'a>(
        &'a self,
        session: &'a SessionId,
        stream: StreamId,
        retention: Retention,
    ) -> BoxFuture<'a, Option<Reopened>> {
        async move {
            let key = self.key(session, stream);
            // It may have been here just now.
            self.link.settled().await;
            let read = read(self.connection.clone(), &key, "-".to_owned(), "+".to_owned()).await;
            let entries = match read {
                Ok(entries) => entries,
                Err(error) => {
                    stentor_engine::log!(warn, ?session, %stream, %error, "a stream cannot be read");
                    return None;
                }
            };
            let last = entries.last().map(|(event, _)| (event.0, event.1))?;
            // What was before the first one, or a gap, was let go of or lost.
            let first = entries.iter().rposition(|(_, gap)| *gap).unwrap_or(0);
            let floor = entries[first].0.0.0;
            let mut log = self.log(Stream::new(key, true, floor), retention);
            for (event, _) in &entries {
                log.count(event);
            }
            log.link.is_here(&log.stream);
            Some(Reopened { log: Box::new(log), last })
        }
        .boxed()
    }
}

/// The log of one stream. It knows the numbers and sizes of what is kept, and not more.
struct RedisLog {
    connection: ConnectionManager,
    link: Arc<Link>,
    stream: Arc<Stream>,
    /// Number and size of each frame that is kept.
    index: VecDeque<(u64, usize)>,
    /// What is kept, in bytes as they are counted in memory.
    bytes: usize,
    /// What is before this was let go of.
    kept: u64,
    retention: Retention,
    left: bool,
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLog").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl RedisLog {
    fn count(&mut self, (seq, _, frame): &Delivered) {
        let weight = frame.weight();
        self.index.push_back((seq.0, weight));
        self.bytes += weight;
    }

    /// Lets go of what is more than this; `true` if something was.
    fn let_go(&mut self, retention: Retention) -> bool {
        let before = self.kept;
        while (self.index.len() > retention.frames.max(1)
            || (self.bytes > retention.bytes && self.index.len() > 1))
            && let Some((seq, weight)) = self.index.pop_front()
        {
            self.bytes -= weight;
            self.kept = seq + 1;
        }
        self.kept != before
    }
}

impl EventLog for RedisLog {
    fn append(&mut self, event: &Delivered) {
        if self.index.is_empty() {
            self.link.is_here(&self.stream);
        }
        self.count(event);
        self.let_go(self.retention);
        self.link.append(&self.stream, event, self.kept);
    }

    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay> {
        let from = self.index.partition_point(|(seq, _)| *seq < next.0);
        let (wanted, kept, stream) = (self.index.len() - from, self.kept, self.stream.clone());
        let Some((last, _)) = self.index.back().filter(|_| wanted > 0).copied() else {
            let complete = next.0 >= kept.max(stream.floor.load(Ordering::Acquire));
            return ready(Replay { events: Vec::new(), complete }).boxed();
        };
        let (link, connection) = (self.link.clone(), self.connection.clone());
        async move {
            link.settled().await;
            let (key, floor) = (&stream.key, || stream.floor.load(Ordering::Acquire));
            match read(connection, key, format!("{}-0", next.0), id(last)).await {
                Ok(entries) => {
                    // It may also have expired, or been let go of by who manages the server.
                    let complete = next.0 >= kept.max(floor()) && entries.len() == wanted;
                    let events = entries.into_iter().map(|(event, _)| event).collect();
                    Replay { events, complete }
                }
                Err(error) => {
                    stentor_engine::log!(warn, %error, "what was sent to a client cannot be read");
                    Replay { events: Vec::new(), complete: false }
                }
            }
        }
        .boxed()
    }

    fn held(&self) -> usize {
        let index = self.index.len() * size_of::<(u64, usize)>();
        index + self.stream.waiting.load(Ordering::Acquire)
    }

    fn trim(&mut self, retention: Retention) {
        if self.let_go(retention) {
            self.link.trim(&self.stream, self.kept);
        }
    }

    fn leave(&mut self) {
        self.left = true;
    }
}

impl Drop for RedisLog {
    fn drop(&mut self) {
        // One that nothing was said on is not there.
        if !self.index.is_empty() {
            self.link.is_gone(&self.stream, self.left);
        }
    }
}

/// Frames that are kept, each with whether some are missing before it.
async fn read(
    mut connection: ConnectionManager,
    key: &str,
    from: String,
    to: String,
) -> RedisResult<Vec<(Delivered, bool)>> {
    let mut range = redis::cmd("XRANGE");
    range.arg(key).arg(from).arg(to);
    let entries: Vec<Entry> = range.query_async(&mut connection).await?;
    Ok(entries.into_iter().filter_map(decode).collect())
}

/// `None` if it was not written by a store like this.
fn decode((id, fields): Entry) -> Option<(Delivered, bool)> {
    let seq = id.split_once('-')?.0.parse().ok()?;
    let (mut class, mut reply, mut gap, mut text) = (None, None, false, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match &*name {
            b"c" => class = Class::ALL.into_iter().find(|it| it.as_str().as_bytes() == value),
            b"r" => reply = Some(std::str::from_utf8(&value).ok()?.parse().ok()),
            b"g" => gap = true,
            b"b" => text = Some(Bytes::from(value)),
            _ => {}
        }
    }
    let text = text?;
    let frame = match reply {
        Some(code) => Frame::Reply(text, code),
        None => Frame::Message(text),
    };
    Some(((Seq(seq), class?, frame), gap))
}
