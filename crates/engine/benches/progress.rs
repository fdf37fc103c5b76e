//! The cost of one progress report for the tool that makes it.
//!
//! The tool itself reports in a loop and measures the time. A value is encoded only when it is
//! read, so the encoding is not included.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_delivery::Delivered;
use stentor_delivery::policy::{Class, Limits};
use stentor_engine::{Context, Engine, ToolError, tool};
use support::{answer, modern, on_worker, stream, to_end};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Reports that the tool makes before it waits for a client that keeps up; fewer than may wait for
/// it.
const BATCH: u64 = 128;

#[derive(Deserialize, JsonSchema)]
struct Reports {
    count: u64,
    /// Whether to wait after each batch until the client has read it.
    waits: bool,
    /// Whether the message has to be formatted; otherwise it is a constant text.
    formats: bool,
}

/// Reports `count` times, and answers with the time that it took, in nanoseconds. The time of the
/// client between two batches is not counted.
async fn report(args: Reports, ctx: Context, read: Arc<Semaphore>) -> Result<String, ToolError> {
    let (total, mut took, mut done) = (args.count as f64, Duration::ZERO, 0);
    while done < args.count {
        let end = if args.waits { args.count.min(done + BATCH) } else { args.count };
        let begun = Instant::now();
        for n in done + 1..=end {
            if args.formats {
                ctx.report_progress(n as f64, Some(total), format_args!("step {n}"));
            } else {
                ctx.report_progress(n as f64, Some(total), "on the way");
            }
        }
        took += begun.elapsed();
        if args.waits {
            let count = u32::try_from(end - done).expect("a batch is small");
            read.acquire_many(count).await.expect("it stays open").forget();
        }
        done = end;
    }
    Ok(took.as_nanos().to_string())
}

#[derive(Clone)]
struct Bench {
    engine: Engine,
    read: Arc<Semaphore>,
}

impl Bench {
    fn new(runtime: &Runtime) -> Self {
        let read = Arc::new(Semaphore::new(0));
        let reads = read.clone();
        let report = tool("report", move |args, ctx| report(args, ctx, reads.clone()));
        let engine = support::start(runtime, Engine::builder("bench", "1").tool(report));
        Self { engine, read }
    }

    /// A client that reads frames as they come, in a task of its own. Waking it, and sharing the
    /// queue with it, is a part of the cost of a report.
    async fn keeps_up(self, count: u64) -> Duration {
        let call = call(count, true, true, json!({"progressToken": 1}));
        let mut receiver = stream(answer(&self.engine, &call).await);
        let (mut batch, mut out, mut received) = (Vec::new(), BytesMut::new(), 0);
        while receiver.next(&mut batch).await {
            let values = batch.iter().filter(|event| event.class == Class::Progress).count();
            for Delivered { frame, .. } in batch.drain(..) {
                out.clear();
                frame.write(&mut out);
            }
            received += values as u64;
            self.read.add_permits(values);
        }
        assert_eq!(received, count, "a client that keeps up hears everything");
        took(&out)
    }

    /// A client that reads nothing before the tool has finished: most values replace the one
    /// before.
    async fn conflated(self, count: u64, formats: bool) -> Duration {
        self.unread(call(count, false, formats, json!({"progressToken": 1}))).await
    }

    /// A client that did not ask for progress.
    async fn without_token(self, count: u64) -> Duration {
        self.unread(call(count, false, true, json!({}))).await
    }

    async fn unread(&self, call: bytes::Bytes) -> Duration {
        let mut receiver = stream(answer(&self.engine, &call).await);
        while !self.engine.calls().is_empty() {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        let mut out = BytesMut::new();
        let frames = to_end(&mut receiver, &mut Vec::new(), &mut out).await;
        assert!(frames <= Limits::default().progress as usize + 2, "{frames} frames waited");
        took(&out)
    }
}

fn call(count: u64, waits: bool, formats: bool, meta: Value) -> bytes::Bytes {
    let arguments = json!({"count": count, "waits": waits, "formats": formats});
    modern(1, "tools/call", json!({"name": "report", "arguments": arguments, "_meta": meta}))
}

fn took(response: &[u8]) -> Duration {
    let response: Value = serde_json::from_slice(response).expect("JSON");
    let nanoseconds = response["result"]["content"][0]["text"].as_str();
    let nanoseconds = nanoseconds.unwrap_or_else(|| panic!("{response}"));
    Duration::from_nanos(nanoseconds.parse().expect("a number"))
}

fn progress(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let bench = Bench::new(&runtime);
    let mut group = criterion.benchmark_group("progress");
    group.throughput(Throughput::Elements(1));
    group.bench_function("client_keeps_up", |bencher| {
        bencher.iter_custom(|count| on_worker(&runtime, bench.clone().keeps_up(count)));
    });
    for (name, formats) in [("conflated", true), ("conflated_plain", false)] {
        group.bench_function(name, |bencher| {
            let conflated = |count| on_worker(&runtime, bench.clone().conflated(count, formats));
            bencher.iter_custom(conflated);
        });
    }
    group.bench_function("without_token", |bencher| {
        bencher.iter_custom(|count| on_worker(&runtime, bench.clone().without_token(count)));
    });
    group.finish();
    runtime.block_on(bench.engine.shutdown());
}

criterion_group!(benches, progress);
criterion_main!(benches);
