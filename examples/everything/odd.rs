//! Types that clients may not handle: as arguments, as results, and in forms.
//!
//! Each tool has arguments for a call in its `_meta`, as `example`.
#![allow(dead_code, reason = "what comes in is sent back as it came")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stentor::protocol::model::{CallToolResult, ContentBlock, JsonObject, MetaObject, Resource};
use stentor::{Context, EngineBuilder, Json, Tool, ToolError, handler::AsTask, raw_tool, tool};

pub(crate) fn offer(server: EngineBuilder) -> EngineBuilder {
    arguments().into_iter().chain(results()).chain(by_hand()).fold(
        server,
        |server, (tool, example)| {
            let example = JsonObject::from_iter([("example".to_owned(), example)]);
            server.tool(tool.meta(MetaObject(example)))
        },
    )
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Point {
    x: u8,
    y: i16,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Numbers {
    unsigned: (u8, u16, u32, u64, u128, usize),
    signed: (i8, i16, i32, i64, i128, isize),
    floats: (f32, f64),
    one: NonZeroU8,
    maybe: Option<u64>,
    letter: char,
    list: Vec<u32>,
    by_number: BTreeMap<u16, u8>,
}

#[derive(Deserialize, JsonSchema)]
struct Values {
    any: Value,
    maybe: Option<Value>,
    list: Vec<Value>,
    map: HashMap<String, Value>,
    deep: HashMap<String, Vec<HashMap<String, Value>>>,
    pair: (Value, [Value; 2]),
    nothing: (),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Odd {
    address: IpAddr,
    duration: Duration,
    set: HashSet<String>,
    /// As `chrono` and `jiff` have them.
    #[schemars(extend("format" = "partial-date-time"))]
    local: String,
    #[schemars(extend("format" = "date-time"))]
    global: String,
    /// Called as a keyword is.
    format: Level,
    tree: Tree,
    #[serde(default = "level")]
    defaulted: Level,
    result: Result<u8, String>,
}

fn level() -> Level {
    Level::Low
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
enum Level {
    /// Not much.
    Low,
    Medium,
    High,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Tree {
    name: String,
    #[serde(default)]
    branches: Vec<Tree>,
    #[serde(default)]
    parent: Option<Box<Tree>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do")]
enum Command {
    Go(Point),
    Say { text: String },
    Stop,
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum External {
    Nothing,
    Number(u32),
    Place(Point),
    Pair(u8, i8),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Untagged {
    Place(Point),
    Text(String),
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Wrapped(Point);

#[derive(Deserialize, JsonSchema)]
struct Flat {
    kind: Level,
    #[serde(flatten)]
    place: Point,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

async fn took<A>(_arguments: A) -> Result<&'static str, ToolError> {
    Ok("took it")
}

fn arguments() -> Vec<(Tool, Value)> {
    let tree = json!({"name": "a", "branches": [{"name": "b"}], "parent": {"name": "c"}});
    vec![
        (tool("take_nothing", || async { "took nothing" }), json!({})),
        (tool("take_empty", took::<Nothing>), json!({})),
        (
            tool("take_numbers", took::<Numbers>),
            json!({
                "unsigned": [1, 2, 3, 4, 5, 6], "signed": [-1, -2, -3, -4, -5, -6],
                "floats": [0.5, 1.5], "one": 1, "letter": "x", "list": [1], "by_number": {"1": 2},
            }),
        ),
        (
            tool("take_values", took::<Values>),
            json!({
                "any": 1, "maybe": "x", "list": [null, true], "map": {"a": {}},
                "deep": {"a": [{"b": 1}]}, "pair": [1, [2, 3]], "nothing": null,
            }),
        ),
        (
            tool("take_odd", took::<Odd>),
            json!({
                "address": "::1", "duration": {"secs": 1, "nanos": 2}, "set": ["a"],
                "local": "2026-07-28T12:00:00", "global": "2026-07-28T12:00:00Z",
                "format": "High", "tree": tree, "result": {"Ok": 1},
            }),
        ),
        (tool("take_tree", took::<Tree>), tree),
        (tool("take_command", took::<Command>), json!({"do": "Go", "x": 1, "y": 2})),
        (tool("take_external", took::<External>), json!({"Number": 1})),
        (tool("take_untagged", took::<Untagged>), json!({"x": 1, "y": 2})),
        (tool("take_wrapped", took::<Wrapped>), json!({"x": 1, "y": 2})),
        (tool("take_maybe", took::<Option<Point>>), json!({"x": 1, "y": 2})),
        (tool("take_flat", took::<Flat>), json!({"kind": "Low", "x": 1, "y": 2, "more": [3]})),
        (tool("take_map", took::<HashMap<String, Value>>), json!({"a": 1})),
        (tool("take_any", took::<Value>), json!({"a": 1})),
    ]
}

/// A tool that returns a structured result of a type.
fn giving<T>(name: &str, value: fn() -> T) -> (Tool, Value)
where
    T: Serialize + JsonSchema + Send + 'static,
{
    let name = format!("give_{name}");
    (tool(name, move || async move { Json(value()) }), json!({}))
}

fn results() -> Vec<(Tool, Value)> {
    const POINT: Point = Point { x: 1, y: -1 };
    fn tree() -> Tree {
        Tree { name: "a".to_owned(), branches: Vec::new(), parent: None }
    }
    vec![
        giving("object", || POINT),
        giving("list", || vec![POINT]),
        giving("empty_list", Vec::<u64>::new),
        giving("some", || Some(POINT)),
        giving("none", || None::<Point>),
        giving("tagged", || Command::Say { text: "hello".to_owned() }),
        giving("unit_variant", || External::Nothing),
        giving("variant", || External::Place(POINT)),
        giving("untagged", || Untagged::Text("hello".to_owned())),
        giving("number", || u64::MAX),
        giving("zero", || 0_u8),
        giving("float", || 0.5_f32),
        giving("text", || "hello".to_owned()),
        giving("boolean", || false),
        giving("unit", || ()),
        giving("tuple", || (1_u8, "a".to_owned(), POINT)),
        giving("array", || [1_i8, 2, 3]),
        giving("value", || json!({"a": [1, null]})),
        giving("null_value", || Value::Null),
        giving("wrapped", || Wrapped(POINT)),
        giving("tree", tree),
        giving("trees", || vec![tree()]),
        giving("map", || BTreeMap::from([("a".to_owned(), BTreeMap::from([(1_u16, Some(2_i8))]))])),
        giving("values", || HashMap::from([("a".to_owned(), Value::Null)])),
        giving("result", || Ok::<u8, String>(1)),
        giving("duration", || Duration::from_secs(1)),
    ]
}

/// Tools with handwritten schemas and results.
fn by_hand() -> Vec<(Tool, Value)> {
    let schema = json!({
        "properties": {
            "anything": true,
            "never": false,
            "list": {"type": "array", "items": true, "prefixItems": [true, {"format": "uint8"}]},
            "closed": {"type": "object", "properties": {"x": true}, "additionalProperties": false},
            "phone": {"type": "string", "format": "phone-number"},
        },
        "if": true,
        "then": {"properties": {"anything": true}},
        "additionalProperties": true,
    });
    let list = json!({"type": "array", "items": true}).as_object().cloned().unwrap_or_default();
    let anything = JsonObject::new();
    vec![
        (
            raw_tool("take_raw", schema, || async { "took it" }),
            json!({"anything": 1, "list": [1, 2], "closed": {"x": 1}}),
        ),
        (
            tool("give_by_hand", || async {
                let mut result = CallToolResult::success(vec![]);
                result.structured_content = Some(json!([1, 2]));
                result
            })
            .output_schema(list),
            json!({}),
        ),
        (tool("give_nothing_declared", || async { "nothing" }).output_schema(anything), json!({})),
        (
            tool("give_undeclared", || async {
                let link = Resource::new("test://link", "a link");
                let sound = ContentBlock::audio("AAAA", "audio/wav");
                let content = vec![sound, ContentBlock::resource_link(link)];
                let mut result = CallToolResult::success(content);
                result.structured_content = Some(json!([1]));
                result
            }),
            json!({}),
        ),
        (
            tool("give_failure", || async {
                let mut result = CallToolResult::error(vec![ContentBlock::text("it failed")]);
                result.structured_content = Some(json!("why"));
                result
            }),
            json!({}),
        ),
        (tool("give_task", || async { Json(vec![1_u8]) }).as_task(AsTask::WhenPossible), json!({})),
        (tool("ask_odd", ask), json!({})),
    ]
}

/// What a form may have, in odd types.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Form {
    age: u8,
    maybe: Option<i128>,
    letter: Option<char>,
    address: Option<IpAddr>,
    #[schemars(extend("format" = "date"))]
    day: Option<String>,
    level: Option<Level>,
    levels: Option<Vec<Level>>,
    agreed: Option<bool>,
    share: Option<f32>,
}

async fn ask(ctx: Context) -> Result<String, ToolError> {
    let form: Form = ctx.elicit("Tell me").await?;
    Ok(format!("{} is known", form.age))
}
