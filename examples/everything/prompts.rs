//! Prompts of every kind: with and without arguments, with a resource, with an image.

use stentor::protocol::model::{ContentBlock, PromptMessage, ResourceContents, Role};
use stentor::{
    EngineBuilder,
    handler::{Completion, PromptArgs, PromptError},
    prompt,
};

use super::content::PNG;

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .prompt(prompt("test_simple_prompt", simple).description("A prompt without arguments"))
        .prompt(
            prompt("test_prompt_with_arguments", with_arguments)
                .description("A prompt with two arguments")
                .argument("arg1", "The first one", true)
                .argument("arg2", "The second one", true)
                .complete(complete),
        )
        .prompt(
            prompt("test_prompt_with_embedded_resource", with_resource)
                .description("A prompt about a resource")
                .argument("resourceUri", "The URI of the resource", true),
        )
        .prompt(prompt("test_prompt_with_image", with_image).description("A prompt about an image"))
}

async fn simple() -> Result<&'static str, PromptError> {
    Ok("This is a simple prompt for testing.")
}

async fn with_arguments(args: PromptArgs) -> Result<String, PromptError> {
    Ok(format!("Prompt with arguments: arg1='{}', arg2='{}'", args["arg1"], args["arg2"]))
}

async fn complete(completion: Completion) -> Vec<String> {
    let known = ["test", "test-value", "another-value"];
    let fitting = known.into_iter().filter(|known| known.starts_with(&completion.value));
    fitting.map(str::to_owned).collect()
}

async fn with_resource(args: PromptArgs) -> Result<Vec<PromptMessage>, PromptError> {
    let text = "Embedded resource content for testing.";
    let resource = ResourceContents::text(text, &args["resourceUri"]);
    Ok(vec![
        PromptMessage::new(Role::User, ContentBlock::resource(resource)),
        PromptMessage::new_text(Role::User, "Please process the embedded resource above."),
    ])
}

async fn with_image() -> Result<Vec<PromptMessage>, PromptError> {
    Ok(vec![
        PromptMessage::new(Role::User, ContentBlock::image(PNG, "image/png")),
        PromptMessage::new_text(Role::User, "Please analyze the image above."),
    ])
}
