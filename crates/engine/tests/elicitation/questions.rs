//! Questions to legacy clients, and the forms of an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::{Context, ToolError, tool};
use stentor_test::Answer;
use stentor_wire::Era;
use tokio::time::{Instant, sleep};

use crate::support::{self, Client};
use crate::{accept, all_capabilities, engine, legacy, text};

/// Calls `outcome` on a legacy session and answers its question.
async fn outcome(client: &mut Client, answer: Option<Value>) -> String {
    client.call(1, "outcome").await;
    if let Some(mut answer) = answer {
        let question = client.next().await.unwrap();
        assert_eq!(question["method"], "elicitation/create", "{question}");
        answer["jsonrpc"] = "2.0".into();
        answer["id"] = question["id"].clone();
        client.send(answer).await;
    }
    text(&client.answer(1).await.0).to_owned()
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_answer_of_a_legacy_client_is_a_distinct_outcome() {
    let engine = engine(Arc::default()).await;
    let mut client = legacy(&engine, all_capabilities()).await;
    for (answer, expected) in [
        (json!({"result": accept("ann")}), "answered"),
        (json!({"result": {"action": "decline"}}), "the user declined"),
        (json!({"result": {"action": "cancel"}}), "the user dismissed the question"),
        (json!({"error": {"code": -1, "message": "broken"}}), "broken"),
        (
            json!({"result": {"action": "dance"}}),
            "the answer is invalid: it is no answer to elicitation/create",
        ),
    ] {
        assert_eq!(outcome(&mut client, Some(answer)).await, expected);
    }
    let asked = Instant::now();
    client.call(1, "outcome").await;
    let question = client.next().await.unwrap();
    let given_up = client.next().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(5 * 60));
    assert_eq!(given_up["method"], "notifications/cancelled");
    assert_eq!(given_up["params"]["requestId"], question["id"]);
    assert_eq!(text(&client.answer(1).await.0), "the client did not answer in time");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_only_what_it_declared() {
    let engine = engine(Arc::default()).await;
    let mut client = legacy(&engine, json!({})).await;
    let expected = "the client does not support this: it lacks the capability {\"elicitation\":{}}";
    assert_eq!(outcome(&mut client, None).await, expected);
    let mut client = Client::connect(&engine).await;
    client
        .send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "login", "_meta": support::modern_meta(),
        }}))
        .await;
    let refused = client.answer(1).await.0;
    assert_eq!(refused["error"]["code"], -32021);
    assert_eq!(refused["error"]["data"]["requiredCapabilities"], json!({"elicitation": {}}));
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_its_id_as_a_string_is_accepted() {
    let engine = engine(Arc::default()).await;
    let mut client = legacy(&engine, all_capabilities()).await;
    client.call(1, "outcome").await;
    let question = client.next().await.unwrap();
    let id = question["id"].to_string();
    client.send(json!({"jsonrpc": "2.0", "id": id, "result": accept("ann")})).await;
    assert_eq!(text(&client.answer(1).await.0), "answered");
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Age {
    years: u8,
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_write_integers_with_a_point_and_members_as_null() {
    let engine = support::engine().tool(tool("age", |ctx: Context| async move {
        Ok::<_, ToolError>(ctx.elicit::<Age>("how old are you?").await?.years.to_string())
    }));
    let engine = engine.start().await.unwrap();
    let answer = json!({"action": "accept", "content": {"years": 42.0}, "_meta": null});
    for era in [Era::Legacy, Era::Modern] {
        let answer = answer.clone();
        let client = stentor_test::Client::builder(&engine)
            .era(era)
            .on_elicit(move |_| Answer::raw(answer.clone()))
            .connect()
            .await;
        assert_eq!(client.call_tool("age", ()).await.unwrap().text(), "42");
    }
    // With a member of the response as null, too.
    let mut client = legacy(&engine, all_capabilities()).await;
    client.call(1, "age").await;
    let question = client.next().await.unwrap();
    client
        .send(json!({"jsonrpc": "2.0", "id": question["id"], "result": answer, "error": null}))
        .await;
    assert_eq!(text(&client.answer(1).await.0), "42");
}

#[tokio::test(start_paused = true)]
async fn withdrawn_questions_on_a_stream_that_nobody_reads_are_bounded() {
    let asked = Arc::new(AtomicUsize::new(0));
    let engine = support::engine().tool(support::impatient(5_000, asked.clone()));
    let engine = engine.start().await.unwrap();
    let mut client = Client::legacy_that(&engine, json!({"elicitation": {}})).await;
    // A negative id, which no question has.
    client.call(-1, "impatient").await;
    while asked.load(Ordering::Relaxed) < 5_000 {
        sleep(Duration::from_secs(1)).await;
    }
    let held = engine.counters().held;
    assert!((1 << 20..(1 << 20) + (1 << 16)).contains(&held), "{held}");
    let (answer, before) = client.answer(-1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "nobody is there");
    // Each question that was sent was withdrawn.
    let count = |method: &str| before.iter().filter(|it| it["method"] == method).count();
    let questions = count("elicitation/create");
    assert!((100..5_000).contains(&questions), "{questions}");
    assert_eq!(questions, count("notifications/cancelled"));
}
