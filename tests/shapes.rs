//! All messages of a server fit the protocol's own JSON schemas, in each version: every list,
//! result and notice, of `everything` and of a server with unusual types.

// The items of `examples/everything`.
#[path = "../examples/everything/parts.rs"]
mod parts;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use stentor::http::{HttpConfig, serve_on};
use stentor::{Engine, EngineBuilder, Resource};
use stentor_tests::{Call, META_CAPABILITIES, MODERN_VERSION, Reply, soon};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

const WATCHED: &str = "test://watched-resource";
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

#[tokio::test]
async fn messages_of_everything_fit_the_schemas_of_each_version() {
    check_all_versions(parts::everything).await;
}

#[tokio::test]
async fn messages_about_odd_types_fit_the_schemas_of_each_version() {
    check_all_versions(parts::odd).await;
}

async fn check_all_versions(offer: fn(EngineBuilder) -> EngineBuilder) {
    let mut wrong = Vec::new();
    for version in LEGACY.into_iter().chain([MODERN_VERSION]) {
        wrong.extend(
            visit(offer, version).await.into_iter().map(|what| format!("{version}: {what}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Asks a server for everything it has, and returns all messages that do not fit.
async fn visit(offer: fn(EngineBuilder) -> EngineBuilder, version: &'static str) -> Vec<String> {
    let watched = Resource::text(WATCHED, "watched", "watched");
    let engine = offer(Engine::builder("shapes", "1")).start().await.expect("a valid catalog");
    engine.catalog().put(watched).await.expect("a resource");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving =
        serve_on(engine.clone(), listener, HttpConfig::default(), std::future::pending::<()>());
    let _served = AbortOnDropHandle::new(tokio::spawn(serving));
    let mut visitor = Visitor::connect(address, version).await;
    let tools = visitor.list("tools").await;
    assert!(tools.len() > 20, "{} tools", tools.len());
    let mut notices = visitor.hear().await;
    for tool in &tools {
        let name = tool["name"].as_str().expect("a name");
        // `test_reconnection` closes the stream before its answer; other tests cover how to resume
        // it.
        if !["panic", "test_reconnection"].contains(&name) {
            visitor.call(tool, arguments(name, tool)).await;
        }
    }
    engine.send_tool_list_changed();
    engine.send_prompt_list_changed();
    engine.send_resource_list_changed();
    engine.send_resource_updated(WATCHED);
    visitor.hear_all(&mut notices).await;
    for resource in visitor.list("resources").await {
        visitor.ask("resources/read", json!({"uri": resource["uri"]})).await;
    }
    visitor.list("resources/templates").await;
    for prompt in visitor.list("prompts").await {
        let given = prompt["arguments"].as_array().into_iter().flatten();
        let given =
            given.map(|it| (it["name"].as_str().unwrap_or_default().to_owned(), json!("test://a")));
        let given: Map<_, _> = given.collect();
        visitor.ask("prompts/get", json!({"name": prompt["name"], "arguments": given})).await;
    }
    let prompt = json!({"type": "ref/prompt", "name": "test_prompt_with_arguments"});
    let argument = json!({"name": "arg1", "value": "a"});
    visitor.ask("completion/complete", json!({"ref": prompt, "argument": argument})).await;
    visitor.ask("tools/call", json!({"name": "nowhere"})).await;
    visitor.wrong
}

fn arguments(name: &str, tool: &Value) -> Value {
    match name {
        "json_schema_2020_12_tool" => json!({"phone": "1", "contactMethod": "phone"}),
        "test_sampling" => json!({"prompt": "a"}),
        "test_elicitation" => json!({"message": "a"}),
        "echo" => json!({"text": "a"}),
        "add_tool" | "remove_tool" => json!({"name": "added"}),
        "replace_tools" => json!({"names": ["one", "two"]}),
        "touch_resource" => json!({"uri": WATCHED}),
        "slow_tool" => json!({"seconds": 0}),
        "sleep" => json!({"ms": 1}),
        "progress" | "burst" => json!({"n": 3}),
        "flood" => json!({"n": 3, "bytes": 10}),
        "greet" => json!({"name": "a"}),
        "slow_compute" => json!({"seconds": 0.1, "label": "a"}),
        "confirm_delete" => json!({"filename": "a"}),
        _ => tool["_meta"].get("example").cloned().unwrap_or_else(|| json!({})),
    }
}

/// A client that checks all messages that it receives.
struct Visitor {
    address: SocketAddr,
    version: &'static str,
    session: String,
    schemas: Schemas,
    ids: i64,
    /// Messages that did not fit, and failed calls of tools.
    wrong: Vec<String>,
}

impl Visitor {
    async fn connect(address: SocketAddr, version: &'static str) -> Self {
        let schemas = Schemas::of(version);
        let mut visitor =
            Self { address, version, session: String::new(), schemas, ids: 0, wrong: Vec::new() };
        if visitor.is_modern() {
            visitor.ask("server/discover", json!({})).await;
            return visitor;
        }
        let client = json!({"name": "visitor", "version": "1"});
        let asked = json!({
            "protocolVersion": version, "clientInfo": client, "capabilities": capabilities(version),
        });
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": asked});
        let mut reply = Call::post(request.to_string()).send(address).await;
        visitor.session = reply.header("mcp-session-id").to_owned();
        let answer = reply.message().await.expect("an answer");
        visitor.check_message("initialize", &answer);
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        visitor.post(&ready).await;
        visitor.ask("ping", json!({})).await;
        visitor.ask("logging/setLevel", json!({"level": "debug"})).await;
        visitor.ask("resources/subscribe", json!({"uri": WATCHED})).await;
        visitor
    }

    fn is_modern(&self) -> bool {
        self.version == MODERN_VERSION
    }

    async fn post(&self, message: &Value) -> Reply {
        let call = Call::legacy(&self.session, message).with("mcp-protocol-version", self.version);
        call.send(self.address).await
    }

    async fn send(&mut self, method: &str, mut params: Value) -> Reply {
        self.ids += 1;
        let id = json!(self.ids);
        if self.is_modern() {
            params["_meta"][META_CAPABILITIES] = capabilities(self.version);
            params["_meta"]["io.modelcontextprotocol/logLevel"] = json!("debug");
            params["_meta"]["progressToken"] = id.clone();
            return Call::modern(&id, method, params).send(self.address).await;
        }
        params["_meta"]["progressToken"] = id.clone();
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let mut reply = self.send(method, params).await;
        loop {
            let Some(message) = reply.message().await else {
                panic!("{method} is not answered");
            };
            self.check_message(method, &message);
            if message.get("method").is_none() {
                return message.get("result").unwrap_or(&message["error"]).clone();
            }
            if message.get("id").is_some() {
                let result = answer_to(&message);
                let id = &message["id"];
                self.post(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
            }
        }
    }

    async fn list(&mut self, kind: &str) -> Vec<Value> {
        let (mut all, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.ask(&format!("{kind}/list"), params).await;
            let member = if kind == "resources/templates" { "resourceTemplates" } else { kind };
            all.extend(page[member].as_array().expect("a list").iter().cloned());
            match page.get("nextCursor") {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return all,
            }
        }
    }

    /// Calls a tool to its end, answers its questions, and checks the result against the listed
    /// schema.
    async fn call(&mut self, tool: &Value, arguments: Value) {
        let params = json!({"name": tool["name"], "arguments": arguments});
        let mut result = self.ask("tools/call", params.clone()).await;
        for _ in 0..5 {
            if result["resultType"] != "input_required" {
                break;
            }
            let mut again = params.clone();
            again["inputResponses"] = answers_to(&result["inputRequests"]);
            if let Some(state) = result.get("requestState") {
                again["requestState"] = state.clone();
            }
            result = self.ask("tools/call", again).await;
        }
        if result["resultType"] == "task" {
            result = self.follow(&result).await;
        }
        let schema = tool.get("outputSchema").filter(|_| result.get("content").is_some());
        let Some(schema) = schema.filter(|_| result["isError"] != true) else { return };
        let name = &tool["name"];
        match result.get("structuredContent") {
            None => self.wrong.push(format!("{name} gives nothing structured")),
            Some(value) if !jsonschema::is_valid(schema, value) => {
                self.wrong.push(format!("{name} gives {value}, which is not {schema}"));
            }
            Some(_) => {}
        }
    }

    /// Waits for the end of a task, with a listen and by polling.
    async fn follow(&mut self, task: &Value) -> Value {
        let id = task["taskId"].clone();
        let filter = json!({"notifications": {"taskIds": [id]}});
        let mut told = self.send("subscriptions/listen", filter).await;
        let mut end = loop {
            let now = self.ask("tasks/get", json!({"taskId": id})).await;
            match now["status"].as_str() {
                Some("working") => tokio::time::sleep(Duration::from_millis(20)).await,
                Some("input_required") => {
                    let answers = answers_to(&now["inputRequests"]);
                    let update = json!({"taskId": id, "inputResponses": answers});
                    self.ask("tasks/update", update).await;
                }
                _ => break now,
            }
        };
        loop {
            let notice = told.message().await.expect("a notice of the end");
            self.check_message("subscriptions/listen", &notice);
            if notice["params"]["status"] == end["status"] {
                assert_eq!(notice["params"].get("result"), end.get("result"));
                break;
            }
        }
        let result = end["result"].take();
        if end["status"] == "completed" {
            // The result of a task is a whole `CallToolResult`, too.
            self.check("CallToolResult", &result, "the result of a task");
        }
        result
    }

    async fn hear(&mut self) -> Reply {
        if self.is_modern() {
            let filter = json!({
                "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
                "resourceSubscriptions": [WATCHED],
            });
            return self.send("subscriptions/listen", json!({"notifications": filter})).await;
        }
        let call = Call::get(&self.session).with("mcp-protocol-version", self.version);
        call.send(self.address).await
    }

    /// Reads until each kind of notice has arrived.
    async fn hear_all(&mut self, notices: &mut Reply) {
        let mut missing = HashSet::from([
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/resources/updated",
        ]);
        while !missing.is_empty() {
            let what = format!("one of {missing:?}");
            let notice = soon(what, notices.message()).await.expect("a notice");
            self.check_message("notices", &notice);
            missing.remove(notice["method"].as_str().expect("a method"));
        }
    }

    /// Checks a message that belongs to a request of this method.
    fn check_message(&mut self, method: &str, message: &Value) {
        let what = format!("for {method}");
        if let Some(notice) = message["method"].as_str() {
            match notice {
                "notifications/tasks" => self.check("TaskStatusNotification", message, &what),
                _ if message.get("id").is_some() => self.check("ServerRequest", message, &what),
                _ => self.check("ServerNotification", message, &what),
            }
            return;
        }
        let is_new = self.version >= "2025-11-25";
        let Some(result) = message.get("result") else {
            let name = if is_new { "JSONRPCErrorResponse" } else { "JSONRPCError" };
            return self.check(name, message, &what);
        };
        self.check(
            if is_new { "JSONRPCResultResponse" } else { "JSONRPCResponse" },
            message,
            &what,
        );
        let name = match (method, result["resultType"].as_str()) {
            ("tools/call", Some("task")) => "CreateTaskResult",
            (_, Some("input_required")) => "InputRequiredResult",
            ("initialize", _) => "InitializeResult",
            ("server/discover", _) => "DiscoverResult",
            ("tools/list", _) => "ListToolsResult",
            ("tools/call", _) => "CallToolResult",
            ("resources/list", _) => "ListResourcesResult",
            ("resources/templates/list", _) => "ListResourceTemplatesResult",
            ("resources/read", _) => "ReadResourceResult",
            ("prompts/list", _) => "ListPromptsResult",
            ("prompts/get", _) => "GetPromptResult",
            ("completion/complete", _) => "CompleteResult",
            ("tasks/get", _) => "GetTaskResult",
            ("tasks/update", _) => "UpdateTaskResult",
            _ => "EmptyResult",
        };
        self.check(name, result, &what);
    }

    fn check(&mut self, name: &'static str, value: &Value, what: &str) {
        let errors: Vec<_> = self.schemas.get(name).iter_errors(value).take(2).collect();
        for error in errors {
            let (at, is) = (error.instance_path(), error.to_string());
            let is: String = is.chars().take(400).collect();
            self.wrong.push(format!("{name} {what}, at {at}: {is}"));
        }
    }
}

/// All capabilities that a client of a version can declare.
fn capabilities(version: &str) -> Value {
    match version {
        "2024-11-05" | "2025-03-26" => json!({"sampling": {}, "roots": {}}),
        "2025-06-18" => json!({"elicitation": {}, "sampling": {}, "roots": {}}),
        "2025-11-25" => {
            json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}})
        }
        _ => json!({
            "elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {},
            "extensions": {"io.modelcontextprotocol/tasks": {}},
        }),
    }
}

/// A client's answer to a question.
fn answer_to(question: &Value) -> Value {
    match question["method"].as_str() {
        Some("elicitation/create") => {
            let form = &question["params"]["requestedSchema"];
            let fields = form["properties"].as_object().into_iter().flatten();
            let content: Map<_, _> =
                fields.map(|(name, field)| (name.clone(), filled_in(field))).collect();
            json!({"action": "accept", "content": content})
        }
        Some("sampling/createMessage") => json!({
            "role": "assistant", "model": "none", "content": {"type": "text", "text": "a"},
        }),
        _ => json!({"roots": []}),
    }
}

fn answers_to(questions: &Value) -> Value {
    let questions = questions.as_object().expect("questions");
    questions.iter().map(|(key, question)| (key.clone(), answer_to(question))).collect()
}

fn filled_in(field: &Value) -> Value {
    let first = field["enum"].get(0).or_else(|| field["oneOf"][0].get("const"));
    match (first, field["type"].as_str()) {
        (Some(first), _) => first.clone(),
        (_, Some("string")) if field["format"] == "date" => json!("2026-07-28"),
        (_, Some("string")) => json!("a"),
        (_, Some("boolean")) => json!(true),
        (_, Some("array")) => json!([]),
        _ => json!(1),
    }
}

/// The schemas of one version, by type name.
struct Schemas {
    protocol: Value,
    tasks: Value,
    compiled: HashMap<&'static str, Validator>,
}

impl Schemas {
    fn of(version: &str) -> Self {
        let read = |name: &str| {
            let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            serde_json::from_str::<Value>(&text).expect("JSON")
        };
        Self { protocol: read(version), tasks: read("tasks"), compiled: HashMap::new() }
    }

    fn get(&mut self, name: &'static str) -> &Validator {
        let Self { protocol, tasks, compiled } = self;
        compiled.entry(name).or_insert_with(|| {
            // 2025-11-25 has its own tasks, which this server does not support.
            let schema = if name.contains("Task") { tasks } else { protocol };
            let member = if schema.get("$defs").is_some() { "$defs" } else { "definitions" };
            assert!(schema[member].get(name).is_some(), "there is no {name}");
            let mut whole = schema.clone();
            whole["$ref"] = format!("#/{member}/{name}").into();
            jsonschema::options().offline().build(&whole).expect("a valid schema")
        })
    }
}
