//! An engine as one part of a host with its own actors: a converter runs the calls of two tools, a
//! feed informs the engine of new files, an auditor receives the engine's events, and a supervisor
//! watches over all of them.
//!
//!     cargo run --release -p stentor-examples --example embedded                    # http://127.0.0.1:8000/mcp
//!     cargo run --release -p stentor-examples --example embedded -- --http ADDR
//!
//! The workspace enables ractor's `cluster` feature, which requires an `impl Message` for each
//! message type. Without the feature every type is a message, and these `impl`s must be removed.

mod auditor;
mod converter;
mod feed;

use auditor::{AuditMsg, Auditor};
use converter::CONVERTER;
use feed::ReplicationLog;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use stentor::{Engine, Resource};
use stentor_examples::say;

struct Host;

impl Actor for Host {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(converter::start(myself.get_cell()).await?)
    }

    /// Without this, the host would end as soon as a child ends.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let (child, why) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, error.to_string()),
            // `kill()` is a termination with a reason; a child that stopped by itself has none.
            SupervisionEvent::ActorTerminated(child, _, Some(reason)) => (child, reason),
            _ => return Ok(()),
        };
        if child.get_name().as_deref() == Some(CONVERTER) {
            say(format!("host: the converter ended, another one takes its place: {why}"));
            return Ok(converter::start(myself.get_cell()).await?);
        }
        // This includes the engine, which has already restarted its own actors where possible.
        Err(format!("a child ended: {why}").into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _logs = stentor_examples::log("info");
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "127.0.0.1:8000",
        ["--http", address] => address,
        _ => return Err("usage: embedded [--http ADDR]".into()),
    };

    let (host, _) = Actor::spawn(None, Host, ()).await?;
    let [convert, count] = converter::tools();
    let engine = Engine::builder("Stentor Embedded", env!("CARGO_PKG_VERSION"))
        .tool(convert)
        .tool(count)
        .resource(Resource::text(feed::NEWEST, "newest", "nothing yet"))
        .start_under(host.get_cell())
        .await?;
    let (auditor, _) = Actor::spawn_linked(None, Auditor, (), host.get_cell()).await?;
    engine.subscribe(&auditor, 1024, AuditMsg::Events);
    Actor::spawn_linked(None, ReplicationLog, engine.actor(), host.get_cell()).await?;

    say(format!(
        "Serving http://{address}/mcp. In a second terminal:\n\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp \
         --call convert '{{\"path\":\"a.png\"}}'\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp \
         --call convert '{{\"path\":\"poison\"}}'\n    \
         cargo run --release -p stentor-watch --example watch -- http://{address}/mcp --call count '{{}}'\n\n\
         Ctrl-C ends it.\n"
    ));
    // Ends the engine first, because it has calls to answer; then the host with its other children.
    stentor::http::serve(engine, address).await?;
    host.drain_children_and_wait(None).await;
    host.stop_and_wait(None, None).await?;
    say("host: everything has ended");
    Ok(())
}
