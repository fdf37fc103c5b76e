//! Items that `#[tool]`, `#[prompt]` and `#[resource]` make are those that the functions make.

use std::net::SocketAddr;

use serde_json::{Value, json};
use stentor::http::{HttpConfig, serve_on};
use stentor::{Context, Engine, EngineBuilder, State, prompt, protocol::Era, resource, tool};
use stentor_tests::Client;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// Adds two numbers.
///
/// Both are whole.
#[tool(title = "Add")]
async fn add(
    /// The first number.
    mut a: i64,
    ctx: Context,
    /// The second number.
    b: Option<i64>,
    #[serde(default)]
    #[schemars(range(max = 3))]
    r#type: u8,
) -> String {
    ctx.info("adding");
    a += b.unwrap_or(1);
    format!("{a} {type}", r#type = r#type)
}

/// Not the description.
#[tool(name = "clock", description = "Tells the time", resumable)]
pub(crate) async fn noon() -> &'static str {
    "12:00"
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Person {
    name: String,
}

type ToolContext = Context;

#[stentor::tool(crate = ::stentor)]
async fn greet(#[args] Person { name }: Person, #[extract] _ctx: ToolContext) -> String {
    format!("Hello, {name}!")
}

/// Asks for a review.
#[prompt(title = "Review")]
async fn review(
    /// What to review
    code: String,
    why: Option<String>,
    words: Option<u32>,
    State(greeting): State<&'static str>,
) -> String {
    let _why = why;
    format!("{greeting}Review this code:\n{code}{}", words.map_or(String::new(), |n| n.to_string()))
}

/// How to begin.
#[resource("docs://readme", mime_type = "text/markdown", size = 9)]
async fn readme(_: Context) -> &'static str {
    "# Read me"
}

/// One user.
#[resource("db://users/{id}", name = "users")]
async fn user(id: u64, ctx: Context) -> String {
    format!("user {id} at {}", ctx.uri())
}

fn items(builder: EngineBuilder) -> EngineBuilder {
    let builder = builder.state("").tool(add()).tool(noon()).tool(greet()).prompt(review());
    // The function of the same name is there, too.
    let plain = tool("plain", || async { "plain" });
    builder.resource(readme()).resource_template(user()).tool(plain)
}

/// A client of a server with the items, and what serves it.
async fn client() -> (Client, AbortOnDropHandle<()>) {
    let engine = items(Engine::builder("macros", "1")).start().await.expect("valid items");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let never = std::future::pending::<()>();
        serve_on(engine, listener, HttpConfig::default(), never).await.expect("serving");
    });
    let client = Client::at(address, Era::Modern, json!({})).await;
    (client, AbortOnDropHandle::new(serving))
}

async fn listed(client: &Client, kind: &str, name: &str) -> Value {
    let (_, member) = kind.rsplit_once('/').unwrap_or(("", kind));
    let member = if member == "templates" { "resourceTemplates" } else { member };
    let list = client.ask(&format!("{kind}/list"), json!({})).await;
    let all = list[member].as_array().expect("a list");
    all.iter().find(|it| it["name"] == name).expect("it is listed").clone()
}

#[tokio::test]
async fn the_parameters_of_a_function_are_the_arguments_of_its_tool() {
    let (client, _served) = client().await;
    let add = listed(&client, "tools", "add").await;
    assert_eq!(add["title"], "Add");
    assert_eq!(add["description"], "Adds two numbers.\n\nBoth are whole.");
    let schema = &add["inputSchema"];
    assert_eq!(schema["required"], json!(["a"]));
    assert_eq!(schema["properties"]["a"]["description"], "The first number.");
    assert_eq!(schema["properties"]["b"]["description"], "The second number.");
    assert_eq!(schema["properties"]["type"]["maximum"], 3);
    assert_eq!(schema["properties"].as_object().map(|it| it.len()), Some(3));
    assert!(schema.get("title").is_none() && schema.get("description").is_none(), "{schema}");

    let answer = client.call("add", json!({"a": 1, "b": 2, "type": 3})).await;
    assert_eq!(answer.result()["content"][0]["text"], "3 3");
    assert_eq!(client.call("add", json!({"a": 1})).await.result()["content"][0]["text"], "2 0");
    assert_eq!(client.call("add", json!({"b": 1})).await.result()["isError"], true);
}

#[tokio::test]
async fn options_are_the_setters_of_the_item() {
    let (client, _served) = client().await;
    let clock = listed(&client, "tools", "clock").await;
    assert_eq!(clock["description"], "Tells the time");
    assert_eq!(client.call("clock", json!({})).await.result()["content"][0]["text"], "12:00");
}

#[tokio::test]
async fn a_type_of_ones_own_receives_all_arguments() {
    let (client, _served) = client().await;
    let answer = client.call("greet", json!({"name": "Ada"})).await;
    assert_eq!(answer.result()["content"][0]["text"], "Hello, Ada!");
    assert_eq!(client.call("plain", json!({})).await.result()["content"][0]["text"], "plain");
}

#[tokio::test]
async fn a_prompt_and_resources_are_made_in_the_same_way() {
    let (client, _served) = client().await;
    let review = listed(&client, "prompts", "review").await;
    assert_eq!(review["description"], "Asks for a review.");
    assert_eq!(review["arguments"].as_array().map(Vec::len), Some(3));
    assert_eq!(review["arguments"][0]["description"], "What to review");
    let asked = json!({"name": "review", "arguments": {"code": "fn"}});
    let prompt = client.ask("prompts/get", asked).await;
    assert_eq!(prompt["messages"][0]["content"]["text"], "Review this code:\nfn");

    let readme = listed(&client, "resources", "readme").await;
    assert_eq!((&readme["uri"], &readme["size"]), (&json!("docs://readme"), &json!(9)));
    let users = listed(&client, "resources/templates", "users").await;
    assert_eq!(users["uriTemplate"], "db://users/{id}");
    assert_eq!(users["description"], "One user.");
    for (uri, text) in [("docs://readme", "# Read me"), ("db://users/7", "user 7 at db://users/7")]
    {
        let contents = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(contents["contents"][0]["text"], text);
    }
}
