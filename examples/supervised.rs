//! Kills the actors of an engine one by one while a client watches over HTTP. Prints what the
//! engine restarted and what the client noticed. Ends by itself.
//!
//!     cargo run --release -p stentor-examples --example supervised

use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stentor::faults::{FaultTarget, kill};
use stentor::http::{HttpConfig, serve_on};
use stentor::{
    Engine, ToolError,
    observe::{CallOutcome, EngineEvent, EventReceiver},
    session::SessionKind,
    tool,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// If nothing has happened for this long, nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // The panic of the tool appears in the transcript instead.
    std::panic::set_hook(Box::new(|_| {}));
    let engine = Engine::builder("Stentor Supervised", env!("CARGO_PKG_VERSION"))
        .tool(tool("echo", || async { "echo" }))
        .tool(tool("wait", wait))
        .tool(tool("panic", panic))
        .start()
        .await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(serve_on(engine.clone(), listener, HttpConfig::default(), pending()));

    let mut show = Show::begin(engine, address).await?;
    show.run().await?;
    server.await??;
    Ok(())
}

async fn wait() -> Result<&'static str, ToolError> {
    sleep(Duration::from_secs(60)).await;
    Ok("waited")
}

async fn panic() -> Result<&'static str, ToolError> {
    panic!("on purpose")
}

struct Show {
    engine: Engine,
    events: EventReceiver,
    client: Client,
    heard: mpsc::Receiver<String>,
    began: Instant,
    table: Vec<[String; 3]>,
}

/// What was observed after an actor was killed.
#[derive(Default)]
struct Seen {
    came_back: Vec<String>,
    noticed: Vec<String>,
}

impl Show {
    async fn begin(engine: Engine, address: SocketAddr) -> Result<Self, Failure> {
        let (began, events) = (Instant::now(), engine.events(1024));
        let (client, heard) = Client::connect(address).await?;
        Ok(Self { engine, events, client, heard, began, table: Vec::new() })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        say("A client opens a session, and its stream of notices.")?;
        self.watch().await?;

        self.act("The registry is killed.")?;
        kill(&self.engine, FaultTarget::Registry).await?;
        self.look("the registry").await?;

        self.act("The hub is killed.")?;
        kill(&self.engine, FaultTarget::Hub).await?;
        self.look("the hub").await?;

        self.act("The client's session is killed, while a call of it runs.")?;
        self.client.call("wait").await?;
        self.watch().await?;
        let mut sessions = self.engine.sessions().into_iter();
        let session = sessions.find(|session| session.kind == SessionKind::Http);
        kill(&self.engine, FaultTarget::Session(session.ok_or("there is no session")?.id)).await?;
        self.look("the session").await?;

        self.act("A tool panics.")?;
        self.client.call("panic").await?;
        self.look("a call, by its tool").await?;

        self.act("A call is cancelled from outside.")?;
        self.client.call("wait").await?;
        self.watch().await?;
        let call = self.engine.calls().pop().ok_or("there is no call")?.call.id;
        self.engine.cancel_call(call);
        self.look("a call, from outside").await?;

        say("\nThe engine shuts down.")?;
        self.engine.shutdown().await;
        self.watch().await?;

        say(format!("\n{:<20} | {:<30} | what the client noticed", "target", "what came back"))?;
        say(format!("{:-<20}-+-{:-<30}-+-{:-<60}", "", "", ""))?;
        for [target, came_back, noticed] in &self.table {
            say(format!("{target:<20} | {came_back:<30} | {noticed}"))?;
        }
        Ok(())
    }

    fn act(&self, title: &str) -> io::Result<()> {
        say(format!("\n{}. {title}", self.table.len() + 1))
    }

    /// Records the effects, then checks that the client still gets answers and notices.
    async fn look(&mut self, target: &str) -> Result<(), Failure> {
        let Seen { mut came_back, noticed } = self.watch().await?;
        if came_back.is_empty() {
            came_back.push("nothing".to_owned());
        }
        self.table.push([target.to_owned(), came_back.join(", "), noticed.join(", ")]);

        say("   All goes on: a call, and a new tool.")?;
        self.client.call("echo").await?;
        let name = format!("tool-{}", self.table.len());
        self.engine.catalog().add(tool(name, || async { "" })).await?;
        let mut after = self.watch().await?.noticed;
        after.sort();
        if after != ["a result", "tools/list_changed"] {
            return Err(format!("after the end of {target} something is wrong: {after:?}").into());
        }
        Ok(())
    }

    /// Prints what happens, until nothing happens any more.
    async fn watch(&mut self) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        loop {
            let next = async {
                tokio::select! {
                    // Checked first, because an event of the engine is the cause of what the client
                    // receives.
                    biased;
                    Some(event) = self.events.next() => Ok(event),
                    Some(heard) = self.heard.recv() => Err(heard),
                    else => pending().await,
                }
            };
            let Ok(next) = timeout(QUIET, next).await else { return Ok(seen) };
            let at = self.began.elapsed().as_millis();
            match next {
                Ok(event) => {
                    say(format!("{at:>6} ms  engine  {}", in_words(&event)))?;
                    seen.came_back.extend(came_back(&event));
                }
                Err(heard) => {
                    say(format!("{at:>6} ms  client  {heard}"))?;
                    seen.noticed.push(heard);
                }
            }
        }
    }
}

fn in_words(event: &EngineEvent) -> String {
    use EngineEvent as Event;
    match event {
        Event::SessionOpened { .. } => "a session opens".to_owned(),
        Event::SessionInitialized { .. } => "its client is ready".to_owned(),
        Event::SessionCrashed { .. } => "the session crashed".to_owned(),
        Event::SessionClosed { .. } => "the session closes".to_owned(),
        Event::CallStarted { call, .. } => format!("{} is called", call.subject),
        Event::CallFinished { outcome: CallOutcome::Error(code), .. } => {
            format!("the call failed with {code}")
        }
        Event::CallFinished { .. } => "the call is answered".to_owned(),
        Event::CallCancelled { reason, .. } => format!("the call is {reason}"),
        Event::CatalogChanged { revision, .. } => format!("the catalog has revision {revision}"),
        Event::Stopped => "the engine has stopped".to_owned(),
        event => came_back(event).unwrap_or_else(|| format!("{event:?}")),
    }
}

fn came_back(event: &EngineEvent) -> Option<String> {
    match event {
        EngineEvent::ActorRestarted { actor } => Some(format!("a new {actor}")),
        EngineEvent::SessionRestarted { .. } => Some("the session, with a new actor".to_owned()),
        _ => None,
    }
}

/// A client of 2025-11-25 with minimal HTTP: in version 1.0 a response ends with its connection.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    /// The header with the session id, once there is a session.
    session: String,
    hears: mpsc::Sender<String>,
}

type Response = Lines<BufReader<TcpStream>>;

impl Client {
    /// Completes the handshake, and opens the stream of notices.
    async fn connect(address: SocketAddr) -> Result<(Self, mpsc::Receiver<String>), Failure> {
        let (hears, heard) = mpsc::channel(64);
        let mut client = Self { address, session: String::new(), hears };
        let info = json!({"name": "supervised", "version": "1"});
        let params =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
        let mut answer =
            client.post(json!({"id": 0, "method": "initialize", "params": params})).await?;
        while let Some(line) = answer.next_line().await? {
            if line.starts_with("mcp-session-id:") {
                client.session = line + "\r\n";
            }
        }
        client.post(json!({"method": "notifications/initialized"})).await?.next_line().await?;

        let (stream, reader) = (client.send("GET", "").await?, client.clone());
        tokio::spawn(async move {
            reader.read(stream).await;
            reader.hears.send("the end of its stream".to_owned()).await
        });
        Ok((client, heard))
    }

    /// Calls a tool, and returns while the call runs.
    async fn call(&self, tool: &str) -> Result<(), Failure> {
        let params = json!({"name": tool, "arguments": {}});
        let answer = self.post(json!({"id": 1, "method": "tools/call", "params": params})).await?;
        let reader = self.clone();
        tokio::spawn(async move { reader.read(answer).await });
        Ok(())
    }

    async fn post(&self, mut message: Value) -> io::Result<Response> {
        message["jsonrpc"] = "2.0".into();
        self.send("POST", &message.to_string()).await
    }

    async fn send(&self, method: &str, body: &str) -> io::Result<Response> {
        let Self { address, session, .. } = self;
        let mut connection = TcpStream::connect(address).await?;
        let request = format!(
            "{method} /mcp HTTP/1.0\r\nHost: {address}\r\n{session}\
             Accept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await?;
        Ok(BufReader::new(connection).lines())
    }

    /// Reports each message, whether it is a whole response or an event of a stream.
    async fn read(&self, mut response: Response) {
        while let Ok(Some(line)) = response.next_line().await {
            let data = line.strip_prefix("data: ").unwrap_or(&line);
            let Ok(message @ Value::Object(_)) = serde_json::from_str(data) else { continue };
            let heard = match (message["method"].as_str(), message["error"]["message"].as_str()) {
                (Some(method), _) => method.trim_start_matches("notifications/").to_owned(),
                (None, Some(error)) => format!("an error: {error}"),
                (None, None) => "a result".to_owned(),
            };
            // At the end of the program the receiver is dropped.
            let _ = self.hears.send(heard).await;
        }
    }
}

/// `println!` would panic when the reader of a pipe has disconnected.
fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
