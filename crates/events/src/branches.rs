//! The branches of a type with `check`: each is a running type of its own, with the log that a checker
//! fills for one principal and equal arguments. It exists while a stream or a webhook reads it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use foldhash::HashMap;
use parking_lot::Mutex;
use ractor::ActorRef;
use stentor_engine::identity::Identity;
use tokio::sync::{Semaphore, watch};

use crate::check::{Limits, UpstreamCursor};
use crate::checker::CheckerMsg;
use crate::config::EventsConfig;
use crate::error::EventError;
use crate::event_type::WatchedArguments;
use crate::keeper::KeeperMsg;
use crate::log::Position;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::start::Listening;
use crate::subscriber::Subscriber;

/// Calls of `check` at once that the loops of one type make.
const AT_ONCE: usize = 64;

/// Whose arguments they are, unless all share them, and the arguments.
type Key = (Option<Owner>, Arc<str>);

/// For whom a branch is: what was found with one credential is not for a weaker one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Owner {
    principal: Option<Arc<str>>,
    is_local_user: bool,
    client: Option<Box<str>>,
    scopes: Box<[Box<str>]>,
    roles: Box<[Box<str>]>,
}

impl Owner {
    /// `None` if all share what is found.
    fn of(subscriber: &Subscriber, is_shared: bool) -> Option<Self> {
        let identity = subscriber.identity();
        (!is_shared).then(|| Self {
            principal: subscriber.principal.clone(),
            is_local_user: subscriber.requester.is_local(),
            client: identity.and_then(Identity::client_id).map(Into::into),
            scopes: identity
                .into_iter()
                .flat_map(Identity::granted_scopes)
                .map(Into::into)
                .collect(),
            roles: identity.into_iter().flat_map(Identity::granted_roles).map(Into::into).collect(),
        })
    }
}

/// Where occurrences of a running type come from.
pub(crate) enum Role {
    /// They are emitted.
    Emitted,
    /// They are in the branches.
    Checked(Branches),
    /// A checker finds them.
    Branch(Box<Branch>),
}

/// The branches of one type.
pub(crate) struct Branches {
    shared: Weak<Shared>,
    max: usize,
    limits: Limits,
    turns: Arc<Semaphore>,
    /// More than one for a key, if subscribers came with cursors that the log of the other did not
    /// reach.
    all: Mutex<HashMap<Key, Vec<Arc<RunningType>>>>,
}

/// What of a branch outlives its checker.
pub(crate) struct Branch {
    home: Weak<RunningType>,
    key: Key,
    pub(crate) watched: WatchedArguments,
    /// The last one who came.
    subscriber: Mutex<Subscriber>,
    /// What happened before this is left out, until the upstream has no more of before.
    oldest: Mutex<Option<SystemTime>>,
    /// Whether the upstream may have more of before the branch began.
    is_behind: AtomicBool,
    /// Whether somebody waits for a check.
    is_wanted: AtomicBool,
    checks: watch::Sender<Checks>,
    checker: ArcSwapOption<ActorRef<CheckerMsg>>,
}

/// The checks of a branch, by their numbers.
#[derive(Clone, Debug, Default)]
struct Checks {
    /// Whether the branch has its actors.
    can_begin: bool,
    /// The last one that has begun.
    begun: u64,
    /// The last one that has failed, or after which the upstream had nothing more.
    done: u64,
    error: Option<EventError>,
}

impl Branches {
    pub(crate) fn new(shared: Weak<Shared>, config: &EventsConfig) -> Self {
        let limits =
            Limits { max_payload: config.max_payload, max_bytes: config.max_poll_bytes.max(1) };
        let (max, turns) = (config.max_branches, Arc::new(Semaphore::new(AT_ONCE)));
        Self { shared, max, limits, turns, all: Mutex::default() }
    }

    pub(crate) fn all(&self) -> Vec<Arc<RunningType>> {
        self.all.lock().values().flatten().cloned().collect()
    }

    /// A branch for who begins now. It tells the position when it is [fresh](Branch::fresh).
    pub(crate) fn join_now(
        &self,
        home: &Arc<RunningType>,
        who: (&Subscriber, &WatchedArguments),
        max: Option<usize>,
    ) -> Result<Listening, EventError> {
        let find = |it: &RunningType, branch: &Branch| {
            (!branch.is_behind.load(Ordering::Acquire)).then(|| it.log.lock().end())
        };
        let new = |_: &RunningType, _: &Branch| ();
        Ok(self.join(home, who, max, find, new)?.0)
    }

    /// A branch for who begins at a cursor, with the position there; and whether something is left out.
    pub(crate) fn join_at(
        &self,
        home: &Arc<RunningType>,
        who: (&Subscriber, &WatchedArguments),
        cursor: &str,
        oldest: Option<SystemTime>,
        max: Option<usize>,
    ) -> Result<(Listening, Position, bool), EventError> {
        let mut truncated = false;
        let find = |it: &RunningType, branch: &Branch| {
            branch.oldest.lock().is_none().then_some(())?;
            let (position, is_cut) = it.log.lock().find_upstream(cursor, oldest)?;
            truncated = is_cut;
            Some(position)
        };
        let new = |it: &RunningType, branch: &Branch| {
            it.log.lock().reach(cursor.into());
            *branch.oldest.lock() = oldest;
            branch.is_behind.store(true, Ordering::Release);
        };
        let (listening, position) = self.join(home, who, max, find, new)?;
        Ok((listening, position, truncated))
    }

    /// A branch for a webhook that exists already, however many there are. Tells the position, and
    /// whether something may be lost.
    pub(crate) fn rejoin(
        &self,
        home: &Arc<RunningType>,
        who: (&Subscriber, &WatchedArguments),
        watermark: &str,
    ) -> Result<(Listening, Position, bool), EventError> {
        match UpstreamCursor::parse(watermark) {
            Some(_) => self.join_at(home, who, watermark, None, None),
            None => {
                let listening = self.join_now(home, who, None)?;
                let position = listening.log.lock().end();
                Ok((listening, position, true))
            }
        }
    }

    /// How much a call of `check` may bring, and who may make one.
    pub(crate) fn calls(&self) -> (Limits, Arc<Semaphore>) {
        (self.limits, self.turns.clone())
    }

    pub(crate) fn max(&self) -> Option<usize> {
        Some(self.max)
    }

    /// The first branch in which a position is found, or a new one.
    fn join(
        &self,
        home: &Arc<RunningType>,
        (subscriber, watched): (&Subscriber, &WatchedArguments),
        max: Option<usize>,
        mut find: impl FnMut(&RunningType, &Branch) -> Option<Position>,
        new: impl FnOnce(&RunningType, &Branch),
    ) -> Result<(Listening, Position), EventError> {
        let is_shared = home.definition().shares_checks() == Some(true);
        let key = (Owner::of(subscriber, is_shared), watched.canonical.clone());
        let mut all = self.all.lock();
        if home.is_closed() {
            return Err(EventError::UnknownType((*home.name()).to_owned()));
        }
        for running in all.get(&key).into_iter().flatten() {
            if let Some(branch) = running.branch()
                && let Some(position) = find(running, branch)
            {
                branch.renew(subscriber);
                return Ok((Listening::new(running.clone()), position));
            }
        }
        if let Some(max) = max
            && all.values().map(Vec::len).sum::<usize>() >= max
        {
            return Err(EventError::Exhausted { limit: "checks".to_owned(), max });
        }
        let running = Arc::new(home.branch_off(Branch {
            home: Arc::downgrade(home),
            key: key.clone(),
            watched: watched.clone(),
            subscriber: Mutex::new(of_nobody(subscriber)),
            oldest: Mutex::default(),
            is_behind: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
            checks: watch::Sender::default(),
            checker: ArcSwapOption::empty(),
        }));
        if let Some(branch) = running.branch() {
            new(&running, branch);
        }
        all.entry(key).or_default().push(running.clone());
        let listening = Listening::new(running.clone());
        let position = running.log.lock().end();
        drop(all);
        self.tell_keeper(KeeperMsg::Added(running));
        Ok((listening, position))
    }

    /// Somebody reads a branch no more. The last one ends it.
    fn leave(&self, running: &Arc<RunningType>, branch: &Branch) {
        {
            let mut all = self.all.lock();
            if running.uncount_listener() {
                return;
            }
            if let Some(of_key) = all.get_mut(&branch.key) {
                of_key.retain(|it| !Arc::ptr_eq(it, running));
                if of_key.is_empty() {
                    all.remove(&branch.key);
                }
            }
        }
        running.close();
        self.tell_keeper(KeeperMsg::Removed(running.clone()));
    }

    fn tell_keeper(&self, message: KeeperMsg) {
        if let Some(shared) = self.shared.upgrade() {
            shared.tell_keeper(message);
        }
    }
}

impl Branch {
    pub(crate) fn home(&self) -> Option<Arc<RunningType>> {
        self.home.upgrade()
    }

    /// Whether what is found is for this subscriber. It asks the upstream from here on, then.
    pub(crate) fn serves(&self, subscriber: &Subscriber) -> bool {
        // A type does not change that.
        let is_shared = self.key.0.is_none();
        let serves = Owner::of(subscriber, is_shared) == self.key.0;
        if serves {
            self.renew(subscriber);
        }
        serves
    }

    fn renew(&self, subscriber: &Subscriber) {
        *self.subscriber.lock() = of_nobody(subscriber);
    }

    /// Who asks the upstream.
    pub(crate) fn subscriber(&self) -> Subscriber {
        self.subscriber.lock().clone()
    }

    pub(crate) fn oldest(&self) -> Option<SystemTime> {
        *self.oldest.lock()
    }

    /// Somebody reads the branch no more.
    pub(crate) fn leave(&self, running: &Arc<RunningType>) {
        let home = self.home();
        match home.as_ref().and_then(|home| home.branches()) {
            Some(branches) => branches.leave(running, self),
            // The engine is gone, and its actors with it.
            None => running.close(),
        }
    }

    /// Waits until a check that begins from now on has found everything that there is.
    pub(crate) async fn fresh(&self) -> Result<(), EventError> {
        let mut checks = self.checks.subscribe();
        let begun = checks.borrow().begun;
        self.is_wanted.store(true, Ordering::Release);
        self.send(CheckerMsg::Look);
        match until(&mut checks, |it| it.done > begun).await.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until streams can be given to the actor of the branch.
    pub(crate) async fn has_actor(&self) -> Result<(), EventError> {
        let checks = until(&mut self.checks.subscribe(), |it| it.can_begin).await;
        match checks.error.filter(|_| checks.done == u64::MAX) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether somebody waits for a check. Asked once.
    pub(crate) fn takes_wish(&self) -> bool {
        self.is_wanted.swap(false, Ordering::AcqRel)
    }

    /// A check begins. Returns its number.
    pub(crate) fn begins(&self) -> u64 {
        let mut number = 0;
        self.checks.send_modify(|checks| {
            checks.begun += 1;
            number = checks.begun;
        });
        number
    }

    /// A check has failed.
    pub(crate) fn failed(&self, number: u64, error: EventError) {
        self.done(number, Some(error));
    }

    /// A check has found all that there was.
    pub(crate) fn is_current(&self, number: u64) {
        *self.oldest.lock() = None;
        self.is_behind.store(false, Ordering::Release);
        self.done(number, None);
    }

    fn done(&self, number: u64, error: Option<EventError>) {
        self.checks.send_modify(|checks| {
            // It stays at its end when the type is gone.
            if number > checks.done {
                (checks.done, checks.error) = (number, error);
            }
        });
    }

    /// Nobody waits any longer.
    pub(crate) fn close(&self, name: &str) {
        self.done(u64::MAX, Some(EventError::UnknownType(name.to_owned())));
    }

    pub(crate) fn set_checker(&self, checker: ActorRef<CheckerMsg>) {
        self.checker.store(Some(Arc::new(checker)));
        self.checks.send_modify(|checks| checks.can_begin = true);
        self.send(CheckerMsg::Look);
    }

    pub(crate) fn send(&self, message: CheckerMsg) {
        // Without an actor the message is not needed: the next one looks at once.
        if let Some(checker) = &*self.checker.load() {
            let _ = checker.cast(message);
        }
    }
}

/// Who asks for no subscription in particular.
fn of_nobody(subscriber: &Subscriber) -> Subscriber {
    Subscriber { id: None, ..subscriber.clone() }
}

/// Waits for something, at most until the branch ends.
async fn until(checks: &mut watch::Receiver<Checks>, holds: impl Fn(&Checks) -> bool) -> Checks {
    let found = checks.wait_for(|it| holds(it) || it.done == u64::MAX).await;
    // Whoever waits has the branch, and so the sender.
    found.map(|checks| checks.clone()).unwrap_or_default()
}
