//! The one task that writes the frames of all streams.
//!
//! The frames that wait are bounded in number and in bytes. A frame that does not fit or cannot be
//! written is lost for clients that resume, and the log of its stream is marked as incomplete.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use metrics::{Unit, counter, describe_counter};
use parking_lot::Mutex;
use redis::aio::ConnectionManager;
use redis::{Pipeline, RedisError, RedisResult, Value};
use stentor_delivery::{Delivered, Frame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Operations that may wait.
const QUEUE: usize = 8_192;

/// The most operations in one round trip to the server.
const BATCH: usize = 256;

/// The memory that a waiting frame takes beside its text, in bytes.
const FRAME_COST: usize = 128;

/// The state of a stream that its log and the writer share.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: String,
    /// Bytes that wait to be written.
    pub(super) waiting: AtomicUsize,
    /// Frames before this number are not complete on the server.
    pub(super) floor: AtomicU64,
    /// Frames were lost since the last one that was written; the next one carries a mark.
    gap: AtomicBool,
    /// Whether the key holds no data of an earlier stream.
    cleared: AtomicBool,
}

impl Stream {
    pub(super) fn new(key: String, cleared: bool, floor: u64) -> Self {
        Self {
            key,
            waiting: AtomicUsize::new(0),
            floor: AtomicU64::new(floor),
            gap: AtomicBool::new(false),
            cleared: AtomicBool::new(cleared),
        }
    }

    fn lost(&self, seq: u64) {
        self.floor.fetch_max(seq + 1, Ordering::AcqRel);
        self.gap.store(true, Ordering::Release);
        counter!("stentor.redis.lost").increment(1);
    }
}

/// An operation. The writer keeps their order.
#[derive(Debug)]
pub(super) enum Op {
    /// Writes a frame, and evicts the frames before this number.
    Append(Arc<Stream>, Delivered, u64),
    /// Evicts the frames before this number.
    Trim(Arc<Stream>, u64),
    /// Deletes the stream: no client resumes it.
    Delete(Arc<Stream>),
    /// Reports that all earlier operations are done.
    Sync(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct WriterHandle {
    ops: mpsc::Sender<Op>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes of all streams that wait.
    waiting: AtomicUsize,
    max_waiting: usize,
    keep: Duration,
    /// The keys of this node's open streams, which must not expire.
    live: Mutex<HashSet<String>>,
}

impl WriterHandle {
    pub(super) fn start(
        connection: ConnectionManager,
        keep: Duration,
        max_waiting: usize,
    ) -> Arc<Self> {
        describe_counter!("stentor.redis.lost", Unit::Count, "Frames that Redis did not keep");
        let (ops, queue) = mpsc::channel(QUEUE);
        let live = Mutex::default();
        let shared = Arc::new(Shared { waiting: AtomicUsize::new(0), max_waiting, keep, live });
        let writer = Writer { shared: shared.clone(), connection, failed: false };
        // The task ends when the store and all logs are dropped.
        tokio::spawn(writer.run(queue));
        Arc::new(Self { ops, shared })
    }

    /// Queues a frame to be written, and frames before `kept` to be evicted. Never waits.
    pub(super) fn append(&self, stream: &Arc<Stream>, event: &Delivered, kept: u64) {
        let (seq, cost) = (event.seq.0, cost(event));
        let before = self.shared.waiting.fetch_add(cost, Ordering::AcqRel);
        stream.waiting.fetch_add(cost, Ordering::AcqRel);
        let fits = before.saturating_add(cost) <= self.shared.max_waiting;
        if fits && self.ops.try_send(Op::Append(stream.clone(), event.clone(), kept)).is_ok() {
            return;
        }
        self.shared.release(stream, cost);
        stream.lost(seq);
    }

    pub(super) fn trim(&self, stream: &Arc<Stream>, kept: u64) {
        // If the queue is full, the next frame trims the stream instead.
        let _ = self.ops.try_send(Op::Trim(stream.clone(), kept));
    }

    pub(super) fn mark_live(&self, stream: &Stream) {
        self.shared.live.lock().insert(stream.key.clone());
    }

    /// This node has closed the stream. With `stays`, its data expires later; otherwise it is
    /// deleted.
    pub(super) fn mark_closed(&self, stream: &Arc<Stream>, stays: bool) {
        self.shared.live.lock().remove(&stream.key);
        if !stays {
            // If the queue is full, the data expires instead.
            let _ = self.ops.try_send(Op::Delete(stream.clone()));
        }
    }

    /// Waits until all operations so far are done or have failed.
    pub(super) async fn flush(&self) {
        let (done, done_receiver) = oneshot::channel();
        if self.ops.send(Op::Sync(done)).await.is_ok() {
            // An error means that the writer has ended, so there is nothing to wait for.
            let _ = done_receiver.await;
        }
    }
}

fn cost(event: &Delivered) -> usize {
    event.frame.weight() + FRAME_COST
}

impl Shared {
    fn release(&self, stream: &Stream, cost: usize) {
        self.waiting.fetch_sub(cost, Ordering::AcqRel);
        stream.waiting.fetch_sub(cost, Ordering::AcqRel);
    }
}

struct Writer {
    shared: Arc<Shared>,
    connection: ConnectionManager,
    /// Whether the failure of the server has been logged.
    failed: bool,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        let mut renew = interval((self.shared.keep / 4).max(Duration::from_millis(1)));
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                _ = renew.tick() => {
                    self.renew().await;
                    continue;
                }
            }
            match self.write(&batch).await {
                Ok(true) => self.log_recovered(),
                Ok(false) => {}
                Err(error) => {
                    self.log_failure(&error);
                    // Drops everything that waits, so that it does not wait for an unreachable
                    // server batch by batch.
                    while batch.len() < QUEUE
                        && let Ok(op) = queue.try_recv()
                    {
                        batch.push(op);
                    }
                    for op in &batch {
                        if let Op::Append(stream, event, _) = op {
                            stream.lost(event.seq.0);
                        }
                    }
                }
            }
            for op in batch.drain(..) {
                match op {
                    Op::Append(stream, event, _) => {
                        self.shared.release(&stream, cost(&event));
                    }
                    Op::Sync(done) => {
                        // The task that waited may have ended.
                        let _ = done.send(());
                    }
                    Op::Trim(..) | Op::Delete(_) => {}
                }
            }
        }
    }

    fn log_recovered(&mut self) {
        if std::mem::replace(&mut self.failed, false) {
            stentor_engine::log!(info, "what is sent to clients is kept on the Redis server again");
        }
    }

    fn log_failure(&mut self, error: &RedisError) {
        if !std::mem::replace(&mut self.failed, true) {
            stentor_engine::log!(error, %error, "what is sent to clients is not kept on the Redis server");
        }
    }

    /// Sends the batch in one round trip. Frames that the server refuses are lost. `true` if there
    /// was something to do and the server refused nothing.
    async fn write(&mut self, batch: &[Op]) -> Result<bool, RedisError> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let (mut cleared, mut written, mut touched) = (Vec::new(), Vec::new(), HashSet::new());
        for op in batch {
            match op {
                Op::Append(stream, event, kept) => {
                    if !stream.cleared.swap(true, Ordering::AcqRel) {
                        pipe.cmd("DEL").arg(&stream.key).ignore();
                        cleared.push(stream);
                    }
                    let gap = stream.gap.swap(false, Ordering::AcqRel);
                    add(&mut pipe, stream, event, *kept, gap);
                    written.push((stream, event.seq.0));
                    touched.insert(stream.key.as_str());
                }
                Op::Trim(stream, kept) => {
                    pipe.cmd("XTRIM").arg(&stream.key);
                    pipe.arg(("MINID", min_id(*kept))).ignore();
                }
                Op::Delete(stream) => {
                    pipe.cmd("DEL").arg(&stream.key).ignore();
                    touched.remove(stream.key.as_str());
                }
                Op::Sync(_) => {}
            }
        }
        for key in touched {
            self.expire(&mut pipe, key);
        }
        if pipe.is_empty() {
            return Ok(false);
        }
        let results = pipe.query_async::<Vec<RedisResult<Value>>>(&mut self.connection).await;
        let results = results.inspect_err(|_| {
            cleared.iter().for_each(|stream| stream.cleared.store(false, Ordering::Release));
        })?;
        let (count, mut refused) = (written.len(), Vec::new());
        for ((stream, seq), result) in written.into_iter().zip(results) {
            if let Err(error) = result {
                stream.lost(seq);
                refused.push(error);
            }
        }
        if let Some(error) = refused.first() {
            match refused.len() == count {
                true => self.log_failure(error),
                // Another node continues the stream, with higher numbers.
                false => stentor_engine::log!(debug, %error, "some of what was sent is not kept"),
            }
        }
        Ok(refused.is_empty())
    }

    fn expire(&self, pipe: &mut Pipeline, key: &str) {
        let keep = u64::try_from(self.shared.keep.as_millis()).unwrap_or(u64::MAX);
        pipe.cmd("PEXPIRE").arg(key).arg(keep.clamp(1, u64::MAX >> 16)).ignore();
    }

    /// Keeps this node's open streams from expiring.
    async fn renew(&mut self) {
        let live: Vec<_> = self.shared.live.lock().iter().cloned().collect();
        for some in live.chunks(BATCH) {
            let mut pipe = redis::pipe();
            pipe.ignore_errors();
            for key in some {
                self.expire(&mut pipe, key);
            }
            if let Err(error) = pipe.query_async::<Value>(&mut self.connection).await {
                return self.log_failure(&error);
            }
        }
    }
}

/// The id of a frame. The first part is its number; the second is 1, because 0-0 is not a valid id.
pub(super) fn id(seq: u64) -> String {
    format!("{seq}-1")
}

fn min_id(kept: u64) -> String {
    format!("{kept}-0")
}

fn add(pipe: &mut Pipeline, stream: &Stream, event: &Delivered, kept: u64, gap: bool) {
    let Delivered { seq, class, frame } = event;
    let mut text = BytesMut::new();
    frame.write(&mut text);
    pipe.cmd("XADD").arg(&stream.key).arg(("MINID", min_id(kept))).arg(id(seq.0));
    pipe.arg("c").arg(class.as_str());
    if let Frame::Reply(_, code) = frame {
        pipe.arg("r").arg(code.map_or(String::new(), |code| code.to_string()));
    }
    if gap {
        pipe.arg("g").arg("");
    }
    pipe.arg("b").arg(&text[..]);
}
