//! Modern calls that await input: the client retries with its answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use stentor_engine::{Context, ToolError, tool};
use stentor_test::Answer;
use tokio::time::sleep;

use crate::support::{self, Client};
use crate::{Login, accept, call, engine, text};

#[tokio::test(start_paused = true)]
async fn a_modern_answer_continues_the_same_run_of_the_code() {
    let runs = Arc::default();
    let engine = engine(Arc::clone(&runs)).await;
    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "login", Value::Null, &Value::Null).await["result"].take();
    assert_eq!(asked["resultType"], "input_required");
    let (key, question) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let schema = &question["params"]["requestedSchema"];
    assert_eq!(schema["properties"]["remember"]["default"], false);
    assert_eq!(schema["required"], json!(["user"]));
    assert_eq!(engine.observe().await.unwrap().calls_awaiting_input, 1);

    let again =
        call(&mut client, 2, "login", json!({ key: accept("ann") }), &asked["requestState"]).await;
    let again = &again["result"];
    assert_eq!(again["resultType"], "input_required");
    assert_ne!(again["requestState"], asked["requestState"]);
    let replayed =
        call(&mut client, 3, "login", json!({ key: accept("eve") }), &asked["requestState"]).await;
    assert_eq!(replayed["error"]["code"], -32602, "used up: {replayed}");

    let state = &again["requestState"];
    let missing =
        call(&mut client, 4, "login", json!({"wrong": accept("bob")}), state).await["result"]
            .take();
    assert!(missing["inputRequests"]["again"].is_object(), "asked again: {missing}");
    let done = call(
        &mut client,
        5,
        "login",
        json!({"again": accept("bob"), "x": 1}),
        &missing["requestState"],
    )
    .await;
    assert_eq!(text(&done), "run 1: ann false \"bob\"");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let view = engine.observe().await.unwrap();
    assert_eq!((view.calls_awaiting_input, view.running_calls), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn questions_asked_together_go_out_in_one_round() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "together", Value::Null, &Value::Null).await["result"].take();
    let questions = asked["inputRequests"].as_object().unwrap();
    assert_eq!(questions.keys().collect::<Vec<_>>(), ["name", "model", "roots"]);
    let answers = json!({
        "name": accept("ann"),
        "model": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hi"}},
        "roots": {"roots": [{"uri": "file:///a"}]},
    });
    let done = call(&mut client, 2, "together", answers, &asked["requestState"]).await;
    assert_eq!(text(&done), "\"ann\" hi file:///a");
}

#[tokio::test(start_paused = true)]
async fn a_state_is_good_for_its_own_request_only() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "login", Value::Null, &Value::Null).await["result"].take();
    let state = asked["requestState"].as_str().unwrap();
    for (tool, state) in [("login", format!("{state}-TAMPERED")), ("outcome", state.to_owned())] {
        let refused = call(&mut client, 2, tool, json!({}), &state.into()).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    assert_eq!(engine.observe().await.unwrap().calls_awaiting_input, 1, "it still waits");
}

#[tokio::test(start_paused = true)]
async fn answers_may_come_with_the_first_request_if_they_have_the_right_form() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let answers = json!({
        "name": accept("ann"),
        "model": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hi"}},
        "roots": {"roots": [{"uri": "file:///a"}]},
        "extra": 1,
    });
    assert_eq!(
        text(&call(&mut client, 1, "together", answers, &Value::Null).await),
        "\"ann\" hi file:///a"
    );
    let invalid = json!({"name": 12345, "model": 1, "roots": []});
    let asked = call(&mut client, 2, "together", invalid, &Value::Null).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
}

#[tokio::test(start_paused = true)]
async fn prompts_and_resources_can_ask_questions() {
    let engine = engine(Arc::default()).await;
    let client = stentor_test::Client::builder(&engine)
        .on_elicit(|_| Answer::accept(json!({"user": "ann"})))
        .connect()
        .await;
    let prompt = client.get_prompt("hello", ()).await.unwrap();
    assert_eq!(prompt.messages[0].content.as_text().unwrap().text, "ann");
    assert_eq!(client.read_text("ask://1").await.unwrap(), "ann");
}

#[tokio::test(start_paused = true)]
async fn code_that_does_not_wait_runs_again_and_finds_the_answers() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "explicit", Value::Null, &Value::Null).await["result"].take();
    assert_eq!(asked["resultType"], "input_required");
    assert_eq!(engine.observe().await.unwrap().calls_awaiting_input, 0);
    let answers = json!({"name": accept("ann")});
    let done = call(&mut client, 2, "explicit", answers, &asked["requestState"]).await;
    assert_eq!(text(&done), "\"ann\"");
}

/// The resident memory of this process in bytes; 0 where it cannot be read.
fn resident() -> usize {
    let pages = |text: String| text.split(' ').nth(1)?.parse::<usize>().ok();
    std::fs::read_to_string("/proc/self/statm").ok().and_then(pages).unwrap_or(0) * 4096
}

#[tokio::test(start_paused = true)]
async fn abandoned_questions_leave_nothing_behind() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let mut memory = Vec::new();
    for _ in 0..2 {
        for id in 0..10_000 {
            call(&mut client, id, "outcome", Value::Null, &Value::Null).await;
        }
        let before = engine.observe().await.unwrap();
        assert_eq!((before.calls_awaiting_input, before.running_calls), (10_000, 0));
        sleep(Duration::from_secs(6 * 60)).await;
        let after = engine.observe().await.unwrap();
        assert_eq!((after.calls_awaiting_input, after.running_calls), (0, 0));
        assert!(engine.calls().is_empty());
        assert_eq!(engine.counters().held, 0);
        memory.push(resident());
    }
    // Memory that the allocator keeps after the first round serves the later ones.
    assert!(memory[1] < memory[0] + 8 * 1024 * 1024, "{memory:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_bounded_and_for_one_too_many_the_oldest_gives_way() {
    let engine = support::engine()
        .configure(|config| config.calls.max_awaiting_input = 1)
        .tool(tool("ask", |ctx: Context| async move {
            Ok::<_, ToolError>(ctx.elicit::<Login>("?").await?.user)
        }))
        .start()
        .await
        .unwrap();
    let mut client = Client::connect(&engine).await;
    let first = call(&mut client, 1, "ask", Value::Null, &Value::Null).await;
    assert_eq!(first["result"]["resultType"], "input_required");
    let second = call(&mut client, 2, "ask", Value::Null, &Value::Null).await;
    assert_eq!(second["result"]["resultType"], "input_required");
    let answers = |first: &Value| {
        let keys = first["result"]["inputRequests"].as_object().unwrap().keys();
        Value::Object(keys.map(|key| (key.clone(), accept("ann"))).collect())
    };
    let state = &first["result"]["requestState"];
    let retried = call(&mut client, 3, "ask", answers(&first), state).await;
    assert_eq!(retried["error"]["code"], 503, "{retried}");
    assert!(retried["error"]["message"].as_str().unwrap().contains("gave way"), "{retried}");
    let state = &second["result"]["requestState"];
    let retried = call(&mut client, 4, "ask", answers(&second), state).await;
    assert_eq!(text(&retried), "ann");
}
