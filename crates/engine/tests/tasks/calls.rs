//! How a call becomes a task, who may use it, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::transport_api::Answer;
use stentor_wire::Message;
use tokio::time::{Instant, sleep};

use crate::support::Client;
use crate::{EXTENSION, ask, ask_as, begin, builder, ended, look, messages, request, send};

#[tokio::test(start_paused = true)]
async fn a_call_becomes_a_task_and_its_result_is_fetched_later() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "work").await;
    sleep(Duration::from_secs(1)).await;
    let working = look(&engine, &id).await;
    assert_eq!(
        (&working["status"], &working["statusMessage"]),
        (&json!("working"), &json!("half way"))
    );
    assert_eq!((&working["ttlMs"], &working["pollIntervalMs"]), (&json!(3_600_000), &json!(1_000)));
    let done = ended(&engine, &id).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["result"]["content"][0]["text"], "done");
    assert!(done["lastUpdatedAt"].as_str() > done["createdAt"].as_str());
    assert_eq!(engine.observe().await.unwrap().running_tasks, 0);
    assert!(engine.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_a_client_that_takes_tasks_is_given_one() {
    let engine = builder().start().await.unwrap();
    let without = |method: &str, params| request(method, params, false);
    let refused = ask_as(&engine, None, without("tools/call", json!({"name": "work"}))).await;
    assert_eq!(refused["error"]["code"], -32021);
    assert!(refused["error"]["data"]["requiredCapabilities"]["extensions"][EXTENSION].is_object());
    for name in ["may", "slow"] {
        let answer = ask_as(&engine, None, without("tools/call", json!({"name": name}))).await;
        assert_eq!(answer["result"]["content"][0]["text"], "done");
    }
    let on_demand = ask_as(&engine, None, without("tools/call", json!({"name": "then"}))).await;
    assert_eq!(on_demand["error"]["code"], -32021);
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = json!({"taskId": "x", "inputResponses": {}});
        assert_eq!(ask_as(&engine, None, without(method, params)).await["error"]["code"], -32021);
    }
    let listen = json!({"notifications": {"taskIds": ["x"]}});
    let refused = ask_as(&engine, None, without("subscriptions/listen", listen)).await;
    assert_eq!(refused["error"]["code"], -32021);
    // In the legacy era a call never becomes a task.
    let mut client = Client::legacy(&engine).await;
    for (id, name) in [(1, "may"), (2, "work")] {
        client.call(id, name).await;
        assert_eq!(client.answer(id).await.0["result"]["content"][0]["text"], "done");
    }
    client.call(3, "then").await;
    assert_eq!(client.answer(3).await.0["result"]["content"][0]["text"], "");
}

#[tokio::test(start_paused = true)]
async fn a_call_becomes_a_task_after_some_time_if_it_has_sent_nothing() {
    let engine = builder().start().await.unwrap();
    let begun = Instant::now();
    let id = begin(&engine, "slow").await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(ended(&engine, &id).await["status"], "completed");
    assert_eq!(begun.elapsed().as_secs(), 10, "it was not begun anew");
    let talked = ask(&engine, "tools/call", json!({"name": "talks"})).await;
    assert_eq!(talked["result"]["content"][0]["text"], "done");
    let id = begin(&engine, "then").await;
    assert_eq!(ended(&engine, &id).await["result"]["content"][0]["text"], json!(id));
}

#[tokio::test(start_paused = true)]
async fn a_task_outlives_the_connection_and_the_session_that_began_it() {
    let engine = builder().start().await.unwrap();
    let Answer::Stream(mut receiver) =
        send(&engine, request("tools/call", json!({"name": "work"}), true), None).await
    else {
        panic!("a call");
    };
    let answer = messages(&mut receiver).await.remove(0);
    drop(receiver);
    let mut client = Client::connect(&engine).await;
    let call = request("tools/call", json!({"name": "work"}), true);
    client.pipe().deliver(Ok(Message::Request(call))).await.unwrap();
    let other = client.answer(1).await.0;
    drop(client);
    for answer in [answer, other] {
        let id = answer["result"]["taskId"].as_str().unwrap();
        assert_eq!(ended(&engine, id).await["status"], "completed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_or_is_cancelled_reports_it() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "panics").await;
    let failed = ended(&engine, &id).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!(-32603)));
    assert_eq!(failed["statusMessage"], "the tool 'panics' panicked");
    for (name, seconds, status) in [("deaf", 2, "cancelled"), ("polite", 1, "completed")] {
        let id = begin(&engine, name).await;
        let asked = Instant::now();
        let answer = ask(&engine, "tasks/cancel", json!({ "taskId": id })).await;
        assert_eq!(answer["result"]["resultType"], "complete");
        let task = ended(&engine, &id).await;
        assert_eq!((&task["status"], asked.elapsed().as_secs()), (&json!(status), seconds));
        let again = ask(&engine, "tasks/cancel", json!({ "taskId": id })).await;
        assert!(again["result"].is_object(), "there is nothing left to do");
    }
    let id = begin(&engine, "deaf").await;
    let running = engine.calls();
    assert!(engine.cancel_call(running[0].call.id), "by the application, too");
    assert_eq!(ended(&engine, &id).await["status"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_task_asks_under_unique_keys_and_takes_answers_one_by_one() {
    let engine = builder().start().await.unwrap();
    let id = begin(&engine, "asks").await;
    let open = |task: &Value| -> Vec<String> {
        let open = task["inputRequests"].as_object().cloned().unwrap_or_default();
        open.keys().cloned().collect()
    };
    let update = async |answers: Value| {
        let params = json!({"taskId": id, "inputResponses": answers});
        let answer = ask(&engine, "tasks/update", params).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        sleep(Duration::from_millis(10)).await;
        look(&engine, &id).await
    };
    let answered = || json!({"action": "accept", "content": {}});
    sleep(Duration::from_millis(10)).await;
    let asked = look(&engine, &id).await;
    assert_eq!(
        (&asked["status"], open(&asked)),
        (&json!("input_required"), vec!["one".into(), "other".into()])
    );
    assert_eq!(asked["inputRequests"]["one"]["method"], "elicitation/create");
    let wrong = update(json!({"one": 12345, "nobody": answered()})).await;
    assert_eq!(open(&wrong).len(), 2);
    let half = update(json!({"other": answered()})).await;
    assert_eq!(open(&half), ["one"]);
    let again = update(json!({"one": answered(), "other": answered()})).await;
    assert_eq!(open(&again), ["one-1"], "a key stands for one question only");
    let done = update(json!({"one-1": answered()})).await;
    assert_eq!(done["status"], "completed", "{done}");
}

#[tokio::test(start_paused = true)]
async fn a_task_is_its_owners_alone() {
    let engine = builder().start().await.unwrap();
    let call = request("tools/call", json!({"name": "work"}), true);
    let answer = ask_as(&engine, Some("ann"), call).await;
    let id = answer["result"]["taskId"].as_str().unwrap();
    let others = [Some("bob"), None];
    for time in ["while it runs", "afterwards"] {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            for principal in others {
                let params = json!({"taskId": id, "inputResponses": {}});
                let answer = ask_as(&engine, principal, request(method, params, true)).await;
                assert_eq!(answer["error"]["code"], -32602, "{method} {principal:?} {time}");
                assert_eq!(answer["error"]["message"], "task not found");
            }
        }
        let listen = json!({"notifications": {"taskIds": [id, "unknown"]}});
        for (principal, granted) in [(Some("bob"), 0), (Some("ann"), 1)] {
            let listen = request("subscriptions/listen", listen.clone(), true);
            let Answer::Stream(mut receiver) = send(&engine, listen, principal).await else {
                panic!("a stream");
            };
            let first = messages(&mut receiver).await.remove(0);
            let ids = first["params"]["notifications"]["taskIds"].as_array().map_or(0, Vec::len);
            assert_eq!(ids, granted);
        }
        sleep(Duration::from_secs(11)).await;
    }
    let found =
        ask_as(&engine, Some("ann"), request("tasks/get", json!({"taskId": id}), true)).await;
    assert_eq!(found["result"]["status"], "completed");
}
