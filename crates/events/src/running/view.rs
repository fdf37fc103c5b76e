//! What can be seen of an event type from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RunningType;
use crate::subscriber::Mode;

/// An event type in an engine that runs, at one moment.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TypeView {
    /// Its name.
    pub name: Arc<str>,
    /// How clients may have its occurrences.
    pub modes: Vec<Mode>,
    /// Streams and webhooks on this node. Those of a type with `check` count at its branches.
    pub listeners: usize,
    /// Occurrences that its log has now, and their bytes.
    pub kept: (usize, usize),
    /// Occurrences that came into its log since the engine started.
    pub seen: u64,
    /// Occurrences that its actor has not sent yet.
    pub lag: u64,
}

impl RunningType {
    pub(crate) fn view(&self) -> TypeView {
        let (kept, seen) = {
            let log = self.log.lock();
            (log.kept(), log.end_index())
        };
        TypeView {
            name: self.name(),
            modes: self.modes.iter().collect(),
            listeners: self.listeners.load(Ordering::Acquire),
            kept,
            seen,
            lag: if self.has_listeners() { seen.saturating_sub(self.read_up_to()) } else { 0 },
        }
    }
}
