//! The one task that writes what the logs of all streams append.
//!
//! What waits for it is bounded in number and in bytes. What does not fit, or cannot be written, is
//! lost to those that come back, which the log of its stream then knows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use metrics::counter;
use parking_lot::Mutex;
use redis::aio::ConnectionManager;
use redis::{Pipeline, RedisError, RedisResult, Value};
use stentor_engine::outlet::{Delivered, Frame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// Things to do that may wait.
const QUEUE: usize = 8_192;

/// The most that is done with one message to the server and back.
const BATCH: usize = 256;

/// What a frame costs beside its text while it waits, in bytes.
const FRAME_COST: usize = 128;

/// A stream as its log and the writer know it.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: String,
    /// Bytes that wait to be written.
    pub(super) waiting: AtomicUsize,
    /// What is before this is not all there.
    pub(super) floor: AtomicU64,
    /// Something was lost since the last frame that was written, or will be next.
    gap: AtomicBool,
    /// There is nothing left of an earlier stream of that name.
    begun: AtomicBool,
}

impl Stream {
    pub(super) fn new(key: String, begun: bool, floor: u64) -> Self {
        Self {
            key,
            waiting: AtomicUsize::new(0),
            floor: AtomicU64::new(floor),
            gap: AtomicBool::new(false),
            begun: AtomicBool::new(begun),
        }
    }

    fn lost(&self, seq: u64) {
        self.floor.fetch_max(seq + 1, Ordering::AcqRel);
        self.gap.store(true, Ordering::Release);
        counter!("stentor.redis.lost").increment(1);
    }
}

/// Something that is done to a stream after what came before.
#[derive(Debug)]
pub(super) enum Op {
    /// Writes a frame, and lets go of those before a number.
    Append(Arc<Stream>, Delivered, u64),
    /// Lets go of those before a number.
    Trim(Arc<Stream>, u64),
    /// Nobody comes back for it.
    Forget(Arc<Stream>),
    /// All that came before is done.
    Sync(oneshot::Sender<()>),
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Link {
    ops: mpsc::Sender<Op>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that wait, of all streams.
    waiting: AtomicUsize,
    max_waiting: usize,
    keep: Duration,
    /// The keys of streams that are here, which are not to expire.
    live: Mutex<HashSet<String>>,
}

impl Link {
    pub(super) fn start(
        connection: ConnectionManager,
        keep: Duration,
        max_waiting: usize,
    ) -> Arc<Self> {
        let (ops, todo) = mpsc::channel(QUEUE);
        let live = Mutex::default();
        let shared = Arc::new(Shared { waiting: AtomicUsize::new(0), max_waiting, keep, live });
        let writer = Writer { shared: shared.clone(), connection, failed: false };
        // It ends when the store and all logs are dropped.
        tokio::spawn(writer.run(todo));
        Arc::new(Self { ops, shared })
    }

    /// Has a frame written, and all before `kept` let go of. Never waits.
    pub(super) fn append(&self, stream: &Arc<Stream>, event: &Delivered, kept: u64) {
        let (seq, cost) = (event.0.0, cost(event));
        let before = self.shared.waiting.fetch_add(cost, Ordering::AcqRel);
        stream.waiting.fetch_add(cost, Ordering::AcqRel);
        let fits = before.saturating_add(cost) <= self.shared.max_waiting;
        if fits && self.ops.try_send(Op::Append(stream.clone(), event.clone(), kept)).is_ok() {
            return;
        }
        self.shared.waits_no_more(stream, cost);
        stream.lost(seq);
    }

    pub(super) fn trim(&self, stream: &Arc<Stream>, kept: u64) {
        // If there is no room, the next frame trims, too.
        let _ = self.ops.try_send(Op::Trim(stream.clone(), kept));
    }

    pub(super) fn is_here(&self, stream: &Stream) {
        self.shared.live.lock().insert(stream.key.clone());
    }

    /// The stream is not here any more; what is kept of it stays for some time, or not.
    pub(super) fn is_gone(&self, stream: &Arc<Stream>, stays: bool) {
        self.shared.live.lock().remove(&stream.key);
        if !stays {
            // If there is no room, it expires.
            let _ = self.ops.try_send(Op::Forget(stream.clone()));
        }
    }

    /// Waits until all that was to be done so far is done, or has failed.
    pub(super) async fn settled(&self) {
        let (done, told) = oneshot::channel();
        if self.ops.send(Op::Sync(done)).await.is_ok() {
            // Without the writer nothing more is done either.
            let _ = told.await;
        }
    }
}

fn cost(event: &Delivered) -> usize {
    event.2.weight() + FRAME_COST
}

impl Shared {
    fn waits_no_more(&self, stream: &Stream, cost: usize) {
        self.waiting.fetch_sub(cost, Ordering::AcqRel);
        stream.waiting.fetch_sub(cost, Ordering::AcqRel);
    }
}

struct Writer {
    shared: Arc<Shared>,
    connection: ConnectionManager,
    /// It was logged that the server is gone.
    failed: bool,
}

impl Writer {
    async fn run(mut self, mut todo: mpsc::Receiver<Op>) {
        let mut renew = interval((self.shared.keep / 4).max(Duration::from_millis(1)));
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = todo.recv_many(&mut batch, BATCH) => {
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
                Ok(true) => self.works(),
                Ok(false) => {}
                Err(error) => {
                    self.fails(&error);
                    // Without waiting for a server that is gone once for each batch.
                    while batch.len() < QUEUE
                        && let Ok(op) = todo.try_recv()
                    {
                        batch.push(op);
                    }
                    for op in &batch {
                        if let Op::Append(stream, event, _) = op {
                            stream.lost(event.0.0);
                        }
                    }
                }
            }
            for op in batch.drain(..) {
                match op {
                    Op::Append(stream, event, _) => {
                        self.shared.waits_no_more(&stream, cost(&event));
                    }
                    Op::Sync(done) => {
                        // Who waited may have gone.
                        let _ = done.send(());
                    }
                    Op::Trim(..) | Op::Forget(_) => {}
                }
            }
        }
    }

    fn works(&mut self) {
        if std::mem::replace(&mut self.failed, false) {
            stentor_engine::log!(info, "what is sent to clients is kept on the Redis server again");
        }
    }

    fn fails(&mut self, error: &RedisError) {
        if !std::mem::replace(&mut self.failed, true) {
            stentor_engine::log!(error, %error, "what is sent to clients is not kept on the Redis server");
        }
    }

    /// Does all of it in one go, if the server is there. What it refuses is lost. `true` if it did
    /// something, and refused nothing.
    async fn write(&mut self, batch: &[Op]) -> Result<bool, RedisError> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let (mut begun, mut written, mut touched) = (Vec::new(), Vec::new(), HashSet::new());
        for op in batch {
            match op {
                Op::Append(stream, event, kept) => {
                    if !stream.begun.swap(true, Ordering::AcqRel) {
                        pipe.cmd("DEL").arg(&stream.key).ignore();
                        begun.push(stream);
                    }
                    let gap = stream.gap.swap(false, Ordering::AcqRel);
                    add(&mut pipe, stream, event, *kept, gap);
                    written.push((stream, event.0.0));
                    touched.insert(stream.key.as_str());
                }
                Op::Trim(stream, kept) => {
                    pipe.cmd("XTRIM").arg(&stream.key);
                    pipe.arg(("MINID", min_id(*kept))).ignore();
                }
                Op::Forget(stream) => {
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
            begun.iter().for_each(|stream| stream.begun.store(false, Ordering::Release));
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
                true => self.fails(error),
                // Another node goes on with the stream, and its numbers are above those of this one.
                false => stentor_engine::log!(debug, %error, "some of what was sent is not kept"),
            }
        }
        Ok(refused.is_empty())
    }

    fn expire(&self, pipe: &mut Pipeline, key: &str) {
        let keep = u64::try_from(self.shared.keep.as_millis()).unwrap_or(u64::MAX);
        pipe.cmd("PEXPIRE").arg(key).arg(keep.clamp(1, u64::MAX >> 16)).ignore();
    }

    /// Keeps the streams that are here from being forgotten.
    async fn renew(&mut self) {
        let live: Vec<_> = self.shared.live.lock().iter().cloned().collect();
        for some in live.chunks(BATCH) {
            let mut pipe = redis::pipe();
            pipe.ignore_errors();
            for key in some {
                self.expire(&mut pipe, key);
            }
            if let Err(error) = pipe.query_async::<Value>(&mut self.connection).await {
                return self.fails(&error);
            }
        }
    }
}

/// The id of a frame: its number is the first part, as 0-0 is none.
pub(super) fn id(seq: u64) -> String {
    format!("{seq}-1")
}

fn min_id(kept: u64) -> String {
    format!("{kept}-0")
}

fn add(pipe: &mut Pipeline, stream: &Stream, event: &Delivered, kept: u64, gap: bool) {
    let (seq, class, frame) = event;
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
