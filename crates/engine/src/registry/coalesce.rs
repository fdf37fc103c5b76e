//! The pure part of announcing: the first change at once, the rest of the window together.

use std::collections::HashMap;
use std::sync::Arc;

use stentor_wire::{ListKind, Notice};

/// What is announced together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    List(ListKind),
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

/// Which topics are in their window, and whether they changed again since it opened.
///
/// ```text
///             touch: announce, open          over: close
///   closed ------------------------> quiet --------------> closed
///                                    |    ^
///                              touch |    | over: announce, open
///                                    v    |
///                                   changed
/// ```
#[derive(Debug, Default)]
pub(crate) struct Coalesce {
    open: HashMap<Topic, bool>,
}

impl Coalesce {
    /// A topic changed. `true` if it is to be announced now, and a window to be opened.
    pub(crate) fn touch(&mut self, topic: &Topic) -> bool {
        match self.open.get_mut(topic) {
            Some(changed) => {
                *changed = true;
                false
            }
            None => {
                self.open.insert(topic.clone(), false);
                true
            }
        }
    }

    /// Closes all windows: those who would have are gone. Returns the topics that were open.
    pub(crate) fn reset(&mut self) -> Vec<Topic> {
        self.open.drain().map(|(topic, _)| topic).collect()
    }

    /// A topic's window is over. `true` if it is to be announced now, and opened again.
    pub(crate) fn over(&mut self, topic: &Topic) -> bool {
        match self.open.get_mut(topic) {
            Some(changed) if *changed => {
                *changed = false;
                true
            }
            _ => {
                self.open.remove(topic);
                false
            }
        }
    }

    /// How many windows are open.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOOLS: Topic = Topic::List(ListKind::Tools);

    #[test]
    fn the_first_change_is_announced_at_once_and_the_rest_once() {
        let mut coalesce = Coalesce::default();
        assert!(coalesce.touch(&TOOLS));
        assert!(!coalesce.touch(&TOOLS));
        assert!(!coalesce.touch(&TOOLS));
        assert!(coalesce.over(&TOOLS));
        assert!(!coalesce.over(&TOOLS));
        assert!(coalesce.touch(&TOOLS));
    }

    proptest! {
        /// `true` is a change, `false` the end of a window.
        #[test]
        fn no_change_goes_unannounced_and_nothing_is_announced_without_one(steps in proptest::collection::vec(any::<bool>(), 0..60)) {
            let mut coalesce = Coalesce::default();
            let mut unannounced = false;
            for change in steps {
                let announced = if change { unannounced = true; coalesce.touch(&TOOLS) } else { coalesce.over(&TOOLS) };
                prop_assert!(!announced || unannounced);
                if announced { unannounced = false; }
                prop_assert!(!unannounced || coalesce.open() == 1, "a change waits without a window");
            }
            coalesce.over(&TOOLS);
            coalesce.over(&TOOLS);
            prop_assert_eq!(coalesce.open(), 0);
        }
    }
}
