//! A server with the fixture, on a free port.

use std::net::SocketAddr;

use stentor::http::{HttpConfig, ServeError};
use stentor::stdio::StdioError;
use stentor::{Config, Engine, Prompt, Resource, Tool};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::fixture::{self, MARK, Stage};
use crate::neighbours::{Neighbours, Role, nodes_wanted};
use crate::{eventually, soon};

/// An engine with the fixture's tools, served over HTTP; pipes are opened to it one by one.
///
/// With `STENTOR_NODES=3` in the environment it has two neighbours that offer nothing, and a balancer
/// gives each HTTP request to the next of the three. Clients are not to notice any of that.
#[derive(Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// Where the test and the running calls meet.
    pub stage: Stage,
    /// Where HTTP is served.
    pub address: SocketAddr,
    /// Where the engine itself serves it.
    pub home: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
    neighbours: Option<Neighbours>,
}

impl Server {
    /// Starts a server.
    pub async fn start() -> Self {
        Self::tuned(|_, _| {}).await
    }

    /// Starts a server with other limits and times.
    pub async fn tuned(tune: impl FnOnce(&mut Config, &mut HttpConfig)) -> Self {
        let (mut config, mut http) = (Config::default(), HttpConfig::default());
        tune(&mut config, &mut http);
        if let Some(neighbour) = Role::given() {
            neighbour.play(config, http).await;
        }
        let (stage, stop) = (Stage::default(), CancellationToken::new());
        let builder = fixture::engine(&stage).configure(|it| *it = config);
        let engine = builder.start().await.expect("the fixture is a valid catalog");
        let (home, served) = serve(&engine, &http, &stop).await;
        let neighbours = match nodes_wanted() {
            0 | 1 => None,
            nodes => Some(Neighbours::of(&engine, home, nodes).await),
        };
        let address = neighbours.as_ref().map_or(home, Neighbours::address);
        Self { engine, stage, address, home, stop, served, neighbours }
    }

    /// Asks the server to shut down, and returns when it has begun to.
    pub async fn begin_shutdown(&mut self) {
        self.stop.cancel();
        soon("the engine to drain", self.engine.draining()).await;
        if let Some(neighbours) = &self.neighbours {
            neighbours.stop().await;
        }
    }

    /// Waits until the server has shut down.
    pub async fn ended(&mut self) {
        let served = soon("the server to end", &mut self.served).await;
        served.expect("the server did not panic").expect("the server ended well");
        if let Some(neighbours) = &self.neighbours {
            neighbours.ended().await;
        }
    }

    /// The client's end of a pipe that holds so many bytes in each direction, and the task that
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

    /// Whether it is several nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.neighbours.is_some()
    }

    /// What goes on, on all nodes. Waits for actors that are being replaced.
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
        let cluster = self.neighbours.as_ref().map(|neighbours| &neighbours.cluster);
        let mut activity = Activity::of(&self.engine, cluster).await.ok()?;
        if let Some(neighbours) = &self.neighbours {
            neighbours.activities().await?.into_iter().for_each(|it| activity.add(it));
        }
        Some(activity)
    }

    /// Waits until there is no session, call or subscription of a client.
    pub async fn unused(&self) {
        eventually("everything of all clients to end", async || {
            let Activity { sessions, subscribers, calls, .. } = self.activity().await;
            sessions.is_empty() && (subscribers, calls) == (0, 0)
        })
        .await;
    }

    /// Returns when everything that was changed or announced until now is on its way to those
    /// who hear it, and nothing is held back.
    pub async fn settle(&self) {
        let mut settled = 0;
        eventually("all changes to be announced", async || {
            settled = if self.activity().await.is_settled() { settled + 1 } else { 0 };
            // Once more, as something may have been on its way to a node that was asked first.
            settled == if self.is_cluster() { 2 } else { 1 }
        })
        .await;
    }

    /// Sends a mark to all who hear: what happened before is heard before.
    pub async fn mark(&self) {
        self.settle().await;
        self.engine.send_resource_updated(MARK);
        if self.neighbours.is_some() {
            // Who hears from now on is not to hear of it any more.
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
