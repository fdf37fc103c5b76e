//! The unacknowledged events of one peer request, at both ends.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Events of one peer request that may be sent before they are acknowledged.
pub(super) const WINDOW: usize = 32;

/// Bytes of one peer request that may be sent before they are acknowledged. The first event is sent
/// whatever its size. All nodes use the same value: the reader acknowledges events before the
/// sender has to wait.
const WINDOW_BYTES: usize = 1 << 20;

/// At the sender: how much more may be sent.
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    unacknowledged: Mutex<Sizes>,
    space: Notify,
}

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

    fn has_space(&self) -> bool {
        self.each.len() < WINDOW && self.bytes < WINDOW_BYTES
    }
}

impl SendWindow {
    /// Waits until an event may be sent. Cancel safe.
    pub(super) async fn wait_for_space(&self) {
        loop {
            let space = self.space.notified();
            if self.unacknowledged.lock().has_space() {
                return;
            }
            space.await;
        }
    }

    /// An event of this size is about to be sent.
    pub(super) fn sent(&self, bytes: usize) {
        self.unacknowledged.lock().push(bytes);
    }

    /// Removes the last event, which was not sent.
    pub(super) fn undo_sent(&self) {
        let mut unacknowledged = self.unacknowledged.lock();
        let bytes = unacknowledged.each.pop_back().unwrap_or_default();
        unacknowledged.bytes -= bytes;
    }

    /// The receiver has read `count` events. Never counts more than were sent.
    pub(super) fn acknowledge(&self, count: usize) {
        let mut unacknowledged = self.unacknowledged.lock();
        for _ in 0..count.min(unacknowledged.each.len()) {
            unacknowledged.pop();
        }
        drop(unacknowledged);
        self.space.notify_one();
    }
}

/// At the receiver: the events that wait to be read.
#[derive(Debug, Default)]
pub(super) struct ReceiveWindow(Mutex<Received>);

#[derive(Debug, Default)]
struct Received {
    unread: Sizes,
    /// What was read and not acknowledged yet: events and bytes.
    unacknowledged: (usize, usize),
}

impl ReceiveWindow {
    pub(super) fn received(&self, bytes: usize) {
        self.0.lock().unread.push(bytes);
    }

    /// `count` events were read. Returns how many to acknowledge now, if any: not each event alone,
    /// but before the sender has to wait.
    pub(super) fn read(&self, count: usize) -> Option<usize> {
        let Received { unread, unacknowledged } = &mut *self.0.lock();
        let bytes: usize = (0..count).map(|_| unread.pop()).sum();
        *unacknowledged = (unacknowledged.0 + count, unacknowledged.1 + bytes);
        let now = unacknowledged.0 >= WINDOW / 2 || unacknowledged.1 >= WINDOW_BYTES / 2;
        now.then(|| std::mem::take(unacknowledged).0)
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
        fn unread_events_are_bounded_and_a_reader_that_keeps_up_never_blocks_the_sender(
            sizes in proptest::collection::vec(size(), 0..200),
            takes in proptest::collection::vec(any::<bool>(), 400),
        ) {
            let (window, receive) = (SendWindow::default(), ReceiveWindow::default());
            let bytes = |receive: &ReceiveWindow| receive.0.lock().unread.bytes;
            let (mut sizes, mut in_flight) = (sizes.into_iter().peekable(), 0);
            let mut takes = takes.into_iter();
            while sizes.peek().is_some() || in_flight > 0 {
                let has_space = window.wait_for_space().now_or_never().is_some();
                prop_assert!(has_space || in_flight > 0, "it would wait for ever");
                // At the end everything in flight is read.
                if has_space && sizes.peek().is_some() && !(in_flight > 0 && takes.next().unwrap_or(true)) {
                    let before = bytes(&receive);
                    let size = sizes.next().unwrap();
                    window.sent(size);
                    receive.received(size);
                    in_flight += 1;
                    prop_assert!(before < WINDOW_BYTES && in_flight <= WINDOW);
                } else if in_flight > 0 {
                    in_flight -= 1;
                    if let Some(count) = receive.read(1) {
                        window.acknowledge(count);
                    }
                }
            }
            prop_assert_eq!(bytes(&receive), 0);
        }
    }

    #[test]
    fn acknowledging_more_than_was_sent_frees_no_extra_space() {
        let window = SendWindow::default();
        window.acknowledge(usize::MAX);
        for _ in 0..WINDOW {
            assert!(window.wait_for_space().now_or_never().is_some());
            window.sent(1);
        }
        assert!(window.wait_for_space().now_or_never().is_none());
        window.acknowledge(usize::MAX);
        window.sent(WINDOW_BYTES);
        assert!(window.wait_for_space().now_or_never().is_none());
        // An event that was too large was not sent.
        window.undo_sent();
        assert!(window.wait_for_space().now_or_never().is_some());
    }
}
