//! A server with the fixture's items, on a free port.

use std::net::SocketAddr;

use stentor::http::{HttpConfig, ServeError};
use stentor::stdio::StdioError;
use stentor::{Engine, Prompt, Resource, Tool, config::Config};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::fixture::{self, MARK, Stage};
use crate::other_nodes::{OtherNodes, Role, nodes_wanted};
use crate::{eventually, soon};

/// An engine with the fixture's items, served over HTTP. Tests open pipes to it one by one.
///
/// With `STENTOR_NODES=3` in the environment, two other nodes without items join it, and a balancer
/// sends each HTTP request to the next of the three. Clients must not notice any difference.
#[derive(Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// Synchronizes the test with running calls.
    pub stage: Stage,
    /// The HTTP address for clients.
    pub address: SocketAddr,
    /// The HTTP address of the engine itself.
    pub home: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
    other_nodes: Option<OtherNodes>,
}

impl Server {
    /// Starts a server.
    pub async fn start() -> Self {
        Self::tuned(|_, _| {}).await
    }

    /// Starts a server with changed settings.
    pub async fn tuned(tune: impl FnOnce(&mut Config, &mut HttpConfig)) -> Self {
        let (mut config, mut http) = (Config::default(), HttpConfig::default());
        tune(&mut config, &mut http);
        if let Some(other_node) = Role::given() {
            other_node.play(config, http).await;
        }
        let (stage, stop) = (Stage::default(), CancellationToken::new());
        let builder = fixture::engine(&stage).configure(|it| *it = config);
        let engine = builder.start().await.expect("the fixture is a valid catalog");
        let (home, served) = serve(&engine, &http, &stop).await;
        let other_nodes = match nodes_wanted() {
            0 | 1 => None,
            nodes => Some(OtherNodes::of(&engine, home, nodes).await),
        };
        let address = other_nodes.as_ref().map_or(home, OtherNodes::address);
        Self { engine, stage, address, home, stop, served, other_nodes }
    }

    /// Asks the server to shut down, and returns when it has begun to.
    pub async fn begin_shutdown(&mut self) {
        self.stop.cancel();
        soon("the engine to drain", self.engine.draining()).await;
        if let Some(other_nodes) = &self.other_nodes {
            other_nodes.stop().await;
        }
    }

    /// Waits until the server has shut down.
    pub async fn ended(&mut self) {
        let served = soon("the server to end", &mut self.served).await;
        served.expect("the server did not panic").expect("the server ended well");
        if let Some(other_nodes) = &self.other_nodes {
            other_nodes.ended().await;
        }
    }

    /// The client's end of a pipe that buffers this many bytes in each direction, and the task that
    /// serves the other end.
    #[must_use]
    pub fn pipe(&self, bytes: usize) -> (DuplexStream, JoinHandle<Result<(), StdioError>>) {
        let (near, far) = tokio::io::duplex(bytes);
        let engine = self.engine.clone();
        let served = tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(far);
            stentor::stdio::serve_on(&engine, reader, writer).await
        });
        (near, served)
    }

    /// Whether the server has several nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.other_nodes.is_some()
    }

    /// The activity of all nodes together. Waits for actors that are being replaced.
    pub async fn activity(&self) -> Activity {
        let mut found = None;
        eventually("all actors to be there", async || {
            found = self.look().await;
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }

    async fn look(&self) -> Option<Activity> {
        let cluster = self.other_nodes.as_ref().map(|other_nodes| &other_nodes.cluster);
        let mut activity = Activity::of(&self.engine, cluster).await.ok()?;
        if let Some(other_nodes) = &self.other_nodes {
            other_nodes.activities().await?.into_iter().for_each(|it| activity.add(it));
        }
        Some(activity)
    }

    /// Waits until no client has a session, a call or a subscription.
    pub async fn unused(&self) {
        eventually("everything of all clients to end", async || {
            let Activity { sessions, subscribers, calls, .. } = self.activity().await;
            sessions.is_empty() && (subscribers, calls) == (0, 0)
        })
        .await;
    }

    /// Returns when all changes and announcements up to now are on the way to their subscribers.
    pub async fn settle(&self) {
        let mut settled = 0;
        eventually("all changes to be announced", async || {
            settled = if self.activity().await.is_settled() { settled + 1 } else { 0 };
            // Checked twice: during the first round, a change may have been in flight to a node
            // that was asked early.
            settled == if self.is_cluster() { 2 } else { 1 }
        })
        .await;
    }

    /// Sends a mark to all subscribers. Everything before the mark is received before it.
    pub async fn mark(&self) {
        self.settle().await;
        self.engine.send_resource_updated(MARK);
        if self.other_nodes.is_some() {
            // A subscriber that joins after this call must not receive the mark.
            self.settle().await;
        }
    }

    /// A tool to add.
    #[must_use]
    pub fn tool(name: &str) -> Tool {
        fixture::small_tool(name)
    }

    /// A resource to add.
    #[must_use]
    pub fn resource(uri: &str) -> Resource {
        fixture::small_resource(uri)
    }

    /// A prompt to add.
    #[must_use]
    pub fn prompt(name: &str) -> Prompt {
        fixture::small_prompt(name)
    }
}

/// Serves an engine on a free port.
pub(crate) async fn serve(
    engine: &Engine,
    http: &HttpConfig,
    stop: &CancellationToken,
) -> (SocketAddr, JoinHandle<Result<(), ServeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let shutdown = stop.clone().cancelled_owned();
    let served = stentor::http::serve_on(engine.clone(), listener, http.clone(), shutdown);
    (address, tokio::spawn(served))
}
