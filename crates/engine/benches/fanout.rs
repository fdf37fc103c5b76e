//! One change of a list, until everybody has it: sessions in memory, without sockets.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use serde_json::json;
use stentor_engine::outlet::Inlet;
use stentor_engine::outlet::policy::Class;
use stentor_engine::{Engine, ToolError, tool};
use support::{answer, modern, on_worker, stream};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::sleep;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Changes that follow closely are told together; these are to be told one by one.
const PAUSE: Duration = Duration::from_millis(2);

/// An engine with so many listeners, and all that they read.
struct Audience {
    runtime: Runtime,
    engine: Engine,
    inlets: Arc<Mutex<Vec<Inlet>>>,
}

impl Audience {
    fn new(listeners: usize) -> Self {
        let runtime = support::runtime();
        let builder = Engine::builder("bench", "1").configure(|config| {
            // One more stands for the calls that belong to no session.
            config.max_sessions = listeners + 1;
            // What is measured is the way of one change, not how changes are put together.
            config.coalesce_window = Duration::ZERO;
        });
        let engine = support::start(&runtime, builder);
        let inlets = on_worker(&runtime, listen(engine.clone(), listeners));
        Self { runtime, engine, inlets: Arc::new(Mutex::new(inlets)) }
    }

    fn measure(&self, changes: u64) -> Duration {
        let (engine, inlets) = (self.engine.clone(), self.inlets.clone());
        on_worker(&self.runtime, async move {
            let (mut inlets, mut took) = (inlets.lock().await, Duration::ZERO);
            for _ in 0..changes {
                took += change(&engine, &mut inlets).await;
            }
            took
        })
    }
}

async fn listen(engine: Engine, listeners: usize) -> Vec<Inlet> {
    let listen = json!({"notifications": {"toolsListChanged": true}});
    let listen = modern(1, "subscriptions/listen", listen);
    let mut inlets = Vec::with_capacity(listeners);
    for _ in 0..listeners {
        inlets.push(stream(answer(&engine, &listen).await));
    }
    for inlet in &mut inlets {
        // The acknowledgment.
        let mut batch = Vec::new();
        assert!(inlet.next(&mut batch).await, "a listen is acknowledged");
    }
    inlets
}

/// Makes one change, and waits until all have read it. One after the other is read: who has it
/// already costs nothing but the reading, so this is the work of the engine, without that of
/// waking a task for each client.
async fn change(engine: &Engine, inlets: &mut [Inlet]) -> Duration {
    sleep(PAUSE).await;
    let edition = engine.catalog().snapshot().revision();
    let changed = tool("changes", || async { Ok::<_, ToolError>("") });
    let changed = changed.description(format!("The one after {edition}"));
    let mut batch = Vec::new();
    let begun = Instant::now();
    engine.catalog().put(changed).await.expect("a good tool");
    for inlet in inlets {
        assert!(inlet.next(&mut batch).await, "a listen is open");
        assert!(matches!(batch[..], [(_, Class::ListChanged, _)]), "one notice: {batch:?}");
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
        // Made when it is needed: many sessions take time, and a benchmark may be left out.
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
