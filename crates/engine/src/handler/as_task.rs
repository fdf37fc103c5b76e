//! Whether calls of a tool become tasks.

use std::time::Duration;

/// Whether calls of a tool become tasks. Only clients that declare the extension receive tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsTask {
    /// Calls do not become tasks.
    #[default]
    Never,
    /// At once, if the client supports tasks.
    WhenPossible,
    /// At once; a modern client that does not support tasks gets an error (-32021). Legacy clients
    /// cannot support tasks, and are answered when the call has ended.
    Always,
    /// If the client supports tasks, once a call has run for this long and has sent nothing yet.
    After(Duration),
    /// When the code asks for it, with [`Context::become_task`](crate::Context::become_task).
    OnDemand,
}
