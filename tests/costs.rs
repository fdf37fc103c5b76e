//! The cost of one request, in bytes of allocated memory and in number of allocations: for each
//! member of each message that a client may send, with the largest possible values.
//!
//! Runs in its own process, because it counts allocations.

// The items of `examples/everything`.
#[path = "../examples/everything/parts.rs"]
mod parts;

use std::alloc::System;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use stentor::Engine;
use stentor::http::{HttpConfig, router};
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The size of each member, in bytes: large enough that an offload thread decodes the message.
const SIZE: usize = 68 * 1024;

/// The allowed memory of a request: bytes per byte of its body, and per JSON value.
const PER_BYTE: usize = 16;
const PER_VALUE: usize = 512;
/// Bytes that are allowed for any request.
const PER_REQUEST: usize = 512 * 1024;

/// The allowed number of allocations: per JSON value, and for any request.
const TIMES_PER_VALUE: usize = 8;
const TIMES_PER_REQUEST: usize = 10_000;

/// Models and humans read errors, so errors must be short.
const LONGEST_ERROR: usize = 8 * 1024;

/// Marks the member that is made large.
const HERE: &str = "(here)";

#[tokio::test]
async fn no_member_of_any_message_costs_more_than_its_bytes_and_values_allow() {
    let server = parts::everything(Engine::builder("costs", "1"));
    // Bounds the calls that await input.
    let server = server.configure(|config| config.calls.max_awaiting_input_bytes = 4 << 20);
    let engine = server.start().await.expect("a catalog");
    let mut server =
        Server { router: router(engine.clone(), HttpConfig::default()), session: None };
    let mut wrong = Vec::new();
    let mut requests = 0;
    for version in ["2026-07-28", "2025-11-25"] {
        let messages = messages(&mut server, version).await;
        assert!(messages.len() > 80, "{} members in {version}", messages.len());
        let before = held();
        for (what, message) in messages {
            for (shape, value) in shapes() {
                let text = message.to_string().replace(&json!(HERE).to_string(), &value);
                let values = stentor_wire::bounds::count_values(text.as_bytes(), usize::MAX);
                let cost = server.cost(version, &message, text.clone().into());
                let (bytes, times, error) = cost.await;
                requests += 1;
                let most = PER_BYTE * text.len() + PER_VALUE * values + PER_REQUEST;
                let most_times = TIMES_PER_VALUE * values + TIMES_PER_REQUEST;
                if bytes > most || times > most_times || error > LONGEST_ERROR {
                    wrong.push(format!(
                        "{version} {what} as {shape}, {} bytes, {values} values: {bytes} bytes (of \
                         {most}) in {times} pieces (of {most_times}), an error of {error}",
                        text.len()
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {requests}: {wrong:#?}", wrong.len());
        let kept = held().saturating_sub(before);
        assert!(kept < 32 << 20, "{version} leaves {kept} bytes");
    }
    engine.shutdown().await;
}

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// The largest values of each kind, as JSON.
fn shapes() -> Vec<(&'static str, String)> {
    let repeated = |open: &str, item: &str, close: &str| {
        format!("{open}{}{close}", vec![item; SIZE / (item.len() + 1)].join(","))
    };
    let members: Vec<_> = (0..SIZE / 12).map(|n| format!("\"m{n:05}\":0")).collect();
    vec![
        ("a string", format!("\"{}\"", "x".repeat(SIZE))),
        ("a string of escapes", format!("\"{}\"", "\\u0041".repeat(SIZE / 6))),
        ("a number", "1".repeat(SIZE)),
        ("an array of numbers", repeated("[", "0", "]")),
        ("an array of strings", repeated("[", "\"\"", "]")),
        ("an array of objects", repeated("[", "{\"a\":0}", "]")),
        ("an array of arrays", repeated("[", "[0]", "]")),
        ("an object", format!("{{{}}}", members.join(","))),
        ("a deep array", format!("{}{}", "[".repeat(SIZE / 2), "]".repeat(SIZE / 2))),
    ]
}

struct Server {
    router: axum::Router,
    session: Option<String>,
}

impl Server {
    /// The cost of a message: bytes, number of allocations, and length of the error response.
    async fn cost(&mut self, version: &str, like: &Value, text: Bytes) -> (usize, usize, usize) {
        let request = self.request(version, like, text);
        let before = ALLOCATOR.stats();
        let (_, answer) = self.send(request).await;
        let after = ALLOCATOR.stats();
        let is_error = answer.windows(8).any(|it| it == b"\"error\":" || it == b"\"isError");
        let error = if is_error { answer.len() } else { 0 };
        let bytes = after.bytes_allocated - before.bytes_allocated;
        (
            bytes,
            after.allocations + after.reallocations - before.allocations - before.reallocations,
            error,
        )
    }

    /// A request with this body, and the headers that `message` needs.
    fn request(&self, version: &str, message: &Value, text: Bytes) -> Request<Body> {
        let mut request = Request::post("/mcp")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let method = message["method"].as_str().unwrap_or_default();
        if version == "2026-07-28" {
            let params = &message["params"];
            let name = ["name", "uri", "taskId"].into_iter().find_map(|it| params[it].as_str());
            request = request.header("mcp-protocol-version", version).header("mcp-method", method);
            if let Some(name) = name.filter(|name| *name != HERE) {
                request = request.header("mcp-name", name);
            }
        } else if let Some(session) = self.session.as_ref().filter(|_| method != "initialize") {
            request = request.header("mcp-session-id", session);
        }
        request.body(Body::from(text)).expect("a request")
    }

    async fn send(&self, request: Request<Body>) -> (http::HeaderMap, Vec<u8>) {
        let answering = async {
            let response = self.router.clone().oneshot(request).await.expect("an answer");
            let (head, mut body) = response.into_parts();
            if head.headers.get("content-type").is_some_and(|it| it == "text/event-stream") {
                // An event stream may stay open, and is not an error.
                return (head.headers, Vec::new());
            }
            let frame = body.frame().await.and_then(Result::ok);
            let data = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            (head.headers, data.to_vec())
        };
        tokio::time::timeout(Duration::from_secs(60), answering).await.expect("an answer in time")
    }

    async fn ask(&mut self, version: &str, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
        let text = message.to_string().into();
        let (headers, answer) = self.send(self.request(version, &message, text)).await;
        if let Some(session) = headers.get("mcp-session-id") {
            self.session = session.to_str().ok().map(ToOwned::to_owned);
        }
        serde_json::from_slice(&answer).unwrap_or_default()
    }
}

/// Each member of each message of a version, with a description.
async fn messages(server: &mut Server, version: &str) -> Vec<(String, Value)> {
    let path = format!("{}/schemas/{version}.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value =
        serde_json::from_slice(&std::fs::read(path).expect("a schema")).expect("JSON");
    let meta = match version {
        "2026-07-28" => json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        }),
        _ => json!({}),
    };
    let mut samples = Vec::new();
    for kind in ["ClientRequest", "ClientNotification"] {
        let kinds = definition(&schema, kind);
        let choices = kinds["anyOf"].as_array().map_or(std::slice::from_ref(kinds), Vec::as_slice);
        for choice in choices {
            let choice = resolved(&schema, choice);
            let mut sample = sample(&schema, choice, 0);
            sample["jsonrpc"] = "2.0".into();
            if kind == "ClientRequest" {
                sample["id"] = 1.into();
            }
            let mut members = Vec::new();
            paths(&schema, choice, String::new(), 0, &mut members);
            samples.push((sample, members));
        }
    }
    let result = json!({"jsonrpc": "2.0", "id": 1, "result": {"a": 0}});
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m", "data": 0}});
    samples.push((result, vec!["/id".into(), "/result".into(), "/result/a".into()]));
    samples.push((error, vec!["/error".into(), "/error/message".into(), "/error/data".into()]));
    let list = match version {
        "2026-07-28" => server.ask(version, "tools/list", json!({"_meta": meta})).await,
        _ => {
            let client = json!({"name": "costs", "version": "1"});
            let asked = json!({
                "protocolVersion": version, "clientInfo": client, "capabilities": {"elicitation": {}},
            });
            server.ask(version, "initialize", asked).await;
            server.ask(version, "tools/list", json!({})).await
        }
    };
    let tools = list["result"]["tools"].as_array();
    let tools = tools.unwrap_or_else(|| panic!("no tools: {list}")).clone();
    assert!(tools.len() > 20);
    for tool in tools {
        // Arguments are handled the same in both eras.
        if tool["name"] == "panic" || version != "2026-07-28" && tool["name"] != "echo" {
            continue;
        }
        let input = &tool["inputSchema"];
        let arguments = sample(input, input, 0);
        let mut members = Vec::new();
        paths(input, input, "/params/arguments".into(), 1, &mut members);
        if tool["name"] == "echo" {
            members.push("/params/inputResponses".into());
            members.push("/params/inputResponses/answer/content/a".into());
        }
        let answers = json!({"answer": {"action": "accept", "content": {"a": 0}}});
        let params =
            json!({"name": tool["name"], "arguments": arguments, "inputResponses": answers});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        samples.push((call, members));
    }
    let mut all = Vec::new();
    for (mut sample, members) in samples {
        if sample.get("method").is_some() && !sample["params"].is_object() {
            sample["params"] = json!({});
        }
        if sample.get("method").is_some() {
            sample["params"]["_meta"] = meta.clone();
        }
        let method = sample["method"].as_str().unwrap_or("an answer").to_owned();
        let extra =
            ["/extra", "/params/extra", "/params/_meta/extra", "/params/_meta/progressToken"];
        // These members are the same for all calls of tools; one tool is enough.
        let is_like_another = method == "tools/call" && sample["params"]["name"] != "echo";
        let extra = extra.into_iter().filter(|_| !is_like_another).map(ToOwned::to_owned);
        for member in members.into_iter().chain(extra) {
            let mut message = sample.clone();
            if put(&mut message, &member) {
                all.push((format!("{method} {member}"), message));
            }
        }
    }
    all
}

/// Marks a member, and creates it if it does not exist.
fn put(message: &mut Value, path: &str) -> bool {
    let mut at = message;
    let names: Vec<_> = path[1..].split('/').collect();
    for (index, name) in names.iter().enumerate() {
        let name = name.replace("~1", "/");
        let next = names.get(index + 1);
        at = match (at, name.parse::<usize>()) {
            (Value::Array(items), Ok(_)) => {
                if items.is_empty() {
                    items.push(Value::Null);
                }
                &mut items[0]
            }
            (Value::Object(members), _) => members.entry(name).or_insert(Value::Null),
            _ => return false,
        };
        if let (Some(next), true) = (next, at.is_null()) {
            *at = if *next == "0" { json!([]) } else { json!({}) };
        }
    }
    *at = HERE.into();
    true
}

fn definition<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let definitions = schema.get("$defs").or_else(|| schema.get("definitions"));
    definitions.and_then(|all| all.get(name)).unwrap_or(&Value::Null)
}

fn resolved<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        Some(name) => resolved(schema, definition(schema, name)),
        None => node,
    }
}

/// Roughly the smallest value that fits the schema.
fn sample(schema: &Value, node: &Value, depth: usize) -> Value {
    let node = resolved(schema, node);
    if depth > 8 {
        return Value::Null;
    }
    if let Some(value) = node.get("const").or_else(|| node["enum"].get(0)) {
        return value.clone();
    }
    if let Some(first) = ["anyOf", "oneOf"].into_iter().find_map(|it| node[it].get(0)) {
        return sample(schema, first, depth + 1);
    }
    match node["type"].as_str() {
        Some("string") => "a".into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => false.into(),
        Some("array") => json!([]),
        _ => {
            let required = node["required"].as_array().into_iter().flatten();
            let required = required.filter_map(Value::as_str);
            let member = |name: &str| {
                (name.to_owned(), sample(schema, &node["properties"][name], depth + 1))
            };
            Value::Object(required.map(member).collect())
        }
    }
}

/// Collects the paths of the members of a value, to a limited depth.
fn paths(schema: &Value, node: &Value, path: String, depth: usize, found: &mut Vec<String>) {
    let node = resolved(schema, node);
    if depth > 4 {
        return;
    }
    for first in ["anyOf", "oneOf"].into_iter().flat_map(|it| node[it].as_array()).flatten() {
        paths(schema, first, path.clone(), depth + 1, found);
    }
    if node["type"] == "array" {
        let item = format!("{path}/0");
        found.push(item.clone());
        paths(schema, &node["items"], item, depth + 1, found);
    }
    for (name, member) in node["properties"].as_object().into_iter().flatten() {
        let member_path = format!("{path}/{}", name.replace('/', "~1"));
        found.push(member_path.clone());
        paths(schema, member, member_path, depth + 1, found);
    }
    found.sort();
    found.dedup();
}
