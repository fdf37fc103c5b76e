//! Random steps of a log and several followers, compared with a simple model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use stentor_engine::Topic;
use stentor_engine::remote::{Definition, Fact, WatchState};

use super::facts::{LARGE, changed, note, number, offers, tool, topic, watch};
use crate::replication_log::{
    Follower, Key, Position, ReplicationLimits, ReplicationLog, Update, key,
};

/// The number of followers in the model.
const FOLLOWERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Offers these tools, each in a version.
    Offer(Vec<(usize, usize)>),
    Change(usize),
    /// A URI is watched, and perhaps its hooks run, or neither.
    Watch(usize, Option<bool>),
    Note,
    /// The node restarts with an empty log.
    Restart,
    /// A follower is sent an update, perhaps from one of its old positions.
    Ask {
        follower: usize,
        long_ago: Option<Index>,
        max_bytes: usize,
    },
    /// One of the updates in flight arrives, and perhaps arrives once more later.
    Arrive {
        which: Index,
        again: bool,
    },
    Lose(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<Index>;
    let ask = (0..FOLLOWERS, prop::option::weighted(0.2, any_index()), 0..600_usize)
        .prop_map(|(follower, long_ago, max_bytes)| Step::Ask { follower, long_ago, max_bytes });
    prop_oneof![
        4 => prop::collection::vec((0..8_usize, 0..2_usize), 0..8).prop_map(Step::Offer),
        6 => (0..6_usize).prop_map(Step::Change),
        6 => (0..6_usize, any::<Option<bool>>()).prop_map(|(name, runs)| Step::Watch(name, runs)),
        4 => Just(Step::Note),
        1 => Just(Step::Restart),
        12 => ask,
        12 => (any_index(), any::<bool>()).prop_map(|(which, again)| Step::Arrive { which, again }),
        2 => any_index().prop_map(Step::Lose),
    ]
}

fn small_limits() -> impl Strategy<Value = ReplicationLimits> {
    (0..4_usize, 0..4_usize, 0..4_usize, 0..600_usize).prop_map(
        |(removals, topics, notes, note_bytes)| ReplicationLimits {
            removals,
            topics,
            notes,
            note_bytes,
        },
    )
}

/// An update in flight, and the state of the model when it was made.
#[derive(Clone)]
struct Sent {
    follower: usize,
    update: Update,
    /// The number of announcements.
    announced: u64,
    /// The last announcement of each topic.
    topics: HashMap<Topic, u64>,
    offered: BTreeMap<Key, Definition>,
    watches: Watches,
}

type Watches = BTreeMap<Arc<str>, WatchState>;

/// What a follower received, by the numbers of announcements.
#[derive(Default)]
struct Received {
    /// The last announcement before the first contact.
    first_contact: Option<u64>,
    /// The last announcement that a `missed` stands for.
    missed: u64,
    topics: HashMap<Topic, u64>,
    notes: Vec<u64>,
}

struct Model {
    limits: ReplicationLimits,
    life: u64,
    log: ReplicationLog,
    /// The number of announcements in all runs.
    announced: u64,
    topics: HashMap<Topic, u64>,
    notes: Vec<u64>,
    offered: BTreeMap<Key, Definition>,
    watches: Watches,
    followers: [Follower; FOLLOWERS],
    received: [Received; FOLLOWERS],
    positions: [Vec<Option<Position>>; FOLLOWERS],
    in_flight: Vec<Sent>,
}

impl Model {
    fn new(limits: ReplicationLimits) -> Self {
        Self {
            limits,
            life: 1,
            log: ReplicationLog::new(1, limits),
            announced: 0,
            topics: HashMap::new(),
            notes: Vec::new(),
            offered: BTreeMap::new(),
            watches: Watches::new(),
            followers: Default::default(),
            received: Default::default(),
            positions: std::array::from_fn(|_| vec![None]),
            in_flight: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Offer(tools) => {
                let tools: Vec<_> =
                    tools.into_iter().map(|(name, version)| tool(name, version)).collect();
                // The first of several tools with one name counts.
                let offered = tools.iter().rev().map(|tool| (key(tool), tool.clone())).collect();
                let differs = offered != self.offered;
                self.offered = offered;
                prop_assert_eq!(self.log.offer(tools), differs);
            }
            Step::Change(name) => {
                self.announced += 1;
                self.topics.insert(topic(name), self.announced);
                self.log.add_fact(changed(name));
            }
            Step::Watch(name, running) => {
                let fact = watch(name, running);
                let Fact::Watch(uri, state) = fact.clone() else { unreachable!() };
                self.watches.remove(&uri);
                if running.is_some() {
                    self.watches.insert(uri, state);
                }
                self.log.add_fact(fact);
            }
            Step::Note => {
                self.announced += 1;
                self.notes.push(self.announced);
                self.log.add_fact(note(self.announced));
            }
            Step::Restart => {
                self.life += 1;
                self.log = ReplicationLog::new(self.life, self.limits);
                self.offered.clear();
                self.watches.clear();
            }
            Step::Ask { follower, long_ago, max_bytes } => {
                let sent = self.ask(follower, long_ago, max_bytes);
                self.in_flight.push(sent);
            }
            Step::Arrive { which, again } if !self.in_flight.is_empty() => {
                let at = which.index(self.in_flight.len());
                let sent = self.in_flight[at].clone();
                if !again {
                    self.in_flight.remove(at);
                }
                self.arrive(sent)?;
            }
            Step::Lose(which) if !self.in_flight.is_empty() => {
                self.in_flight.remove(which.index(self.in_flight.len()));
            }
            Step::Arrive { .. } | Step::Lose(_) => {}
        }
        Ok(())
    }

    fn ask(&self, follower: usize, long_ago: Option<Index>, max_bytes: usize) -> Sent {
        let from = match long_ago {
            Some(index) => *index.get(&self.positions[follower]),
            None => self.followers[follower].position(),
        };
        Sent {
            follower,
            update: self.log.since(from, max_bytes),
            announced: self.announced,
            topics: self.topics.clone(),
            offered: self.offered.clone(),
            watches: self.watches.clone(),
        }
    }

    fn arrive(&mut self, sent: Sent) -> Result<(), TestCaseError> {
        let (follower, received) =
            (&mut self.followers[sent.follower], &mut self.received[sent.follower]);
        let (position, before) = (follower.position(), offers(follower));
        let mut watches: Watches = follower.watches().into_iter().collect();
        let Ok(applied) = follower.apply(sent.update.clone()) else {
            prop_assert_ne!(position, sent.update.from);
            prop_assert_eq!((follower.position(), offers(follower)), (position, before));
            return Ok(());
        };
        prop_assert_eq!(position, sent.update.from);
        self.positions[sent.follower].push(follower.position());
        prop_assert_eq!(applied.catalog, offers(follower) != before);
        for (uri, state) in applied.watches {
            let before = watches.remove(&uri).unwrap_or_default();
            prop_assert_ne!(before, state, "nothing has changed");
            if state != WatchState::default() {
                watches.insert(uri, state);
            }
        }
        let now: Watches = follower.watches().into_iter().collect();
        prop_assert_eq!(&watches, &now);
        if !applied.more {
            prop_assert_eq!(now, sent.watches);
            prop_assert_eq!(offers(follower), sent.offered.into_values().collect::<Vec<_>>());
        }
        let first_contact = *received.first_contact.get_or_insert(sent.announced);
        for fact in applied.notices {
            match fact {
                Fact::Changed(topic) => {
                    let now = sent.topics[&topic];
                    let before = received.topics.insert(topic, now).unwrap_or(first_contact);
                    prop_assert!(
                        !applied.missed && received.missed < now,
                        "it stood for this, too"
                    );
                    prop_assert!(before < now, "a topic was heard twice for one change");
                }
                other => {
                    let now = number(&other).expect("only notes have no topic");
                    let before = received.notes.last().copied().unwrap_or(first_contact);
                    prop_assert!(before < now, "notification {} after {}", now, before);
                    received.notes.push(now);
                }
            }
        }
        if applied.missed {
            received.missed = sent.announced;
        }
        Ok(())
    }

    /// No more steps happen, and the updates in flight are lost: all followers catch up.
    fn settle(&mut self, max_bytes: usize) -> Result<(), TestCaseError> {
        for follower in 0..FOLLOWERS {
            for parts in 0.. {
                prop_assert!(parts < 1000, "it never ends");
                let sent = self.ask(follower, None, max_bytes);
                let more = sent.update.more;
                self.arrive(sent)?;
                if !more {
                    break;
                }
            }
            let (received, follower) = (&self.received[follower], &self.followers[follower]);
            prop_assert_eq!(follower.position(), Some(self.log.head()));
            prop_assert_eq!(offers(follower), self.offered.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(
                follower.watches().into_iter().collect::<Watches>(),
                self.watches.clone()
            );
            let exempt = received.missed.max(received.first_contact.unwrap());
            for (topic, last) in &self.topics {
                let known = received.topics.get(topic).copied().unwrap_or_default().max(exempt);
                prop_assert!(known >= *last, "a change was not heard");
            }
            for note in &self.notes {
                prop_assert!(*note <= exempt || received.notes.contains(note));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_lost_all_followers_converge_and_none_is_notified_twice(
        limits in small_limits(),
        steps in prop::collection::vec(step(), 0..150),
        max_bytes in 0..400_usize,
    ) {
        let mut model = Model::new(limits);
        for step in steps {
            model.step(step)?;
        }
        model.settle(max_bytes)?;
    }

    #[test]
    fn with_large_limits_and_no_restart_no_follower_misses_anything(
        steps in prop::collection::vec(step(), 0..150),
        max_bytes in 0..400_usize,
    ) {
        let mut model = Model::new(LARGE);
        for step in steps {
            if !matches!(step, Step::Restart) {
                model.step(step)?;
            }
        }
        model.settle(max_bytes)?;
        prop_assert!(model.received.iter().all(|received| received.missed == 0));
    }
}
