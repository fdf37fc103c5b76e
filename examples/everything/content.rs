//! Every kind of content that a tool can return.

use stentor::protocol::model::{ContentBlock, ResourceContents};
use stentor::{EngineBuilder, ToolError, tool};

/// One white pixel.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg==";

/// Four samples of silence.
const WAV: &str = "UklGRigAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQQAAACAgICA";

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(tool("test_simple_text", simple_text).description("Returns a text"))
        .tool(tool("test_image_content", image).description("Returns an image"))
        .tool(tool("test_audio_content", audio).description("Returns a sound"))
        .tool(tool("test_embedded_resource", embedded).description("Returns a whole resource"))
        .tool(
            tool("test_multiple_content_types", mixed)
                .description("Returns a text, an image and a resource"),
        )
        .tool(tool("test_error_handling", error).description("Returns an error that models read"))
}

async fn simple_text() -> Result<&'static str, ToolError> {
    Ok("This is a simple text response for testing.")
}

async fn image() -> Result<ContentBlock, ToolError> {
    Ok(ContentBlock::image(PNG, "image/png"))
}

async fn audio() -> Result<ContentBlock, ToolError> {
    Ok(ContentBlock::audio(WAV, "audio/wav"))
}

async fn embedded() -> Result<ContentBlock, ToolError> {
    let text = "This is an embedded resource content.";
    Ok(ContentBlock::resource(ResourceContents::text(text, "test://embedded-resource")))
}

async fn mixed() -> Result<Vec<ContentBlock>, ToolError> {
    let json = r#"{"test":"data","value":123}"#;
    let resource = ResourceContents::text(json, "test://mixed-content-resource");
    Ok(vec![
        ContentBlock::text("Multiple content types test:"),
        ContentBlock::image(PNG, "image/png"),
        ContentBlock::resource(resource.with_mime_type("application/json")),
    ])
}

async fn error() -> Result<(), ToolError> {
    Err(ToolError::new("This tool intentionally returns an error for testing"))
}
