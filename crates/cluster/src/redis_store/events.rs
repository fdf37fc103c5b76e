//! The event store: each stream is a Redis stream, whose ids are the sequence numbers of the
//! frames.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use redis::RedisResult;
use redis::aio::ConnectionManager;
use stentor_delivery::policy::{Class, Retention};
use stentor_delivery::{Delivered, EventLog, EventStore, Frame, Reopened, Replay};
use stentor_engine::{Seq, SessionId, StreamId};

use super::store::RedisStore;
use super::writer::{Stream, WriterHandle, id};

/// An entry of a Redis stream: its id, then alternating names and values.
type Entry = (String, Vec<Vec<u8>>);

impl RedisStore {
    fn key(&self, session: &SessionId, stream: StreamId) -> String {
        format!("{}events:{session}:{stream}", self.prefix)
    }

    fn log(&self, stream: Stream, retention: Retention) -> RedisLog {
        RedisLog {
            connection: self.connection.clone(),
            writer: self.writer.clone(),
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
            // This node may have had the stream until now: its frames may still wait to be written.
            self.writer.flush().await;
            let read = read(self.connection.clone(), &key, "-".to_owned(), "+".to_owned()).await;
            let entries = match read {
                Ok(entries) => entries,
                Err(error) => {
                    stentor_engine::log!(warn, ?session, %stream, %error, "a stream cannot be read");
                    return None;
                }
            };
            let last = entries.last().map(|(event, _)| (event.seq, event.class))?;
            // Frames before the first entry, or before the last gap, were evicted or lost.
            let first = entries.iter().rposition(|(_, gap)| *gap).unwrap_or(0);
            let floor = entries[first].0.seq.0;
            let mut log = self.log(Stream::new(key, true, floor), retention);
            for (event, _) in &entries {
                log.count(event);
            }
            log.writer.mark_live(&log.stream);
            Some(Reopened { log: Box::new(log), last })
        }
        .boxed()
    }
}

/// The log of one stream. It keeps only the numbers and sizes of the stored frames.
struct RedisLog {
    connection: ConnectionManager,
    writer: Arc<WriterHandle>,
    stream: Arc<Stream>,
    /// The number and size of each stored frame.
    index: VecDeque<(u64, usize)>,
    /// The total size of the stored frames, as counted in memory, in bytes.
    bytes: usize,
    /// Frames before this number were evicted.
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
    fn count(&mut self, Delivered { seq, frame, .. }: &Delivered) {
        let weight = frame.weight();
        self.index.push_back((seq.0, weight));
        self.bytes += weight;
    }

    /// Evicts the oldest frames that exceed the limits; `true` if there were any.
    fn evict(&mut self, retention: Retention) -> bool {
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
            self.writer.mark_live(&self.stream);
        }
        self.count(event);
        self.evict(self.retention);
        self.writer.append(&self.stream, event, self.kept);
    }

    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay> {
        let from = self.index.partition_point(|(seq, _)| *seq < next.0);
        let (wanted, kept, stream) = (self.index.len() - from, self.kept, self.stream.clone());
        let Some((last, _)) = self.index.back().filter(|_| wanted > 0).copied() else {
            let complete = next.0 >= kept.max(stream.floor.load(Ordering::Acquire));
            return ready(Replay { events: Vec::new(), complete }).boxed();
        };
        let (writer, connection) = (self.writer.clone(), self.connection.clone());
        async move {
            writer.flush().await;
            let (key, floor) = (&stream.key, || stream.floor.load(Ordering::Acquire));
            match read(connection, key, format!("{}-0", next.0), id(last)).await {
                Ok(entries) => {
                    // Frames may also have expired, or the administrator of the server may have
                    // removed them.
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
        if self.evict(retention) {
            self.writer.trim(&self.stream, self.kept);
        }
    }

    fn leave(&mut self) {
        self.left = true;
    }
}

impl Drop for RedisLog {
    fn drop(&mut self) {
        // A stream without frames has no key on the server.
        if !self.index.is_empty() {
            self.writer.mark_closed(&self.stream, self.left);
        }
    }
}

/// Reads stored frames, each with whether frames are missing before it.
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

/// `None` if the entry was not written by this kind of store.
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
    Some((Delivered { seq: Seq(seq), class: class?, frame }, gap))
}
