//! How an engine came to its end: what whoever serves it returns.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// How an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was asked to: by [`Engine::shutdown`], or by whoever stopped its root.
    Shutdown,
    /// Its root was killed, by itself or with its supervisor.
    Killed,
    /// Its root failed, because of this: as a rule, one restart too many of the actors below it.
    Failed(String),
}

impl Ended {
    /// `Ok` for an end that was asked for.
    ///
    /// # Errors
    ///
    /// [`EndedUnasked`] for any other: a process that ends because of it has failed.
    pub fn asked(self) -> Result<(), EndedUnasked> {
        match self {
            Self::Shutdown => Ok(()),
            Self::Killed => Err(EndedUnasked::Killed),
            Self::Failed(why) => Err(EndedUnasked::Failed(why)),
        }
    }
}

/// An engine ended that nobody had asked to.
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

/// What is known of the end of an engine; written by its root, and by who asks for a shutdown.
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

    /// The root fails because of this. The first reason counts.
    pub(crate) fn fail(&self, why: String) {
        let _ = self.failed.set(why);
    }

    /// The root ends. What is asked for from here on changes nothing.
    pub(crate) fn begin(&self) {
        self.ended.get_or_init(|| match self.failed.get() {
            // What happens while it ends anyway is logged, and changes nothing.
            _ if self.asked.load(Ordering::Acquire) => Ended::Shutdown,
            Some(why) => Ended::Failed(why.clone()),
            None => Ended::Killed,
        });
    }

    /// The root has ended.
    pub(crate) fn over(&self) {
        self.over.cancel();
    }
}

impl Engine {
    /// How the engine ended, or is just ending; `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.core().end.ended.get().cloned()
    }

    /// Completes when the engine has ended, in whatever way, and says how.
    ///
    /// A server returns this as its own end: [`Ended::asked`] makes an error of what nobody asked for,
    /// so that no process ends with 0 because its engine was killed.
    pub fn stopped(&self) -> impl Future<Output = Ended> + Send + 'static {
        let core = self.core().clone();
        async move {
            core.end.over.cancelled().await;
            core.end.ended.get().cloned().unwrap_or(Ended::Killed)
        }
    }
}
