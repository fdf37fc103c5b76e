//! What the author's functions take and return, and the middleware around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stentor_engine::{
    AccessLog, CallError, CatalogError, Context, Engine, EngineBuilder, ExtensionError, ItemKind,
    Json, Next, Operation, OperationKind, Principal, PromptArgs, RateLimit, Reply, Shown,
    StartError, State, TemplateVars, Timeout, ToolError, Toolbox, extension, prompt, raw_tool,
    resource, resource_template, tool,
};
use stentor_test::{Builder, Client, Notice, assert_notified, assert_silent};
use stentor_wire::{Era, code};

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

fn server() -> EngineBuilder {
    Engine::builder("test", "1")
}

async fn started(builder: EngineBuilder) -> Engine {
    builder.start().await.unwrap()
}

fn client(engine: &Engine, era: Era) -> Builder {
    Client::builder(engine).era(era)
}

/// The one text of the result of a tool without arguments.
async fn text_of(client: &Client, tool: &str) -> String {
    client.call_tool(tool, json!({})).await.unwrap().text().to_owned()
}

#[derive(Deserialize, JsonSchema)]
struct Greet {
    /// Who is greeted.
    name: String,
}

#[tokio::test(start_paused = true)]
async fn parameters_come_in_any_order() {
    #[derive(Clone)]
    struct Greeting(&'static str);
    async fn greet(
        ctx: Context,
        State(greeting): State<Greeting>,
        args: Greet,
        State(count): State<Arc<AtomicU64>>,
        who: Principal,
    ) -> String {
        let nth = count.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{} {} from {who} in {}, {nth}", greeting.0, args.name, ctx.uri())
    }
    let builder = server().state(Greeting("Hello")).state(Arc::new(AtomicU64::new(0)));
    let engine = started(builder.tool(tool("greet", greet))).await;
    for (n, era) in ERAS.into_iter().enumerate() {
        let client = client(&engine, era).principal("ann").connect().await;
        let reply = client.call_tool("greet", json!({"name": "Bob"})).await.unwrap();
        assert_eq!(reply.text(), format!("Hello Bob from ann in greet, {}", n + 1));
    }
    let stranger = Client::connect(&engine).await;
    let refused = stranger.call_tool("greet", json!({"name": "Bob"})).await.unwrap();
    assert!(refused.is_error(), "{refused:?}");
}

#[tokio::test]
async fn an_item_whose_state_is_missing_is_refused_by_name() {
    let counts = || tool("count", |State(n): State<u64>| async move { n });
    let Err(StartError::Catalog(error)) = server().tool(counts()).start().await else {
        panic!("it started");
    };
    let refused =
        CatalogError::State { kind: ItemKind::Tools, key: "count".to_owned(), state: "u64" };
    assert_eq!(error, refused);
    assert_eq!(
        error.to_string(),
        "tool 'count' takes State<u64>: set it with EngineBuilder::state"
    );
    let engine = started(server()).await;
    assert_eq!(engine.catalog().add(counts()).await, Err(refused));
    let method =
        extension("com.example/x").method("x/y", |State(n): State<u64>| async move { Json(n) });
    let started = server().extension(method).start().await;
    let refused = ExtensionError::State("x/y".to_owned(), "u64");
    assert!(matches!(started, Err(StartError::Extension(error)) if error == refused));
}

#[tokio::test(start_paused = true)]
async fn a_function_may_return_anything_sensible() {
    #[derive(Serialize, JsonSchema)]
    struct Sum {
        sum: i64,
    }
    let tools = Toolbox::new()
        .tool(tool("str", || async { "a" }))
        .tool(tool("string", || async { "a".to_owned() }))
        .tool(tool("result", || async { Ok::<_, Shown<&str>>("a") }))
        .tool(tool("number", || async { 2.5 }))
        .tool(tool("bool", || async { true }))
        .tool(tool("nothing", || async {}))
        .tool(tool("value", || async { json!({"a": 1}) }))
        .tool(tool("json", || async { Json(Sum { sum: 3 }) }));
    let engine = started(server().toolbox(tools)).await;
    for era in ERAS {
        let client = client(&engine, era).connect().await;
        for (tool, text) in
            [("str", "a"), ("string", "a"), ("result", "a"), ("number", "2.5"), ("bool", "true")]
        {
            assert_eq!(text_of(&client, tool).await, text, "{tool}");
        }
        let nothing = client.call_tool("nothing", json!({})).await.unwrap();
        assert_eq!(nothing.result().content, []);
        let value = client.call_tool("value", json!({})).await.unwrap();
        assert_eq!(value.structured::<Value>(), json!({"a": 1}));
        let sum = client.call_tool("json", json!({})).await.unwrap();
        assert_eq!(sum.structured::<Value>(), json!({"sum": 3}));
        let tools = client.list_tools().await.unwrap();
        let with_schema: Vec<_> =
            tools.iter().filter(|tool| tool.output_schema.is_some()).collect();
        assert_eq!(with_schema.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["json"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_error_is_shown_only_if_its_author_says_so() {
    async fn hides() -> Result<String, ToolError> {
        Ok(std::fs::read_to_string("/nowhere/secret")?)
    }
    async fn shows() -> Result<String, ToolError> {
        Ok(std::fs::read_to_string("/nowhere/secret").map_err(Shown)?)
    }
    async fn hides_its_own() -> Result<(), std::io::Error> {
        Err(std::io::Error::other("secret"))
    }
    async fn shows_its_own() -> Result<(), Shown<std::io::Error>> {
        Err(std::io::Error::other("no paper"))?
    }
    let engine = started(
        server()
            .tool(tool("hides", hides))
            .tool(tool("shows", shows))
            .tool(tool("hides_its_own", hides_its_own))
            .tool(tool("shows_its_own", shows_its_own))
            .resource(resource("a://1", "a", || async {
                Err::<String, _>(std::io::Error::other("secret"))
            }))
            .prompt(prompt("p", || async { Err::<String, _>(std::io::Error::other("secret")) })),
    )
    .await;
    for era in ERAS {
        let client = client(&engine, era).connect().await;
        for (tool, text) in [
            ("hides", "the tool failed"),
            ("shows", "No such file or directory (os error 2)"),
            ("hides_its_own", "the tool failed"),
            ("shows_its_own", "no paper"),
        ] {
            let reply = client.call_tool(tool, json!({})).await.unwrap();
            assert!(reply.is_error());
            assert_eq!(reply.text(), text, "{tool}");
        }
        let read = client.read_resource("a://1").await.unwrap_err();
        assert_eq!((read.code, &*read.message), (code::INTERNAL_ERROR, "the resource failed"));
        let filled = client.get_prompt("p", json!({})).await.unwrap_err();
        assert_eq!(&*filled.message, "the prompt failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_has_the_arguments_of_its_type() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Style {
        Terse,
        Long,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Review {
        /// What to review.
        code: String,
        words: Option<u32>,
        style: Style,
    }
    async fn review(args: Review, ctx: Context) -> String {
        let style = match args.style {
            Style::Terse => "terse",
            Style::Long => "long",
        };
        format!("{}: {} in {} words, {style}", ctx.uri(), args.code, args.words.unwrap_or(100))
    }
    let raw = prompt("raw", |args: PromptArgs| async move { args["code"].clone() }).argument(
        "code",
        "What to review",
        true,
    );
    let engine = started(server().prompt(prompt("review", review)).prompt(raw)).await;
    for era in ERAS {
        let client = client(&engine, era).connect().await;
        let prompts = client.list_prompts().await.unwrap();
        let arguments: Vec<_> = prompts[0].arguments.iter().flatten().collect();
        let shown = arguments.iter().map(|it| (&*it.name, it.description.as_deref(), it.required));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                ("code", Some("What to review."), Some(true)),
                ("words", None, Some(false)),
                ("style", None, Some(true)),
            ]
        );
        let filled = json!({"code": "x", "words": "7", "style": "terse"});
        let filled = client.get_prompt("review", filled).await.unwrap();
        let filled = serde_json::to_value(filled).unwrap();
        assert_eq!(filled["messages"][0]["content"]["text"], "review: x in 7 words, terse");
        let wrong = json!({"code": "x", "words": "many", "style": "terse"});
        let error = client.get_prompt("review", wrong).await.unwrap_err();
        assert_eq!(error.code, code::INVALID_PARAMS);
        assert!(error.message.contains("words"), "{}", error.message);
        let error = client.get_prompt("review", json!({"code": "x"})).await.unwrap_err();
        assert!(error.message.contains("'style'"), "{}", error.message);
        let raw = client.get_prompt("raw", json!({"code": "y"})).await.unwrap();
        assert_eq!(serde_json::to_value(raw).unwrap()["messages"][0]["content"]["text"], "y");
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_has_the_variables_of_its_type() {
    #[derive(Deserialize, JsonSchema)]
    struct Range {
        from: u64,
        to: Option<u64>,
    }
    async fn read(ctx: Context, range: Range) -> Json<Vec<u64>> {
        assert!(ctx.uri().starts_with("n://"));
        Json((range.from..range.to.unwrap_or(range.from + 2)).collect())
    }
    let typed = resource_template("n://{from}{?to}", "numbers", read);
    let raw =
        resource_template(
            "raw://{a}",
            "raw",
            |vars: TemplateVars| async move { vars["a"].clone() },
        );
    let engine = started(server().resource_template(typed).resource_template(raw)).await;
    for era in ERAS {
        let client = client(&engine, era).connect().await;
        assert_eq!(client.read_text("n://3").await.unwrap(), "[3,4]");
        assert_eq!(client.read_text("n://3?to=4").await.unwrap(), "[3]");
        let read = client.read_resource("n://3").await.unwrap();
        let read = serde_json::to_value(read).unwrap();
        assert_eq!(read["contents"][0]["mimeType"], "application/json");
        let error = client.read_text("n://three").await.unwrap_err();
        assert_eq!(error.code, code::INVALID_PARAMS);
        assert!(error.message.contains("from"), "{}", error.message);
        assert_eq!(client.read_text("raw://x").await.unwrap(), "x");
    }
    let wrong = resource_template("n2://{to}", "numbers", read);
    let error = engine.catalog().add(wrong).await.unwrap_err().to_string();
    assert!(error.contains("'from'"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn middleware_sees_refuses_and_rewrites() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let around = move |mut operation: Operation, next: Next| {
        let log = log.clone();
        async move {
            let who = operation.context().principal().unwrap_or("nobody").to_owned();
            log.lock().push(format!("{who}: {:?} {}", operation.kind(), operation.subject()));
            if operation.subject() == "forbidden" {
                return Err(CallError::new("not you"));
            }
            if operation.kind() == OperationKind::Tool {
                let mut arguments = operation.arguments()?;
                arguments["name"] = json!("Zoe");
                operation.set_arguments(arguments)?;
            }
            match next.run(operation).await? {
                Reply::Prompt(mut filled) => {
                    filled.description = Some("rewritten".to_owned());
                    Ok(Reply::Prompt(filled))
                }
                reply => Ok(reply),
            }
        }
    };
    async fn greet(args: Greet) -> String {
        format!("Hello, {}!", args.name)
    }
    let engine = started(
        server()
            .layer(AccessLog)
            .layer(around)
            .tool(tool("greet", greet))
            .tool(tool("forbidden", || async { "secret" }))
            .resource(resource("a://1", "a", || async { "text" }))
            .prompt(prompt("p", || async { "text" }).complete(|_| async { vec!["x".to_owned()] })),
    )
    .await;
    for era in ERAS {
        let client = client(&engine, era).principal("ann").connect().await;
        let reply = client.call_tool("greet", json!({"name": "Ann"})).await.unwrap();
        assert_eq!(reply.text(), "Hello, Zoe!");
        assert_eq!(text_of(&client, "forbidden").await, "not you");
        assert_eq!(client.read_text("a://1").await.unwrap(), "text");
        let filled = client.get_prompt("p", json!({})).await.unwrap();
        assert_eq!(filled.description.as_deref(), Some("rewritten"));
        assert_eq!(client.complete_prompt("p", "a", "").await.unwrap(), ["x"]);
        assert_eq!(client.list_tools().await.unwrap().len(), 2);
        let expected = [
            "ann: Tool greet",
            "ann: Tool forbidden",
            "ann: Resource a://1",
            "ann: Prompt p",
            "ann: Completion p",
            "ann: List(Tools) tools/list",
        ];
        assert_eq!(std::mem::take(&mut *seen.lock()), expected, "{era:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn arguments_that_a_middleware_wrote_are_checked_too() {
    let breaks = |mut operation: Operation, next: Next| async move {
        operation.set_arguments(json!({"name": 7}))?;
        next.run(operation).await
    };
    let greets = tool("greet", |args: Greet| async move { args.name }).layer(breaks);
    let engine = started(server().tool(greets)).await;
    let client = Client::connect(&engine).await;
    let reply = client.call_tool("greet", json!({"name": "Ann"})).await.unwrap();
    assert!(reply.is_error() && reply.text().contains("/name"), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_layer_added_is_the_outermost_and_an_item_has_its_own() {
    fn says(
        word: &'static str,
        said: &Arc<Mutex<Vec<&'static str>>>,
    ) -> impl stentor_engine::Middleware {
        let said = said.clone();
        move |operation: Operation, next: Next| {
            said.lock().push(word);
            next.run(operation)
        }
    }
    let said = Arc::default();
    let plain = || tool("plain", || async { "" });
    let boxed = Toolbox::new()
        .tool(plain().layer(says("tool", &said)))
        .layer(says("box", &said))
        .nested("in");
    let engine = started(
        server()
            .layer(says("inner", &said))
            .layer(says("outer", &said))
            .toolbox(boxed)
            .tool(plain()),
    )
    .await;
    let client = Client::connect(&engine).await;
    text_of(&client, "plain").await;
    assert_eq!(std::mem::take(&mut *said.lock()), ["outer", "inner"]);
    text_of(&client, "in_plain").await;
    assert_eq!(std::mem::take(&mut *said.lock()), ["outer", "inner", "box", "tool"]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_code_and_a_rate_limit_refuses() {
    let slow = tool("slow", || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "late"
    });
    let slow = slow.layer(Timeout(Duration::from_secs(1)));
    let limited =
        tool("limited", || async { "ok" }).layer(RateLimit::new(2, Duration::from_secs(2)));
    let engine = started(server().tool(slow).tool(limited)).await;
    for era in ERAS {
        let client = client(&engine, era).principal(format!("{era:?}")).connect().await;
        assert_eq!(text_of(&client, "slow").await, "timed out after 1s");
        for _ in 0..2 {
            assert_eq!(text_of(&client, "limited").await, "ok");
        }
        let error = client.call_tool("limited", json!({})).await.unwrap_err();
        assert!(error.message.contains("too many requests"), "{}", error.message);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(text_of(&client, "limited").await, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn a_toolbox_comes_and_goes_with_one_notice() {
    let clocks = || {
        Toolbox::new()
            .tool(tool("noon", || async { "12:00" }))
            .tool(tool("midnight", || async { "0:00" }))
            .merge(Toolbox::new().resource(resource("clock://now", "now", || async { "noon" })))
            .nested("berlin")
    };
    let engine = started(server()).await;
    for era in ERAS {
        let client = client(&engine, era).connect().await;
        let mut notices = client.notices().await;
        engine.catalog().add_all(clocks()).await.unwrap();
        let mut heard = notices.settled().await;
        heard.sort_by_key(|notice| format!("{notice:?}"));
        assert_eq!(heard, [Notice::ResourcesChanged, Notice::ToolsChanged]);
        assert_eq!(text_of(&client, "berlin_noon").await, "12:00");
        assert_eq!(client.read_text("clock://berlin/now").await.unwrap(), "noon");
        let twice = engine.catalog().add_all(clocks()).await;
        assert!(matches!(twice, Err(CatalogError::Exists { .. })), "{twice:?}");
        engine.catalog().remove_all(&clocks()).await.unwrap();
        assert_eq!(notices.settled().await.len(), 2);
        assert_eq!(client.list_tools().await.unwrap().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_finds_its_engine_and_its_session() {
    #[derive(Default)]
    struct Calls(AtomicU64);
    async fn count(ctx: Context) -> Result<String, ToolError> {
        let session = ctx.session().ok_or_else(|| ToolError::new("no session"))?;
        let calls: Arc<Calls> =
            session.state().ok_or_else(|| ToolError::new("it is on another node"))?;
        let calls = calls.0.fetch_add(1, Ordering::Relaxed) + 1;
        session.notify("notifications/own", json!({"calls": calls})).await?;
        Ok(format!("{calls} of {}", ctx.engine().calls().len()))
    }
    let engine = started(server().tool(tool("count", count))).await;
    let (ann, bob) = (Client::legacy(&engine).await, Client::legacy(&engine).await);
    let (mut of_ann, mut of_bob) = (ann.notices().await, bob.notices().await);
    assert_eq!(text_of(&ann, "count").await, "1 of 1");
    assert_eq!(text_of(&ann, "count").await, "2 of 1");
    assert_eq!(text_of(&bob, "count").await, "1 of 1");
    for calls in 1..=2 {
        let own = Notice::custom("notifications/own", json!({"calls": calls}));
        assert_notified(&mut of_ann, own).await;
    }
    assert_notified(&mut of_bob, Notice::custom("notifications/own", json!({"calls": 1}))).await;
    assert_silent(&mut of_ann).await;
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_session_is_freed_with_it() {
    static HELD: AtomicU64 = AtomicU64::new(0);
    struct Held;
    impl Default for Held {
        fn default() -> Self {
            HELD.fetch_add(1, Ordering::Relaxed);
            Self
        }
    }
    impl Drop for Held {
        fn drop(&mut self) {
            HELD.fetch_sub(1, Ordering::Relaxed);
        }
    }
    async fn hold(ctx: Context) {
        let _held: Option<Arc<Held>> = ctx.session().and_then(|session| session.state());
    }
    let engine = started(server().tool(tool("hold", hold))).await;
    let client = Client::legacy(&engine).await;
    client.call_tool("hold", json!({})).await.unwrap();
    client.call_tool("hold", json!({})).await.unwrap();
    let session = engine.session(&engine.sessions()[0].id).unwrap();
    assert_eq!(HELD.load(Ordering::Relaxed), 1);
    session.end();
    assert_eq!(HELD.load(Ordering::Relaxed), 0, "although a host keeps the session");
}

#[tokio::test(start_paused = true)]
async fn raw_tools_take_values_and_objects() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let value = raw_tool("value", schema.clone(), |args: Value| async move { args["n"].clone() });
    let object = raw_tool("object", schema, |args: serde_json::Map<String, Value>| async move {
        args.len() as u64
    });
    let engine = started(server().tool(value).tool(object)).await;
    let client = Client::legacy(&engine).await;
    let reply = client.call_tool("value", json!({"n": 4})).await.unwrap();
    assert_eq!(reply.text(), "4");
    assert_eq!(client.call_tool("object", json!({"n": 4})).await.unwrap().text(), "1");
}
