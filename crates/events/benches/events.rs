//! What an occurrence costs: emitted with nobody subscribed; sent to streams in memory; and delivered
//! to an endpoint, beside what a bare client reaches. And what a webhook takes of memory.

// The benchmark prints what criterion does not measure.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use futures::stream::{self, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::Engine;
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::Answer;
use stentor_events::{EventType, Events, EventsHandle, WebhookConfig, event_type};
use stentor_wire::{Message, meta_key};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

type Payload = BTreeMap<String, u64>;
type Happened = EventType<(), Payload>;

const STREAMS: [usize; 2] = [1_000, 10_000];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn payload() -> Payload {
    Payload::from([("number".to_owned(), 7)])
}

async fn start(webhooks: Option<WebhookConfig>) -> (Engine, Happened, EventsHandle) {
    // The log is larger than what is delivered, so that nothing is a gap.
    let happened = event_type("happened").replay(20_000, Duration::from_secs(3_600));
    let mut events = Events::new().add(&happened);
    if let Some(config) = webhooks {
        events = events.webhooks(config);
    }
    let handle = events.handle();
    let builder = Engine::builder("bench", "1").extension(events);
    let builder = builder.configure(|config| config.sessions.max_sessions = 200_000);
    (builder.start().await.expect("an engine"), happened, handle)
}

fn emit(criterion: &mut Criterion) {
    let runtime = runtime();
    let (engine, happened, _) = runtime.block_on(start(None));
    criterion.bench_function("emit/nobody", |bencher| {
        bencher.iter(|| runtime.block_on(happened.emit(payload())).expect("emitted"));
    });
    runtime.block_on(engine.shutdown());
}

/// Opens a stream, and reads its first notice.
async fn open(engine: &Engine, id: usize) -> StreamReceiver {
    let mut params = json!({"name": "happened"});
    params["_meta"][meta_key::PROTOCOL_VERSION] = json!("2026-07-28");
    params["_meta"][meta_key::CLIENT_CAPABILITIES] = json!({});
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "events/stream", "params": params});
    let Ok(Message::Request(request)) = Message::decode(&Bytes::from(request.to_string())) else {
        panic!("a request")
    };
    let version = request.meta.require_modern().expect("a modern request");
    let answer = engine.answer(version, request, None::<Identity>).await.expect("not refused");
    let Answer::Stream(mut receiver) = answer else { panic!("no stream") };
    assert!(receiver.next(&mut Vec::new()).await, "a stream begins");
    receiver
}

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout/occurrence");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for streams in STREAMS {
        let runtime = runtime();
        let (engine, happened, _) = runtime.block_on(start(None));
        let opening = engine.clone();
        let receivers = runtime.block_on(runtime.spawn(async move {
            stream::iter(0..streams).then(|id| open(&opening, id)).collect::<Vec<_>>().await
        }));
        let receivers = Arc::new(tokio::sync::Mutex::new(receivers.expect("no panic")));
        group.throughput(Throughput::Elements(streams as u64));
        group.bench_function(BenchmarkId::from_parameter(streams), |bencher| {
            bencher.iter_custom(|count| {
                let (happened, receivers) = (happened.clone(), receivers.clone());
                let measured = runtime.spawn(async move {
                    let (mut receivers, mut batch) = (receivers.lock().await, Vec::new());
                    let begun = Instant::now();
                    for _ in 0..count {
                        happened.emit(payload()).await.expect("emitted");
                        for receiver in &mut *receivers {
                            assert!(receiver.next(&mut batch).await, "a stream is open");
                            assert_eq!(batch.len(), 1);
                            batch.clear();
                        }
                    }
                    begun.elapsed()
                });
                runtime.block_on(measured).expect("no panic")
            });
        });
        runtime.block_on(engine.shutdown());
    }
    group.finish();
}

/// An endpoint that counts what it takes, and keeps the last of it.
#[derive(Default)]
struct Endpoint {
    taken: AtomicUsize,
    grown: Notify,
    last: Mutex<Option<hyper::Request<Bytes>>>,
}

impl Endpoint {
    async fn listen(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let this = this.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
                        if this.taken.fetch_add(1, Ordering::AcqRel) == 0 {
                            let request = hyper::Request::from_parts(head, body);
                            *this.last.lock().expect("no panic") = Some(request);
                        }
                        this.grown.notify_waiters();
                        Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service),
                );
            }
        });
        address
    }

    async fn has(&self, count: usize) {
        loop {
            let grown = self.grown.notified();
            if self.taken.load(Ordering::Acquire) >= count {
                return;
            }
            grown.await;
        }
    }
}

/// The time of `count` such requests to the endpoint, on so many connections that nobody manages.
async fn by_connections(
    address: SocketAddr,
    request: &hyper::Request<Bytes>,
    connections: usize,
    count: usize,
) -> Duration {
    let mut senders = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("hyper");
        tokio::spawn(connection);
        senders.push(sender);
    }
    let begun = Instant::now();
    let sending = senders.into_iter().map(|mut sender| {
        let request = request.clone().map(Full::new);
        tokio::spawn(async move {
            for _ in 0..count / connections {
                let answer = sender.send_request(request.clone()).await.expect("an answer");
                assert!(answer.status().is_success());
                answer.into_body().collect().await.expect("a body");
                sender.ready().await.expect("a connection");
            }
        })
    });
    futures::future::try_join_all(sending).await.expect("no panic");
    begun.elapsed()
}

/// As [`by_connections`], with the client of hyper that finds a connection for each request.
async fn by_client(
    address: SocketAddr,
    request: &hyper::Request<Bytes>,
    connections: usize,
    count: usize,
) -> Duration {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(http);
    let mut request = request.clone().map(Full::new);
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    *request.uri_mut() = format!("http://{address}{path}").parse().expect("a URL");
    let begun = Instant::now();
    let sending = (0..connections).map(|_| {
        let (client, request) = (client.clone(), request.clone());
        tokio::spawn(async move {
            for _ in 0..count / connections {
                let answer = client.request(request.clone()).await.expect("an answer");
                assert!(answer.status().is_success());
                answer.into_body().collect().await.expect("a body");
            }
        })
    });
    futures::future::try_join_all(sending).await.expect("no panic");
    begun.elapsed()
}

/// Deliveries a second, beside those of a bare client that sends the same requests, in turn.
async fn deliveries(count: usize, rounds: usize) {
    let endpoint = Arc::<Endpoint>::default();
    let address = endpoint.listen().await;
    let config = WebhookConfig::new().allow_origin(&format!("http://{address}"));
    let (engine, happened, handle) = start(Some(config.expect("an origin"))).await;
    // Two webhooks with four requests at once each: as many as go to one host.
    for number in 0..2 {
        let url = format!("http://{address}/hook?{number}");
        let identity = Identity::named("ann");
        let added = handle.subscribe_as(identity, "happened", Map::new(), &url, SECRET).await;
        added.expect("a webhook");
    }
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        endpoint.taken.store(0, Ordering::Release);
        let begun = Instant::now();
        let emitting = async {
            for _ in 0..count / 2 {
                happened.emit(payload()).await.expect("emitted");
            }
        };
        tokio::join!(emitting, endpoint.has(count));
        let took = begun.elapsed();
        let request = endpoint.last.lock().expect("no panic").take().expect("a delivery");
        let floors = [
            by_client(address, &request, 8, count).await,
            by_connections(address, &request, 8, count).await,
        ];
        let rate = |time: Duration| count as f64 / time.as_secs_f64();
        let [client, connections] = floors.map(rate);
        let own = rate(took);
        println!(
            "deliveries: {own:.0} a second; a client {client:.0}, connections {connections:.0}"
        );
        for (ratios, floor) in ratios.iter_mut().zip(floors) {
            ratios.push(floor.as_secs_f64() / took.as_secs_f64());
        }
    }
    let [client, connections] = ratios.map(|mut it| {
        it.sort_by(f64::total_cmp);
        it[rounds / 2]
    });
    println!("deliveries: {client:.2} of a bare client, {connections:.2} of bare connections");
    engine.shutdown().await;
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4_096
}

/// The memory of so many webhooks, and of so many streams.
async fn memory(count: usize) {
    let mut config = WebhookConfig::new();
    config.max = 2 * count;
    config.max_of_principal = count;
    let (engine, happened, handle) = start(Some(config)).await;
    let before = resident();
    for number in 0..count {
        let url = format!("https://hooks.example.com/of/some/client/{number}");
        let identity = Identity::named(format!("user-{number}"));
        let added = handle.subscribe_as(identity, "happened", Map::new(), &url, SECRET).await;
        added.expect("a webhook");
    }
    let webhooks = resident().saturating_sub(before);
    println!("webhooks: {count} take {} bytes each", webhooks / count);
    let before = resident();
    let streams = stream::iter(0..count / 10).then(|id| open(&engine, id));
    let open: Vec<_> = streams.collect().await;
    happened.report_gap();
    let taken = resident().saturating_sub(before);
    println!("streams: {} take {} bytes each, in memory", open.len(), taken / open.len().max(1));
    engine.shutdown().await;
}

fn on_worker(runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) {
    runtime.block_on(runtime.spawn(work)).expect("no panic");
}

fn whole(_: &mut Criterion) {
    // `cargo bench` passes `--bench`; without it, or with `--test`, each runs once to see that it works.
    let given: Vec<_> = std::env::args().collect();
    let measures = given.iter().any(|it| it == "--bench") && !given.iter().any(|it| it == "--test");
    let runtime = runtime();
    on_worker(
        &runtime,
        deliveries(if measures { 20_000 } else { 24 }, if measures { 9 } else { 1 }),
    );
    on_worker(&runtime, memory(if measures { 100_000 } else { 20 }));
}

criterion_group!(benches, emit, fanout, whole);
criterion_main!(benches);
