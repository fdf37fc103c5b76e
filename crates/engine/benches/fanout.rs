//! One change of a list, until every session has received it: sessions in memory, without sockets.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use serde_json::json;
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::{Engine, tool};
use support::{answer, modern, on_worker, stream};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::sleep;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Changes that follow closely are announced together; this pause keeps them apart.
const PAUSE: Duration = Duration::from_millis(2);

struct Audience {
    runtime: Runtime,
    engine: Engine,
    receivers: Arc<Mutex<Vec<StreamReceiver>>>,
}

impl Audience {
    fn new(listeners: usize) -> Self {
        let runtime = support::runtime();
        let builder = Engine::builder("bench", "1").configure(|config| {
            // One more session stands for the calls that belong to no session.
            config.sessions.max_sessions = listeners + 1;
            // Measures the path of one change, not how changes are combined.
            config.registry.coalesce_window = Duration::ZERO;
        });
        let engine = support::start(&runtime, builder);
        let receivers = on_worker(&runtime, listen(engine.clone(), listeners));
        Self { runtime, engine, receivers: Arc::new(Mutex::new(receivers)) }
    }

    fn measure(&self, changes: u64) -> Duration {
        let (engine, receivers) = (self.engine.clone(), self.receivers.clone());
        on_worker(&self.runtime, async move {
            let (mut receivers, mut took) = (receivers.lock().await, Duration::ZERO);
            for _ in 0..changes {
                took += change(&engine, &mut receivers).await;
            }
            took
        })
    }
}

async fn listen(engine: Engine, listeners: usize) -> Vec<StreamReceiver> {
    let listen = json!({"notifications": {"toolsListChanged": true}});
    let listen = modern(1, "subscriptions/listen", listen);
    let mut receivers = Vec::with_capacity(listeners);
    for _ in 0..listeners {
        receivers.push(stream(answer(&engine, &listen).await));
    }
    for receiver in &mut receivers {
        // The acknowledgment.
        let mut batch = Vec::new();
        assert!(receiver.next(&mut batch).await, "a listen is acknowledged");
    }
    receivers
}

/// Makes one change, and waits until all receivers have read it, one after the other. A receiver
/// that has the notice already costs nothing but the reading. So this measures the work of the
/// engine, without waking a task for each client.
async fn change(engine: &Engine, receivers: &mut [StreamReceiver]) -> Duration {
    sleep(PAUSE).await;
    let edition = engine.catalog().snapshot().revision();
    let changed = tool("changes", || async { "" });
    let changed = changed.description(format!("The one after {edition}"));
    let mut batch = Vec::new();
    let begun = Instant::now();
    engine.catalog().put(changed).await.expect("a good tool");
    for receiver in receivers {
        assert!(receiver.next(&mut batch).await, "a listen is open");
        assert!(
            matches!(batch[..], [Delivered { class: Class::ListChanged, .. }]),
            "one notice: {batch:?}"
        );
        batch.clear();
    }
    begun.elapsed()
}

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout/list_changed");
    // Each change is followed by a pause.
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for listeners in SIZES {
        group.throughput(Throughput::Elements(listeners as u64));
        // Built on demand: many sessions take time, and a benchmark may be skipped.
        let mut audience = None;
        group.bench_function(BenchmarkId::from_parameter(listeners), |bencher| {
            let audience = audience.get_or_insert_with(|| Audience::new(listeners));
            bencher.iter_custom(|changes| audience.measure(changes));
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
