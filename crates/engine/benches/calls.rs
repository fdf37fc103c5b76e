//! A call and its response in memory: bytes in, bytes out, with everything in between except a
//! socket.

mod support;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use stentor_engine::{Engine, tool};
use stentor_wire::Message;
use support::{answer, decode, initialize, initialized, legacy, modern, on_worker, stream, to_end};
use tokio::runtime::Runtime;

#[derive(Deserialize, JsonSchema)]
struct Echo {
    text: String,
}

fn engine(runtime: &Runtime) -> Engine {
    let echo = tool("echo", |args: Echo| async { args.text });
    support::start(runtime, Engine::builder("bench", "1").tool(echo))
}

fn params() -> serde_json::Value {
    json!({"name": "echo", "arguments": {"text": "a text that is neither short nor long"}})
}

fn assert_echoed(out: &[u8]) {
    let text = String::from_utf8_lossy(out);
    assert!(text.contains("neither short nor long"), "{text}");
}

async fn stateless(engine: Engine, calls: u64) -> Duration {
    let call = modern(1, "tools/call", params());
    let (mut batch, mut out) = (Vec::new(), BytesMut::new());
    let begun = Instant::now();
    for _ in 0..calls {
        let mut receiver = stream(answer(&engine, &call).await);
        to_end(&mut receiver, &mut batch, &mut out).await;
    }
    let took = begun.elapsed();
    assert_echoed(&out);
    took
}

async fn session(engine: Engine, calls: u64) -> Duration {
    let call = legacy(1, "tools/call", params());
    let (mut batch, mut out) = (Vec::new(), BytesMut::new());
    let session = engine
        .open_http_session(stentor_engine::transport_api::RequestSender::default())
        .await
        .expect("a session");
    let request = decode(&initialize());
    let mut opened = session.request(request).await.expect("not refused");
    to_end(&mut opened, &mut batch, &mut out).await;
    session.notification(initialized()).await.expect("a session");
    let begun = Instant::now();
    for _ in 0..calls {
        let request = decode(&call);
        let mut receiver = session.request(request).await.expect("not refused");
        to_end(&mut receiver, &mut batch, &mut out).await;
    }
    let took = begun.elapsed();
    assert_echoed(&out);
    session.end(stentor_engine::EndReason::Disconnected).await.expect("it is here");
    took
}

async fn pipe(engine: Engine, calls: u64) -> Duration {
    let call = legacy(1, "tools/call", params());
    let (mut batch, mut out) = (Vec::new(), BytesMut::new());
    let (pipe, mut receiver) = engine.open_pipe().await.expect("a pipe");
    let mut begun = Instant::now();
    for n in 0..=calls {
        let opens = n == 0;
        let bytes = if opens { initialize() } else { call.clone() };
        pipe.deliver(Message::decode(&bytes)).await.expect("a session");
        assert!(receiver.next(&mut batch).await, "the pipe is open");
        for stentor_delivery::Delivered { frame, .. } in batch.drain(..) {
            out.clear();
            frame.write(&mut out);
        }
        if opens {
            begun = Instant::now();
        }
    }
    let took = begun.elapsed();
    assert_echoed(&out);
    pipe.finish().await;
    took
}

fn calls(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let engine = engine(&runtime);
    let mut group = criterion.benchmark_group("calls");
    group.throughput(Throughput::Elements(1));
    group.bench_function("modern_stateless", |bencher| {
        bencher.iter_custom(|calls| on_worker(&runtime, stateless(engine.clone(), calls)));
    });
    group.bench_function("legacy_http_session", |bencher| {
        bencher.iter_custom(|calls| on_worker(&runtime, session(engine.clone(), calls)));
    });
    group.bench_function("legacy_pipe", |bencher| {
        bencher.iter_custom(|calls| on_worker(&runtime, pipe(engine.clone(), calls)));
    });
    group.finish();
    runtime.block_on(engine.shutdown());
}

criterion_group!(benches, calls);
criterion_main!(benches);
