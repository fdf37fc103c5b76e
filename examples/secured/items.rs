//! What is offered, and to whom.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use stentor::handler::AsTask;
use stentor::{
    Context, EngineBuilder, OptionalAnswer as _, Shown, ToolError, prompt, resource,
    resource_template, tool,
};
use tokio::time::{Instant, sleep};

/// How often `wipe` ran in this process.
static WIPED: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Report {
    /// Report progress first, so that the answer is an event stream.
    late: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Area {
    area: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    /// Why everything is to be wiped.
    #[expect(dead_code, reason = "the state of the question is bound to it")]
    why: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Zone {
    /// Repeated in a header of the request, so that a proxy can route by it.
    #[serde(default)]
    #[schemars(extend("x-mcp-header" = "Zone"))]
    zone: String,
}

#[derive(Deserialize, JsonSchema)]
struct Confirmation {
    ok: bool,
}

/// Who calls, as the server sees it.
async fn whoami(_: Nothing, ctx: Context) -> String {
    let identity = ctx.identity();
    let scopes: Vec<_> = identity.iter().flat_map(|it| it.granted_scopes()).collect();
    let client = identity.and_then(|it| it.client_id());
    json!({"principal": ctx.principal(), "client": client, "scopes": scopes}).to_string()
}

/// The code itself asks for a scope.
async fn read_report(report: Report, ctx: Context) -> Result<&'static str, ToolError> {
    if report.late == Some(true) {
        ctx.report_progress(1.0, None, "looking for the report");
        sleep(Duration::from_millis(400)).await;
    }
    ctx.require_scope("mcp:read")?;
    Ok("all is well")
}

async fn wipe(_: Nothing) -> String {
    format!("wiped {}", WIPED.fetch_add(1, Ordering::Relaxed) + 1)
}

async fn scoped(area: Area) -> String {
    format!("you may enter area {}", area.area)
}

/// Reports progress for so many seconds.
async fn report_for(seconds: f64, word: &str, ctx: Context) -> Result<&'static str, ToolError> {
    let end = Instant::now() + Duration::try_from_secs_f64(seconds).map_err(Shown)?;
    let mut count = 0;
    while Instant::now() < end {
        count += 1;
        ctx.report_progress(f64::from(count), None, format_args!("{word} {count}"));
        sleep(Duration::from_millis(200).min(end - Instant::now())).await;
    }
    Ok("done")
}

async fn slow(args: Seconds, ctx: Context) -> Result<&'static str, ToolError> {
    report_for(args.seconds, "slow", ctx).await
}

async fn slow_write(args: Seconds, ctx: Context) -> Result<&'static str, ToolError> {
    report_for(args.seconds, "secret", ctx).await
}

async fn long_task(args: Seconds) -> Result<&'static str, ToolError> {
    sleep(Duration::try_from_secs_f64(args.seconds).map_err(Shown)?).await;
    Ok("task done")
}

async fn confirm(_: Why, ctx: Context) -> Result<&'static str, ToolError> {
    let answer = ctx.elicit::<Confirmation>("Wipe everything?").await.optional()?;
    Ok(if answer.is_some_and(|it| it.ok) { "confirmed" } else { "kept" })
}

/// The tools, resources and prompts that are always there.
pub(crate) fn add(server: EngineBuilder) -> EngineBuilder {
    let area = |call: &stentor::handler::ScopeRequest<'_>| {
        let area = call.text("area").unwrap_or_default();
        ["mcp:area".to_owned(), format!("mcp:area:{area}")]
    };
    server
        .tool(tool("whoami", whoami).description("Tells who calls"))
        .tool(tool("read_report", read_report).description("Reads the report"))
        .tool(tool("wipe", wipe).description("Wipes everything").require_scope("mcp:write"))
        .tool(tool("scoped", scoped).description("Enters an area").require(area))
        .tool(tool("slow", slow).description("Takes its time"))
        .tool(
            tool("slow_write", slow_write)
                .description("Takes its time and writes")
                .require_scope("mcp:write"),
        )
        .tool(
            tool("long_task", long_task)
                .description("Becomes a task")
                .as_task(AsTask::WhenPossible),
        )
        .tool(
            tool("confirm_wipe", confirm)
                .description("Asks before it wipes")
                .require_scope("mcp:write"),
        )
        .tool(tool("confirm_twin", confirm).description("The same").require_scope("mcp:write"))
        .tool(
            tool("admin_only", |it: Zone| async move { format!("welcome {}", it.zone) })
                .description("Only administrators see it")
                .only_for(["admin"]),
        )
        .resource(resource("open://notes", "notes", || async { "for everybody" }))
        .resource(resource("secret://plans", "plans", || async { "great" }).only_for(["admin"]))
        .resource(
            resource("ledger://2026", "ledger", || async { "1,000" }).require_scope("mcp:write"),
        )
        .resource_template(resource_template("secret://{name}", "secrets", secret))
        .resource_template(
            resource_template("vault://{id}", "vault", || async { "gold" })
                .complete(|_| async { vec!["1".to_owned(), "2".to_owned()] })
                .only_for(["admin"]),
        )
        .prompt(prompt("hello", || async { "Say hello." }))
        .prompt(
            prompt("admin_prompt", topic)
                .complete(|_| async { vec!["budget".to_owned(), "people".to_owned()] })
                .only_for(["admin"]),
        )
        .prompt(prompt("ledger_prompt", || async { "Sum it up." }).require_scope("mcp:write"))
}

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
}

async fn secret(secret: Name) -> String {
    format!("open {}", secret.name)
}

#[derive(Deserialize, JsonSchema)]
struct Topic {
    topic: String,
}

async fn topic(args: Topic) -> String {
    format!("Report on {}.", args.topic)
}
