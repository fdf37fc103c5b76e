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
use stentor_engine::identity::Identity;
use stentor_engine::{Engine, tool};
use support::{answer_for, modern, on_worker, stream};
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
    classes: usize,
}

impl Audience {
    /// Listeners of so many classes, each with a tool of its own; with 0 nothing is hidden from anybody.
    fn new(listeners: usize, are_named: bool, classes: usize) -> Self {
        let runtime = support::runtime();
        let own = (0..classes)
            .map(|class| tool(format!("own{class}"), || async { "" }).only_for([team(class)]));
        let builder = own.fold(Engine::builder("bench", "1"), |builder, own| builder.tool(own));
        let builder = builder.configure(|config| {
            // One more session stands for the calls that belong to no session.
            config.sessions.max_sessions = listeners + 1;
            // Measures the path of one change, not how changes are combined.
            config.registry.coalesce_window = Duration::ZERO;
        });
        let engine = support::start(&runtime, builder);
        let receivers = on_worker(&runtime, listen(engine.clone(), listeners, are_named, classes));
        Self { runtime, engine, receivers: Arc::new(Mutex::new(receivers)), classes }
    }

    fn measure(&self, changes: u64) -> Duration {
        let (engine, receivers) = (self.engine.clone(), self.receivers.clone());
        let classes = self.classes;
        on_worker(&self.runtime, async move {
            let (mut receivers, mut took) = (receivers.lock().await, Duration::ZERO);
            for _ in 0..changes {
                took += change(&engine, classes, &mut receivers).await;
            }
            took
        })
    }
}

fn team(class: usize) -> String {
    format!("team{class}")
}

async fn listen(
    engine: Engine,
    listeners: usize,
    are_named: bool,
    classes: usize,
) -> Vec<StreamReceiver> {
    let listen = json!({"notifications": {"toolsListChanged": true}});
    let listen = modern(1, "subscriptions/listen", listen);
    let mut receivers = Vec::with_capacity(listeners);
    for index in 0..listeners {
        let named = || Identity::named(format!("user{index}"));
        let identity = are_named.then(|| named().scopes([team(index % classes.max(1))]));
        receivers.push(stream(answer_for(&engine, &listen, identity).await));
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
async fn change(engine: &Engine, classes: usize, receivers: &mut [StreamReceiver]) -> Duration {
    sleep(PAUSE).await;
    let edition = engine.catalog().snapshot().revision();
    let changed = tool("changes", || async { "" });
    let mut changed = changed.description(format!("The one after {edition}"));
    if classes > 0 {
        // Everybody sees it, but not because nothing is hidden.
        changed = changed.only_for((0..classes).map(team));
    }
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
            let audience = audience.get_or_insert_with(|| Audience::new(listeners, false, 0));
            bencher.iter_custom(|changes| audience.measure(changes));
        });
    }
    group.finish();
}

/// The same with listeners whose lists differ, beside listeners of whom nobody is known, and listeners
/// who are known, but all of whom see everything.
fn classes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout/classes");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(10_000));
    let cases = [("nobody", false, 0), ("0", true, 0), ("1", true, 1), ("20", true, 20)];
    for (name, are_named, classes) in cases.into_iter().chain([("1000", true, 1_000)]) {
        let mut audience = None;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let new = || Audience::new(10_000, are_named, classes);
            let audience = audience.get_or_insert_with(new);
            bencher.iter_custom(|changes| audience.measure(changes));
        });
    }
    group.finish();
}

criterion_group!(benches, fanout, classes);
criterion_main!(benches);
