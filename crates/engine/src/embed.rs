//! The interface for a host that has an actor system. It exposes ractor on purpose.

mod actor_tool;
mod audience;
mod message;

use ractor::ActorCell;

use crate::engine::{Engine, EngineBuilder, StartError};
pub use actor_tool::{ActorToolFn, FindActor, actor_tool};
pub use audience::Audience;
pub use message::EngineMsg;

impl EngineBuilder {
    /// As [`start`](Self::start), with the engine's own supervisor as a linked child of
    /// `supervisor`: it stops when `supervisor` stops, and its end reaches the
    /// `handle_supervisor_evt` of `supervisor`.
    ///
    /// The default `handle_supervisor_evt` of ractor stops an actor when any of its children ends.
    /// Override it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_under(self, supervisor: ActorCell) -> Result<Engine, StartError> {
        self.start_linked(Some(supervisor)).await
    }
}

impl Engine {
    /// The actor cell of the engine's supervisor, to link, to monitor or to stop it.
    #[must_use]
    pub fn supervisor_cell(&self) -> ActorCell {
        self.root().get_cell()
    }
}
