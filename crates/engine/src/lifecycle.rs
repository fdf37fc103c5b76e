//! How an engine shuts down and ends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// How long cancelled calls get to end.
pub(crate) const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// How an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The end was requested: with [`Engine::shutdown`](crate::Engine::shutdown), or by stopping the engine's supervisor.
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

/// How far an engine is on its way to its end. The supervisor writes it, and so does the code that
/// requests a shutdown.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// Set when the engine accepts no new work any more.
    draining: CancellationToken,
    /// Set when running calls get no more time.
    ending: CancellationToken,
    over: CancellationToken,
    /// Why new requests should go to another node, although this one would serve them.
    not_ready: Mutex<Option<&'static str>>,
    asked: AtomicBool,
    failed: OnceLock<String>,
    ended: OnceLock<Ended>,
}

impl Lifecycle {
    /// Records that somebody requested the end.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Refuses new work from here on.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    pub(crate) fn set_not_ready(&self, why: &'static str) {
        *self.not_ready.lock() = Some(why);
    }

    /// Ends this reason, unless there is another one by now.
    pub(crate) fn clear_not_ready(&self, why: &'static str) {
        self.not_ready.lock().take_if(|it| *it == why);
    }

    /// Why new requests should go to another node, if they should.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        match self.is_draining() {
            true => Some("draining"),
            false => *self.not_ready.lock(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Gives running calls no more time.
    pub(crate) fn end_calls(&self) {
        self.ending.cancel();
    }

    pub(crate) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Records why the supervisor fails. The first reason counts.
    pub(crate) fn fail(&self, why: String) {
        let _ = self.failed.set(why);
    }

    /// Records that the supervisor ends. A request after this changes nothing.
    pub(crate) fn begin_end(&self) {
        self.ended.get_or_init(|| match self.failed.get() {
            // A failure during a requested end is logged, and changes nothing.
            _ if self.asked.load(Ordering::Acquire) => Ended::Shutdown,
            Some(why) => Ended::Failed(why.clone()),
            None => Ended::Killed,
        });
    }

    /// Records that the supervisor has ended.
    pub(crate) fn finish_end(&self) {
        self.over.cancel();
    }

    /// How the engine ended, or is ending; `None` while it runs.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.get().cloned()
    }

    /// Waits until the engine has ended.
    pub(crate) async fn stopped(&self) -> Ended {
        self.over.cancelled().await;
        self.ended().unwrap_or(Ended::Killed)
    }
}
