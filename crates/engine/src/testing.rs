//! For tests and demonstrations: ends actors the hard way.

use ractor::ActorCell;

use crate::engine::{Engine, Stopped};
use crate::ids::SessionId;

/// An actor of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Victim {
    /// The registry.
    Registry,
    /// The hub.
    Hub,
    /// The session that stands for all modern HTTP calls.
    Stateless,
    /// A session.
    Session(SessionId),
}

/// Kills an actor in the middle of whatever it does, as a bug would, and waits until it is
/// gone.
///
/// # Errors
///
/// [`Stopped`] if there is no such actor.
pub async fn kill(engine: &Engine, victim: Victim) -> Result<(), Stopped> {
    let cell = find(engine, &victim).ok_or(Stopped)?;
    cell.kill_and_wait(None).await.map_err(|_| Stopped)
}

fn find(engine: &Engine, victim: &Victim) -> Option<ActorCell> {
    let core = engine.core();
    Some(match victim {
        Victim::Registry => core.refs.registry.load_full()?.get_cell(),
        Victim::Hub => core.refs.hub.load_full()?.get_cell(),
        Victim::Stateless => core.refs.stateless.load_full()?.get_cell(),
        Victim::Session(id) => core.directory.get(id.as_str())?.actor().get_cell(),
    })
}
