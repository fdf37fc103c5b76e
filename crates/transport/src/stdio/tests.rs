use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::Context;

use futures::poll;
use serde_json::{Value, json};
use stentor_engine::{AsTask, Context as Call, Elicit, Engine, ToolError, tool};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, DuplexStream};

use super::*;

async fn engine() -> Engine {
    let engine = Engine::builder("test", "1")
        .tool(tool("steps", |call: Call| async move {
            call.report_progress(1.0, Some(1.0), "done");
            Ok::<_, ToolError>("stepped")
        }))
        .tool(tool("roots", |call: Call| async move {
            Ok::<_, ToolError>(format!("{} roots", call.list_roots().await?.len()))
        }))
        .tool(tool("sleep", || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, ToolError>("slept")
        }))
        .tool(tool("ask", |call: Call| async move {
            let schema = json!({"type": "object", "properties": {}});
            let form = Elicit::schema("?", schema.as_object().cloned().unwrap_or_default());
            call.elicit_with(form).await?;
            Ok::<_, ToolError>("answered")
        }))
        .tool(tool("change", |call: Call| async move {
            let name = format!("tool-{}", call.catalog().snapshot().revision());
            let added = tool(name, || async { "" });
            call.catalog().add(added).await.map_err(|error| ToolError::new(error.to_string()))?;
            Ok::<_, ToolError>("changed")
        }))
        .tool(tool("tell", |call: Call| async move {
            call.send_prompt_list_changed();
            Ok::<_, ToolError>("told")
        }))
        .tool(tool("forever", forever))
        .tool(tool("forever_as_a_task", forever).as_task(AsTask::Always));
    engine.start().await.unwrap()
}

async fn forever() -> Result<&'static str, ToolError> {
    std::future::pending().await
}

/// A line that calls a tool.
fn call(id: u64, tool: &str) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {
            "extensions": {"io.modelcontextprotocol/tasks": {}},
        },
        "progressToken": id,
    });
    let params = json!({"name": tool, "arguments": {}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string() + "\n"
}

/// The written pieces, one entry for each write.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncWrite for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn message(hears: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    hears.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_read_at_once_are_answered_in_one_write() {
    let pieces = Pieces::default();
    let lines = "no message\n".repeat(64);
    serve_on(&engine().await, lines.as_bytes(), pieces.clone()).await.unwrap();
    let pieces = pieces.0.lock().unwrap();
    let lines: Vec<_> = pieces.iter().map(|it| it.split_inclusive(|it| *it == b'\n')).collect();
    let lines: Vec<_> = lines.into_iter().map(Iterator::count).collect();
    assert_eq!(lines, [64]);
}

#[tokio::test(start_paused = true)]
async fn responses_are_written_while_there_is_always_more_to_read() {
    let pieces = Pieces::default();
    let endless = tokio::io::repeat(b'\n').take(1 << 20).chain(&b"no message\n"[..]);
    let endless = endless.chain(tokio::io::repeat(b'\n'));
    let engine = engine().await;
    let serving = pin!(serve_on(&engine, endless, pieces.clone()));
    let heard = async {
        while pieces.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        served = serving => panic!("served: {served:?}"),
        () = heard => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_progress_comes_a_moment_before_the_response() {
    let engine = engine().await;
    let (mut asks, stdin) = tokio::io::duplex(4096);
    let (stdout, hears) = tokio::io::duplex(4096);
    let client = async move {
        let mut hears = BufReader::new(hears);
        asks.write_all(call(1, "steps").as_bytes()).await.unwrap();
        assert_eq!(message(&mut hears).await["params"]["progress"], json!(1.0));
        let heard = Instant::now();
        assert_eq!(message(&mut hears).await["id"], 1);
        assert!(heard.elapsed() >= LAST_PROGRESS_PAUSE);
    };
    let (served, ()) = tokio::join!(serve_on(&engine, stdin, stdout), client);
    served.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_before_the_end_of_input_are_answered() {
    let engine = engine().await;
    let pieces = Pieces::default();
    serve_on(&engine, call(1, "sleep").as_bytes(), pieces.clone()).await.unwrap();
    let answer: Value = serde_json::from_slice(&pieces.0.lock().unwrap().concat()).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "slept");
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_answered_with_its_id_and_a_long_answer_fails_its_question() {
    let engine = engine().await;
    let (mut asks, stdin) = tokio::io::duplex(4096);
    let (stdout, hears) = tokio::io::duplex(4096);
    let config = StdioConfig::new().max_line(500);
    let client = async move {
        let mut hears = BufReader::new(hears);
        let mut say = async |message: Value| {
            asks.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        };
        let long = "x".repeat(1_000);
        let ping = json!({"a": long, "method": "ping", "id": "p", "jsonrpc": "2.0"});
        say(ping).await;
        let refused = message(&mut hears).await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("p"), &json!(-32600)));

        let client = json!({"name": "c", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": client});
        say(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})).await;
        assert_eq!(message(&mut hears).await["id"], 1);
        say(
            json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "roots"}}),
        )
        .await;
        let question = message(&mut hears).await;
        let roots = json!({"roots": [{"uri": long}]});
        let asked = Instant::now();
        say(json!({"jsonrpc": "2.0", "id": question["id"], "result": roots})).await;
        let answer = message(&mut hears).await;
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("the answer is longer than 500 bytes"), "{answer}");
        assert!(asked.elapsed() < Duration::from_secs(1), "it waits for nothing");
    };
    let serving = serve_on_with(&engine, config, stdin, stdout);
    let (served, ()) = tokio::join!(serving, client);
    served.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_throttled_and_later_answered_in_full() {
    const CALLS: u64 = 20_000;
    let engine = engine().await;
    let (mut asks, stdin) = tokio::io::duplex(4096);
    let (stdout, mut hears) = tokio::io::duplex(4096);
    let mut serving = pin!(serve_on(&engine, stdin, stdout));
    let mut asking = pin!(async move {
        for id in 0..CALLS {
            let ping = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#) + "\n";
            asks.write_all(ping.as_bytes()).await.unwrap();
        }
    });
    let stuck = async { tokio::join!(&mut serving, &mut asking) };
    let stuck = tokio::time::timeout(Duration::from_secs(5), stuck).await;
    assert!(stuck.is_err(), "it takes all that it is asked");
    assert!(poll!(&mut serving).is_pending());
    let hearing = async {
        let mut heard = String::new();
        hears.read_to_string(&mut heard).await.unwrap();
        heard.lines().count() as u64
    };
    let (served, (), heard) = tokio::join!(async { (&mut serving).await }, &mut asking, hearing);
    served.unwrap();
    assert_eq!(heard, CALLS);
}

fn line(message: &Value) -> String {
    message.to_string() + "\n"
}

/// What the server writes to a client that sends `says` and then closes its input.
async fn hears(engine: &Engine, says: String) -> Vec<Value> {
    let pieces = Pieces::default();
    serve_on(engine, says.as_bytes(), pieces.clone()).await.unwrap();
    let all = pieces.0.lock().unwrap().concat();
    let lines = std::str::from_utf8(&all).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_input_a_listen_gets_its_result() {
    let mut listen: Value = serde_json::from_str(&call(1, "steps")).unwrap();
    listen["method"] = "subscriptions/listen".into();
    listen["params"]["notifications"] = json!({"toolsListChanged": true});
    let (engine, began) = (engine().await, Instant::now());
    let heard = hears(&engine, line(&listen)).await;
    assert_eq!(heard[0]["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(heard[1]["id"], 1, "{heard:?}");
    assert!(heard[1]["result"].is_object(), "{heard:?}");
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_input_a_question_ends() {
    let info = json!({"name": "c", "version": "1"});
    let can = json!({"elicitation": {}});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": info});
    let says = [
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "ask"}}),
    ];
    let (engine, began) = (engine().await, Instant::now());
    let heard = hears(&engine, says.iter().map(line).collect()).await;
    let answer = heard.iter().find(|message| message["id"] == "a").unwrap();
    let text = &answer["result"]["content"][0]["text"];
    assert_eq!(text, "the question cannot be answered any more", "{heard:?}");
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_input_calls_and_tasks_share_one_deadline() {
    let engine = engine().await;
    let (pipe, mut receiver) = engine.open_pipe().await.unwrap();
    for (id, tool) in [(1, "forever"), (2, "forever_as_a_task")] {
        pipe.deliver(stentor_wire::Message::decode(&call(id, tool).into())).await.unwrap();
    }
    let mut batch = Vec::new();
    assert!(receiver.next(&mut batch).await, "the task");
    let began = Instant::now();
    assert_eq!(leave(&engine, Some(&pipe)).await, Ended::Shutdown);
    let took = began.elapsed();
    assert!(
        took >= engine.drain_timeout() && took <= engine.drain_timeout() + Duration::from_secs(2),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_killed_is_an_error() {
    let engine = engine().await;
    let (_asks, stdin) = tokio::io::duplex(4096);
    let serving = serve_on(&engine, stdin, Pieces::default());
    let killing = async {
        tokio::task::yield_now().await;
        engine.supervisor_cell().kill();
    };
    let (served, ()) = tokio::join!(serving, killing);
    assert!(matches!(served, Err(StdioError::Ended(EndedUnasked::Killed))), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_announced_before_the_response_of_its_call() {
    let engine = engine().await;
    let (mut asks, stdin) = tokio::io::duplex(4096);
    let (stdout, hears) = tokio::io::duplex(4096);
    let client = async move {
        let mut hears = BufReader::new(hears);
        let info = json!({"name": "c", "version": "1"});
        let params =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
        let initialize =
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        asks.write_all(line(&initialize).as_bytes()).await.unwrap();
        assert_eq!(message(&mut hears).await["id"], 0);
        // Many times, because a race would show only now and then.
        for id in 1..50 {
            for (tool, list) in [("change", "tools"), ("tell", "prompts")] {
                // A pause, so that the changes are not a burst.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let params = json!({"name": tool});
                let call =
                    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
                asks.write_all(line(&call).as_bytes()).await.unwrap();
                let told = message(&mut hears).await;
                assert_eq!(told["method"], format!("notifications/{list}/list_changed"));
                assert_eq!(message(&mut hears).await["id"], id);
            }
        }
    };
    let (served, ()) = tokio::join!(serve_on(&engine, stdin, stdout), client);
    served.unwrap();
}

#[tokio::test]
async fn the_local_user_sees_everything_and_another_identity_what_it_may_see() {
    let admin = tool("admin", || async { "yes" }).only_for(["admin"]).require_scope("write");
    let engine = Engine::builder("s", "1").tool(admin).start().await.unwrap();
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "admin", "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let told = async |identity: Option<Identity>| {
        let pieces = Pieces::default();
        let config = StdioConfig::default().identity(identity);
        let input = line(&call);
        serve_on_with(&engine, config, input.as_bytes(), pieces.clone()).await.unwrap();
        let all = pieces.0.lock().unwrap().concat();
        let first = std::str::from_utf8(&all).unwrap().lines().next().unwrap();
        let answer: Value = serde_json::from_str(first).unwrap();
        answer["error"]["code"].as_i64()
    };
    assert_eq!(told(None).await, None, "the user who started the process");
    assert_eq!(told(Some(Identity::named("bob"))).await, Some(-32602), "unknown tool");
    assert_eq!(told(Some(Identity::named("ann").scopes(["admin"]))).await, Some(403));
    let ann = Identity::named("ann").scopes(["admin", "write"]);
    assert_eq!(told(Some(ann)).await, None);
}
