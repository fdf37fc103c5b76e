//! Clients that listen to tasks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stentor_delivery::StreamReceiver;
use stentor_engine::testing::{FaultTarget, kill};
use stentor_engine::transport_api::Answer;
use stentor_engine::{AsTask, Context};
use stentor_wire::meta_key;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::support;
use crate::{begin, builder, messages, named, request, send};

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_each_change_and_of_the_end_once_whenever_it_comes() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "work").await;
    let listen = async || {
        let listen = json!({"notifications": {"taskIds": [id]}});
        let Answer::Stream(receiver) =
            send(&engine, request("subscriptions/listen", listen, true), None).await
        else {
            panic!("a stream");
        };
        receiver
    };
    let read_all = |mut receiver: StreamReceiver| async move {
        let mut heard = Vec::new();
        loop {
            let some = messages(&mut receiver).await;
            if some.is_empty() {
                return heard;
            }
            heard.extend(some);
        }
    };
    let keeps_up = tokio::spawn(read_all(listen().await));
    let falls_behind = listen().await;
    sleep(Duration::from_secs(11)).await;
    let late = listen().await;
    sleep(Duration::from_secs(1)).await;
    engine.shutdown().await;
    let falls_behind = read_all(falls_behind).await;
    let late = read_all(late).await;
    for (heard, statuses) in [(keeps_up.await.unwrap(), 2), (falls_behind, 1), (late, 1)] {
        assert_eq!(heard[0]["method"], "notifications/subscriptions/acknowledged");
        let told: Vec<_> =
            heard.iter().filter(|it| it["method"] == "notifications/tasks").collect();
        assert!(told.len() >= statuses, "{told:#?}");
        assert!(told.iter().all(|it| it["params"]["taskId"] == id.as_str()));
        let ends = told.iter().filter(|it| it["params"]["status"] == "completed").count();
        assert_eq!(ends, 1);
        let last = &told[told.len() - 1]["params"];
        assert_eq!(last["result"]["content"][0]["text"], "done");
        assert!(last["_meta"][meta_key::SUBSCRIPTION_ID].is_i64());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_notified_how_a_task_ended_although_the_hub_crashed_meanwhile() {
    for yields in 0..16 {
        let finish = Arc::new(Notify::new());
        let code = finish.clone();
        let waits = named("waits", AsTask::Always, move || {
            let finish = code.clone();
            async move {
                finish.notified().await;
                "done"
            }
        });
        let engine = support::engine().tool(waits).start().await.unwrap();
        let id = begin(&engine, "waits").await;
        let listen = json!({"notifications": {"taskIds": [id]}});
        let listen = request("subscriptions/listen", listen, true);
        let Answer::Stream(mut receiver) = send(&engine, listen, None).await else {
            panic!("no stream")
        };
        let end = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            finish.notify_one();
        };
        let (killed, ()) = tokio::join!(kill(&engine, FaultTarget::Hub), end);
        killed.unwrap();
        let hears = async {
            while !messages(&mut receiver)
                .await
                .iter()
                .any(|it| it["params"]["status"] == "completed")
            {}
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), hears).await;
        heard.unwrap_or_else(|_| panic!("nothing is heard after {yields} yields"));
        engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reports_reach_listeners_at_a_bounded_rate_and_the_last_one_arrives() {
    let engine = builder()
        .tool(named("chatter", AsTask::Always, |ctx: Context| async move {
            for n in 1..=1_000 {
                ctx.report_progress(f64::from(n), None, format_args!("{n}"));
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(1)).await;
            "done"
        }))
        .start()
        .await
        .unwrap();
    let id = begin(&engine, "chatter").await;
    let listen = json!({"notifications": {"taskIds": [id]}});
    let listen = request("subscriptions/listen", listen, true);
    let Answer::Stream(mut receiver) = send(&engine, listen, None).await else {
        panic!("a stream")
    };
    let mut said = Vec::new();
    loop {
        for message in messages(&mut receiver).await {
            if message["params"]["status"] == "completed" {
                assert!((5..=9).contains(&said.len()), "{said:?}");
                assert_eq!(said.last().map(String::as_str), Some("1000"));
                return;
            }
            said.extend(message["params"]["statusMessage"].as_str().map(str::to_owned));
        }
    }
}
