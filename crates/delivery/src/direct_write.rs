//! Writing into a client's connection in place of its task.

use std::fmt::Debug;

/// Writes the frames of a stream to its client, in place of the task that reads the stream.
///
/// The task of a connection sleeps most of the time. With thousands of connections, waking each
/// task for one notice costs as much as writing the notice. So the hub writes directly to clients
/// that keep up.
pub trait DirectWrite: Debug + Send + Sync {
    /// Takes the waiting frames and writes as much as the client accepts at once. `false` if the
    /// task has to be woken: bytes are left, or the task is running now. Must not wait or block.
    fn write_directly(&self) -> bool;
}
