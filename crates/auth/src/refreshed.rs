//! Something of an issuer that is fetched when it is needed, at most once at a time.
//!
//! Whoever reads it waits for no lock. A fetch is a task of its own: it goes on if the client for
//! whom it was begun breaks off.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::freshness::{Freshness, Look};
use crate::source::{FETCH_TIMEOUT, FetchError};

/// What was fetched, and for how long it is fresh if its sender says so.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: T,
    pub(crate) max_age: Option<Duration>,
}

/// Fetches a value.
pub(crate) type Job<T> = BoxFuture<'static, Result<Fetched<T>, FetchError>>;

/// A fetch that others may wait for.
#[derive(Clone, Debug)]
pub(crate) struct Flight(watch::Receiver<()>);

impl Flight {
    fn is_under_way(&self) -> bool {
        self.0.has_changed().is_ok()
    }

    /// Waits for the end of the fetch, whatever it was. When dropped early, the fetch goes on.
    pub(crate) async fn end(mut self) {
        // Nothing is ever sent: the sender is dropped at the end.
        while self.0.changed().await.is_ok() {}
    }
}

/// A value that is fetched when it is needed.
#[derive(Debug)]
pub(crate) struct Refreshed<T> {
    /// What it is, for the log.
    what: &'static str,
    issuer: Arc<str>,
    state: ArcSwap<Freshness<T>>,
    /// The last fetch. Whoever changes the state holds this lock.
    flight: Mutex<Option<Flight>>,
    /// How many fetches have begun.
    begun: AtomicU64,
}

impl<T: Send + Sync + 'static> Refreshed<T> {
    pub(crate) fn new(what: &'static str, issuer: Arc<str>) -> Self {
        Self {
            what,
            issuer,
            state: ArcSwap::default(),
            flight: Mutex::new(None),
            begun: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> Arc<Freshness<T>> {
        self.state.load_full()
    }

    /// How many fetches have begun. What a later one brings is newer than this moment.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// The fetch that is under way, or one that has ended since the caller `saw` the state.
    pub(crate) fn flight_since(&self, saw: &Freshness<T>) -> Option<Flight> {
        let last = self.flight.lock();
        let has_ended = self.state.load().attempts() != saw.attempts();
        last.clone().filter(|flight| has_ended || flight.is_under_way())
    }

    /// Joins the fetch that is under way, or begins one. If one has ended since the caller `saw`
    /// the state, it is that one.
    ///
    /// `None` outside of a tokio runtime.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        saw: &Freshness<T>,
        job: impl FnOnce() -> Job<T>,
    ) -> Option<Flight> {
        let runtime = Handle::try_current().ok()?;
        let mut last = self.flight.lock();
        let has_ended = self.state.load().attempts() != saw.attempts();
        let joined = last.clone().filter(|flight| has_ended || flight.is_under_way());
        if joined.is_some() {
            return joined;
        }
        let (sender, receiver) = watch::channel(());
        let flight = Flight(receiver);
        *last = Some(flight.clone());
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        drop(last);
        let (this, job) = (self.clone(), job());
        runtime.spawn(async move {
            // A source is the host's own code: what it does must not stop the next attempt.
            let job = timeout(FETCH_TIMEOUT, AssertUnwindSafe(job).catch_unwind());
            let fetched = match job.await {
                Ok(Ok(fetched)) => fetched,
                Ok(Err(_)) => Err(FetchError::new("the source panicked")),
                Err(_) => Err(FetchError::new("it took too long")),
            };
            this.ended(fetched, number);
            drop(sender);
        });
        Some(flight)
    }

    fn ended(&self, fetched: Result<Fetched<T>, FetchError>, number: u64) {
        let now = Instant::now();
        match &fetched {
            Ok(_) => tracing::debug!(issuer = %self.issuer, "fetched the {}", self.what),
            Err(error) => {
                let (issuer, what) = (&self.issuer, self.what);
                tracing::warn!(%issuer, %error, "the {what} of an issuer cannot be fetched");
            }
        }
        self.change(|state| match fetched {
            Ok(Fetched { value, max_age }) => state.succeeded(value, max_age, number, now),
            Err(_) => state.failed(now),
        });
    }

    /// What is held seems to be wrong: it is fetched again before its time.
    pub(crate) fn doubt(&self) {
        self.change(|state| state.doubted(Instant::now()));
    }

    fn change(&self, change: impl FnOnce(&mut Freshness<T>)) {
        let _writer = self.flight.lock();
        let mut state = Freshness::clone(&self.state.load());
        change(&mut state);
        self.state.store(Arc::new(state));
    }

    /// The value, which is fetched first if need be. Only for what no client waits on directly:
    /// it is itself part of a fetch.
    pub(crate) async fn get(
        self: &Arc<Self>,
        job: impl Fn() -> Job<T>,
    ) -> Result<Arc<T>, FetchError> {
        loop {
            let state = self.state();
            match state.look(Instant::now()) {
                Look::Fresh(held) => return Ok(held.value.clone()),
                Look::Aging(held) => {
                    self.fetch(&state, &job);
                    return Ok(held.value.clone());
                }
                Look::Unavailable(_) => break,
                Look::Absent => match self.fetch(&state, &job) {
                    Some(flight) => flight.end().await,
                    None => break,
                },
            }
        }
        Err(FetchError::new(format!("its {} cannot be fetched", self.what)))
    }
}
