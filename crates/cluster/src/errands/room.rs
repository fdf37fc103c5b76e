//! What was said on one errand and is not taken in yet, at either end.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{WINDOW, WINDOW_BYTES};

/// At the end that speaks: how much more may be said.
#[derive(Debug, Default)]
pub(super) struct Room {
    unheard: Mutex<Sizes>,
    more: Notify,
}

/// Things in their order, by how long they are.
#[derive(Debug, Default)]
struct Sizes {
    each: VecDeque<usize>,
    bytes: usize,
}

impl Sizes {
    fn push(&mut self, bytes: usize) {
        self.each.push_back(bytes);
        self.bytes += bytes;
    }

    fn pop(&mut self) -> usize {
        let bytes = self.each.pop_front().unwrap_or_default();
        self.bytes -= bytes;
        bytes
    }

    fn has_room(&self) -> bool {
        self.each.len() < WINDOW && self.bytes < WINDOW_BYTES
    }
}

impl Room {
    /// Waits until something may be said. Cancel safe.
    pub(super) async fn wait(&self) {
        loop {
            let more = self.more.notified();
            if self.unheard.lock().has_room() {
                return;
            }
            more.await;
        }
    }

    /// So much is said.
    pub(super) fn said(&self, bytes: usize) {
        self.unheard.lock().push(bytes);
    }

    /// What was said last was not, after all.
    pub(super) fn unsaid(&self) {
        let mut unheard = self.unheard.lock();
        let bytes = unheard.each.pop_back().unwrap_or_default();
        unheard.bytes -= bytes;
    }

    /// So many things were taken in; never more than were said, whatever the other end says.
    pub(super) fn took(&self, count: usize) {
        let mut unheard = self.unheard.lock();
        for _ in 0..count.min(unheard.each.len()) {
            unheard.pop();
        }
        drop(unheard);
        self.more.notify_one();
    }
}

/// At the end that listens: what waits to be taken in.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    waiting: Sizes,
    /// What was taken in and the other end does not know of: how many, and how many bytes.
    untold: (usize, usize),
}

impl Waiting {
    /// So much came.
    pub(super) fn came(&self, bytes: usize) {
        self.0.lock().waiting.push(bytes);
    }

    /// So many things are taken in. How many the other end is to be told of now, if any: not each by
    /// itself, but before it has to wait for it.
    pub(super) fn take(&self, count: usize) -> Option<usize> {
        let Heard { waiting, untold } = &mut *self.0.lock();
        let bytes: usize = (0..count).map(|_| waiting.pop()).sum();
        *untold = (untold.0 + count, untold.1 + bytes);
        let now = untold.0 >= WINDOW / 2 || untold.1 >= WINDOW_BYTES / 2;
        now.then(|| std::mem::take(untold).0)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![1_usize..100, 1_usize..3 * WINDOW_BYTES]
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_and_nobody_waits_for_who_has_taken_everything_in(
            sizes in proptest::collection::vec(size(), 0..200),
            takes in proptest::collection::vec(any::<bool>(), 400),
        ) {
            let (room, waiting) = (Room::default(), Waiting::default());
            let bytes = |waiting: &Waiting| waiting.0.lock().waiting.bytes;
            let (mut sizes, mut there) = (sizes.into_iter().peekable(), 0);
            let mut takes = takes.into_iter();
            while sizes.peek().is_some() || there > 0 {
                let has_room = room.wait().now_or_never().is_some();
                prop_assert!(has_room || there > 0, "it would wait for ever");
                // In the end whatever is there is taken in.
                if has_room && sizes.peek().is_some() && !(there > 0 && takes.next().unwrap_or(true)) {
                    let before = bytes(&waiting);
                    let size = sizes.next().unwrap();
                    room.said(size);
                    waiting.came(size);
                    there += 1;
                    prop_assert!(before < WINDOW_BYTES && there <= WINDOW);
                } else if there > 0 {
                    there -= 1;
                    if let Some(count) = waiting.take(1) {
                        room.took(count);
                    }
                }
            }
            prop_assert_eq!(bytes(&waiting), 0);
        }
    }

    #[test]
    fn nothing_that_the_other_end_says_makes_more_room_than_there_is() {
        let room = Room::default();
        room.took(usize::MAX);
        for _ in 0..WINDOW {
            assert!(room.wait().now_or_never().is_some());
            room.said(1);
        }
        assert!(room.wait().now_or_never().is_none());
        room.took(usize::MAX);
        room.said(WINDOW_BYTES);
        assert!(room.wait().now_or_never().is_none());
        // What was too large to be sent was not said.
        room.unsaid();
        assert!(room.wait().now_or_never().is_some());
    }
}
