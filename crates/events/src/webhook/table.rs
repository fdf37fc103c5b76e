//! All webhooks of an engine. Pure: it is told the time.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::settings::WebhookConfig;
use super::subscription::Subscription;
use crate::error::EventError;
use crate::event_type::WatchedArguments;

/// A webhook in a set, where it is found by its id.
#[derive(Debug)]
struct ById(Arc<Subscription>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// Webhooks of a type with equal arguments.
#[derive(Debug)]
pub(crate) struct Group {
    watched: Arc<WatchedArguments>,
    members: Mutex<HashSet<ById>>,
}

impl Group {
    pub(crate) fn watched(&self) -> &WatchedArguments {
        &self.watched
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.members.lock().contains(id)
    }

    /// Runs something quick for each.
    pub(crate) fn each(&self, mut run: impl FnMut(&Arc<Subscription>)) {
        self.members.lock().iter().for_each(|ById(subscription)| run(subscription));
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
    by_id: HashSet<ById>,
    groups: HashMap<Type, HashMap<Arc<str>, Arc<Group>>>,
    /// Those that exist, and those that may be added.
    counts: HashMap<Principal, Box<[(Type, usize)]>>,
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
            by_id: HashSet::default(),
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
        self.by_id.get(id).map(|ById(subscription)| subscription.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        self.each().cloned().collect()
    }

    fn each(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.by_id.iter().map(|ById(subscription)| subscription)
    }

    pub(crate) fn of_type(&self, name: &str) -> Vec<Arc<Subscription>> {
        self.each().filter(|it| *it.running.name() == *name).cloned().collect()
    }

    pub(crate) fn groups(&self, name: &str) -> Vec<Arc<Group>> {
        self.groups.get(name).into_iter().flat_map(|groups| groups.values().cloned()).collect()
    }

    /// The group with these arguments, if there is one.
    pub(crate) fn group(&self, name: &str, canonical: &str) -> Vec<Arc<Group>> {
        self.groups
            .get(name)
            .and_then(|groups| groups.get(canonical))
            .cloned()
            .into_iter()
            .collect()
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
        if let Some(found) = self.find(id)
            && !found.is_expired(now)
        {
            return Ok(Begun::Exists(found));
        }
        let own = self.counts.get(principal).map_or(&[][..], |own| &**own);
        let of_type = own.iter().find(|(it, _)| it == name).map_or(0, |(_, count)| *count);
        let of_principal = own.iter().map(|(_, count)| count).sum::<usize>();
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
        self.all += 1;
        let own = self.counts.entry(principal.clone()).or_default();
        match own.iter_mut().find(|(it, _)| it == name) {
            Some((_, count)) => *count += 1,
            None => {
                let others = std::mem::take(own).into_iter();
                *own = others.chain([(name.clone(), 1)]).collect();
            }
        }
    }

    fn uncount(&mut self, principal: &Principal, name: &Type) {
        self.all = self.all.saturating_sub(1);
        let Some(own) = self.counts.get_mut(principal) else { return };
        let Some((_, count)) = own.iter_mut().find(|(it, _)| it == name) else { return };
        *count -= 1;
        if *count == 0 {
            let others = std::mem::take(own).into_iter();
            *own = others.filter(|(_, count)| *count > 0).collect();
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
        let name = subscription.running.name();
        if !self.finish(&subscription.id, number) {
            self.uncount(&subscription.principal, &name);
            return None;
        }
        if let Some(found) = self.find(&subscription.id)
            && !found.is_expired(now)
        {
            self.uncount(&subscription.principal, &name);
            return Some(found);
        }
        self.put(subscription);
        Some(subscription.clone())
    }

    /// Adds a webhook that existed before this process.
    pub(crate) fn insert(&mut self, subscription: &Arc<Subscription>, now: Instant) {
        self.count(&subscription.principal, &subscription.running.name());
        self.note_verified(&subscription.principal, &subscription.url, now);
        self.put(subscription);
    }

    /// These arguments, as a webhook with equal ones has them.
    pub(crate) fn share(&self, name: &str, watched: WatchedArguments) -> Arc<WatchedArguments> {
        let group = self.groups.get(name).and_then(|groups| groups.get(&watched.canonical));
        match group {
            Some(group) if watched.is_read_like(&group.watched) => group.watched.clone(),
            _ => Arc::new(watched),
        }
    }

    fn put(&mut self, subscription: &Arc<Subscription>) {
        if let Some(expired) = self.find(&subscription.id) {
            self.remove(&expired);
        }
        self.ended.swap_remove(&subscription.id);
        let of_type = self.groups.entry(subscription.running.name()).or_default();
        let watched = &subscription.watched;
        let group = of_type.entry(watched.canonical.clone()).or_insert_with(|| {
            Arc::new(Group { watched: watched.clone(), members: Mutex::default() })
        });
        group.members.lock().insert(ById(subscription.clone()));
        self.by_id.insert(ById(subscription.clone()));
    }

    /// Removes a webhook.
    pub(crate) fn remove(&mut self, subscription: &Arc<Subscription>) {
        let is_own = self.find(&subscription.id).is_some_and(|it| Arc::ptr_eq(&it, subscription));
        if !is_own {
            return;
        }
        let name = subscription.running.name();
        self.by_id.remove(&*subscription.id);
        self.uncount(&subscription.principal, &name);
        if let Some(of_type) = self.groups.get_mut(&name)
            && let Some(group) = of_type.get(&subscription.watched.canonical)
        {
            group.members.lock().remove(&*subscription.id);
            if group.members.lock().is_empty() {
                of_type.remove(&subscription.watched.canonical);
            }
            if of_type.is_empty() {
                self.groups.remove(&name);
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
        self.each().filter(|it| it.is_expired(now)).cloned().collect()
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
