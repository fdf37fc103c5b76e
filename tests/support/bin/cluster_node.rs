//! A node of the suite `cluster`. It joins with the settings from its argument and prints its
//! addresses on one line. Then it reads one [`NodeOrder`] per line and answers each with a line.

use std::error::Error;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stentor::cluster::{Cluster, ClusterConfig};
use stentor::events::{EventType, Events, EventsHandle, WebhookConfig, event_type};
use stentor::http::{HttpConfig, OriginPolicy, serve_on};
use stentor::observe::{EngineEvent, PeerChange};
use stentor::{
    Context, Engine, Resource, ResourceTemplate, Tool, ToolError, Watch,
    catalog::{ItemKind, Mutation},
    handler::{AsTask, TemplateVars},
    resource_template,
    session::NodeId,
    tool,
};
use stentor_tests::{MARK, NodeAddresses, NodeCensus, NodeOrder, NodeSettings, Stage};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::sleep;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Steps {
    count: u32,
    #[serde(default)]
    ms: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Wait {
    #[serde(default)]
    ms: u64,
}

async fn ask(ctx: Context) -> Result<String, ToolError> {
    ctx.info("asks now");
    let Name { name } = ctx.elicit("Who are you?").await?;
    Ok(format!("Hello, {name}!"))
}

async fn paced(args: Steps, ctx: Context) -> Result<&'static str, ToolError> {
    for step in 1..=args.count {
        ctx.report_progress_paced(f64::from(step), Some(f64::from(args.count)), "").await;
    }
    Ok("counted")
}

/// Sends each line once.
async fn lines(args: Steps, ctx: Context) -> Result<&'static str, ToolError> {
    for n in 1..=args.count {
        ctx.notify("notifications/example/line", json!({ "n": n }));
        sleep(Duration::from_millis(args.ms)).await;
    }
    Ok("said")
}

/// A tool that answers with the name of the node that ran it.
fn node_name_tool(name: &str, node: &NodeId) -> Tool {
    let node = node.to_string();
    tool(name, move |args: Wait| {
        let node = node.clone();
        async move {
            if args.ms > 0 {
                sleep(Duration::from_millis(args.ms)).await;
            }
            node
        }
    })
}

fn own_tools(node: &NodeId, stage: &Stage) -> [Tool; 6] {
    [
        node_name_tool(&format!("echo-{node}"), node),
        tool(format!("ask-{node}"), ask),
        tool(format!("paced-{node}"), paced),
        tool(format!("lines-{node}"), lines),
        stage.holding(&format!("hold-{node}")),
        stage.heeding(&format!("task-{node}")).as_task(AsTask::Always),
    ]
}

/// The URIs whose hooks ran, in order: `true` for each `on_watch`. The event type `watched` is among
/// them.
#[derive(Clone, Default)]
struct HookLog(Arc<Mutex<Vec<(String, bool)>>>);

impl HookLog {
    fn hook(&self, begins: bool) -> impl Fn(Watch) -> std::future::Ready<()> + use<> {
        let this = self.clone();
        move |watch| {
            this.add(watch.uri(), begins);
            ready(())
        }
    }

    /// As [`hook`](Self::hook), for an event type.
    fn hook_of_type(&self, begins: bool) -> impl Fn(Arc<()>) -> std::future::Ready<()> + use<> {
        let this = self.clone();
        move |_| {
            this.add("watched", begins);
            ready(())
        }
    }

    fn add(&self, uri: &str, begins: bool) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((uri.to_owned(), begins));
    }

    fn of(&self, uri: &str) -> Vec<bool> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|(it, _)| it == uri).map(|(_, begins)| *begins).collect()
    }
}

/// What has become of other nodes, in order.
#[derive(Clone, Default)]
struct PeerLog(Arc<Mutex<Vec<(String, PeerChange)>>>);

impl PeerLog {
    fn observe(engine: &Engine) -> Self {
        let (this, mut events) = (Self::default(), engine.events(1_024));
        let log = this.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let EngineEvent::PeerChanged { node, change } = event {
                    let mut log = log.0.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push((node.to_string(), change));
                }
            }
        });
        this
    }

    fn of(&self, node: &str) -> Vec<PeerChange> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|(it, _)| it == node).map(|(_, change)| *change).collect()
    }
}

fn any(uri_template: &str) -> ResourceTemplate {
    resource_template(uri_template, "any", |vars: TemplateVars| async move { vars["name"].clone() })
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Number {
    n: u64,
}

/// An event type, and the handle of the extension.
struct Happenings {
    happened: EventType<(), Number>,
    events: EventsHandle,
}

impl Happenings {
    fn new(hooks: &HookLog) -> (Self, Events) {
        let happened = event_type("happened").replay(10_000, Duration::from_secs(3_600));
        let mut webhooks = WebhookConfig::new();
        webhooks.everybody = Some("everybody".into());
        let watched = event_type::<(), Number>("watched")
            .on_subscribe(hooks.hook_of_type(true))
            .on_unsubscribe(hooks.hook_of_type(false));
        let events = Events::new().add(&happened).add(&watched).webhooks(webhooks);
        (Self { happened, events: events.handle() }, events)
    }
}

async fn join(engine: &Engine, settings: &NodeSettings) -> Result<Cluster, Failure> {
    let mut config = ClusterConfig::new(&settings.cluster, &settings.cluster);
    config.seeds = settings.seeds.clone();
    config.give_up_after = settings.give_up_after;
    (config.listen, config.gossip) = ((settings.address, 0).into(), (settings.address, 0).into());
    config.plaintext_anywhere = !settings.address.is_loopback();
    Ok(Cluster::join(engine, config).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let settings = std::env::args().nth(1).ok_or("the settings are missing")?;
    let settings: NodeSettings = serde_json::from_str(&settings)?;
    let (node, stage) = (NodeId::new(&*settings.name)?, Stage::default());
    let hooks = HookLog::default();
    let hooked = any("hooked://{name}").on_watch(hooks.hook(true)).on_unwatch(hooks.hook(false));
    let (happenings, events) = Happenings::new(&hooks);
    let mut builder = Engine::builder("node", "1")
        .extension(events)
        .configure(|config| config.node = node.clone())
        .item(Resource::text(MARK, "mark", "mark"))
        .item(any("test://{name}"))
        .item(hooked);
    for tool in own_tools(&node, &stage) {
        builder = builder.tool(tool);
    }
    let engine = builder.start().await?;
    let peers = PeerLog::observe(&engine);
    let cluster = join(&engine, &settings).await?;
    let listener = TcpListener::bind((settings.address, 0)).await?;
    let addresses = NodeAddresses {
        http: listener.local_addr()?,
        link: cluster.link_address().ok_or("no address")?,
        gossip: cluster.gossip_address().ok_or("no address")?,
    };
    let leave = {
        let cluster = cluster.clone();
        async move {
            stentor::signal::terminated().await;
            cluster.leave().await;
        }
    };
    let mut http = HttpConfig::default();
    http.max_connections = 20_000;
    http.origins = OriginPolicy::any();
    let served = tokio::spawn(serve_on(engine.clone(), listener, http, leave));
    answer(&addresses).await?;
    tokio::spawn(async move {
        if let Err(error) =
            run_orders(&engine, &cluster, &stage, (&hooks, &peers), &happenings).await
        {
            eprintln!("{error}");
        }
        // The test has ended; exit even if something still runs.
        std::process::exit(1);
    });
    served.await??;
    // Exits without waiting for the task that reads orders.
    std::process::exit(0)
}

async fn run_orders(
    engine: &Engine,
    cluster: &Cluster,
    stage: &Stage,
    (hooks, peers): (&HookLog, &PeerLog),
    happenings: &Happenings,
) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            NodeOrder::Put(names, description) => {
                let put = |name: &String| {
                    Mutation::put(node_name_tool(name, engine.node()).description(&*description))
                };
                engine.catalog().apply(names.iter().map(put)).await?;
                answer(&()).await?;
            }
            NodeOrder::Remove(names) => {
                let remove = |name| Mutation::remove(ItemKind::Tools, name);
                engine.catalog().apply(names.into_iter().map(remove)).await?;
                answer(&()).await?;
            }
            NodeOrder::Touch(uri) => {
                engine.send_resource_updated(&uri);
                answer(&()).await?;
            }
            NodeOrder::Tell(numbers) => {
                for n in numbers {
                    engine.notify_all("notifications/example/told", json!({ "n": n })).await?;
                }
                answer(&()).await?;
            }
            NodeOrder::Release(name) => {
                stage.release(&name);
                answer(&()).await?;
            }
            NodeOrder::Phase(name) => answer(&stage.phase(&name)).await?,
            NodeOrder::Cut(other) => {
                cluster.cut_link(&NodeId::new(other)?);
                answer(&()).await?;
            }
            NodeOrder::Hooks(uri) => answer(&hooks.of(&uri)).await?,
            NodeOrder::Emit(numbers) => {
                let mut ids = Vec::new();
                for n in numbers {
                    ids.push(happenings.happened.emit(Number { n }).await?);
                }
                answer(&ids).await?;
            }
            NodeOrder::Allow(origin) => {
                happenings.events.allow_origin(&origin)?;
                answer(&()).await?;
            }
            NodeOrder::Webhooks => answer(&happenings.events.webhooks().len()).await?,
            NodeOrder::PeerChanges(node) => answer(&peers.of(&node)).await?,
            NodeOrder::Count => answer(&count(engine, cluster).await?).await?,
        }
    }
    Ok(())
}

async fn count(engine: &Engine, cluster: &Cluster) -> Result<NodeCensus, Failure> {
    let sessions = engine.sessions();
    let catalog = engine.catalog().snapshot();
    let peer_requests = cluster.peer_requests();
    let linked = cluster.nodes().into_iter().filter(|other| other.connected);
    Ok(NodeCensus {
        sessions: sessions.len(),
        calls: engine.calls().len(),
        peer_requests: (peer_requests.incoming, peer_requests.outgoing),
        held: engine.counters().held,
        untold: stentor_tests::untold(engine, Some(cluster)).await?,
        links: linked.map(|other| other.node.to_string()).collect(),
        tools: catalog.tool_names().map(str::to_owned).collect(),
        conflicts: catalog.conflicts().iter().map(|it| it.key.to_string()).collect(),
    })
}

async fn answer(answer: &impl Serialize) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{}\n", serde_json::to_string(answer)?).as_bytes()).await?;
    Ok(stdout.flush().await?)
}
