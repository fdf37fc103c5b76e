//! The server: where incidents come from.

use std::future::pending;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stentor::Engine;
use stentor::events::{Emit, EventType, Events, WebhookConfig, event_type};
use stentor::http::{HttpConfig, ServeError, serve, serve_on};
use stentor_examples::say;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::stage::{Failure, Stage, Way};

pub(crate) const NAME: &str = "incident.created";

/// What a client asks for.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Filter {
    /// Only incidents of this severity; all without it.
    severity: Option<String>,
}

/// What it hears.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Incident {
    id: String,
    severity: String,
}

/// The type: also the handle by which incidents are emitted.
fn incidents() -> EventType<Filter, Incident> {
    event_type::<Filter, Incident>(NAME)
        .description("An incident was opened.")
        // For clients that were away: the last 1,000, for an hour.
        .replay(1_000, Duration::from_secs(3_600))
        .matches(|filter, incident| {
            filter.severity.as_ref().is_none_or(|wanted| *wanted == incident.severity)
        })
}

async fn emit(
    incidents: &EventType<Filter, Incident>,
    number: u32,
    severity: &str,
) -> Result<(), Failure> {
    let incident = Incident { id: format!("inc-{number}"), severity: severity.to_owned() };
    // The id that the source gave it becomes the `eventId`. Without this, one is made.
    let id = incident.id.clone();
    incidents.emit_as(Emit::new(incident).id(id)).await?;
    Ok(())
}

/// The server of the show.
pub(crate) struct Server {
    pub(crate) url: String,
    engine: Engine,
    serving: JoinHandle<Result<(), ServeError>>,
    incidents: EventType<Filter, Incident>,
    stage: Stage,
}

/// Starts it, with webhooks that may go to this origin.
pub(crate) async fn start(receiver: &str, stage: &Stage) -> Result<Server, Failure> {
    let incidents = incidents();
    // Webhooks have an owner. Here nobody has a name, so that all are one. With `HttpConfig::auth`,
    // `everybody` is left out, and each client has its own.
    let webhooks = WebhookConfig::new()
        .everybody(Some("everybody".into()))
        // They go to public addresses by https only, but for origins that are allowed by name.
        .allow_origin(receiver)?;
    let events = Events::new()
        .add(&incidents)
        .webhooks(webhooks)
        .configure(|config| config.poll_interval = Duration::from_secs(1));
    let engine = Engine::builder("Incidents", "1.0.0").extension(events).start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let config = HttpConfig::default();
    let serving = tokio::spawn(serve_on(engine.clone(), listener, config, pending()));
    stage.say(Way::Server, format_args!("offers {NAME} at {url}"));
    Ok(Server { url, engine, serving, incidents, stage: stage.clone() })
}

impl Server {
    /// Something happens.
    pub(crate) async fn incident(&self, severity: &'static str) -> Result<(), Failure> {
        let number = self.stage.count() + 1;
        self.stage.happens(&format!("inc-{number}"), severity);
        emit(&self.incidents, number, severity).await
    }

    pub(crate) async fn shutdown(self) -> Result<(), Failure> {
        self.engine.shutdown().await;
        self.serving.await??;
        self.stage.say(Way::Server, "has shut down");
        Ok(())
    }
}

/// Only the server, with an incident now and then, for clients of the user's own.
pub(crate) async fn serve_alone() -> Result<(), Failure> {
    let incidents = incidents();
    let events = Events::new().add(&incidents);
    let engine = Engine::builder("Incidents", "1.0.0").extension(events).start().await?;
    tokio::spawn(async move {
        for number in 1.. {
            let severity = if number % 2 == 0 { "low" } else { "high" };
            // Fails when the engine has stopped.
            if emit(&incidents, number, severity).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(2)).await;
        }
    });
    let url = "http://127.0.0.1:8000/mcp";
    say(format!(
        "Serving {url}, with an incident every 2 seconds. Ctrl-C ends it. In a second terminal:\n\n    \
         cargo run --release -p stentor-watch --example watch -- {url} --events {NAME}\n    \
         cargo run --release -p stentor-watch --example watch -- {url} --events {NAME} \
         --args '{{\"severity\":\"high\"}}'\n"
    ));
    Ok(serve(engine, "127.0.0.1:8000").await?)
}
