//! Whoever reads how: each reader hears of each occurrence at most once, in order, and is told of
//! whatever it misses.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use stentor_events::Events;
use support::{ACTIVE, EVENT, HEARTBEAT, Job, Jobs, Peer, server, without_replay};
use tokio::time::{Instant, advance};

#[derive(Clone, Debug)]
enum Step {
    /// This many at once, for one of the queues.
    Emit(u64, u8),
    /// A poll of a reader with a page of this size.
    Poll(usize, u64),
    /// A reader opens a stream from its cursor.
    Open(usize),
    /// A reader reads what its stream has brought so far.
    Read(usize),
    /// A reader goes, and keeps its cursor.
    Close(usize),
    /// Seconds pass.
    Pass(u64),
}

const READERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let reader = 0..READERS;
    prop_oneof![
        4 => (1..30_u64, 0..2_u8).prop_map(|(count, queue)| Step::Emit(count, queue)),
        3 => (reader.clone(), 1..20_u64).prop_map(|(reader, size)| Step::Poll(reader, size)),
        2 => reader.clone().prop_map(Step::Open),
        3 => reader.clone().prop_map(Step::Read),
        1 => reader.prop_map(Step::Close),
        1 => (1..40_u64).prop_map(Step::Pass),
    ]
}

/// What one reader knows.
struct Reader {
    client: Peer,
    /// The queue of its subscription; the first one has both.
    queue: Option<u8>,
    cursor: Value,
    stream: Option<i64>,
    /// The last number that it has heard of, and whether it was told since that it missed some.
    last: u64,
    told: bool,
}

/// All occurrences: for each number, from 1 on, its queue.
type All = Vec<u8>;

impl Reader {
    fn params(&self) -> Value {
        let queue = self.queue.map(|queue| queue.to_string());
        json!({"name": "job.done", "arguments": {"queue": queue}, "cursor": self.cursor})
    }

    /// The next number that it would have to hear of.
    fn due(&self, all: &All) -> Option<u64> {
        let concerns = |number: &u64| {
            self.queue.is_none_or(|queue| all[usize::try_from(*number).unwrap() - 1] == queue)
        };
        (self.last + 1..=all.len() as u64).find(concerns)
    }

    fn hears(&mut self, event: &Value, all: &All) -> Result<(), TestCaseError> {
        let number = event["data"]["number"].as_u64().unwrap();
        prop_assert!(number > self.last, "{number} after {}", self.last);
        let due = self.due(all);
        prop_assert!(self.told || due == Some(number), "{number} instead of {due:?}");
        prop_assert!(due.is_some_and(|due| due <= number), "{number} is not for it");
        (self.last, self.told) = (number, false);
        Ok(())
    }

    async fn poll(&mut self, size: u64, all: &All) -> Result<(), TestCaseError> {
        let mut params = self.params();
        params["maxEvents"] = size.into();
        let mut answer = self.client.poll(params).await;
        self.told |= answer["truncated"] == true;
        let events = answer["events"].take();
        let events = events.as_array().unwrap();
        prop_assert!(events.len() as u64 <= size);
        for event in events {
            self.hears(event, all)?;
        }
        self.cursor = answer["cursor"].take();
        if answer["hasMore"] == false {
            prop_assert!(self.told || self.due(all).is_none(), "{:?} is missing", self.due(all));
        }
        Ok(())
    }

    async fn open(&mut self, all: &All) -> Result<(), TestCaseError> {
        self.close().await;
        let (id, active) = self.client.opened(self.params()).await;
        self.stream = Some(id);
        self.told |= active["truncated"] == true;
        self.read(all).await
    }

    async fn close(&mut self) {
        if let Some(id) = self.stream.take() {
            self.client.cancel(id).await;
        }
    }

    /// Reads what the stream brings until it has heard of everything, or was told that it cannot.
    async fn read(&mut self, all: &All) -> Result<(), TestCaseError> {
        let Some(id) = self.stream else { return Ok(()) };
        let begun = Instant::now();
        while self.due(all).is_some() {
            let (method, mut params) = self.client.next_with_beats(id).await;
            match method.as_str() {
                EVENT => self.hears(&params, all)?,
                ACTIVE => {
                    prop_assert_eq!(&params["truncated"], true);
                    self.told = true;
                }
                // Time passes only when nothing is left to do: so there is nothing on its way.
                HEARTBEAT if !begun.elapsed().is_zero() => {
                    prop_assert!(self.told, "{:?} is missing", self.due(all));
                    self.cursor = params["cursor"].take();
                    return Ok(());
                }
                HEARTBEAT => {}
                other => prop_assert!(false, "{other} {params}"),
            }
            self.cursor = params["cursor"].take();
        }
        Ok(())
    }
}

async fn emit(jobs: &Jobs, all: &mut All, count: u64, queue: u8) {
    for _ in 0..count {
        all.push(queue);
        jobs.emit(Job::in_queue(all.len() as u64, &queue.to_string())).await.unwrap();
    }
}

async fn nothing_is_lost_silently(
    count: usize,
    age: u64,
    room: usize,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let jobs = without_replay("job.done").replay(count, Duration::from_secs(age));
    let events = Events::new().add(&jobs);
    let engine = server().extension(events).configure(|config| config.limits.bytes = room);
    let engine = engine.start().await.unwrap();
    let (mut all, mut readers) = (All::new(), Vec::new());
    for queue in [None, Some(0), Some(1)] {
        let client = Peer::stranger(&engine).await;
        let (cursor, stream) = (Value::Null, None);
        let mut reader = Reader { client, queue, cursor, stream, last: 0, told: false };
        reader.poll(1, &all).await?;
        readers.push(reader);
    }
    for step in steps {
        match step {
            Step::Emit(count, queue) => emit(&jobs, &mut all, count, queue).await,
            Step::Poll(index, size) if readers[index].stream.is_none() => {
                readers[index].poll(size, &all).await?;
            }
            Step::Poll(..) => {}
            Step::Open(index) => readers[index].open(&all).await?,
            Step::Read(index) => readers[index].read(&all).await?,
            Step::Close(index) => readers[index].close().await,
            Step::Pass(seconds) => advance(Duration::from_secs(seconds)).await,
        }
    }
    // In the end each one comes to the end.
    emit(&jobs, &mut all, 1, 0).await;
    emit(&jobs, &mut all, 1, 1).await;
    for reader in &mut readers {
        if reader.stream.is_some() {
            reader.read(&all).await?;
        } else {
            for _ in 0..=all.len() {
                reader.poll(7, &all).await?;
            }
        }
        let due = reader.due(&all);
        prop_assert!(reader.told || due.is_none(), "{due:?} is missing");
    }
    engine.shutdown().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_reads_whenever_loses_nothing_silently(
        count in 1..40_usize,
        age in 20..120_u64,
        room in prop_oneof![Just(1_000_usize), Just(20_000)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(nothing_is_lost_silently(count, age, room, steps))?;
    }
}
