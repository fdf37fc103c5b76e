//! The door for somebody who has an actor system already. Here, on purpose, ractor shows.

mod actor_tool;
mod audience;
mod message;

use ractor::ActorCell;

use crate::engine::{Engine, EngineBuilder, StartError};
pub use actor_tool::{ActorToolFn, FindActor, actor_tool};
pub use audience::Audience;
pub use message::EngineMsg;

impl EngineBuilder {
    /// As [`start`](Self::start), with the engine's root as a linked child of `supervisor`:
    /// it stops when the supervisor does, and its end reaches the supervisor's
    /// `handle_supervisor_evt`.
    ///
    /// The default `handle_supervisor_evt` of ractor stops an actor when any of its children
    /// ends; override it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_under(self, supervisor: ActorCell) -> Result<Engine, StartError> {
        self.start_linked(Some(supervisor)).await
    }
}

impl Engine {
    /// The engine's root, to link, to monitor, or to stop.
    #[must_use]
    pub fn root_cell(&self) -> ActorCell {
        self.root().get_cell()
    }
}
