//! A server with the fixture, on a free port.

use std::net::SocketAddr;

use stentor::http::{HttpConfig, ServeError};
use stentor::stdio::StdioError;
use stentor::{Config, Engine, Prompt, Resource, Tool};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fixture::{self, MARK, Stage};
use crate::{eventually, soon};

/// An engine with the fixture's tools, served over HTTP; pipes are opened to it one by one.
#[derive(Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// Where the test and the running calls meet.
    pub stage: Stage,
    /// Where HTTP is served.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    /// Starts a server.
    pub async fn start() -> Self {
        Self::tuned(|_, _| {}).await
    }

    /// Starts a server with other limits and times.
    pub async fn tuned(tune: impl FnOnce(&mut Config, &mut HttpConfig)) -> Self {
        let stage = Stage::default();
        let mut http = HttpConfig::default();
        let builder = fixture::engine(&stage).configure(|config| tune(config, &mut http));
        let engine = builder.start().await.expect("the fixture is a valid catalog");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            if stopped.await.is_err() {
                // The server was dropped, with its test.
                std::future::pending::<()>().await;
            }
        };
        let served =
            tokio::spawn(stentor::http::serve_on(engine.clone(), listener, http, shutdown));
        Self { engine, stage, address, stop: Some(stop), served }
    }

    /// Asks the server to shut down, and returns when it has begun to.
    pub async fn begin_shutdown(&mut self) {
        let stop = self.stop.take().expect("shut down once");
        stop.send(()).expect("the server runs");
        soon("the engine to drain", self.engine.draining()).await;
    }

    /// Waits until the server has shut down.
    pub async fn ended(&mut self) {
        let served = soon("the server to end", &mut self.served).await;
        served.expect("the server did not panic").expect("the server ended well");
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

    /// Returns when everything that was changed or announced until now is on its way to those
    /// who hear it, and nothing is held back.
    pub async fn settle(&self) {
        eventually("all changes to be announced", async || {
            // An actor that is being replaced has nothing to say.
            self.engine.observe().await.is_ok_and(|view| view.registry.open_windows == 0)
        })
        .await;
    }

    /// Sends a mark to all who hear: what happened before is heard before.
    pub async fn mark(&self) {
        self.settle().await;
        self.engine.send_resource_updated(MARK);
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
