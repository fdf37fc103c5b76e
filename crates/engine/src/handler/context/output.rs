//! The output of a running call: where it sends progress, logs and questions.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use stentor_delivery::{ProgressGate, StreamSender};
use stentor_wire::RequestMeta;
use stentor_wire::model::ClientCapabilities;

use crate::caller::Caller;

/// The output for one request: its stream, and what the request declared.
#[derive(Debug)]
pub(crate) struct CallOutput {
    pub(crate) sender: StreamSender,
    pub(crate) gate: Arc<ProgressGate>,
    pub(crate) meta: Arc<RequestMeta>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
}

impl CallOutput {
    pub(crate) fn new(
        sender: StreamSender,
        gate: Arc<ProgressGate>,
        caller: &Caller,
        meta: Arc<RequestMeta>,
    ) -> Self {
        let capabilities = caller.capabilities.clone();
        Self { sender, gate, meta, capabilities }
    }
}

/// The current output of a call. A modern call gets a new output with each retry. Most calls keep
/// their first output, which is read without a look into the `ArcSwap`.
#[derive(Debug)]
pub(crate) struct CallOutputs {
    first: Arc<CallOutput>,
    later: OnceLock<ArcSwap<CallOutput>>,
}

impl CallOutputs {
    pub(crate) fn new(first: CallOutput) -> Self {
        Self { first: Arc::new(first), later: OnceLock::new() }
    }

    /// The current output, for immediate use.
    pub(crate) fn load(&self) -> impl Deref<Target = CallOutput> {
        match self.later() {
            Some(later) => Now::Later(later),
            None => Now::First(&self.first),
        }
    }

    /// The current output, to keep.
    pub(crate) fn load_full(&self) -> Arc<CallOutput> {
        self.later().unwrap_or_else(|| self.first.clone())
    }

    pub(crate) fn store(&self, output: CallOutput) {
        let output = Arc::new(output);
        self.later.get_or_init(|| ArcSwap::new(output.clone())).store(output);
    }

    fn later(&self) -> Option<Arc<CallOutput>> {
        self.later.get().map(ArcSwap::load_full)
    }
}

enum Now<'a> {
    First(&'a CallOutput),
    Later(Arc<CallOutput>),
}

impl Deref for Now<'_> {
    type Target = CallOutput;

    fn deref(&self) -> &CallOutput {
        match self {
            Self::First(output) => output,
            Self::Later(output) => output,
        }
    }
}
