//! The client itself, with paused time: each test in both eras.

use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stentor_engine::{
    AsTask, Completion, Context, Engine, EngineBuilder, Principal, Prompt, PromptArgs, PromptError,
    Resource, Sample, TemplateVars, ToolError, extension, prompt, resource_template, tool,
};
use stentor_test::{Answer, Builder, Client, Notice, Raw, assert_notified, assert_silent};
use stentor_wire::model::CallToolResult;
use stentor_wire::{Era, LogLevel, code};
use tokio::time::Instant;

/// Makes two tests of each flow, an `async fn(Era)`. No flow may take any time.
macro_rules! in_both_eras {
    ($($flow:ident),* $(,)?) => {$(
        mod $flow {
            #[tokio::test(start_paused = true)]
            async fn legacy() {
                super::$flow(stentor_wire::Era::Legacy).await;
            }

            #[tokio::test(start_paused = true)]
            async fn modern() {
                super::$flow(stentor_wire::Era::Modern).await;
            }
        }
    )*};
}

in_both_eras!(
    a_tool_answers_with_text_structure_or_a_failure,
    the_progress_and_the_log_of_a_running_call_arrive_before_its_reply,
    a_cancelled_call_ends_and_is_not_answered,
    lists_are_read_to_their_last_page,
    resources_prompts_and_completions_are_typed,
    questions_are_answered_by_closures,
    a_client_without_an_answer_is_not_asked,
    an_answer_may_be_an_error,
    each_change_is_a_notice_of_its_own_kind,
    a_resource_is_heard_of_while_it_is_watched,
    silence_is_proven_also_while_a_change_waits_for_its_window,
    an_assertion_says_what_came_instead,
    a_notification_of_an_extension_is_a_notice,
    a_principal_is_that_of_every_call,
    a_session_that_ends_ends_what_waits_for_it,
    a_client_that_closes_is_a_client_that_left,
    raw_messages_are_sent_as_they_are,
);

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Sum {
    sum: i64,
}

#[derive(Deserialize, JsonSchema)]
struct Login {
    user: String,
}

fn builder() -> EngineBuilder {
    Engine::builder("test", "1")
        .tool(tool("greet", |args: Greet| async move {
            Ok::<_, ToolError>(format!("Hello, {}!", args.name))
        }))
        .tool(tool("sum", || async {
            Ok::<_, ToolError>(CallToolResult::structured(json!({"sum": 3})))
        }))
        .tool(tool("fails", || async { Err::<String, _>(ToolError::new("out of paint")) }))
        .tool(tool("render", |ctx: Context| async move {
            ctx.report_progress(1.0, Some(2.0), "half");
            ctx.error("no light");
            ctx.report_progress(2.0, Some(2.0), "");
            Ok::<_, ToolError>("film")
        }))
        .tool(tool("wait", |ctx: Context| async move {
            ctx.report_progress(1.0, None, "it runs");
            std::future::pending::<()>().await;
            Ok::<_, ToolError>("never")
        }))
        .tool(tool("login", |ctx: Context| async move {
            let first = ctx.elicit::<Login>("first?").await?.user;
            let second = ctx.elicit::<Login>("second?").await?.user;
            let model = ctx.sample(Sample::new(10).user("hello?")).await?;
            let roots = ctx.list_roots().await?;
            Ok::<_, ToolError>(format!("{first} {second} {} {}", model.text(), roots[0].uri))
        }))
        .resource(Resource::text("test://text", "text", "the text"))
        .resource_template(resource_template(
            "test://{id}/x",
            "x",
            |vars: TemplateVars, _ctx: Context| async move {
                Ok::<_, ToolError>(format!("of {}", vars["id"]))
            },
        ))
        .prompt(hello())
}

fn hello() -> Prompt {
    prompt("hello", |args: PromptArgs| async move {
        Ok::<_, PromptError>(format!("Hello, {}!", args["name"]))
    })
    .argument("name", "the name", false)
    .complete(|asked: Completion| async move { vec![format!("{}a", asked.value)] })
}

async fn engine() -> Engine {
    builder().start().await.expect("an engine")
}

fn client(engine: &Engine, era: Era) -> Builder {
    Client::builder(engine).era(era)
}

async fn a_tool_answers_with_text_structure_or_a_failure(era: Era) {
    let client = client(&engine().await, era).connect().await;
    let reply = client.call_tool("greet", json!({"name": "Ann"})).await.unwrap();
    assert_eq!((reply.text(), reply.is_error()), ("Hello, Ann!", false));
    let reply = client.call_tool("sum", ()).await.unwrap();
    assert_eq!(reply.structured::<Sum>(), Sum { sum: 3 });
    let reply = client.call_tool("fails", ()).await.unwrap();
    assert!(reply.is_error() && reply.text().contains("out of paint"), "{reply:?}");
    let error = client.call_tool("nobody", ()).await.unwrap_err();
    assert_eq!(error.code, code::INVALID_PARAMS);
    assert_eq!(
        client.server().await.unwrap()["serverInfo"]["name"].as_str(),
        match era {
            Era::Legacy => Some("test"),
            Era::Modern => None,
        }
    );
}

async fn the_progress_and_the_log_of_a_running_call_arrive_before_its_reply(era: Era) {
    let client = client(&engine().await, era).connect().await;
    client.set_log_level(LogLevel::Error).await.unwrap();
    let mut call = client.start_tool("render", ());
    let half = call.progress().await.unwrap();
    assert_eq!((half.progress, half.total, &*half.message), (1.0, Some(2.0), "half"));
    assert_eq!(call.log().await.unwrap().data, "no light");
    let rest: Vec<_> = call.progress_stream().collect().await;
    assert_eq!(rest.iter().map(|step| step.progress).collect::<Vec<_>>(), [2.0]);
    assert_eq!(call.logs().count().await, 0);
    let reply = call.reply().await.unwrap();
    assert_eq!((reply.text(), reply.progress().len(), reply.logs().len()), ("film", 2, 1));
    client.set_log_level(LogLevel::Alert).await.unwrap();
    assert_eq!(client.call_tool("render", ()).await.unwrap().logs(), []);
}

async fn a_cancelled_call_ends_and_is_not_answered(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut call = client.start_tool("wait", ());
    assert_eq!(call.progress().await.unwrap().message, "it runs");
    assert_eq!(engine.calls().len(), 1);
    call.cancel();
    client.settle().await;
    assert_eq!(engine.calls().len(), 0);
}

async fn lists_are_read_to_their_last_page(era: Era) {
    let engine = builder().configure(|config| config.lists.page_size = 2).start().await.unwrap();
    let client = client(&engine, era).connect().await;
    let tools = client.list_tools().await.unwrap();
    let mut names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["fails", "greet", "login", "render", "sum", "wait"]);
    assert_eq!(client.list_resources().await.unwrap()[0].uri, "test://text");
    assert_eq!(client.list_resource_templates().await.unwrap()[0].name, "x");
    assert_eq!(client.list_prompts().await.unwrap()[0].name, "hello");
}

async fn resources_prompts_and_completions_are_typed(era: Era) {
    let client = client(&engine().await, era).connect().await;
    assert_eq!(client.read_resource("test://text").await.unwrap().contents.len(), 1);
    assert_eq!(client.read_text("test://text").await.unwrap(), "the text");
    assert_eq!(client.read_text("test://7/x").await.unwrap(), "of 7");
    assert!(client.read_text("test://none").await.is_err());
    let prompt = client.get_prompt("hello", json!({"name": "Ann"})).await.unwrap();
    assert_eq!(prompt.messages[0].content.as_text().unwrap().text, "Hello, Ann!");
    assert_eq!(client.complete_prompt("hello", "name", "ann").await.unwrap(), ["anna"]);
}

async fn questions_are_answered_by_closures(era: Era) {
    let client = client(&engine().await, era)
        .on_elicit(|question| {
            assert!(question.schema().is_some() && question.url().is_none());
            match question.message() {
                "first?" => Answer::accept(json!({"user": "ann"})),
                _ => Answer::accept(json!({"user": "bob"})),
            }
        })
        .on_sample(|question| Answer::text(question.texts().concat().to_uppercase()))
        .roots(["file:///home"])
        .connect()
        .await;
    let reply = client.call_tool("login", ()).await.unwrap();
    assert_eq!(reply.text(), "ann bob HELLO? file:///home");
}

async fn a_client_without_an_answer_is_not_asked(era: Era) {
    let client = client(&engine().await, era).connect().await;
    match (era, client.call_tool("login", ()).await) {
        (Era::Legacy, Ok(reply)) => assert!(reply.is_error(), "{reply:?}"),
        (Era::Modern, Err(error)) => assert_eq!(error.code, code::MISSING_CAPABILITY),
        (_, other) => panic!("{other:?}"),
    }
}

async fn an_answer_may_be_an_error(era: Era) {
    let broken = || Answer::error(stentor_wire::ErrorObject::new(-1, "broken"));
    let failing = client(&engine().await, era).on_elicit(move |_| broken()).connect().await;
    match (era, failing.call_tool("login", ()).await) {
        (Era::Legacy, Ok(reply)) => assert!(reply.text().contains("broken"), "{reply:?}"),
        (Era::Modern, Err(error)) => assert_eq!((error.code, &*error.message), (-1, "broken")),
        (_, other) => panic!("{other:?}"),
    }
    let declining = client(&engine().await, era).on_elicit(|_| Answer::decline()).connect().await;
    let reply = declining.call_tool("login", ()).await.unwrap();
    assert!(reply.is_error() && reply.text().contains("declined"), "{reply:?}");
}

async fn each_change_is_a_notice_of_its_own_kind(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut notices = client.notices().await;
    let mut others = client.notices().await;
    engine.send_prompt_list_changed();
    engine.send_tool_list_changed();
    engine.catalog().add(Resource::text("test://new", "new", "")).await.unwrap();
    assert_notified(&mut notices, Notice::ToolsChanged).await;
    assert_notified(&mut notices, Notice::ResourcesChanged).await;
    assert_eq!(notices.next().await, Notice::PromptsChanged);
    assert_silent(&mut notices).await;
    assert_eq!(others.settled().await.len(), 3, "each reader has all of them");
}

async fn a_resource_is_heard_of_while_it_is_watched(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut notices = client.notices().await;
    engine.send_resource_updated("test://text");
    assert_silent(&mut notices).await;
    client.watch("test://text").await.unwrap();
    engine.send_resource_updated("test://text");
    assert_notified(&mut notices, Notice::updated("test://text")).await;
    client.unwatch("test://text").await.unwrap();
    client.settle().await;
    engine.send_resource_updated("test://text");
    assert_silent(&mut notices).await;
}

async fn silence_is_proven_also_while_a_change_waits_for_its_window(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut notices = client.notices().await;
    // The second change of a burst is announced at the end of a window.
    for name in ["one", "other"] {
        let small = tool(name, || async { "" });
        engine.catalog().add(small).await.unwrap();
    }
    assert_eq!(notices.settled().await, [Notice::ToolsChanged, Notice::ToolsChanged]);
    let begun = Instant::now();
    assert_silent(&mut notices).await;
    assert_eq!(begun.elapsed().as_millis(), 0, "nothing is waited for");
}

async fn an_assertion_says_what_came_instead(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut notices = client.notices().await;
    engine.send_prompt_list_changed();
    let failed = tokio::spawn(async move {
        assert_notified(&mut notices, Notice::ToolsChanged).await;
    });
    let text = failed.await.unwrap_err().into_panic().downcast::<String>().unwrap();
    assert!(text.contains("client.rs") && text.contains("came: [PromptsChanged]"), "{text}");
    let mut notices = client.notices().await;
    engine.send_prompt_list_changed();
    let failed = tokio::spawn(async move { assert_silent(&mut notices).await });
    let text = failed.await.unwrap_err().into_panic().downcast::<String>().unwrap();
    assert!(text.contains("no notice should come; came: [PromptsChanged]"), "{text}");
}

async fn a_notification_of_an_extension_is_a_notice(era: Era) {
    let counter = extension("com.example/counter")
        .method("counter/add", |_: Value, _ctx: Context| async {
            Ok::<_, ToolError>(json!({"count": 1}))
        })
        .notification("notifications/counter", "counterChanged");
    let engine = builder().extension(counter).start().await.unwrap();
    let client = client(&engine, era).extension("com.example/counter", json!({})).connect().await;
    let mut notices = client.notices().await;
    client.listen(json!({"counterChanged": true})).await.unwrap();
    engine.notify_all("notifications/counter", json!({"count": 1})).await.unwrap();
    let expected = Notice::custom("notifications/counter", json!({"count": 1}));
    assert_notified(&mut notices, expected).await;
    assert_silent(&mut notices).await;
    let result = client.request("counter/add", json!({})).await.unwrap();
    assert_eq!(result["count"], 1);
}

async fn a_principal_is_that_of_every_call(era: Era) {
    let who = tool("who", |principal: Principal| async move { principal.to_string() });
    let engine = builder().tool(who).start().await.unwrap();
    let ann = client(&engine, era).principal("ann").client_info("of ann", "2").connect().await;
    assert_eq!(ann.call_tool("who", ()).await.unwrap().text(), "ann");
    assert_eq!(engine.sessions()[0].principal.as_deref(), Some("ann"));
}

async fn a_session_that_ends_ends_what_waits_for_it(era: Era) {
    let engine = engine().await;
    let client = client(&engine, era).connect().await;
    let mut notices = client.notices().await;
    let mut call = client.start_tool("wait", ());
    call.progress().await.unwrap();
    assert!(engine.end_session(&engine.sessions()[0].id));
    assert_eq!(StreamExt::next(&mut notices).await, None);
    assert!(call.reply().await.is_err());
    assert_eq!(client.call_tool("sum", ()).await.unwrap_err().code, code::UNAVAILABLE);
}

async fn a_client_that_closes_is_a_client_that_left(era: Era) {
    let engine = engine().await;
    let closed = client(&engine, era).connect().await;
    closed.call_tool("sum", ()).await.unwrap();
    closed.close().await;
    assert_eq!(engine.sessions().len(), 0);
    drop(client(&engine, era).connect().await);
    tokio::task::yield_now().await;
    assert_eq!(engine.sessions().len(), 0);
}

async fn raw_messages_are_sent_as_they_are(era: Era) {
    let engine = engine().await;
    let mut raw: Raw = client(&engine, era).raw().await;
    raw.send_bytes("{").await;
    assert_eq!(raw.next().await.unwrap()["error"]["code"], code::PARSE_ERROR);
    raw.request("x", "no/method", json!({})).await;
    assert!(raw.answer("x").await.0["error"].is_object());
}

/// The tasks extension is modern only.
#[tokio::test(start_paused = true)]
async fn a_call_that_becomes_a_task_has_its_id_and_its_changes_are_notices() {
    let slow = tool("slow", |_ctx: Context| async { Ok::<_, ToolError>("done") });
    let engine = builder().tool(slow.as_task(AsTask::Always)).start().await.unwrap();
    let client = Client::builder(&engine).tasks().connect().await;
    let mut notices = client.notices().await;
    let reply = client.call_tool("slow", ()).await.unwrap();
    let id = reply.task_id().expect("a task");
    client.listen(json!({"taskIds": [id]})).await.unwrap();
    loop {
        match notices.next().await {
            Notice::TaskStatus { task_id, task } if task["status"] == "completed" => {
                assert_eq!(task_id, id);
                break;
            }
            Notice::TaskStatus { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let task = client.request("tasks/get", json!({"taskId": id})).await.unwrap();
    assert_eq!(task["result"]["content"][0]["text"], "done");
}

/// An answer that panics fails what waits, and does not hang it.
#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_fails_the_call_that_asked() {
    let engine = engine().await;
    let client = Client::builder(&engine).on_elicit(|_| panic!("wrong")).connect().await;
    let error = client.call_tool("login", ()).await.unwrap_err();
    assert!(error.message.contains("panicked"), "{error}");
}
