//! The pure part of announcing: a change at once, those that follow closely together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stentor_wire::{ListKind, Notice};
use tokio::time::Instant;

/// A change that comes this soon after another one belongs to a burst, as from a loop that adds
/// many tools. Changes further apart have causes of their own, and none is to wait for a next.
const CLOSE: Duration = Duration::from_micros(250);

/// With fewer topics none is forgotten.
const FEW: usize = 64;

/// What is announced together: all changes of one list, or of one resource.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A list.
    List(ListKind),
    /// The resource with this URI.
    Resource(Arc<str>),
}

impl Topic {
    pub(crate) fn notice(&self) -> Notice {
        match self {
            Self::List(kind) => Notice::ListChanged(*kind),
            Self::Resource(uri) => Notice::ResourceUpdated(uri.clone()),
        }
    }
}

/// What a change comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// It is announced now.
    Announce,
    /// It is announced when its window is over, which opens now.
    Open,
    /// It is announced when its window is over, which is open.
    Hold,
}

#[derive(Debug)]
enum State {
    /// Announced at this time.
    Told(Instant),
    /// In its window, and whether it changed since that opened.
    Window { changed: bool },
}

/// Which topics were announced just now or are in their window.
///
/// ```text
///          touch: announce            touch, close: open           over: announce, open
///   quiet -----------------> told <-+ -------------------> changed <---+
///     ^                       |  |  |                       |          |
///     |      (time goes by)   |  +--+ touch, not close:     | over     | touch: hold
///     +-----------------------+         announce            +------> unchanged
///     |                                                                |
///     +----------------------------------------------------------------+ over: close
/// ```
#[derive(Debug, Default)]
pub(crate) struct Coalesce {
    topics: HashMap<Topic, State>,
    /// With so many it is looked which of them can be forgotten.
    many: usize,
}

impl Coalesce {
    /// A topic changed.
    pub(crate) fn touch(&mut self, topic: &Topic, now: Instant) -> Touch {
        let is_close = |told: &Instant| now.saturating_duration_since(*told) < CLOSE;
        match self.topics.get_mut(topic) {
            Some(State::Window { changed }) => {
                *changed = true;
                return Touch::Hold;
            }
            Some(State::Told(told)) if !is_close(told) => *told = now,
            Some(state) => {
                *state = State::Window { changed: true };
                return Touch::Open;
            }
            None => {
                if self.topics.len() >= self.many.max(FEW) {
                    self.topics.retain(|_, state| match state {
                        State::Told(told) => is_close(told),
                        State::Window { .. } => true,
                    });
                    self.many = 2 * self.topics.len();
                }
                self.topics.insert(topic.clone(), State::Told(now));
            }
        }
        Touch::Announce
    }

    /// Closes all windows: those who would have are gone. Returns what was held back.
    pub(crate) fn reset(&mut self) -> Vec<Topic> {
        let held = |(topic, state)| match state {
            State::Window { changed: true } => Some(topic),
            _ => None,
        };
        self.topics.drain().filter_map(held).collect()
    }

    /// A topic's window is over. `true` if it is to be announced now, and opened again.
    pub(crate) fn over(&mut self, topic: &Topic) -> bool {
        match self.topics.get_mut(topic) {
            Some(State::Window { changed }) if *changed => {
                *changed = false;
                true
            }
            _ => {
                self.topics.remove(topic);
                false
            }
        }
    }

    /// How many windows are open.
    pub(crate) fn open(&self) -> usize {
        self.topics.values().filter(|state| matches!(state, State::Window { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOOLS: Topic = Topic::List(ListKind::Tools);

    #[test]
    fn the_first_change_of_a_burst_is_announced_at_once_and_the_rest_once() {
        let (mut coalesce, now) = (Coalesce::default(), Instant::now());
        assert_eq!(coalesce.touch(&TOOLS, now), Touch::Announce);
        assert_eq!(coalesce.touch(&TOOLS, now), Touch::Open);
        assert_eq!(coalesce.touch(&TOOLS, now), Touch::Hold);
        assert!(coalesce.over(&TOOLS));
        assert!(!coalesce.over(&TOOLS));
        assert_eq!(coalesce.touch(&TOOLS, now), Touch::Announce);
    }

    #[test]
    fn changes_that_are_not_close_do_not_wait_for_each_other() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(coalesce.touch(&TOOLS, now), Touch::Announce);
            assert_eq!(coalesce.open(), 0);
            now += CLOSE;
        }
    }

    #[test]
    fn what_was_announced_long_ago_is_forgotten() {
        let (mut coalesce, mut now) = (Coalesce::default(), Instant::now());
        for n in 0..10_000 {
            coalesce.touch(&Topic::Resource(format!("a://{n}").into()), now);
            now += CLOSE;
        }
        assert!(coalesce.topics.len() <= FEW);
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
                        coalesce.touch(&TOOLS, now) == Touch::Announce
                    }
                    Step::Over if coalesce.open() == 1 => coalesce.over(&TOOLS),
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
