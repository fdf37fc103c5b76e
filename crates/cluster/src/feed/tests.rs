use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use stentor_engine::Audience;

use super::mirror::{Applied, Gap};
use super::*;

const ALL: usize = usize::MAX;
const ROOMY: FeedLimits =
    FeedLimits { removals: 1000, topics: 1000, notes: 1000, note_bytes: 1 << 20 };

fn tool(name: usize, version: usize) -> Definition {
    Definition {
        shelf: Shelf::Tools,
        key: format!("tool-{name}").into(),
        ordinal: name as u64,
        json: Bytes::from(format!(r#"{{"name":"tool-{name}","version":{version}}}"#)),
    }
}

fn tools(names: impl IntoIterator<Item = usize>) -> Vec<Definition> {
    names.into_iter().map(|name| tool(name, 0)).collect()
}

fn topic(name: usize) -> Topic {
    Topic::Resource(format!("a://{name}").into())
}

fn changed(name: usize) -> Fact {
    Fact::Changed(topic(name))
}

fn note(number: u64) -> Fact {
    let params = Some(json!({ "number": number }));
    Fact::Notify { audience: Audience::all(), method: "notifications/note".into(), params }
}

fn number(fact: &Fact) -> Option<u64> {
    match fact {
        Fact::Notify { params: Some(params), .. } => params["number"].as_u64(),
        _ => None,
    }
}

fn offers(mirror: &Mirror) -> Vec<Definition> {
    mirror.definitions().cloned().collect()
}

/// Brings a mirror to the head in parts of so many bytes: what came of each.
fn catch_up(feed: &Feed, mirror: &mut Mirror, max_bytes: usize) -> Vec<Applied> {
    let mut parts = Vec::new();
    loop {
        let update = feed.since(mirror.position(), max_bytes);
        let applied = mirror.apply(update).expect("an update from where the mirror is");
        let more = applied.more;
        parts.push(applied);
        if !more {
            assert_eq!(mirror.position(), Some(feed.head()));
            return parts;
        }
        assert!(parts.len() < 10_000, "it never ends");
    }
}

/// The same in one part.
fn hear(feed: &Feed, mirror: &mut Mirror) -> Applied {
    let mut parts = catch_up(feed, mirror, ALL);
    assert_eq!(parts.len(), 1);
    parts.remove(0)
}

/// A feed with so many tools, and a mirror that has them.
fn pair(limits: FeedLimits, names: usize) -> (Feed, Mirror) {
    let (mut feed, mut mirror) = (Feed::new(1, limits), Mirror::default());
    feed.offer(tools(0..names));
    hear(&feed, &mut mirror);
    (feed, mirror)
}

#[test]
fn who_has_nothing_gets_what_is_offered_and_hears_nothing_of_the_past() {
    let (mut feed, mut mirror) = (Feed::new(1, ROOMY), Mirror::default());
    feed.tell(changed(1));
    feed.offer(tools(0..10));
    feed.tell(note(1));
    feed.tell(changed(2));
    feed.offer(tools(5..15));
    feed.tell(changed(3));

    let parts = catch_up(&feed, &mut mirror, 1);
    assert_eq!(parts.len(), 10, "one definition each");
    assert!(parts.iter().all(|part| part.catalog && !part.missed && part.notices.is_empty()));
    assert_eq!(mirror.definitions().count(), 10);

    feed.tell(changed(3));
    assert_eq!(hear(&feed, &mut mirror).notices, [changed(3)]);
}

#[test]
fn an_empty_feed_can_be_mirrored() {
    let (feed, mut mirror) = pair(ROOMY, 0);
    assert_eq!(mirror.position(), Some(feed.head()));
    assert_eq!(hear(&feed, &mut mirror), Applied::default());
}

#[test]
fn a_receiver_that_was_away_hears_of_each_topic_once() {
    let (mut feed, mut mirror) = pair(ROOMY, 0);
    for round in 0..5 {
        feed.tell(changed(1));
        feed.tell(note(round));
        feed.tell(changed(2));
    }
    feed.tell(changed(1));
    let heard = hear(&feed, &mut mirror).notices;
    let notes: Vec<_> = heard.iter().filter_map(number).collect();
    assert_eq!(notes, [0, 1, 2, 3, 4]);
    assert_eq!(heard[5..], [changed(2), changed(1)]);
    assert_eq!(hear(&feed, &mut mirror), Applied::default());
}

#[test]
fn to_offer_the_same_again_changes_nothing() {
    let (mut feed, mut mirror) = pair(ROOMY, 10);
    let head = feed.head();
    assert!(!feed.offer(tools(0..10)));
    assert!(!feed.offer(tools((0..10).rev())));
    assert_eq!(feed.head(), head);
    assert!(!hear(&feed, &mut mirror).catalog);
}

#[test]
fn of_two_offers_with_one_key_the_first_counts() {
    let (mut feed, mut mirror) = pair(ROOMY, 0);
    let both = || [tool(1, 1), tool(1, 2)];
    assert!(feed.offer(both()));
    assert!(!feed.offer(both()));
    hear(&feed, &mut mirror);
    assert_eq!(offers(&mirror), [tool(1, 1)]);
}

#[test]
fn what_is_added_changed_and_removed_is_so_at_the_mirror() {
    let (mut feed, mut mirror) = pair(ROOMY, 3);
    assert!(feed.offer([tool(0, 0), tool(1, 7), tool(3, 0)]));
    let update = feed.since(mirror.position(), ALL);
    assert!(!update.whole);
    assert_eq!(update.facts.len(), 3);
    assert!(mirror.apply(update).unwrap().catalog);
    assert_eq!(offers(&mirror), [tool(0, 0), tool(1, 7), tool(3, 0)]);
}

#[test]
fn single_definitions_can_be_told() {
    let (mut feed, mut mirror) = pair(ROOMY, 2);
    feed.tell(Fact::Put(tool(2, 0)));
    feed.tell(Fact::Remove(Shelf::Tools, "tool-0".into()));
    feed.tell(Fact::Remove(Shelf::Tools, "never there".into()));
    assert_eq!(feed.since(mirror.position(), ALL).facts.len(), 2);
    hear(&feed, &mut mirror);
    assert_eq!(offers(&mirror), tools(1..3));
    feed.offer(tools(1..2));
    hear(&feed, &mut mirror);
    assert_eq!(offers(&mirror), tools(1..2));
}

#[test]
fn what_is_back_before_it_was_missed_is_no_difference() {
    let (mut feed, mut mirror) = pair(ROOMY, 3);
    feed.offer(tools(1..3));
    feed.offer(tools(0..3));
    assert!(!hear(&feed, &mut mirror).catalog);
}

#[test]
fn an_update_that_comes_twice_or_late_is_refused() {
    let (mut feed, mut mirror) = pair(ROOMY, 3);
    let first = feed.since(None, ALL);
    feed.tell(changed(1));
    let early = feed.since(mirror.position(), ALL);
    feed.tell(changed(2));
    let late = feed.since(mirror.position(), ALL);

    assert_eq!(mirror.apply(late.clone()).unwrap().notices.len(), 2);
    for stale in [first, early, late] {
        assert_eq!(mirror.apply(stale), Err(Gap));
    }
    assert_eq!(mirror.position(), Some(feed.head()));
}

#[test]
fn a_whole_update_in_parts_ends_even_if_removals_from_before_are_forgotten() {
    let limits = FeedLimits { removals: 1, ..ROOMY };
    let (mut feed, mut mirror) = (Feed::new(1, limits), Mirror::default());
    feed.offer(tools(0..20));
    feed.offer(tools(0..10));
    let parts = catch_up(&feed, &mut mirror, 1);
    assert_eq!(parts.len(), 10);
    assert_eq!(offers(&mirror), tools(0..10));
}

#[test]
fn what_changes_between_the_parts_of_a_whole_update_is_right_in_the_end() {
    let (mut feed, mut mirror) = (Feed::new(1, ROOMY), Mirror::default());
    feed.offer(tools(0..9));
    mirror.apply(feed.since(None, 1)).unwrap();
    feed.offer(tools(1..5).into_iter().chain([tool(5, 1), tool(9, 0)]));
    feed.tell(changed(1));
    let parts = catch_up(&feed, &mut mirror, 1);
    assert_eq!(parts.iter().flat_map(|part| &part.notices).collect::<Vec<_>>(), [&changed(1)]);
    assert_eq!(mirror.definitions().count(), 6);
    assert!(mirror.definitions().all(|tool| tool.key.as_ref() != "tool-0"));
}

#[test]
fn what_is_still_offered_is_not_gone_between_the_parts_of_a_whole_update() {
    let (_, mut mirror) = pair(ROOMY, 5);
    let mut restarted = Feed::new(2, ROOMY);
    restarted.offer(tools(1..6));
    let mut seen = Vec::new();
    loop {
        let applied = mirror.apply(restarted.since(mirror.position(), 1)).unwrap();
        seen.push((applied.catalog, mirror.definitions().count()));
        if !applied.more {
            break;
        }
    }
    // Four that were there, and then the new one comes and the old one goes.
    assert_eq!(seen, [(false, 5), (false, 5), (false, 5), (false, 5), (true, 5)]);
    assert_eq!(offers(&mirror), tools(1..6));
}

#[test]
fn who_was_away_for_too_many_removals_gets_all_definitions_and_no_notice_twice() {
    let (mut feed, mut mirror) = pair(FeedLimits { removals: 2, ..ROOMY }, 10);
    feed.tell(changed(1));
    feed.tell(note(1));
    hear(&feed, &mut mirror);
    feed.tell(changed(2));
    feed.offer(tools(0..7));
    feed.tell(note(2));

    let update = feed.since(mirror.position(), 1);
    assert!(update.whole && !update.missed);
    let parts = catch_up(&feed, &mut mirror, 1);
    let notices: Vec<_> = parts.iter().flat_map(|part| &part.notices).collect();
    assert_eq!(notices, [&changed(2), &note(2)]);
    assert!(parts.iter().all(|part| !part.missed));
    assert_eq!(offers(&mirror), tools(0..7));
}

#[test]
fn who_was_away_for_too_many_topics_hears_once_that_it_missed_some() {
    let (mut feed, mut mirror) = pair(FeedLimits { topics: 2, ..ROOMY }, 1);
    feed.tell(note(1));
    (0..3).for_each(|name| feed.tell(changed(name)));
    feed.tell(note(2));
    let parts = catch_up(&feed, &mut mirror, 1);
    assert_eq!(parts.iter().map(|part| part.missed).collect::<Vec<_>>(), [true, false]);
    // That stands for all topics, but not for the notifications that are still there.
    assert_eq!(
        parts.iter().flat_map(|part| &part.notices).collect::<Vec<_>>(),
        [&note(1), &note(2)]
    );
    assert_eq!(hear(&feed, &mut mirror), Applied::default());
}

#[test]
fn who_was_not_away_misses_nothing_however_little_is_kept() {
    let (mut feed, mut mirror) = pair(FeedLimits { topics: 1, notes: 1, ..ROOMY }, 1);
    for number in 0..10 {
        feed.tell(changed(number as usize));
        feed.tell(note(number));
        let applied = hear(&feed, &mut mirror);
        assert!(!applied.missed);
        assert_eq!(applied.notices, [changed(number as usize), note(number)]);
    }
}

#[test]
fn the_last_notification_is_kept_however_large_it_is() {
    let (mut feed, mut mirror) = pair(FeedLimits { note_bytes: 10, notes: 0, ..ROOMY }, 1);
    feed.tell(note(1));
    assert_eq!(hear(&feed, &mut mirror).notices, [note(1)]);
    feed.tell(note(2));
    feed.tell(note(3));
    let applied = hear(&feed, &mut mirror);
    assert!(applied.missed);
    assert_eq!(applied.notices, [note(3)]);
}

#[test]
fn after_a_restart_all_is_new_and_something_may_have_been_missed() {
    let (_, mut mirror) = pair(ROOMY, 5);
    let mut restarted = Feed::new(2, ROOMY);
    restarted.tell(changed(1));
    restarted.tell(note(1));
    restarted.offer(tools(4..6));

    assert!(!restarted.since(None, ALL).missed, "who has nothing missed nothing");
    let applied = hear(&restarted, &mut mirror);
    assert!(applied.missed && applied.catalog);
    assert_eq!(applied.notices, [note(1)], "it was sent in this life, so nobody heard it");
    assert_eq!(offers(&mirror), tools(4..6));
    assert_eq!(hear(&restarted, &mut mirror), Applied::default());
}

#[test]
fn a_position_that_was_never_reached_begins_anew() {
    let (feed, _) = pair(ROOMY, 5);
    let ahead = Position::even(1, feed.head().seq + 1);
    let update = feed.since(Some(ahead), ALL);
    assert!(update.whole && update.missed);
    assert_eq!(update.to, feed.head());
}

#[test]
fn a_feed_stays_as_small_as_its_limits() {
    let limits = FeedLimits { removals: 3, topics: 4, notes: 5, note_bytes: 400 };
    let mut feed = Feed::new(1, limits);
    for number in 0..1000 {
        feed.offer(tools(number..number + 7));
        feed.tell(changed(number));
        feed.tell(note(number as u64));
    }
    assert_eq!((feed.offered.len(), feed.puts.len()), (7, 7));
    assert_eq!((feed.removals.after(0).count(), feed.topics.after(0).count()), (3, 4));
    assert!((1..=5).contains(&feed.notes.len()) && feed.note_bytes <= 400);
}

#[test]
fn an_update_is_the_same_after_it_was_written() {
    let (mut feed, mirror) = pair(FeedLimits { topics: 3, ..ROOMY }, 5);
    feed.offer(tools(2..7));
    feed.tell(Fact::Changed(Topic::List(stentor_wire::ListKind::Prompts)));
    feed.tell(changed(1));
    feed.tell(note(1));
    let restarted = Feed::new(2, ROOMY);
    for update in [
        feed.since(None, ALL),
        feed.since(None, 1),
        feed.since(mirror.position(), ALL),
        feed.since(mirror.position(), 1),
        restarted.since(mirror.position(), ALL),
    ] {
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(serde_json::from_str::<Update>(&text).unwrap(), update, "{text}");
    }
}

/// Of the model: how many other nodes there are.
const MIRRORS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// These are offered, each in a version.
    Offer(Vec<(usize, usize)>),
    Change(usize),
    Note,
    /// The node starts again, with nothing.
    Restart,
    /// A mirror is sent an update, perhaps from where it was long ago.
    Ask {
        mirror: usize,
        long_ago: Option<Index>,
        max_bytes: usize,
    },
    /// One of the updates that are under way arrives, and perhaps will once more.
    Arrive {
        which: Index,
        again: bool,
    },
    Lose(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<Index>;
    let ask = (0..MIRRORS, prop::option::weighted(0.2, any_index()), 0..600_usize)
        .prop_map(|(mirror, long_ago, max_bytes)| Step::Ask { mirror, long_ago, max_bytes });
    prop_oneof![
        4 => prop::collection::vec((0..8_usize, 0..2_usize), 0..8).prop_map(Step::Offer),
        6 => (0..6_usize).prop_map(Step::Change),
        4 => Just(Step::Note),
        1 => Just(Step::Restart),
        12 => ask,
        12 => (any_index(), any::<bool>()).prop_map(|(which, again)| Step::Arrive { which, again }),
        2 => any_index().prop_map(Step::Lose),
    ]
}

fn tight() -> impl Strategy<Value = FeedLimits> {
    (0..4_usize, 0..4_usize, 0..4_usize, 0..600_usize).prop_map(
        |(removals, topics, notes, note_bytes)| FeedLimits { removals, topics, notes, note_bytes },
    )
}

/// An update under way, and how things were when it was made.
#[derive(Clone)]
struct Sent {
    mirror: usize,
    update: Update,
    /// How many announcements there were.
    told: u64,
    /// The last announcement of each topic.
    topics: HashMap<Topic, u64>,
    offered: BTreeMap<Key, Definition>,
}

/// What a mirror heard, by the numbers of announcements.
#[derive(Default)]
struct Heard {
    /// The last one before the first contact.
    contact: Option<u64>,
    /// The last one that "everything may have changed" stands for.
    missed: u64,
    topics: HashMap<Topic, u64>,
    notes: Vec<u64>,
}

struct Model {
    limits: FeedLimits,
    life: u64,
    feed: Feed,
    /// How many announcements there were in all lives.
    told: u64,
    topics: HashMap<Topic, u64>,
    notes: Vec<u64>,
    offered: BTreeMap<Key, Definition>,
    mirrors: [Mirror; MIRRORS],
    heard: [Heard; MIRRORS],
    positions: [Vec<Option<Position>>; MIRRORS],
    under_way: Vec<Sent>,
}

impl Model {
    fn new(limits: FeedLimits) -> Self {
        Self {
            limits,
            life: 1,
            feed: Feed::new(1, limits),
            told: 0,
            topics: HashMap::new(),
            notes: Vec::new(),
            offered: BTreeMap::new(),
            mirrors: Default::default(),
            heard: Default::default(),
            positions: std::array::from_fn(|_| vec![None]),
            under_way: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Offer(tools) => {
                let tools: Vec<_> =
                    tools.into_iter().map(|(name, version)| tool(name, version)).collect();
                // The first of several counts.
                let offered = tools.iter().rev().map(|tool| (key(tool), tool.clone())).collect();
                let differs = offered != self.offered;
                self.offered = offered;
                prop_assert_eq!(self.feed.offer(tools), differs);
            }
            Step::Change(name) => {
                self.told += 1;
                self.topics.insert(topic(name), self.told);
                self.feed.tell(changed(name));
            }
            Step::Note => {
                self.told += 1;
                self.notes.push(self.told);
                self.feed.tell(note(self.told));
            }
            Step::Restart => {
                self.life += 1;
                self.feed = Feed::new(self.life, self.limits);
                self.offered.clear();
            }
            Step::Ask { mirror, long_ago, max_bytes } => {
                let sent = self.ask(mirror, long_ago, max_bytes);
                self.under_way.push(sent);
            }
            Step::Arrive { which, again } if !self.under_way.is_empty() => {
                let at = which.index(self.under_way.len());
                let sent = self.under_way[at].clone();
                if !again {
                    self.under_way.remove(at);
                }
                self.arrive(sent)?;
            }
            Step::Lose(which) if !self.under_way.is_empty() => {
                self.under_way.remove(which.index(self.under_way.len()));
            }
            Step::Arrive { .. } | Step::Lose(_) => {}
        }
        Ok(())
    }

    fn ask(&self, mirror: usize, long_ago: Option<Index>, max_bytes: usize) -> Sent {
        let from = match long_ago {
            Some(index) => *index.get(&self.positions[mirror]),
            None => self.mirrors[mirror].position(),
        };
        Sent {
            mirror,
            update: self.feed.since(from, max_bytes),
            told: self.told,
            topics: self.topics.clone(),
            offered: self.offered.clone(),
        }
    }

    fn arrive(&mut self, sent: Sent) -> Result<(), TestCaseError> {
        let (mirror, heard) = (&mut self.mirrors[sent.mirror], &mut self.heard[sent.mirror]);
        let (position, before) = (mirror.position(), offers(mirror));
        let Ok(applied) = mirror.apply(sent.update.clone()) else {
            prop_assert_ne!(position, sent.update.from);
            prop_assert_eq!((mirror.position(), offers(mirror)), (position, before));
            return Ok(());
        };
        prop_assert_eq!(position, sent.update.from);
        self.positions[sent.mirror].push(mirror.position());
        prop_assert_eq!(applied.catalog, offers(mirror) != before);
        if !applied.more {
            prop_assert_eq!(offers(mirror), sent.offered.into_values().collect::<Vec<_>>());
        }
        let contact = *heard.contact.get_or_insert(sent.told);
        for fact in applied.notices {
            match fact {
                Fact::Changed(topic) => {
                    let now = sent.topics[&topic];
                    let before = heard.topics.insert(topic, now).unwrap_or(contact);
                    prop_assert!(!applied.missed && heard.missed < now, "it stood for this, too");
                    prop_assert!(before < now, "a topic was heard twice for one change");
                }
                other => {
                    let now = number(&other).expect("only notes have no topic");
                    let before = heard.notes.last().copied().unwrap_or(contact);
                    prop_assert!(before < now, "notification {} after {}", now, before);
                    heard.notes.push(now);
                }
            }
        }
        if applied.missed {
            heard.missed = sent.told;
        }
        Ok(())
    }

    /// Nothing more happens, and what is under way is lost.
    fn quiet(&mut self, max_bytes: usize) -> Result<(), TestCaseError> {
        for mirror in 0..MIRRORS {
            for parts in 0.. {
                prop_assert!(parts < 1000, "it never ends");
                let sent = self.ask(mirror, None, max_bytes);
                let more = sent.update.more;
                self.arrive(sent)?;
                if !more {
                    break;
                }
            }
            let (heard, mirror) = (&self.heard[mirror], &self.mirrors[mirror]);
            prop_assert_eq!(mirror.position(), Some(self.feed.head()));
            prop_assert_eq!(offers(mirror), self.offered.values().cloned().collect::<Vec<_>>());
            let excused = heard.missed.max(heard.contact.unwrap());
            for (topic, last) in &self.topics {
                let known = heard.topics.get(topic).copied().unwrap_or_default().max(excused);
                prop_assert!(known >= *last, "a change was not heard");
            }
            for note in &self.notes {
                prop_assert!(*note <= excused || heard.notes.contains(note));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_lost_all_know_the_same_in_the_end_and_nobody_hears_twice(
        limits in tight(),
        steps in prop::collection::vec(step(), 0..150),
        max_bytes in 0..400_usize,
    ) {
        let mut model = Model::new(limits);
        for step in steps {
            model.step(step)?;
        }
        model.quiet(max_bytes)?;
    }

    #[test]
    fn with_room_and_without_a_restart_nobody_misses_anything(
        steps in prop::collection::vec(step(), 0..150),
        max_bytes in 0..400_usize,
    ) {
        let mut model = Model::new(ROOMY);
        for step in steps {
            if !matches!(step, Step::Restart) {
                model.step(step)?;
            }
        }
        model.quiet(max_bytes)?;
        prop_assert!(model.heard.iter().all(|heard| heard.missed == 0));
    }
}
