//! Asking the client, in both eras, with time in the test's hands.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor_engine::{
    AskError, CallError, Context, Elicit, Engine, InputRequired, Sample, ToolError, UrlElicitation,
    prompt, resource, tool,
};
use stentor_wire::meta_key;
use support::Client;
use tokio::time::{Instant, sleep};

#[derive(Deserialize, JsonSchema)]
struct Login {
    /// The name.
    user: String,
    #[serde(default)]
    remember: bool,
}

/// Every run of the tool counts itself, so that a test sees how often the code began.
async fn engine(runs: Arc<AtomicUsize>) -> Engine {
    let counted = runs.clone();
    support::engine()
        // One client is to have many questions.
        .configure(|config| {
            (config.requests.session, config.requests.total) = (1 << 40, 1 << 40);
            config.max_suspended_bytes = 1 << 40;
        })
        .tool(tool("login", move |ctx: Context| {
            let runs = counted.clone();
            async move {
                let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
                let login = ctx.elicit::<Login>("who are you?").await?;
                ctx.report_progress(1.0, None, "");
                let login2 = ctx.elicit_with(Elicit::form::<Login>("again?").key("again")).await?;
                Ok::<_, ToolError>(format!(
                    "run {run}: {} {} {}",
                    login.user, login.remember, login2["user"]
                ))
            }
        }))
        .tool(tool("together", |ctx: Context| async move {
            let (name, model, roots) = tokio::join!(
                ctx.elicit_with(Elicit::form::<Login>("name?").key("name")),
                ctx.sample(Sample::new(10).user("hello?").key("model")),
                ctx.list_roots(),
            );
            let (name, model, roots) = (name?, model?, roots?);
            Ok::<_, ToolError>(format!("{} {} {}", name["user"], model.text(), roots[0].uri))
        }))
        .tool(tool("outcome", |ctx: Context| async move {
            let outcome = ctx.elicit::<Login>("?").await;
            Ok::<_, ToolError>(match outcome {
                Ok(_) => "answered".to_owned(),
                Err(AskError::Client(error)) => error.message,
                Err(error) => error.to_string(),
            })
        }))
        .tool(tool("explicit", |ctx: Context| async move {
            if ctx.request_state() == Some(&json!({"step": 1})) {
                return Ok(ctx.input_responses()["name"]["content"]["user"].to_string());
            }
            let asked = InputRequired::new().elicit("name", &Elicit::form::<Login>("name?"));
            Err(CallError::input_required(asked.state(json!({"step": 1}))))
        }))
        .prompt(prompt("hello", |ctx: Context| async move {
            Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
        }))
        .resource(resource("ask://1", "asks", |ctx: Context| async move {
            Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
        }))
        .start()
        .await
        .unwrap()
}

fn accept(user: &str) -> Value {
    json!({"action": "accept", "content": {"user": user}})
}

fn all_capabilities() -> Value {
    json!({"elicitation": {}, "sampling": {}, "roots": {}})
}

async fn modern(client: &mut Client, id: i64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: all_capabilities(),
        "progressToken": id,
    });
    client.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
    client.answer(id).await.0
}

async fn call(client: &mut Client, id: i64, tool: &str, answers: Value, state: &Value) -> Value {
    let mut params = json!({"name": tool, "arguments": {}});
    if !answers.is_null() {
        params["inputResponses"] = answers;
    }
    if !state.is_null() {
        params["requestState"] = state.clone();
    }
    modern(client, id, "tools/call", params).await
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

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
    assert_eq!(engine.observe().await.unwrap().suspended_calls, 1);

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
    assert_eq!((view.suspended_calls, view.running_calls), (0, 0));
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
    assert_eq!(engine.observe().await.unwrap().suspended_calls, 1, "it still waits");
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
async fn prompts_and_resources_can_ask_too() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    for (id, method, params) in [
        (1, "prompts/get", json!({"name": "hello"})),
        (3, "resources/read", json!({"uri": "ask://1"})),
    ] {
        let asked = modern(&mut client, id, method, params.clone()).await["result"].take();
        assert_eq!(asked["resultType"], "input_required");
        let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
        let mut retry = params;
        retry["inputResponses"] = json!({ key: accept("ann") });
        retry["requestState"] = asked["requestState"].clone();
        let done = modern(&mut client, id + 1, method, retry).await;
        assert!(done["result"].to_string().contains("ann"), "{done}");
    }
}

#[tokio::test(start_paused = true)]
async fn code_that_does_not_wait_runs_again_and_finds_the_answers() {
    let engine = engine(Arc::default()).await;
    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "explicit", Value::Null, &Value::Null).await["result"].take();
    assert_eq!(asked["resultType"], "input_required");
    assert_eq!(engine.observe().await.unwrap().suspended_calls, 0);
    let answers = json!({"name": accept("ann")});
    let done = call(&mut client, 2, "explicit", answers, &asked["requestState"]).await;
    assert_eq!(text(&done), "\"ann\"");
}

/// Memory of this process, in bytes; nothing where it cannot be read.
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
        assert_eq!((before.suspended_calls, before.running_calls), (10_000, 0));
        sleep(Duration::from_secs(6 * 60)).await;
        let after = engine.observe().await.unwrap();
        assert_eq!((after.suspended_calls, after.running_calls), (0, 0));
        assert!(engine.calls().is_empty());
        assert_eq!(engine.tally().held, 0);
        memory.push(resident());
    }
    // What the allocator keeps of the first round serves the others.
    assert!(memory[1] < memory[0] + 8 * 1024 * 1024, "{memory:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_bounded_and_for_one_too_many_the_oldest_gives_way() {
    let engine = support::engine()
        .configure(|config| config.max_suspended = 1)
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

async fn legacy(engine: &Engine, capabilities: Value) -> Client {
    let mut client = Client::connect(engine).await;
    client
        .send(json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": {"name": "c", "version": "1"},
        }}))
        .await;
    client.answer("init").await;
    client
}

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
async fn every_answer_of_a_legacy_client_is_an_outcome_of_its_own() {
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
async fn an_answer_whose_id_is_written_as_a_text_is_heard() {
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
    let mut client = legacy(&engine, all_capabilities()).await;
    client.call(1, "age").await;
    let question = client.next().await.unwrap();
    client
        .send(json!({"jsonrpc": "2.0", "id": question["id"], "result": answer, "error": null}))
        .await;
    assert_eq!(text(&client.answer(1).await.0), "42");

    let mut client = Client::connect(&engine).await;
    let asked = call(&mut client, 1, "age", Value::Null, &Value::Null).await;
    let requests = asked["result"]["inputRequests"].as_object().unwrap();
    let answers = json!({requests.keys().next().unwrap(): answer});
    let answered = call(&mut client, 2, "age", answers, &asked["result"]["requestState"]).await;
    assert_eq!(text(&answered), "42");
}

/// A server that sends users to a page; the visits are told through the channel.
async fn sending(visits: tokio::sync::mpsc::UnboundedSender<UrlElicitation>) -> Engine {
    let told = visits.clone();
    let go = tool("go", move |ctx: Context| {
        let visits = visits.clone();
        async move {
            let page = Elicit::url("Go there", "https://example.com/?of=42").elicitation("42");
            let visit = ctx.elicit_url(page).await?;
            let id = visit.id().to_owned();
            visits.send(visit).unwrap();
            Ok::<_, ToolError>(id)
        }
    });
    let first = tool("first", move |ctx: Context| {
        let page = Elicit::url("Connect", "https://example.com/connect");
        told.send(ctx.url_elicitation(&page)).unwrap();
        let error = ctx.url_elicitation_required("Connect your account first.", [page]);
        std::future::ready(Err::<(), ToolError>(error))
    });
    let hello = prompt("lonely", |ctx: Context| async move {
        Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
    });
    support::engine().tool(go).tool(first).prompt(hello).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_visit_of_a_page_has_a_name_and_its_end_is_told_to_its_client() {
    let (visits, mut told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({"elicitation": {"url": {}}})).await;
    let mut other = legacy(&engine, json!({})).await;
    client.call(1, "go").await;
    let question = client.next().await.unwrap();
    assert_eq!(question["params"]["elicitationId"], "42");
    assert_eq!(question["params"]["mode"], "url");
    client
        .send(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}))
        .await;
    assert_eq!(text(&client.answer(1).await.0), "42");
    // Long after the call.
    told.recv().await.unwrap().complete().await.unwrap();
    let complete = client.next().await.unwrap();
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"], json!({"elicitationId": "42"}));
    assert_eq!(other.ping().await, [Value::Null; 0], "nobody else is told");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_needs_a_visit_first_says_so_in_the_words_of_its_era() {
    let (visits, mut told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({"elicitation": {"url": {}}})).await;
    client.call(1, "first").await;
    let (refused, _) = client.answer(1).await;
    assert_eq!(refused["error"]["code"], -32042);
    let asked = refused["error"]["data"]["elicitations"][0].clone();
    let visit = told.recv().await.unwrap();
    assert_eq!(
        asked,
        json!({"mode": "url", "message": "Connect", "url": "https://example.com/connect",
            "elicitationId": visit.id()})
    );
    visit.complete().await.unwrap();
    let complete = client.next().await.unwrap();
    assert_eq!(complete["params"]["elicitationId"], visit.id());

    let mut client = Client::connect(&engine).await;
    let params = json!({"name": "first", "_meta": {
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: {"elicitation": {"url": {}}},
    }});
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await;
    let (asked, _) = client.answer(1).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    let requests = asked["result"]["inputRequests"].as_object().unwrap();
    let question = requests.values().next().unwrap();
    assert_eq!(question["params"]["url"], "https://example.com/connect");
    assert_eq!(question["params"].get("elicitationId"), None, "it knows no such thing");
}

#[tokio::test(start_paused = true)]
async fn a_legacy_client_that_lacks_a_capability_is_told_so_in_words_of_its_era() {
    let (visits, _told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({})).await;
    for name in ["go", "first"] {
        client.call(1, name).await;
        let (answer, _) = client.answer(1).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        assert!(text(&answer).contains("elicitation"), "{answer}");
    }
    let get =
        json!({"jsonrpc": "2.0", "id": 2, "method": "prompts/get", "params": {"name": "lonely"}});
    client.send(get).await;
    assert_eq!(client.answer(2).await.0["error"]["code"], -32603);
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_given_up_on_a_stream_that_nobody_reads_are_bounded() {
    let asked = Arc::new(AtomicUsize::new(0));
    let engine = support::engine().tool(support::impatient(5_000, asked.clone()));
    let engine = engine.start().await.unwrap();
    let mut client = Client::legacy_that(&engine, json!({"elicitation": {}})).await;
    // Not the id of a question.
    client.call(-1, "impatient").await;
    while asked.load(Ordering::Relaxed) < 5_000 {
        sleep(Duration::from_secs(1)).await;
    }
    let held = engine.tally().held;
    assert!((1 << 20..(1 << 20) + (1 << 16)).contains(&held), "{held}");
    let (answer, before) = client.answer(-1).await;
    assert_eq!(answer["result"]["content"][0]["text"], "nobody is there");
    // Each that was asked was taken back.
    let count = |method: &str| before.iter().filter(|it| it["method"] == method).count();
    let questions = count("elicitation/create");
    assert!((100..5_000).contains(&questions), "{questions}");
    assert_eq!(questions, count("notifications/cancelled"));
}
