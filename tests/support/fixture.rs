//! The small tools, resources and prompts that all suites use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stentor::{
    Context, Engine, EngineBuilder, Extension, Json, Prompt, Resource, Tool, ToolError,
    catalog::{CatalogHandle, Item, ItemKind},
    extension,
    handler::{Completion, PromptArgs, ResourceError, TemplateVars},
    prompt,
    protocol::{ErrorObject, LogLevel},
    raw_tool, resource, resource_template, tool,
};
use tokio::sync::watch;

use crate::soon;

/// The resource whose update is the mark of [`Server::mark`](crate::Server::mark).
pub const MARK: &str = "test://mark";

/// The state of a call of `hold`, `background` or `linger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It waits for the test.
    Waiting,
    /// The test released it.
    Released,
    /// It completed.
    Finished,
    /// It was dropped before it completed.
    Stopped,
}

/// Synchronizes the test with the running calls of the fixture. Each call has a name.
#[derive(Clone, Debug, Default)]
pub struct Stage(Arc<watch::Sender<HashMap<String, Phase>>>);

impl Stage {
    /// Waits until a call has reached `phase`.
    pub async fn reached(&self, name: &str, phase: Phase) {
        let mut phases = self.0.subscribe();
        let reached = phases.wait_for(|phases| phases.get(name) == Some(&phase));
        // The sender lives in `self`, so the channel stays open.
        let _ = soon(format_args!("'{name}' to be {phase:?}"), reached).await.expect("a stage");
    }

    /// The current phase of a call.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<Phase> {
        self.0.borrow().get(name).copied()
    }

    /// Lets a waiting call continue.
    pub fn release(&self, name: &str) {
        self.set(name, Phase::Released);
    }

    /// A tool that reports one step of progress, then waits for the test.
    #[must_use]
    pub fn holding(&self, tool_name: &str) -> Tool {
        let hold = |stage: Stage, name: String, ctx: Context| async move {
            ctx.report_progress(1.0, None, "waiting");
            stage.wait(&name).await;
            stage.set(&name, Phase::Finished);
            "held"
        };
        tool(tool_name, with_stage(self, hold))
            .description("Reports one step of progress, then waits for the test")
    }

    /// Like [`holding`](Self::holding), but the call ends by itself when it is cancelled.
    #[must_use]
    pub fn heeding(&self, tool_name: &str) -> Tool {
        let hold = |stage: Stage, name: String, ctx: Context| async move {
            tokio::select! {
                () = stage.wait(&name) => {}
                () = ctx.cancelled() => return Err(ToolError::new("cancelled")),
            }
            stage.set(&name, Phase::Finished);
            Ok("held")
        };
        tool(tool_name, with_stage(self, hold))
    }

    fn set(&self, name: &str, phase: Phase) {
        self.0.send_modify(|phases| {
            phases.insert(name.to_owned(), phase);
        });
    }

    /// Waits for the test. Sets [`Phase::Stopped`] when dropped early.
    async fn wait(&self, name: &str) {
        let dropped = Dropped(self, name);
        self.set(name, Phase::Waiting);
        let mut phases = self.0.subscribe();
        let released = phases.wait_for(|phases| phases.get(name) == Some(&Phase::Released));
        let _ = released.await;
        std::mem::forget(dropped);
    }
}

struct Dropped<'a>(&'a Stage, &'a str);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.set(self.1, Phase::Stopped);
    }
}

#[derive(Deserialize, JsonSchema)]
struct Text {
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Number {
    n: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Nap {
    ms: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Uri {
    uri: String,
}

#[derive(Deserialize, JsonSchema)]
struct Change {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Tools,
    Prompts,
    Resources,
}

#[derive(Deserialize, JsonSchema)]
struct Order {
    items: Vec<Position>,
}

#[derive(Deserialize, JsonSchema)]
struct Position {
    #[schemars(range(min = 1))]
    quantity: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Pair {
    a: i64,
    b: i64,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    sum: i64,
}

/// A tool that a test, or a call of `add`, adds.
pub(crate) fn small_tool(name: &str) -> Tool {
    tool(name, || async { "small" }).description("Was added later")
}

/// A resource that a test, or a call of `add`, adds.
pub(crate) fn small_resource(uri: &str) -> Resource {
    Resource::text(uri, "small", "small")
}

/// A prompt that a test, or a call of `add`, adds.
pub(crate) fn small_prompt(name: &str) -> Prompt {
    prompt(name, || async { "small" })
}

async fn add(args: Change, ctx: Context) -> Result<String, ToolError> {
    let item: Item = match args.kind {
        Kind::Tools => small_tool(&args.name).into(),
        Kind::Prompts => small_prompt(&args.name).into(),
        Kind::Resources => small_resource(&args.name).into(),
    };
    ctx.catalog().add(item).await?;
    Ok(format!("added {}", args.name))
}

async fn remove(args: Change, ctx: Context) -> Result<String, ToolError> {
    let kind = match args.kind {
        Kind::Tools => ItemKind::Tools,
        Kind::Prompts => ItemKind::Prompts,
        Kind::Resources => ItemKind::Resources,
    };
    ctx.catalog().apply([stentor::catalog::Mutation::remove(kind, args.name)]).await?;
    Ok("removed".to_owned())
}

async fn count(args: Number, ctx: Context) -> Result<&'static str, ToolError> {
    for n in 1..=args.n {
        ctx.report_progress(f64::from(n), Some(f64::from(args.n)), format_args!("step {n}"));
    }
    Ok("counted")
}

async fn count_paced(args: Number, ctx: Context) -> Result<&'static str, ToolError> {
    for n in 1..=args.n {
        ctx.report_progress_paced(f64::from(n), None, "").await;
    }
    Ok("counted")
}

async fn zigzag(ctx: Context) -> Result<&'static str, ToolError> {
    for progress in [1.0, 1.0, 0.5, 2.5, f64::NAN, f64::INFINITY, -1.0, 3.0] {
        ctx.report_progress(progress, None, "");
    }
    Ok("counted")
}

async fn log(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.debug("debug");
    ctx.info("info");
    ctx.notice("notice");
    ctx.warning("warning");
    ctx.error("error");
    ctx.critical("critical");
    ctx.alert("alert");
    ctx.emergency("emergency");
    ctx.log(LogLevel::Error, Some("disk"), json!({"free": 0}));
    Ok("logged")
}

async fn flood(args: Number, ctx: Context) -> Result<&'static str, ToolError> {
    let padding = "x".repeat(400);
    for n in 1..=args.n {
        ctx.info(json!({"n": n, "padding": padding}));
        if n % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok("flooded")
}

async fn nap(args: Nap, ctx: Context) -> Result<&'static str, ToolError> {
    ctx.report_progress(1.0, None, "asleep");
    tokio::time::sleep(Duration::from_millis(args.ms)).await;
    Ok("awake")
}

async fn tell(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.notify("notifications/example/told", json!({"n": 1}));
    Ok("told")
}

async fn who(ctx: Context) -> Result<String, ToolError> {
    let name = ctx.client_info().map_or("nobody", |info| &info.name);
    Ok(format!("{name} {} {}", ctx.era(), ctx.protocol_version()))
}

async fn touch(args: Uri, ctx: Context) -> Result<&'static str, ToolError> {
    ctx.send_resource_updated(&args.uri);
    Ok("touched")
}

async fn announce(args: Change, ctx: Context) -> Result<&'static str, ToolError> {
    match args.kind {
        Kind::Tools => ctx.send_tool_list_changed(),
        Kind::Prompts => ctx.send_prompt_list_changed(),
        Kind::Resources => ctx.send_resource_list_changed(),
    }
    Ok("announced")
}

async fn add_later(stage: Stage, name: String, catalog: CatalogHandle) {
    stage.wait(&name).await;
    catalog.add(small_tool(&name)).await.expect("a new tool");
    stage.set(&name, Phase::Finished);
}

async fn send_later(stage: Stage, name: String, ctx: Context) {
    stage.wait(&name).await;
    ctx.report_progress(2.0, None, "too late");
    ctx.emergency("too late");
    ctx.notify("notifications/example/late", json!({}));
    stage.set(&name, Phase::Finished);
}

async fn fail() -> Result<(), ToolError> {
    Err(ToolError::new("the printer is out of paper"))
}

async fn fail_by_question_mark() -> Result<String, ToolError> {
    Ok(String::from_utf8(vec![0xff])?)
}

async fn refuse() -> Result<(), ToolError> {
    Err(ToolError::protocol(
        ErrorObject::new(1234, "not today").with_data(json!({"day": "Monday"})),
    ))
}

async fn panic() -> Result<&'static str, ToolError> {
    tokio::task::yield_now().await;
    panic!("this panic is part of a test")
}

async fn sum(args: Pair) -> Result<Json<Sum>, ToolError> {
    Ok(Json(Sum { sum: args.a + args.b }))
}

async fn order(args: Order) -> Result<String, ToolError> {
    let total: u32 = args.items.iter().map(|position| position.quantity).sum();
    Ok(format!("ordered {total}"))
}

fn greet(args: &PromptArgs) -> String {
    let style = args.get("style").map_or("plain", String::as_str);
    format!("Greet {} in a {style} way.", args["name"])
}

fn complete_greet(completion: &Completion) -> Vec<String> {
    let mut all = match completion.argument.as_str() {
        "style" => vec!["formal".to_owned(), "friendly".to_owned(), "frank".to_owned()],
        _ => Vec::new(),
    };
    all.extend(completion.known.get("name").map(|name| format!("for {name}")));
    all.retain(|value| value.starts_with(&completion.value));
    all
}

fn with_stage<F, Fut>(
    stage: &Stage,
    run: F,
) -> impl Fn(Named, Context) -> Fut + Send + Sync + use<F, Fut>
where
    F: Fn(Stage, String, Context) -> Fut + Send + Sync,
{
    let stage = stage.clone();
    move |args, ctx| run(stage.clone(), args.name, ctx)
}

/// A server of the same name without any items. All nodes of a cluster have the same extensions.
pub(crate) fn bare() -> EngineBuilder {
    Engine::builder("fixture", "1.2.3")
        .instructions("Be gentle.")
        .extension(arithmetic())
        .capability("com.example/mood", json!({"good": true}))
}

#[derive(Deserialize, JsonSchema)]
struct Numbers {
    of: Vec<i64>,
}

/// An extension of the fixture's own.
fn arithmetic() -> Extension {
    extension("com.example/arithmetic")
        .settings(json!({"operations": ["sum"]}))
        .method("arithmetic/sum", async |sum: Numbers, ctx: Context| -> Result<Value, ToolError> {
            let total: i64 = sum.of.iter().sum();
            ctx.report_progress(1.0, Some(1.0), "added");
            ctx.notify_all("notifications/arithmetic/summed", json!({"total": total})).await?;
            Ok(json!({"total": total}))
        })
        .notification("notifications/arithmetic/summed", "arithmeticSummed")
}

/// The engine of all suites, not started yet.
pub(crate) fn engine(stage: &Stage) -> EngineBuilder {
    let region = json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "limit": {"type": "integer", "x-mcp-header": "Limit"},
        "note": {"type": "string"},
    }});
    let ticks = AtomicU64::new(0);
    bare()
        .tool(tool("echo", |args: Text| async { args.text }))
        .tool(tool("count", count))
        .tool(tool("count_paced", count_paced))
        .tool(tool("zigzag", zigzag))
        .tool(tool("log", log))
        .tool(tool("flood", flood))
        .tool(tool("nap", nap))
        .tool(tool("tell", tell))
        .tool(tool("who", who))
        .tool(tool("add", add))
        .tool(tool("remove", remove))
        .tool(tool("announce", announce))
        .tool(tool("touch", touch))
        .tool(stage.holding("hold"))
        .tool(
            tool(
                "background",
                with_stage(stage, |stage, name, ctx: Context| async move {
                    tokio::spawn(add_later(stage, name, ctx.catalog()));
                    "later"
                }),
            )
            .description("Adds a tool when the test says so, long after it was answered"),
        )
        .tool(
            tool(
                "linger",
                with_stage(stage, |stage, name, ctx: Context| async move {
                    ctx.report_progress(1.0, None, "in time");
                    tokio::spawn(send_later(stage, name, ctx));
                    "answered"
                }),
            )
            .description("Speaks when the test says so, long after it was answered"),
        )
        .tool(tool("fail", fail))
        .tool(tool("fail_by_question_mark", fail_by_question_mark))
        .tool(tool("refuse", refuse))
        .tool(tool("panic", panic))
        .tool(tool("panic_at_once", || -> std::future::Ready<Result<(), ToolError>> {
            panic!("this panic is part of a test")
        }))
        .tool(tool("sum", sum))
        .tool(tool("order", order))
        .tool(raw_tool("region", region, |args: Value| async move {
            args["region"].as_str().unwrap_or("nowhere").to_owned()
        }))
        .tool(tool("größe", || async { "groß" }))
        .resource(Resource::text(MARK, "mark", "mark"))
        .resource(Resource::text("test://static", "static", "It never changes."))
        .resource(resource("test://clock", "clock", move |ctx: Context| {
            let tick = ticks.fetch_add(1, Ordering::Relaxed);
            async move { format!("{} tick {tick}", ctx.uri()) }
        }))
        .resource(
            resource("test://bytes", "bytes", || async { vec![0_u8, 255] })
                .mime_type("application/octet-stream"),
        )
        .resource(resource("test://panic", "panic", panic))
        .resource(resource("test://broken", "broken", || async {
            Err::<String, _>(ResourceError::new("the disk is gone"))
        }))
        .resource_template(
            resource_template("test://users/{id}", "users", |vars: TemplateVars| async move {
                format!("user {}", vars["id"])
            })
            .complete(|completion: Completion| async move {
                let ids = ["10", "11", "20"].map(str::to_owned);
                ids.into_iter().filter(|id| id.starts_with(&completion.value)).collect()
            }),
        )
        .prompt(
            prompt("greet", |args: PromptArgs| async move { greet(&args) })
                .description("Greets somebody")
                .argument("name", "Who is greeted", true)
                .argument("style", "How", false)
                .complete(|completion| async move { complete_greet(&completion) }),
        )
        .prompt(prompt("panic", panic))
}
