//! All webhooks of an engine. Pure: it is told the time.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::settings::WebhookConfig;
use super::subscription::Subscription;
use crate::error::EventError;
use crate::event_type::WatchedArguments;

/// Webhooks of a type with equal arguments.
#[derive(Debug)]
pub(crate) struct Group {
    watched: WatchedArguments,
    members: Mutex<IndexMap<Arc<str>, Arc<Subscription>, RandomState>>,
}

impl Group {
    pub(crate) fn watched(&self) -> &WatchedArguments {
        &self.watched
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.members.lock().contains_key(id)
    }

    /// Runs something quick for each.
    pub(crate) fn each(&self, mut run: impl FnMut(&Arc<Subscription>)) {
        self.members.lock().values().for_each(&mut run);
    }
}

/// How a subscribe begins.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The webhook exists.
    Exists(Arc<Subscription>),
    /// It may be added, with this number, unless it is unsubscribed meanwhile.
    New(u64),
}

/// How long an ended webhook is remembered, for clients that unsubscribe twice; and how many.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_REMEMBERED: usize = 10_000;

/// How many endpoints are known to have agreed. Who is forgotten gets another challenge.
const MAX_VERIFIED: usize = 100_000;

/// Challenges are counted for this time.
const MINUTE: Duration = Duration::from_secs(60);

/// An endpoint of a principal.
fn endpoint(principal: &str, url: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((principal.len() as u64).to_be_bytes());
    hash.update(principal);
    hash.update(url);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

type Type = Arc<str>;
type Principal = Arc<str>;

#[derive(Debug)]
pub(crate) struct Table {
    max: usize,
    max_of_principal: usize,
    verified_for: Duration,
    max_challenges: usize,
    by_id: HashMap<Arc<str>, Arc<Subscription>>,
    groups: HashMap<Type, HashMap<Arc<str>, Arc<Group>>>,
    /// Those that exist, and those that may be added.
    counts: HashMap<Principal, HashMap<Type, usize>>,
    all: usize,
    /// Subscribes that have begun, by their ids.
    begun: HashMap<Arc<str>, Vec<u64>>,
    next: u64,
    /// Endpoints that have answered a challenge, by digest, and until when that counts. The oldest
    /// comes first.
    verified: IndexMap<[u8; 16], Instant, RandomState>,
    ended: IndexMap<Arc<str>, Instant, RandomState>,
    challenges: HashMap<Principal, (Instant, usize)>,
}

impl Table {
    pub(crate) fn new(config: &WebhookConfig) -> Self {
        Self {
            max: config.max,
            max_of_principal: config.max_of_principal,
            verified_for: config.verified_for,
            max_challenges: config.max_challenges,
            by_id: HashMap::default(),
            groups: HashMap::default(),
            counts: HashMap::default(),
            all: 0,
            begun: HashMap::default(),
            next: 0,
            verified: IndexMap::default(),
            ended: IndexMap::default(),
            challenges: HashMap::default(),
        }
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Subscription>> {
        self.by_id.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.by_id.values().cloned().collect()
    }

    pub(crate) fn of_type(&self, name: &str) -> Vec<Arc<Subscription>> {
        let own = self.by_id.values().filter(|it| *it.key.name == *name);
        own.cloned().collect()
    }

    pub(crate) fn groups(&self, name: &str) -> Vec<Arc<Group>> {
        self.groups.get(name).into_iter().flat_map(|groups| groups.values().cloned()).collect()
    }

    /// Begins a subscribe. One that begins must be [added](Self::add) or [given up](Self::give_up).
    pub(crate) fn begin(
        &mut self,
        id: &Arc<str>,
        principal: &Principal,
        name: &Type,
        max_of_type: Option<usize>,
        now: Instant,
    ) -> Result<Begun, EventError> {
        if let Some(found) = self.by_id.get(id)
            && !found.is_expired(now)
        {
            return Ok(Begun::Exists(found.clone()));
        }
        let own = self.counts.get(principal);
        let of_type = own.and_then(|own| own.get(name)).copied().unwrap_or_default();
        let of_principal = own.map_or(0, |own| own.values().sum());
        let full =
            |max: usize| Err(EventError::Exhausted { limit: "subscriptions".to_owned(), max });
        match max_of_type {
            Some(max) if of_type >= max => return full(max),
            _ if of_principal >= self.max_of_principal => return full(self.max_of_principal),
            _ if self.all >= self.max => return full(self.max),
            _ => {}
        }
        self.count(principal, name);
        self.next += 1;
        self.begun.entry(id.clone()).or_default().push(self.next);
        Ok(Begun::New(self.next))
    }

    fn count(&mut self, principal: &Principal, name: &Type) {
        let of_principal = self.counts.entry(principal.clone()).or_default();
        *of_principal.entry(name.clone()).or_default() += 1;
        self.all += 1;
    }

    fn uncount(&mut self, principal: &Principal, name: &Type) {
        self.all = self.all.saturating_sub(1);
        let Some(own) = self.counts.get_mut(principal) else { return };
        if let Some(count) = own.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                own.remove(name);
            }
        }
        if own.is_empty() {
            self.counts.remove(principal);
        }
    }

    /// Gives up a subscribe that has begun, or ends one that becomes a webhook. `false` if it was
    /// unsubscribed meanwhile.
    fn finish(&mut self, id: &str, number: u64) -> bool {
        let Some(numbers) = self.begun.get_mut(id) else { return false };
        let before = numbers.len();
        numbers.retain(|it| *it != number);
        let found = numbers.len() < before;
        if numbers.is_empty() {
            self.begun.remove(id);
        }
        found
    }

    /// Gives up a subscribe that has begun.
    pub(crate) fn give_up(&mut self, id: &str, number: u64, principal: &Principal, name: &Type) {
        self.finish(id, number);
        self.uncount(principal, name);
    }

    /// Adds a webhook whose subscribe has begun. `None` if it was unsubscribed meanwhile; another one
    /// if that was added meanwhile, which is to be refreshed.
    pub(crate) fn add(
        &mut self,
        number: u64,
        subscription: &Arc<Subscription>,
        now: Instant,
    ) -> Option<Arc<Subscription>> {
        let key = &subscription.key;
        if !self.finish(&subscription.id, number) {
            self.uncount(&key.principal, &key.name);
            return None;
        }
        if let Some(found) = self.by_id.get(&subscription.id)
            && !found.is_expired(now)
        {
            let found = found.clone();
            self.uncount(&key.principal, &key.name);
            return Some(found);
        }
        self.put(subscription);
        Some(subscription.clone())
    }

    /// Adds a webhook that existed before this process.
    pub(crate) fn insert(&mut self, subscription: Arc<Subscription>, now: Instant) {
        let key = subscription.key.clone();
        self.count(&key.principal, &key.name);
        self.note_verified(&key.principal, &key.url, now);
        self.put(&subscription);
    }

    fn put(&mut self, subscription: &Arc<Subscription>) {
        let (id, key) = (subscription.id.clone(), &subscription.key);
        if let Some(expired) = self.by_id.get(&id).cloned() {
            self.remove(&expired);
        }
        self.ended.swap_remove(&id);
        let of_type = self.groups.entry(key.name.clone()).or_default();
        let canonical = subscription.watched.canonical.clone();
        let group = of_type.entry(canonical).or_insert_with(|| {
            Arc::new(Group { watched: subscription.watched.clone(), members: Mutex::default() })
        });
        group.members.lock().insert(id.clone(), subscription.clone());
        self.by_id.insert(id, subscription.clone());
    }

    /// Removes a webhook.
    pub(crate) fn remove(&mut self, subscription: &Arc<Subscription>) {
        let is_own =
            self.by_id.get(&subscription.id).is_some_and(|it| Arc::ptr_eq(it, subscription));
        if !is_own {
            return;
        }
        let key = &subscription.key;
        self.by_id.remove(&subscription.id);
        self.uncount(&key.principal, &key.name);
        if let Some(of_type) = self.groups.get_mut(&key.name)
            && let Some(group) = of_type.get(&subscription.watched.canonical)
        {
            group.members.lock().swap_remove(&subscription.id);
            if group.members.lock().is_empty() {
                of_type.remove(&subscription.watched.canonical);
            }
            if of_type.is_empty() {
                self.groups.remove(&key.name);
            }
        }
        if self.ended.len() >= MAX_REMEMBERED {
            self.ended.shift_remove_index(0);
        }
        self.ended.insert(subscription.id.clone(), Instant::now());
    }

    /// Gives up subscribes of this id that have begun. `true` if there were any.
    pub(crate) fn cancel(&mut self, id: &str) -> bool {
        // They count until they notice.
        self.begun.remove(id).is_some()
    }

    /// Whether a webhook of this id has ended not long ago.
    pub(crate) fn has_ended(&self, id: &str) -> bool {
        self.ended.contains_key(id)
    }

    pub(crate) fn is_verified(&self, principal: &Principal, url: &str, now: Instant) -> bool {
        self.verified.get(&endpoint(principal, url)).is_some_and(|until| *until > now)
    }

    pub(crate) fn note_verified(&mut self, principal: &Principal, url: &str, now: Instant) {
        let endpoint = endpoint(principal, url);
        self.verified.shift_remove(&endpoint);
        if self.verified.len() >= MAX_VERIFIED {
            self.verified.shift_remove_index(0);
        }
        self.verified.insert(endpoint, now + self.verified_for);
    }

    /// Counts a challenge. `false` if a principal causes too many.
    pub(crate) fn may_challenge(&mut self, principal: &Principal, now: Instant) -> bool {
        let (since, count) = self.challenges.entry(principal.clone()).or_insert((now, 0));
        if now - *since >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= self.max_challenges
    }

    pub(crate) fn expired(&self, now: Instant) -> Vec<Arc<Subscription>> {
        self.by_id.values().filter(|it| it.is_expired(now)).cloned().collect()
    }

    /// Forgets what counts no longer.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        let over = self.verified.values().take_while(|until| **until <= now).count();
        self.verified.drain(..over);
        self.challenges.retain(|_, (since, _)| now - *since < MINUTE);
        while self.ended.first().is_some_and(|(_, at)| now - *at > REMEMBERED) {
            self.ended.shift_remove_index(0);
        }
    }
}
