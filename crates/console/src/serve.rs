//! A listener for the console alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use stentor_engine::Engine;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::config::ConsoleConfig;
use crate::router;

/// A console with a listener of its own. It ends with the engine, and when this is dropped.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    serving: AbortHandle,
}

impl Console {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves the console on this port of the loopback interface; 0 is any free port.
///
/// # Errors
///
/// If the port cannot be listened on.
pub async fn serve(engine: &Engine, config: ConsoleConfig, port: u16) -> io::Result<Console> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    let (app, stopped) = (router(engine, config), engine.stopped());
    let serving = tokio::spawn(async move {
        tokio::select! {
            served = async { axum::serve(listener, app).await } => {
                if let Err(error) = served {
                    tracing::error!(target: "stentor::console", %error, "the console has ended");
                }
            }
            _ = stopped => {}
        }
    });
    Ok(Console { address, serving: serving.abort_handle() })
}
