//! Tools that change what is offered, and what users may see and do, while they are connected.

use schemars::JsonSchema;
use serde::Deserialize;
use stentor::{Context, EngineBuilder, State, ToolError, tool};

use crate::grants::Grants;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Switch {
    on: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Grant {
    principal: String,
    label: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Revoke {
    principal: String,
    cancel_calls: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Touch {
    uri: String,
}

/// Only the clients whose list differs are told of it.
async fn toggle_admin_tool(args: Switch, ctx: Context) -> Result<String, ToolError> {
    let extra = tool("admin_extra", || async { "extra" })
        .description("More for administrators")
        .only_for(["admin"])
        .require_scope("mcp:write");
    match args.on {
        true => drop(ctx.catalog().put(extra).await?),
        false => drop(ctx.catalog().remove_tool("admin_extra").await?),
    }
    Ok(format!("on: {}", args.on))
}

async fn toggle_public_tool(args: Switch, ctx: Context) -> Result<String, ToolError> {
    let extra = tool("public_extra", || async { "extra" }).description("More for everybody");
    match args.on {
        true => drop(ctx.catalog().put(extra).await?),
        false => drop(ctx.catalog().remove_tool("public_extra").await?),
    }
    Ok(format!("on: {}", args.on))
}

async fn grant(args: Grant, State(grants): State<Grants>, ctx: Context) -> String {
    grants.change(&args.principal, |labels| {
        labels.insert(args.label);
    });
    let changed = ctx.engine().refresh_visibility(&args.principal).await;
    format!("{changed} clients see other lists")
}

async fn revoke_label(args: Grant, State(grants): State<Grants>, ctx: Context) -> String {
    grants.change(&args.principal, |labels| {
        labels.remove(&args.label);
    });
    let changed = ctx.engine().refresh_visibility(&args.principal).await;
    format!("{changed} clients see other lists")
}

async fn revoke(args: Revoke, ctx: Context) -> &'static str {
    let cancel_calls = args.cancel_calls.unwrap_or(false);
    ctx.engine().revoke(&args.principal).cancel_calls(cancel_calls).await;
    "revoked"
}

async fn touch(args: Touch, ctx: Context) -> &'static str {
    ctx.engine().send_resource_updated(&args.uri);
    "told"
}

/// A real server has these tools for administrators only.
pub(crate) fn add(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(
            tool("toggle_admin_tool", toggle_admin_tool)
                .description("Adds or removes a tool for administrators"),
        )
        .tool(
            tool("toggle_public_tool", toggle_public_tool)
                .description("Adds or removes a tool for everybody"),
        )
        .tool(tool("grant", grant).description("Gives a user a label"))
        .tool(tool("revoke_label", revoke_label).description("Takes a label from a user"))
        .tool(tool("revoke", revoke).description("Locks a user out"))
        .tool(tool("touch", touch).description("Announces that a resource changed"))
}
