//! Items that not everybody sees, and rights that change.

use proptest::prelude::*;

use super::facts::{as_older_release, restricted, revoked};
use super::*;

/// The names and labels of the tools that a follower has.
fn labels(follower: &Follower) -> Vec<(String, bool)> {
    follower.definitions().map(|tool| (tool.key.to_string(), tool.is_restricted())).collect()
}

#[test]
fn a_restricted_item_is_told_by_a_fact_of_its_own() {
    let (mut log, mut follower) = pair(LARGE, 1);
    log.offer([tool(0, 0), restricted(1, "admin")]);
    let facts = log.since(follower.position(), ALL).facts;
    assert_eq!(facts, [Fact::PutRestricted(restricted(1, "admin"))]);
    let text = serde_json::to_value(&facts[0]).unwrap();
    assert!(text["put_restricted"]["access"]["rule"].is_array(), "{text}");
    catch_up_at_once(&log, &mut follower);
    assert_eq!(labels(&follower), [("tool-0".into(), false), ("tool-1".into(), true)]);

    log.offer([tool(0, 0), restricted(1, "staff")]);
    assert!(catch_up_at_once(&log, &mut follower).catalog, "another rule is another definition");
    assert_eq!(offers(&follower), [tool(0, 0), restricted(1, "staff")]);
    log.offer([tool(0, 0)]);
    catch_up_at_once(&log, &mut follower);
    assert_eq!(offers(&follower), [tool(0, 0)]);
}

#[test]
fn a_node_that_cannot_hide_an_item_does_not_show_it_as_it_was_before() {
    let (mut log, mut older) = pair(LARGE, 2);
    let mut newer = Follower::default();
    catch_up_at_once(&log, &mut newer);
    log.offer([restricted(0, "admin"), tool(1, 0)]);
    older.apply(as_older_release(log.since(older.position(), ALL))).unwrap();
    assert_eq!(offers(&older), [tool(1, 0)]);
    catch_up_at_once(&log, &mut newer);
    assert_eq!(offers(&newer), [restricted(0, "admin"), tool(1, 0)]);

    // It is removed and comes back with a rule before anybody has heard of either.
    log.offer([restricted(0, "admin")]);
    log.offer([restricted(0, "admin"), restricted(1, "admin")]);
    older.apply(as_older_release(log.since(older.position(), ALL))).unwrap();
    assert_eq!(offers(&older), []);
    catch_up_at_once(&log, &mut newer);
    assert_eq!(offers(&newer), [restricted(0, "admin"), restricted(1, "admin")]);
    log.offer([tool(0, 0), restricted(1, "admin")]);
    older.apply(as_older_release(log.since(older.position(), ALL))).unwrap();
    assert_eq!(offers(&older), [tool(0, 0)]);
}

#[test]
fn a_refresh_is_told_to_those_who_follow_and_one_that_is_lost_counts_as_missed() {
    let (mut log, mut follower) = pair(ReplicationLimits { notes: 1, ..LARGE }, 1);
    log.add_fact(Fact::Refresh(Some("ann".into())));
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, [Fact::Refresh(Some("ann".into()))]);
    log.add_fact(Fact::Refresh(Some("ann".into())));
    log.add_fact(Fact::Refresh(None));
    let applied = catch_up_at_once(&log, &mut follower);
    assert!(applied.missed);
    assert_eq!(applied.notices, [Fact::Refresh(None)]);
    let applied = catch_up_at_once(&log, &mut Follower::default());
    assert!(applied.notices.is_empty() && !applied.missed, "a new node keeps nothing of rights");
}

#[test]
fn who_follows_later_hears_of_a_revocation_that_lasts() {
    let (mut log, mut follower) = pair(LARGE, 1);
    log.add_fact(revoked("ann", Some(1)));
    log.add_fact(revoked("bob", Some(2)));
    log.offer(tools(0..2));
    let both = [revoked("ann", Some(1)), revoked("bob", Some(2))];
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, both);
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, [], "it is told once");
    assert_eq!(catch_up_at_once(&log, &mut Follower::default()).notices, both);

    // Once more, for longer.
    log.add_fact(revoked("ann", Some(3)));
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, [revoked("ann", Some(3))]);
    // The time of one is over.
    log.add_fact(revoked("bob", None));
    assert_eq!(catch_up_at_once(&log, &mut follower).notices, []);
    let later = catch_up_at_once(&log, &mut Follower::default());
    assert_eq!(later.notices, [revoked("ann", Some(3))]);
    assert_eq!(log.lasting.len(), 3, "two tools, and one revocation");
    log.add_fact(revoked("nobody", None));
    assert_eq!(catch_up_at_once(&log, &mut follower), Applied::default());
}

#[test]
fn offers_do_not_end_revocations() {
    let (mut log, _) = pair(LARGE, 3);
    log.add_fact(revoked("ann", Some(1)));
    log.offer(tools(1..2));
    log.offer([]);
    let later = catch_up_at_once(&log, &mut Follower::default());
    assert_eq!(later.notices, [revoked("ann", Some(1))]);
}

#[test]
fn after_a_gap_a_revocation_is_told_again() {
    let (mut log, mut follower) = pair(ReplicationLimits { removals: 1, ..LARGE }, 5);
    log.add_fact(revoked("ann", Some(1)));
    catch_up_at_once(&log, &mut follower);
    log.offer(tools(0..1));
    let update = log.since(follower.position(), ALL);
    assert!(update.whole);
    assert_eq!(follower.apply(update).unwrap().notices, [revoked("ann", Some(1))]);
    assert_eq!(offers(&follower), tools(0..1));
}

/// Some tools, each with or without a rule.
fn some_tools() -> impl Strategy<Value = Vec<Definition>> {
    let rule = prop::option::of(prop::sample::select(vec!["a", "b"]));
    let tools = prop::collection::btree_map(0..4_usize, rule, 0..4);
    tools.prop_map(|tools| {
        let tools = tools.into_iter().map(|(name, rule)| match rule {
            Some(label) => restricted(name, label),
            None => tool(name, 0),
        });
        tools.collect()
    })
}

proptest! {
    #[test]
    fn an_older_node_shows_the_open_items_and_a_newer_one_all(
        offered in prop::collection::vec((some_tools(), any::<bool>()), 0..12),
        removals in 0..4_usize,
        max_bytes in 0..600_usize,
    ) {
        let mut log = ReplicationLog::new(1, ReplicationLimits { removals, ..LARGE });
        let (mut older, mut newer) = (Follower::default(), Follower::default());
        for (tools, is_heard) in offered.into_iter().chain([(Vec::new(), true)]) {
            log.offer(tools.clone());
            if !is_heard {
                continue;
            }
            while {
                let update = log.since(older.position(), max_bytes);
                older.apply(as_older_release(update)).unwrap().more
            } {}
            catch_up(&log, &mut newer, max_bytes);
            prop_assert_eq!(&offers(&newer), &tools);
            let open: Vec<_> = tools.into_iter().filter(|it| !it.is_restricted()).collect();
            prop_assert_eq!(offers(&older), open);
        }
    }
}
