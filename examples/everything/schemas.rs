//! What a tool can require of its caller: a handwritten schema, a header, a capability.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stentor::{Context, EngineBuilder, ToolError, protocol::ErrorObject, raw_tool, tool};

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(
            raw_tool("json_schema_2020_12_tool", contact_schema(), contact)
                .description("Has a schema that uses what only JSON Schema 2020-12 has"),
        )
        .tool(
            tool("test_custom_header", custom_header)
                .description("Returns a value that HTTP clients also send as a header"),
        )
        .tool(
            tool("test_missing_capability", missing_capability)
                .description("Can be called only by clients that can sample"),
        )
}

fn contact_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            },
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {
            "properties": {"contactMethod": {"const": "phone"}},
            "required": ["contactMethod"],
        },
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

async fn contact(arguments: Value, _ctx: Context) -> Result<String, ToolError> {
    Ok(format!("The arguments fit: {arguments}"))
}

#[derive(Deserialize, JsonSchema)]
struct Mirrored {
    /// What the tool returns.
    #[serde(default)]
    #[schemars(extend("x-mcp-header" = "Value"))]
    value: String,
}

async fn custom_header(args: Mirrored) -> Result<String, ToolError> {
    Ok(args.value)
}

async fn missing_capability(ctx: Context) -> Result<&'static str, ToolError> {
    if ctx.client_capabilities().sampling.is_none() {
        let required = json!({"sampling": {}});
        return Err(ToolError::protocol(ErrorObject::missing_capability(required)));
    }
    Ok("The client can sample")
}
