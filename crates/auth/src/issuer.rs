//! One issuer: where its endpoints are, and which keys it has. Nothing of it is shared with other
//! issuers, so that one that does not answer holds up nobody else's tokens.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use jsonwebtoken::DecodingKey;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::algorithm::Algorithm;
use crate::discovery::{Endpoints, discover};
use crate::freshness::{Freshness, Held, Look};
use crate::introspection::Introspection;
use crate::keys::{Choice, KeySet};
use crate::misses::Misses;
use crate::refreshed::{Fetched, Flight, Job, Refreshed};
use crate::refused::Refused;
use crate::source::{FetchError, KeySource, document, get};

/// What a token is checked with.
pub(crate) struct IssuerState {
    pub(crate) name: Arc<str>,
    pub(crate) algorithms: BTreeSet<Algorithm>,
    pub(crate) introspection: Option<Introspection>,
    source: Arc<dyn KeySource>,
    endpoints: Arc<Refreshed<Endpoints>>,
    keys: Arc<Refreshed<KeySet>>,
    misses: Mutex<Misses>,
    hasher: RandomState,
}

/// What is known of the key of a token.
pub(crate) enum Found<'a> {
    Key(&'a DecodingKey),
    Refused(Refused),
    /// Nobody can tell, and nothing is tried for so long.
    Unavailable(Duration),
    /// It may be known at the end of this.
    Wait(Flight),
}

impl IssuerState {
    pub(crate) fn new(
        name: Arc<str>,
        algorithms: BTreeSet<Algorithm>,
        introspection: Option<Introspection>,
        source: Arc<dyn KeySource>,
    ) -> Self {
        Self {
            algorithms,
            introspection,
            source,
            endpoints: Arc::new(Refreshed::new("metadata", name.clone())),
            keys: Arc::new(Refreshed::new("keys", name.clone())),
            name,
            misses: Mutex::default(),
            hasher: RandomState::default(),
        }
    }

    /// How many times keys were asked for. A check takes note of it when it begins.
    pub(crate) fn fetches(&self) -> u64 {
        self.keys.begun()
    }

    /// Looks for the key of a token, whose check began after so many `fetches`, and hands on what it
    /// found.
    pub(crate) fn with_key<R>(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        fetches: u64,
        now: Instant,
        then: impl FnOnce(Found<'_>) -> R,
    ) -> R {
        let state = self.keys.state();
        let (held, is_aging) = match state.look(now) {
            Look::Fresh(held) => (held, false),
            Look::Aging(held) => (held, true),
            Look::Unavailable(pause) => return then(Found::Unavailable(pause)),
            Look::Absent => return then(wait(self.keys.fetch(&state, || self.fetch_keys()))),
        };
        if is_aging {
            self.keys.fetch(&state, || self.fetch_keys());
        }
        match held.value.choose(kid, algorithm) {
            Choice::Key(key) => then(Found::Key(key)),
            Choice::Refused(why) => then(Found::Refused(why)),
            Choice::Unknown => then(self.unknown(kid, &state, held, fetches, now)),
        }
    }

    /// Whether an unknown key may be a new one.
    fn unknown(
        &self,
        kid: Option<&str>,
        state: &Freshness<KeySet>,
        held: &Held<KeySet>,
        fetches: u64,
        now: Instant,
    ) -> Found<'static> {
        let name = self.hasher.hash_one(kid);
        if held.fetch > fetches {
            self.misses.lock().not_found(name, now);
            return Found::Refused(Refused::UnknownKey);
        }
        let mut misses = self.misses.lock();
        if misses.knows(name, now) {
            return Found::Refused(Refused::UnknownKey);
        }
        if let Some(flight) = self.keys.flight_since(state) {
            return Found::Wait(flight);
        }
        if state.backoff().is_failing() {
            misses.fetch_failed();
        }
        if let Some(pause) = state.backoff().pause(now) {
            return Found::Unavailable(pause);
        }
        if !misses.may_fetch(now) {
            return Found::Refused(Refused::UnknownKey);
        }
        drop(misses);
        wait(self.keys.fetch(state, || self.fetch_keys()))
    }

    fn fetch_keys(&self) -> Job<KeySet> {
        let (source, endpoints) = (self.source.clone(), self.endpoints.clone());
        let find = self.discovery();
        Box::pin(async move {
            let found = endpoints.get(find).await?;
            let fetched = async {
                let url = found.keys.as_deref().ok_or_else(|| {
                    FetchError::new("its metadata names no address of keys that can be trusted")
                })?;
                let (body, max_age) = document(source.fetch(get(url)?).await?)?;
                let value = KeySet::parse(&body).map_err(FetchError::new)?;
                Ok(Fetched { value, max_age })
            };
            let fetched = fetched.await;
            if fetched.is_err() {
                // The keys may have moved.
                endpoints.doubt();
            }
            fetched
        })
    }

    fn discovery(&self) -> impl Fn() -> Job<Endpoints> + Send + Sync + 'static {
        let (source, issuer) = (self.source.clone(), self.name.clone());
        move || {
            let (source, issuer) = (source.clone(), issuer.clone());
            Box::pin(async move { discover(&*source, &issuer).await })
        }
    }

    /// The endpoints of the issuer, for requests that are no fetch of keys.
    pub(crate) async fn endpoints(&self) -> Result<Arc<Endpoints>, FetchError> {
        self.endpoints.get(self.discovery()).await
    }

    pub(crate) fn source(&self) -> &dyn KeySource {
        &*self.source
    }
}

fn wait(flight: Option<Flight>) -> Found<'static> {
    flight.map_or(Found::Unavailable(Duration::from_secs(1)), Found::Wait)
}
