//! How an engine ended: the value that a server of the engine returns.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// How an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The end was requested: with [`Engine::shutdown`], or by stopping the engine's supervisor.
    Shutdown,
    /// The engine's supervisor was killed, alone or with the actor above it.
    Killed,
    /// The engine's supervisor failed for this reason: usually one restart too many of the actors
    /// below it.
    Failed(String),
}

impl Ended {
    /// Returns `Ok` for an end that was requested.
    ///
    /// # Errors
    ///
    /// [`EndedUnasked`] for any other end: a process that ends because of it has failed.
    pub fn asked(self) -> Result<(), EndedUnasked> {
        match self {
            Self::Shutdown => Ok(()),
            Self::Killed => Err(EndedUnasked::Killed),
            Self::Failed(why) => Err(EndedUnasked::Failed(why)),
        }
    }
}

/// An engine ended, although nobody had requested it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndedUnasked {
    /// See [`Ended::Killed`].
    #[error("the engine was killed")]
    Killed,
    /// See [`Ended::Failed`].
    #[error("the engine failed: {0}")]
    Failed(String),
}

/// The state of an engine's end. The supervisor writes it, and so does the code that requests a
/// shutdown.
#[derive(Debug, Default)]
pub(crate) struct End {
    asked: AtomicBool,
    failed: OnceLock<String>,
    ended: OnceLock<Ended>,
    over: CancellationToken,
}

impl End {
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Records why the supervisor fails. The first reason counts.
    pub(crate) fn fail(&self, why: String) {
        let _ = self.failed.set(why);
    }

    /// Records that the supervisor ends. A request after this changes nothing.
    pub(crate) fn begin(&self) {
        self.ended.get_or_init(|| match self.failed.get() {
            // A failure during a requested end is logged, and changes nothing.
            _ if self.asked.load(Ordering::Acquire) => Ended::Shutdown,
            Some(why) => Ended::Failed(why.clone()),
            None => Ended::Killed,
        });
    }

    /// Records that the supervisor has ended.
    pub(crate) fn over(&self) {
        self.over.cancel();
    }
}

impl Engine {
    /// How the engine ended, or is ending; `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.core().end.ended.get().cloned()
    }

    /// Completes when the engine has ended, in whatever way, and returns how it ended.
    ///
    /// A server returns this as its own end. [`Ended::asked`] turns an end that nobody requested
    /// into an error, so that no process exits with 0 because its engine was killed.
    pub fn stopped(&self) -> impl Future<Output = Ended> + Send + 'static {
        let core = self.core().clone();
        async move {
            core.end.over.cancelled().await;
            core.end.ended.get().cloned().unwrap_or(Ended::Killed)
        }
    }
}
