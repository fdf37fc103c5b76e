//! Single steps of a log and its followers.

mod facts;
mod model;
mod rights;

use stentor_engine::ItemKind;

use super::follower::{Applied, Gap};
use super::*;
use facts::{LARGE, changed, note, number, offers, tool};

const ALL: usize = usize::MAX;

fn tools(names: impl IntoIterator<Item = usize>) -> Vec<Definition> {
    names.into_iter().map(|name| tool(name, 0)).collect()
}

/// Brings a follower to the head in parts of at most `max_bytes`; returns the result of each part.
fn catch_up(log: &ReplicationLog, follower: &mut Follower, max_bytes: usize) -> Vec<Applied> {
    let mut parts = Vec::new();
    loop {
        let update = log.since(follower.position(), max_bytes);
        let applied = follower.apply(update).expect("an update that begins where the follower is");
        let more = applied.more;
        parts.push(applied);
        if !more {
            assert_eq!(follower.position(), Some(log.head()));
            return parts;
        }
        assert!(parts.len() < 10_000, "it never ends");
    }
}

/// The same, in one part.
fn catch_up_at_once(log: &ReplicationLog, follower: &mut Follower) -> Applied {
    let mut parts = catch_up(log, follower, ALL);
    assert_eq!(parts.len(), 1);
    parts.remove(0)
}

/// A log with this number of tools, and a follower that has them.
fn pair(limits: ReplicationLimits, names: usize) -> (ReplicationLog, Follower) {
    let (mut log, mut follower) = (ReplicationLog::new(1, limits), Follower::default());
    log.offer(tools(0..names));
    catch_up_at_once(&log, &mut follower);
    (log, follower)
}

#[test]
fn a_new_follower_receives_the_current_definitions_and_no_past_notices() {
    let (mut log, mut follower) = (ReplicationLog::new(1, LARGE), Follower::default());
    log.add_fact(changed(1));
    log.offer(tools(0..10));
    log.add_fact(note(1));
    log.add_fact(changed(2));
    log.offer(tools(5..15));
    log.add_fact(changed(3));

    let parts = catch_up(&log, &mut follower, 1);
    assert_eq!(parts.len(), 10, "one definition each");
    assert!(parts.iter().all(|part| part.catalog && !part.missed && part.notices.is_empty()));
    assert_eq!(follower.definitions().count(), 10);

    log.add_fact(changed(3));
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, [changed(3)]);
}

#[test]
fn an_empty_log_can_be_followed() {
    let (log, mut follower) = pair(LARGE, 0);
    assert_eq!(follower.position(), Some(log.head()));
    assert_eq!(catch_up_at_once(&log, &mut follower), Applied::default());
}

#[test]
fn a_follower_that_was_away_is_notified_of_each_topic_once() {
    let (mut log, mut follower) = pair(LARGE, 0);
    for round in 0..5 {
        log.add_fact(changed(1));
        log.add_fact(note(round));
        log.add_fact(changed(2));
    }
    log.add_fact(changed(1));
    let notices = catch_up_at_once(&log, &mut follower).notices;
    let notes: Vec<_> = notices.iter().filter_map(number).collect();
    assert_eq!(notes, [0, 1, 2, 3, 4]);
    assert_eq!(notices[5..], [changed(2), changed(1)]);
    assert_eq!(catch_up_at_once(&log, &mut follower), Applied::default());
}

#[test]
fn offering_the_same_again_changes_nothing() {
    let (mut log, mut follower) = pair(LARGE, 10);
    let head = log.head();
    assert!(!log.offer(tools(0..10)));
    assert!(!log.offer(tools((0..10).rev())));
    assert_eq!(log.head(), head);
    assert!(!catch_up_at_once(&log, &mut follower).catalog);
}

#[test]
fn the_first_of_two_definitions_with_one_key_counts() {
    let (mut log, mut follower) = pair(LARGE, 0);
    let both = || [tool(1, 1), tool(1, 2)];
    assert!(log.offer(both()));
    assert!(!log.offer(both()));
    catch_up_at_once(&log, &mut follower);
    assert_eq!(offers(&follower), [tool(1, 1)]);
}

#[test]
fn a_follower_applies_additions_changes_and_removals() {
    let (mut log, mut follower) = pair(LARGE, 3);
    assert!(log.offer([tool(0, 0), tool(1, 7), tool(3, 0)]));
    let update = log.since(follower.position(), ALL);
    assert!(!update.whole);
    assert_eq!(update.facts.len(), 3);
    assert!(follower.apply(update).unwrap().catalog);
    assert_eq!(offers(&follower), [tool(0, 0), tool(1, 7), tool(3, 0)]);
}

#[test]
fn single_definitions_can_be_added_and_removed() {
    let (mut log, mut follower) = pair(LARGE, 2);
    log.add_fact(Fact::Put(tool(2, 0)));
    log.add_fact(Fact::Remove(ItemKind::Tools, "tool-0".into()));
    log.add_fact(Fact::Remove(ItemKind::Tools, "never there".into()));
    assert_eq!(log.since(follower.position(), ALL).facts.len(), 2);
    catch_up_at_once(&log, &mut follower);
    assert_eq!(offers(&follower), tools(1..3));
    log.offer(tools(1..2));
    catch_up_at_once(&log, &mut follower);
    assert_eq!(offers(&follower), tools(1..2));
}

#[test]
fn a_definition_that_returns_before_the_next_update_changes_nothing() {
    let (mut log, mut follower) = pair(LARGE, 3);
    log.offer(tools(1..3));
    log.offer(tools(0..3));
    assert!(!catch_up_at_once(&log, &mut follower).catalog);
}

#[test]
fn a_repeated_or_late_update_is_refused() {
    let (mut log, mut follower) = pair(LARGE, 3);
    let first = log.since(None, ALL);
    log.add_fact(changed(1));
    let early = log.since(follower.position(), ALL);
    log.add_fact(changed(2));
    let late = log.since(follower.position(), ALL);

    assert_eq!(follower.apply(late.clone()).unwrap().notices.len(), 2);
    for stale in [first, early, late] {
        assert_eq!(follower.apply(stale), Err(Gap));
    }
    assert_eq!(follower.position(), Some(log.head()));
}

#[test]
fn a_whole_update_in_parts_ends_although_old_removals_were_dropped() {
    let limits = ReplicationLimits { removals: 1, ..LARGE };
    let (mut log, mut follower) = (ReplicationLog::new(1, limits), Follower::default());
    log.offer(tools(0..20));
    log.offer(tools(0..10));
    let parts = catch_up(&log, &mut follower, 1);
    assert_eq!(parts.len(), 10);
    assert_eq!(offers(&follower), tools(0..10));
}

#[test]
fn changes_between_the_parts_of_a_whole_update_are_applied() {
    let (mut log, mut follower) = (ReplicationLog::new(1, LARGE), Follower::default());
    log.offer(tools(0..9));
    follower.apply(log.since(None, 1)).unwrap();
    log.offer(tools(1..5).into_iter().chain([tool(5, 1), tool(9, 0)]));
    log.add_fact(changed(1));
    let parts = catch_up(&log, &mut follower, 1);
    assert_eq!(parts.iter().flat_map(|part| &part.notices).collect::<Vec<_>>(), [&changed(1)]);
    assert_eq!(follower.definitions().count(), 6);
    assert!(follower.definitions().all(|tool| tool.key.as_ref() != "tool-0"));
}

#[test]
fn an_offered_definition_stays_between_the_parts_of_a_whole_update() {
    let (_, mut follower) = pair(LARGE, 5);
    let mut restarted = ReplicationLog::new(2, LARGE);
    restarted.offer(tools(1..6));
    let mut seen = Vec::new();
    loop {
        let applied = follower.apply(restarted.since(follower.position(), 1)).unwrap();
        seen.push((applied.catalog, follower.definitions().count()));
        if !applied.more {
            break;
        }
    }
    // Four old tools are confirmed; then the new one is added and the missing one is removed.
    assert_eq!(seen, [(false, 5), (false, 5), (false, 5), (false, 5), (true, 5)]);
    assert_eq!(offers(&follower), tools(1..6));
}

#[test]
fn after_too_many_removals_a_follower_gets_all_definitions_and_no_notice_twice() {
    let (mut log, mut follower) = pair(ReplicationLimits { removals: 2, ..LARGE }, 10);
    log.add_fact(changed(1));
    log.add_fact(note(1));
    catch_up_at_once(&log, &mut follower);
    log.add_fact(changed(2));
    log.offer(tools(0..7));
    log.add_fact(note(2));

    let update = log.since(follower.position(), 1);
    assert!(update.whole && !update.missed);
    let parts = catch_up(&log, &mut follower, 1);
    let notices: Vec<_> = parts.iter().flat_map(|part| &part.notices).collect();
    assert_eq!(notices, [&changed(2), &note(2)]);
    assert!(parts.iter().all(|part| !part.missed));
    assert_eq!(offers(&follower), tools(0..7));
}

#[test]
fn after_too_many_topics_a_follower_is_told_once_that_it_missed_some() {
    let (mut log, mut follower) = pair(ReplicationLimits { topics: 2, ..LARGE }, 1);
    log.add_fact(note(1));
    (0..3).for_each(|name| log.add_fact(changed(name)));
    log.add_fact(note(2));
    let parts = catch_up(&log, &mut follower, 1);
    assert_eq!(parts.iter().map(|part| part.missed).collect::<Vec<_>>(), [true, false]);
    // `missed` stands for all topics, but not for the notifications that are still kept.
    assert_eq!(
        parts.iter().flat_map(|part| &part.notices).collect::<Vec<_>>(),
        [&note(1), &note(2)]
    );
    assert_eq!(catch_up_at_once(&log, &mut follower), Applied::default());
}

#[test]
fn a_follower_that_keeps_up_misses_nothing_even_with_small_limits() {
    let (mut log, mut follower) = pair(ReplicationLimits { topics: 1, notes: 1, ..LARGE }, 1);
    for number in 0..10 {
        log.add_fact(changed(number as usize));
        log.add_fact(note(number));
        let applied = catch_up_at_once(&log, &mut follower);
        assert!(!applied.missed);
        assert_eq!(applied.notices, [changed(number as usize), note(number)]);
    }
}

#[test]
fn the_last_notification_is_kept_whatever_its_size() {
    let (mut log, mut follower) = pair(ReplicationLimits { note_bytes: 10, notes: 0, ..LARGE }, 1);
    log.add_fact(note(1));
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, [note(1)]);
    log.add_fact(note(2));
    log.add_fact(note(3));
    let applied = catch_up_at_once(&log, &mut follower);
    assert!(applied.missed);
    assert_eq!(applied.notices, [note(3)]);
}

#[test]
fn after_a_restart_everything_is_sent_again_and_marked_as_possibly_missed() {
    let (_, mut follower) = pair(LARGE, 5);
    let mut restarted = ReplicationLog::new(2, LARGE);
    restarted.add_fact(changed(1));
    restarted.add_fact(note(1));
    restarted.offer(tools(4..6));

    assert!(!restarted.since(None, ALL).missed, "who has nothing missed nothing");
    let applied = catch_up_at_once(&restarted, &mut follower);
    assert!(applied.missed && applied.catalog);
    assert_eq!(applied.notices, [note(1)], "it was sent in this life, so nobody heard it");
    assert_eq!(offers(&follower), tools(4..6));
    assert_eq!(catch_up_at_once(&restarted, &mut follower), Applied::default());
}

#[test]
fn a_position_ahead_of_the_log_starts_from_the_beginning() {
    let (log, _) = pair(LARGE, 5);
    let ahead = Position::up_to(1, log.head().seq + 1);
    let update = log.since(Some(ahead), ALL);
    assert!(update.whole && update.missed);
    assert_eq!(update.to, log.head());
}

#[test]
fn a_log_stays_within_its_limits() {
    let limits = ReplicationLimits { removals: 3, topics: 4, notes: 5, note_bytes: 400 };
    let mut log = ReplicationLog::new(1, limits);
    for number in 0..1000 {
        log.offer(tools(number..number + 7));
        log.add_fact(changed(number));
        log.add_fact(note(number as u64));
    }
    assert_eq!((log.lasting.len(), log.puts.len()), (7, 7));
    assert_eq!((log.removals.after(0).count(), log.topics.after(0).count()), (3, 4));
    assert!((1..=5).contains(&log.notes.len()) && log.note_bytes <= 400);
}

#[test]
fn an_update_is_unchanged_by_serialization() {
    let (mut log, follower) = pair(ReplicationLimits { topics: 3, ..LARGE }, 5);
    log.offer(tools(2..7));
    log.add_fact(Fact::Changed(Topic::List(stentor_wire::ListKind::Prompts)));
    log.add_fact(changed(1));
    log.add_fact(note(1));
    let restarted = ReplicationLog::new(2, LARGE);
    for update in [
        log.since(None, ALL),
        log.since(None, 1),
        log.since(follower.position(), ALL),
        log.since(follower.position(), 1),
        restarted.since(follower.position(), ALL),
    ] {
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(serde_json::from_str::<Update>(&text).unwrap(), update, "{text}");
    }
}
