//! Questions with keys, for clients that retry: one, several together, several in turn. The code
//! continues where it waited, in both eras; only `request_state` runs again.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stentor::{
    Context, EngineBuilder, ToolError,
    ask::{AskError, Elicit, InputRequired, Sample},
    prompt, tool,
};

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(
            tool("test_input_required_result_elicitation", greeting)
                .description("Asks the user for a name"),
        )
        .tool(
            tool("test_input_required_result_sampling", capital)
                .description("Asks the client's model for a capital"),
        )
        .tool(
            tool("test_input_required_result_list_roots", list_roots)
                .description("Asks the client for its roots"),
        )
        .tool(
            tool("test_input_required_result_request_state", request_state)
                .description("Asks the user to confirm, and keeps its state with the client"),
        )
        .tool(
            tool("test_input_required_result_multiple_inputs", multiple_inputs)
                .description("Asks the user, the model and the client at once"),
        )
        .tool(
            tool("test_input_required_result_multi_round", multi_round)
                .description("Asks the user twice, one after the other"),
        )
        .tool(
            tool("test_input_required_result_tampered_state", confirmation)
                .description("Asks the user to confirm"),
        )
        .tool(
            tool("test_input_required_result_capabilities", capabilities)
                .description("Asks the user, or the model where the user cannot be asked"),
        )
        .prompt(
            prompt("test_input_required_result_prompt", with_context)
                .description("A prompt that asks the user for its context"),
        )
}

/// Asks the user to fill in a form, under this key.
async fn ask<T: DeserializeOwned + JsonSchema>(
    ctx: &Context,
    key: &str,
    message: &str,
) -> Result<T, AskError> {
    let content = ctx.elicit_with(Elicit::form::<T>(message).key(key)).await?;
    serde_json::from_value(content.into()).map_err(|error| AskError::Invalid(error.to_string()))
}

#[derive(Deserialize, JsonSchema)]
struct Person {
    name: String,
}

async fn greeting(ctx: Context) -> Result<String, AskError> {
    let person: Person = ask(&ctx, "user_name", "What is your name?").await?;
    Ok(format!("Hello, {}!", person.name))
}

async fn capital(ctx: Context) -> Result<String, AskError> {
    let question = Sample::new(100).user("What is the capital of France?").key("capital_question");
    Ok(ctx.sample(question).await?.text())
}

async fn list_roots(ctx: Context) -> Result<String, AskError> {
    let roots = ctx.list_roots().await?;
    let uris: Vec<_> = roots.into_iter().map(|root| root.uri).collect();
    Ok(format!("The roots are {}", uris.join(", ")))
}

#[derive(Deserialize, JsonSchema)]
struct Confirmed {
    ok: bool,
}

/// Runs twice: the first request ends with the question, the second contains the answer.
async fn request_state(ctx: Context) -> Result<&'static str, ToolError> {
    let asked_before = ctx.request_state().is_some_and(|state| state == "asked");
    match ctx.input_responses().get("confirm").filter(|_| asked_before) {
        Some(answer) if answer["action"] == "accept" => Ok("state-ok"),
        Some(_) => Err(ToolError::new("The user did not confirm")),
        None => {
            let confirm = Elicit::form::<Confirmed>("Please confirm");
            let asked = InputRequired::new().elicit("confirm", &confirm).state("asked");
            Err(ToolError::input_required(asked))
        }
    }
}

async fn multiple_inputs(ctx: Context) -> Result<String, AskError> {
    let (person, greeting, roots) = tokio::try_join!(
        ask::<Person>(&ctx, "user_name", "What is your name?"),
        ctx.sample(Sample::new(50).user("Generate a greeting").key("greeting")),
        ctx.list_roots(),
    )?;
    Ok(format!("{} {} has {} roots", greeting.text(), person.name, roots.len()))
}

#[derive(Deserialize, JsonSchema)]
struct Favorite {
    color: String,
}

async fn multi_round(ctx: Context) -> Result<String, AskError> {
    let person: Person = ask(&ctx, "step1", "Step 1: What is your name?").await?;
    let favorite: Favorite = ask(&ctx, "step2", "Step 2: What is your favorite color?").await?;
    Ok(format!("{} likes {}", person.name, favorite.color))
}

async fn confirmation(ctx: Context) -> Result<&'static str, AskError> {
    let confirmed: Confirmed = ask(&ctx, "confirm", "Please confirm").await?;
    Ok(if confirmed.ok { "Confirmed" } else { "Not confirmed" })
}

async fn capabilities(ctx: Context) -> Result<String, AskError> {
    match greeting(ctx.clone()).await {
        Err(AskError::Unsupported(_)) => capital(ctx).await,
        answered => answered,
    }
}

#[derive(Deserialize, JsonSchema)]
struct Topic {
    context: String,
}

async fn with_context(ctx: Context) -> Result<String, AskError> {
    let topic: Topic = ask(&ctx, "user_context", "What context should the prompt use?").await?;
    Ok(format!("Use this context: {}", topic.context))
}
