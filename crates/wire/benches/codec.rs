//! The cost of decoding and encoding messages.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use stentor_wire::encode::{self, ResultBody, ServerIdentity};
use stentor_wire::model::Implementation;
use stentor_wire::params::CallTool;
use stentor_wire::{
    EncodedNotice, Era, Id, ListKind, Message, Notice, SubscriptionId, Topic, meta_key,
};

const ERAS: [(&str, Era); 2] = [("legacy", Era::Legacy), ("modern", Era::Modern)];

/// A `tools/call` as real clients send it.
fn call(era: Era) -> Bytes {
    let mut meta = json!({"progressToken": 7});
    if era == Era::Modern {
        meta[meta_key::PROTOCOL_VERSION] = json!("2026-07-28");
        meta[meta_key::CLIENT_INFO] = json!({"name": "bench", "version": "1.0.0"});
        meta[meta_key::CLIENT_CAPABILITIES] = json!({"elicitation": {"form": {}}});
    }
    let arguments = json!({"text": "a text that is neither short nor long"});
    let params = json!({"name": "echo", "arguments": arguments, "_meta": meta});
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    call.to_string().into()
}

/// Reads everything that is needed to choose the tool and its arguments. It decodes the bytes anew
/// each time, because parameters cache where their members are.
fn read(input: &Bytes) -> usize {
    let Ok(Message::Request(request)) = Message::decode(input) else { panic!("a request") };
    let call = CallTool::read(&request.params).expect("good parameters");
    black_box(&request.meta);
    black_box(call).arguments.map_or(0, str::len)
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode/tools_call");
    for (name, era) in ERAS {
        let input = call(era);
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| read(black_box(&input))));
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let server = ServerIdentity::new(Implementation::new("Bench", "1.0.0"));
    let content =
        json!({"content": [{"type": "text", "text": "a text that is neither short nor long"}]});
    let result = ResultBody::new(&content).expect("an object");
    let mut group = criterion.benchmark_group("encode/response");
    for (name, era) in ERAS {
        let encoded = || encode::response(&Id::Number(7), era, &server, black_box(&result));
        group.throughput(Throughput::Bytes(encoded().len() as u64));
        group.bench_function(name, |bencher| bencher.iter(encoded));
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode");
    let token = Id::Number(7);
    let mut out = BytesMut::with_capacity(1_024);
    group.bench_function("progress", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode::progress(&mut out, &token, black_box(3.0), Some(10.0), "step 3 of 10");
            out.len()
        });
    });
    group.finish();
}

fn notice(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("notice");
    group.bench_function("encode_once", |bencher| {
        let notice = || Notice::Changed(Topic::List(black_box(ListKind::Tools)));
        bencher.iter_batched(notice, EncodedNotice::new, BatchSize::SmallInput);
    });
    let encoded = EncodedNotice::new(Notice::Changed(Topic::List(ListKind::Tools)));
    let subscription = SubscriptionId::of(&Id::Number(7));
    let mut out = BytesMut::with_capacity(1_024);
    for (name, subscription) in [("write", None), ("splice", Some(&subscription))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&encoded).write(&mut out, subscription);
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode, notice);
criterion_main!(benches);
