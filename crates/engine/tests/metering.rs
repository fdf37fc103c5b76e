//! The metrics that operators see.

mod support;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};
use stentor_test::Client;
use support::engine;

/// Each metric with its name and labels, as Prometheus would write them.
fn values(snapshot: Snapshot) -> Vec<(MetricKind, String, DebugValue)> {
    let value = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| {
        let (kind, key) = key.into_parts();
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        (kind, format!("{}{{{}}}", key.name(), labels.join(",")), value)
    };
    snapshot.into_vec().into_iter().map(value).collect()
}

fn count(values: &[(MetricKind, String, DebugValue)], name: &str) -> u64 {
    let found = values.iter().find(|(_, found, _)| found == name);
    match found.map(|(_, _, value)| value) {
        Some(DebugValue::Counter(count)) => *count,
        Some(DebugValue::Gauge(value)) => value.into_inner() as u64,
        Some(DebugValue::Histogram(all)) => all.len() as u64,
        None => panic!("no {name} among {values:#?}"),
    }
}

#[test]
fn operations_sessions_and_frames_are_metered() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let engine = engine().start().await.unwrap();
            let client = Client::legacy(&engine).await;
            client.call_tool("echo", ()).await.unwrap();
            client.call_tool("panic", ()).await.unwrap_err();
            assert_eq!(client.call_tool("log", ()).await.unwrap().logs().len(), 2);
            engine.record_metrics();
            let seen = values(snapshotter.snapshot());
            let operation = "mcp.server.operation.duration";
            assert_eq!(count(&seen, &format!("{operation}{{mcp.method.name=initialize}}")), 1);
            assert_eq!(count(&seen, &format!("{operation}{{mcp.method.name=tools/call}}")), 2);
            let failed = format!("{operation}{{mcp.method.name=tools/call,error.type=-32603}}");
            assert_eq!(count(&seen, &failed), 1);
            assert_eq!(count(&seen, "stentor.frames.delivered{class=log}"), 2);
            assert_eq!(count(&seen, "stentor.frames.delivered{class=reply}"), 5);
            assert_eq!(count(&seen, "stentor.calls.running{}"), 0);
            client.close().await;
            engine.shutdown().await;
            let seen = values(snapshotter.snapshot());
            let session = "mcp.server.session.duration{kind=pipe,reason=disconnected}";
            assert_eq!(count(&seen, session), 1);
        });
    });
}
