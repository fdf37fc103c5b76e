use std::time::SystemTime;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cursor::tests::origin;

fn occurrence(id: u64) -> Arc<Occurrence> {
    let data = Bytes::from_static(b"{}");
    Arc::new(Occurrence::new(id.to_string().into(), "t".into(), SystemTime::UNIX_EPOCH, data))
}

fn log(count: usize) -> Log {
    let bounds = Bounds { count, age: Duration::from_secs(60), bytes: usize::MAX };
    Log::new(bounds, origin("a", 1), 0)
}

fn add(log: &mut Log, from: &Arc<Origin>, seq: u64, at: Instant) {
    assert!(log.append(from, seq, at, occurrence(seq)));
}

/// All that a reader finds, with `None` for a gap.
fn read(log: &Log, position: &mut Position) -> Vec<Option<u64>> {
    let mut found = Vec::new();
    loop {
        match log.step(position) {
            Step::Entry(entry) => found.push(Some(entry.seq)),
            Step::Gap => found.push(None),
            Step::End => return found,
        }
    }
}

#[test]
fn from_each_cursor_on_the_way_exactly_what_follows() {
    let (mut log, own, now) = (log(10), origin("a", 1), Instant::now());
    let mut cursors = vec![log.end().seen];
    for seq in 1..=7 {
        add(&mut log, &own, seq, now);
        cursors.push(log.end().seen);
    }
    for (index, cursor) in cursors.iter().enumerate() {
        let (mut position, truncated) = log.start(cursor, None);
        let rest: Vec<_> = (index as u64 + 1..=7).map(Some).collect();
        assert_eq!((read(&log, &mut position), truncated), (rest, false));
        assert_eq!(position.seen, log.end().seen);
    }
}

#[test]
fn a_position_that_left_the_log_is_told_and_goes_on() {
    let (mut log, own, now) = (log(3), origin("a", 1), Instant::now());
    let old = log.end();
    (1..=10).for_each(|seq| add(&mut log, &own, seq, now));
    let (mut position, truncated) = log.start(&old.seen, None);
    assert!(truncated);
    assert_eq!(read(&log, &mut position), [Some(8), Some(9), Some(10)]);
    let mut slow = old;
    assert_eq!(read(&log, &mut slow), [None, Some(8), Some(9), Some(10)]);
}

#[test]
fn what_is_too_old_for_a_reader_is_left_out_and_told() {
    let (mut log, own, now) = (log(10), origin("a", 1), Instant::now());
    let begin = log.end().seen;
    let at = |seconds| now + Duration::from_secs(seconds);
    (1..=4).for_each(|seq| add(&mut log, &own, seq, at(seq)));
    let (mut position, truncated) = log.start(&begin, Some(at(3)));
    assert_eq!((read(&log, &mut position), truncated), (vec![Some(3), Some(4)], true));
    let (mut position, truncated) = log.start(&begin, Some(at(1)));
    assert_eq!((read(&log, &mut position).len(), truncated), (4, false));
    log.expire(at(63));
    assert_eq!(log.kept().0, 2);
    assert!(log.start(&begin, None).1);
}

#[test]
fn a_cursor_of_another_server_is_a_lost_position_and_one_of_before_a_restart_begins_at_the_start() {
    let (mut log, own, now) = (log(10), origin("a", 1), Instant::now());
    (1..=3).for_each(|seq| add(&mut log, &own, seq, now));
    let cursor = |it| cursor_of([(&it, 7)].into_iter());
    let (mut position, truncated) = log.start(&cursor(origin("z", 1)), None);
    assert_eq!((read(&log, &mut position).len(), truncated), (0, true));
    let (mut position, truncated) = log.start(&cursor(origin("a", 0)), None);
    assert_eq!((read(&log, &mut position).len(), truncated), (3, true));
}

#[test]
fn another_order_on_another_node_repeats_nothing_and_leaves_nothing_out() {
    let (a, b, now) = (origin("a", 1), origin("b", 1), Instant::now());
    let (mut here, mut there) = (log(100), log(100));
    let _ = there.origins.remove(&a);
    for seq in 1..=5 {
        add(&mut here, &a, seq, now);
    }
    for seq in 1..=5 {
        add(&mut here, &b, seq, now);
    }
    for seq in 1..=5 {
        add(&mut there, &b, seq, now);
        add(&mut there, &a, seq, now);
    }
    let (mut position, mut heard) = (log(1).end(), 0);
    position.index = 0;
    // Three here, two there, and so on.
    for turn in 0.. {
        let log = if turn % 2 == 0 { &here } else { &there };
        let (mut next, truncated) = log.start(&position.seen, None);
        assert!(!truncated || turn == 0);
        let mut moved = false;
        for _ in 0..2 + turn % 2 {
            if let Step::Entry(_) = log.step(&mut next) {
                (heard, moved) = (heard + 1, true);
            }
        }
        position = next;
        if !moved {
            break;
        }
    }
    assert_eq!(heard, 10);
}

proptest! {
    /// Whoever reads whenever: of each origin in order, none twice, and nothing is missing silently.
    #[test]
    fn nothing_is_lost_silently(
        steps in prop::collection::vec((0..2_usize, 0..4_usize), 1..120),
        count in 1..20_usize,
    ) {
        let (origins, now) = ([origin("a", 1), origin("b", 1)], Instant::now());
        let mut log = log(count);
        let mut next = [0_u64; 2];
        let mut readers: Vec<(Position, [u64; 2])> = vec![(log.end(), [0; 2]); 3];
        for (from, reader) in steps {
            next[from] += 1;
            add(&mut log, &origins[from], next[from], now);
            let Some((position, heard)) = readers.get_mut(reader) else { continue };
            // One of them comes back with its cursor each time.
            let mut told = false;
            if reader == 0 {
                let seen = Cursor::parse(&position.seen.to_string()).unwrap();
                (*position, told) = log.start(&seen, None);
            }
            loop {
                match log.step(position) {
                    Step::Entry(entry) => {
                        let of = origins.iter().position(|it| *it == entry.origin).unwrap();
                        prop_assert!(entry.seq > heard[of]);
                        prop_assert!(told || entry.seq == heard[of] + 1, "{} after {}", entry.seq, heard[of]);
                        heard[of] = entry.seq;
                    }
                    Step::Gap => told = true,
                    Step::End => break,
                }
            }
            prop_assert!(told || *heard == next);
            *heard = next;
        }
    }
}
