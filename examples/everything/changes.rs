//! Tools that change the catalog. They send no notices: the engine notifies all clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use stentor::{
    Context, EngineBuilder, Tool, ToolError,
    catalog::{ItemKind, Mutation},
    prompt, tool,
};
use tokio::sync::Mutex;

const DYNAMIC_TOOL: &str = "test_dynamic_tool";
const DYNAMIC_PROMPT: &str = "test_dynamic_prompt";

/// The most tools that may be added, because a client may call these tools without end.
const MOST_ADDED: usize = 1_000;

/// The names of the added tools. Locked during a change.
type Added = Arc<Mutex<BTreeSet<String>>>;

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    let added = Added::default();
    let (add, remove, replace) = (added.clone(), added.clone(), added);
    server
        .tool(
            tool("test_trigger_tool_change", trigger_tool_change)
                .description("Adds a tool, or removes it if it is there"),
        )
        .tool(
            tool("test_trigger_prompt_change", trigger_prompt_change)
                .description("Adds a prompt, or removes it if it is there"),
        )
        .tool(
            tool("add_tool", move |args, ctx| add_tool(add.clone(), args, ctx))
                .description("Adds a tool"),
        )
        .tool(
            tool("remove_tool", move |args, ctx| remove_tool(remove.clone(), args, ctx))
                .description("Removes a tool that was added"),
        )
        .tool(
            tool("replace_tools", move |args, ctx| replace_tools(replace.clone(), args, ctx))
                .description("Makes exactly these the tools that were added"),
        )
}

async fn trigger_tool_change(ctx: Context) -> Result<&'static str, ToolError> {
    let catalog = ctx.catalog();
    if !catalog.remove_tool(DYNAMIC_TOOL).await? {
        catalog.put(dynamic_tool(DYNAMIC_TOOL)).await?;
    }
    Ok("Changed the list of tools")
}

async fn trigger_prompt_change(ctx: Context) -> Result<&'static str, ToolError> {
    let catalog = ctx.catalog();
    if !catalog.remove_prompt(DYNAMIC_PROMPT).await? {
        let added = prompt(DYNAMIC_PROMPT, async || "I come and go.");
        catalog.put(added.description("A prompt that comes and goes")).await?;
    }
    Ok("Changed the list of prompts")
}

fn dynamic_tool(name: &str) -> Tool {
    let answer = format!("This is {name}.");
    let answers = move || std::future::ready(answer.clone());
    tool(name, answers).description("A tool that was added while the server runs")
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// The name of the tool.
    #[schemars(length(min = 1, max = 128))]
    name: String,
}

async fn add_tool(added: Added, args: Named, ctx: Context) -> Result<String, ToolError> {
    let mut added = added.lock().await;
    if added.len() >= MOST_ADDED && !added.contains(&args.name) {
        return Err(ToolError::new(format!("{MOST_ADDED} tools were added; remove one first")));
    }
    let new = dynamic_tool(&args.name);
    let change = if added.contains(&args.name) {
        // A new description each time: an identical tool would be no change.
        let edition = ctx.catalog().snapshot().revision();
        let described = new.description(format!("A tool that was added anew, after {edition}"));
        ctx.catalog().put(described).await?
    } else {
        ctx.catalog().add(new).await?
    };
    let answer = format!("Added the tool {}, which is revision {}", args.name, change.revision);
    added.insert(args.name);
    Ok(answer)
}

async fn remove_tool(added: Added, args: Named, ctx: Context) -> Result<String, ToolError> {
    let name = args.name;
    let mut added = added.lock().await;
    if !added.contains(&name) {
        return Ok(format!("No tool {name} was added"));
    }
    ctx.catalog().remove_tool(&name).await?;
    added.remove(&name);
    Ok(format!("Removed the tool {name}"))
}

#[derive(Deserialize, JsonSchema)]
struct Names {
    /// The names of the tools.
    #[schemars(length(max = 1_000), inner(length(min = 1, max = 128)))]
    names: BTreeSet<String>,
}

async fn replace_tools(added: Added, args: Names, ctx: Context) -> Result<String, ToolError> {
    let mut added = added.lock().await;
    let removed = added.difference(&args.names).cloned();
    let new = args.names.difference(&added).map(|name| dynamic_tool(name));
    let change = removed
        .map(|name| Mutation::remove(ItemKind::Tools, name))
        .chain(new.map(|tool| Mutation::Add(tool.into())));
    ctx.catalog().apply(change).await?;
    *added = args.names;
    Ok(format!("There are {} added tools now", added.len()))
}
