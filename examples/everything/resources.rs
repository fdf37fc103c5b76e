//! Resources of every kind: text, bytes, one to watch, and a template.

use serde_json::json;
use stentor::protocol::model::ResourceContents;
use stentor::{
    Context, EngineBuilder, Resource,
    handler::{ResourceError, TemplateVars},
    resource, resource_template,
};

use super::content::PNG;

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    let static_text = "This is the content of the static text resource.";
    server
        .resource(
            Resource::text("test://static-text", "static-text", static_text)
                .description("A text that never changes"),
        )
        .resource(
            resource("test://static-binary", "static-binary", static_binary)
                .description("An image that never changes")
                .mime_type("image/png"),
        )
        .resource(
            Resource::text("test://watched-resource", "watched-resource", "Touch me.")
                .description("A text to subscribe to; touch_resource announces that it changed"),
        )
        .resource_template(
            resource_template("test://template/{id}/data", "template", template_data)
                .description("Data of any id")
                .mime_type("application/json"),
        )
}

async fn static_binary(ctx: Context) -> Result<ResourceContents, ResourceError> {
    Ok(ResourceContents::blob(PNG, ctx.uri()))
}

async fn template_data(vars: TemplateVars, _ctx: Context) -> Result<String, ResourceError> {
    let id = &vars["id"];
    let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
    Ok(data.to_string())
}
