//! Where a running call speaks.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use stentor_wire::RequestMeta;
use stentor_wire::model::ClientCapabilities;

use crate::outlet::{Gate, Outlet};
use crate::session::Caller;

/// The way to the client of one request.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) outlet: Outlet,
    pub(crate) gate: Arc<Gate>,
    pub(crate) meta: Arc<RequestMeta>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
}

impl Lane {
    pub(crate) fn new(
        outlet: Outlet,
        gate: Arc<Gate>,
        caller: &Caller,
        meta: Arc<RequestMeta>,
    ) -> Self {
        let capabilities = caller.capabilities.clone();
        Self { outlet, gate, meta, capabilities }
    }
}

/// The lane that a call has now: a modern call gets another one with each retry. Most keep their
/// first, which is found without the cost of looking for another.
#[derive(Debug)]
pub(crate) struct Lanes {
    first: Arc<Lane>,
    later: OnceLock<ArcSwap<Lane>>,
}

impl Lanes {
    pub(crate) fn new(first: Lane) -> Self {
        Self { first: Arc::new(first), later: OnceLock::new() }
    }

    /// The lane of now, to speak at once.
    pub(crate) fn load(&self) -> impl Deref<Target = Lane> {
        match self.later() {
            Some(later) => Now::Later(later),
            None => Now::First(&self.first),
        }
    }

    /// The lane of now, to keep.
    pub(crate) fn load_full(&self) -> Arc<Lane> {
        self.later().unwrap_or_else(|| self.first.clone())
    }

    pub(crate) fn store(&self, lane: Lane) {
        let lane = Arc::new(lane);
        self.later.get_or_init(|| ArcSwap::new(lane.clone())).store(lane);
    }

    fn later(&self) -> Option<Arc<Lane>> {
        self.later.get().map(ArcSwap::load_full)
    }
}

enum Now<'a> {
    First(&'a Lane),
    Later(Arc<Lane>),
}

impl Deref for Now<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        match self {
            Self::First(lane) => lane,
            Self::Later(lane) => lane,
        }
    }
}
