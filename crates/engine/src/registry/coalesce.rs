//! The pure part of announcing: a change at once, changes that follow it closely together.

use std::collections::HashMap;
use std::time::Duration;

use stentor_wire::Topic;
use tokio::time::Instant;

use crate::access::Delta;

/// A change that follows another one within this time belongs to a burst, such as a loop that adds
/// many tools. Changes further apart have causes of their own, and none has to wait for the next.
const BURST: Duration = Duration::from_micros(250);

/// With fewer topics, none is removed.
const MIN_SWEEP: usize = 64;

/// When a change is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Now.
    Announce(Delta),
    /// At the end of its window, which opens now.
    Open,
    /// At the end of its window, which is already open.
    Hold,
}

#[derive(Debug)]
enum State {
    Announced(Instant),
    /// In its window, with the changes that wait for the window's end.
    Window(Delta),
}

/// The topics that were announced just now or are in their window.
///
/// ```text
///          touch: announce            touch, close: open           over: announce, open
///   quiet ------------> announced <-+ -------------------> changed <---+
///     ^                       |  |  |                       |          |
///     |      (time goes by)   |  +--+ touch, not close:     | over     | touch: hold
///     +-----------------------+         announce            +------> unchanged
///     |                                                                |
///     +----------------------------------------------------------------+ over: close
/// ```
#[derive(Debug, Default)]
pub(crate) struct Coalesce {
    topics: HashMap<Topic, State>,
    /// The number of topics at which those that were announced long ago are removed.
    sweep_at: usize,
}

impl Coalesce {
    pub(crate) fn touch(&mut self, topic: &Topic, delta: Delta, now: Instant) -> Touch {
        let is_close = |at: &Instant| now.saturating_duration_since(*at) < BURST;
        match self.topics.get_mut(topic) {
            Some(State::Window(held)) => {
                held.join(delta);
                return Touch::Hold;
            }
            Some(State::Announced(at)) if !is_close(at) => *at = now,
            Some(state) => {
                *state = State::Window(delta);
                return Touch::Open;
            }
            None => {
                if self.topics.len() >= self.sweep_at.max(MIN_SWEEP) {
                    self.topics.retain(|_, state| match state {
                        State::Announced(at) => is_close(at),
                        State::Window(_) => true,
                    });
                    self.sweep_at = 2 * self.topics.len();
                }
                self.topics.insert(topic.clone(), State::Announced(now));
            }
        }
        Touch::Announce(delta)
    }

    /// Closes all windows, as the registry that would have closed them has ended. Returns the
    /// topics that were held back.
    pub(crate) fn reset(&mut self) -> Vec<Topic> {
        let held = |(topic, state)| match state {
            State::Window(held) if !held.is_nothing() => Some(topic),
            _ => None,
        };
        self.topics.drain().filter_map(held).collect()
    }

    /// A topic's window ends. Returns the changes to announce now, with another window.
    pub(crate) fn over(&mut self, topic: &Topic) -> Option<Delta> {
        match self.topics.get_mut(topic) {
            Some(State::Window(held)) if !held.is_nothing() => Some(std::mem::take(held)),
            _ => {
                self.topics.remove(topic);
                None
            }
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.topics.values().filter(|state| matches!(state, State::Window(_))).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use stentor_wire::ListKind;

    use super::*;

    const TOOLS: Topic = Topic::List(ListKind::Tools);

    #[test]
    fn the_first_change_of_a_burst_is_announced_at_once_and_the_rest_once() {
        let (mut coalesce, now) = (Coalesce::default(), Instant::now());
        let announce = Touch::Announce(Delta::ALL);
        assert_eq!(coalesce.touch(&TOOLS, Delta::ALL, now), announce);
        assert_eq!(coalesce.touch(&TOOLS, Delta::ALL, now), Touch::Open);
        assert_eq!(coalesce.touch(&TOOLS, Delta::ALL, now), Touch::Hold);
        assert_eq!(coalesce.over(&TOOLS), Some(Delta::ALL));
        assert_eq!(coalesce.over(&TOOLS), None);
        assert_eq!(coalesce.touch(&TOOLS, Delta::ALL, now), announce);
    }

    #[test]
    fn changes_that_are_not_close_do_not_wait_for_each_other() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(coalesce.touch(&TOOLS, Delta::ALL, now), Touch::Announce(Delta::ALL));
            assert_eq!(coalesce.open(), 0);
            now += BURST;
        }
    }

    #[test]
    fn topics_that_were_announced_long_ago_are_removed() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        for n in 0..10_000 {
            coalesce.touch(&Topic::Resource(format!("a://{n}").into()), Delta::ALL, now);
            now += BURST;
        }
        assert!(coalesce.topics.len() <= MIN_SWEEP);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Change,
        Over,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![Just(Step::Change), Just(Step::Over), (0..500_u64).prop_map(Step::Wait)]
    }

    proptest! {
        #[test]
        fn no_change_goes_unannounced_and_nothing_is_announced_without_one(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
            let mut unannounced = false;
            for step in steps {
                let announced = match step {
                    Step::Change => {
                        unannounced = true;
                        coalesce.touch(&TOOLS, Delta::ALL, now) == Touch::Announce(Delta::ALL)
                    }
                    Step::Over if coalesce.open() == 1 => coalesce.over(&TOOLS).is_some(),
                    Step::Over => false,
                    Step::Wait(micros) => {
                        now += Duration::from_micros(micros);
                        false
                    }
                };
                prop_assert!(!announced || unannounced);
                if announced { unannounced = false; }
                prop_assert!(!unannounced || coalesce.open() == 1, "a change waits without a window");
            }
            prop_assert_eq!(!coalesce.reset().is_empty(), unannounced);
            prop_assert_eq!(coalesce.open(), 0);
        }
    }
}
