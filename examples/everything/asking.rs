//! Questions to the model and to the user. The code waits for the answer, in both eras.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stentor::{
    Context, EngineBuilder, ToolError,
    ask::{AskError, Elicit, Sample},
    tool,
};

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    server
        .tool(tool("test_sampling", sampling).description("Passes a prompt to the client's model"))
        .tool(tool("test_elicitation", elicitation).description("Asks the user for two texts"))
        .tool(
            tool("test_elicitation_sep1034_defaults", defaults)
                .description("Asks the user with a default for each kind of field"),
        )
        .tool(
            tool("test_elicitation_sep1330_enums", enums)
                .description("Asks the user to choose, in each of the five ways"),
        )
        .tool(
            tool("test_streaming_elicitation", streaming)
                .description("Writes a log message, then asks the user"),
        )
}

#[derive(Deserialize, JsonSchema)]
struct Prompt {
    /// What the model is told.
    prompt: String,
}

async fn sampling(args: Prompt, ctx: Context) -> Result<String, AskError> {
    let sampled = ctx.sample(Sample::new(100).user(args.prompt)).await?;
    Ok(format!("LLM response: {}", sampled.text()))
}

#[derive(Deserialize, JsonSchema)]
struct Message {
    /// What the user is told.
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Account {
    /// User's response
    username: String,
    /// User's email address
    email: String,
}

async fn elicitation(args: Message, ctx: Context) -> Result<String, AskError> {
    let Account { username, email } = ctx.elicit(args.message).await?;
    Ok(format!("User response: {username}, {email}"))
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Profile {
    name: String,
    age: i32,
    score: f64,
    status: Status,
    verified: bool,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Active,
    Inactive,
    Pending,
}

impl Default for Profile {
    fn default() -> Self {
        let (name, status) = ("John Doe".to_owned(), Status::Active);
        Self { name, age: 30, score: 95.5, status, verified: true }
    }
}

async fn defaults(ctx: Context) -> Result<String, ToolError> {
    let profile: Profile = ctx.elicit("Who are you?").await?;
    Ok(format!("Elicitation completed: {}", serde_json::to_string(&profile)?))
}

async fn enums(ctx: Context) -> Result<String, ToolError> {
    let options = json!(["option1", "option2", "option3"]);
    let titled = json!([
        {"const": "value1", "title": "First"},
        {"const": "value2", "title": "Second"},
        {"const": "value3", "title": "Third"},
    ]);
    let schema = json!({
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": options},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        },
    });
    let form = Elicit::schema("Choose", schema);
    let chosen = ctx.elicit_with(form).await?;
    Ok(format!("Elicitation completed: {}", serde_json::to_string(&chosen)?))
}

async fn streaming(ctx: Context) -> Result<String, AskError> {
    ctx.info("Asks the user now");
    let account: Account = ctx.elicit("Who are you?").await?;
    Ok(format!("Hello, {}!", account.username))
}
