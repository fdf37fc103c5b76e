//! What one webhook has to deliver: in flight, or waiting for its next attempt. Pure: it is told the
//! time.
//!
//! Each delivery is alone: one that fails does not hold up the next. So that not all of a log waits
//! here, only so many may be open at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Schedule;
use crate::cursor::Cursor;
use crate::log::Position;
use crate::occurrence::Occurrence;

/// What is sent in one request.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// An occurrence, with the cursor that goes with it: all at or before it were delivered or
    /// abandoned.
    Occurrence(Arc<Occurrence>, Option<Cursor>),
    /// A control body.
    Control(String),
}

#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) content: Content,
    /// The `webhook-id`, the same for each attempt.
    pub(crate) id: Arc<str>,
    /// Where a reader stood who has not looked at it.
    before: Option<Position>,
    attempts: u32,
    first: Option<Instant>,
    due: Instant,
    in_flight: bool,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Taken, or refused for good: nothing more is to do.
    Over,
    /// Another attempt.
    Retry(Option<Duration>),
}

#[derive(Debug)]
pub(crate) struct Window {
    capacity: usize,
    schedule: Schedule,
    next: u64,
    open: BTreeMap<u64, Delivery>,
}

impl Window {
    pub(crate) fn new(capacity: usize, schedule: Schedule) -> Self {
        Self { capacity: capacity.max(1), schedule, next: 0, open: BTreeMap::new() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open.len() < self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn add(
        &mut self,
        content: Content,
        id: Arc<str>,
        before: Option<Position>,
        now: Instant,
    ) {
        let delivery =
            Delivery { content, id, before, attempts: 0, first: None, due: now, in_flight: false };
        self.open.insert(self.next, delivery);
        self.next += 1;
    }

    /// Drops all that is open.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Where a reader stood before everything that is open; `None` if no occurrence is.
    pub(crate) fn watermark(&self) -> Option<&Position> {
        self.open.values().find_map(|delivery| delivery.before.as_ref())
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.values().filter(|delivery| delivery.in_flight).count()
    }

    /// Takes the first delivery that is due; it is in flight from here on.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<(u64, Content, Arc<str>)> {
        let mut waiting = self.open.iter_mut().filter(|(_, it)| !it.in_flight && it.due <= now);
        let (number, delivery) = waiting.next()?;
        delivery.in_flight = true;
        delivery.first.get_or_insert(now);
        Some((*number, delivery.content.clone(), delivery.id.clone()))
    }

    /// An attempt was not made, and is made later.
    pub(crate) fn put_off(&mut self, number: u64, due: Instant) {
        if let Some(delivery) = self.open.get_mut(&number) {
            (delivery.in_flight, delivery.due) = (false, due);
        }
    }

    /// Ends an attempt. Returns whether the delivery is abandoned. `jitter` gives a number
    /// between 0 and 1.
    pub(crate) fn end(
        &mut self,
        number: u64,
        outcome: Outcome,
        now: Instant,
        jitter: impl FnOnce() -> f64,
    ) -> bool {
        let Some(delivery) = self.open.get_mut(&number) else { return false };
        delivery.in_flight = false;
        delivery.attempts += 1;
        let Outcome::Retry(after) = outcome else {
            self.open.remove(&number);
            return false;
        };
        let elapsed = delivery.first.map_or(Duration::ZERO, |first| now - first);
        match self.schedule.next(delivery.attempts, elapsed, after, jitter()) {
            Some(wait) => {
                delivery.due = now + wait;
                false
            }
            None => {
                self.open.remove(&number);
                true
            }
        }
    }

    /// When the next attempt is due, of those that are not in flight.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.open.values().filter(|it| !it.in_flight).map(|it| it.due).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::cursor::tests::origin;

    fn position(index: u64) -> Position {
        let mut seen = Cursor::default();
        seen.pass(&origin("a", 1), index);
        Position { index, seen }
    }

    fn content(number: u64) -> Content {
        let (id, data) = (number.to_string().into(), Bytes::from_static(b"{}"));
        let occurrence = Occurrence::new(id, "t".into(), SystemTime::UNIX_EPOCH, data);
        Content::Occurrence(Arc::new(occurrence), None)
    }

    proptest! {
        /// Whatever the endpoint answers: each delivery ends once, all are tried a bounded number of
        /// times, and the watermark is never ahead of one that is open.
        #[test]
        fn each_delivery_ends_once(
            answers in prop::collection::vec(0..4_u8, 1..200),
            capacity in 1..8_usize,
        ) {
            let mut now = Instant::now();
            let mut window = Window::new(capacity, Schedule::default());
            let (mut added, mut attempts) = (0_u64, BTreeSet::new());
            let (mut ended, mut open) = (0_u64, BTreeSet::new());
            let mut answers = answers.into_iter().cycle();
            for _ in 0..2_000 {
                while window.has_room() && added < 40 {
                    window.add(content(added), "id".into(), Some(position(added)), now);
                    open.insert(added);
                    added += 1;
                }
                let lowest = open.iter().next().copied();
                prop_assert_eq!(window.watermark().map(|it| it.index), lowest);
                let Some((number, ..)) = window.begin(now) else {
                    match window.next_due() {
                        Some(due) => now = due,
                        None => break,
                    }
                    continue;
                };
                attempts.insert(number);
                let outcome = match answers.next() {
                    Some(0) => Outcome::Over,
                    _ => Outcome::Retry(None),
                };
                let before = window.open.len();
                let abandoned = window.end(number, outcome, now, || 0.5);
                if window.open.len() < before {
                    prop_assert_eq!(abandoned, outcome != Outcome::Over);
                    prop_assert!(open.remove(&number));
                    ended += 1;
                }
            }
            prop_assert_eq!((ended, open.len()), (40, 0));
            prop_assert_eq!(attempts.len(), 40);
        }
    }
}
