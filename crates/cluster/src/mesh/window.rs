//! Accounting of bytes in flight, one for each link. Pure.
//!
//! Mailboxes have no bound. They stay bounded because a node sends no more than one window beyond
//! what the other node has reported as handled.

/// The cost of a frame beside its bytes: its envelope while it waits.
pub(crate) const OVERHEAD: u64 = 256;

pub(crate) const fn cost(bytes: usize) -> u64 {
    bytes as u64 + OVERHEAD
}

/// Both directions of one link. All numbers count from the start of the link.
#[derive(Debug)]
pub(crate) struct Flow {
    limit: u64,
    /// What was sent, and how much of it the other node has handled.
    sent: u64,
    remote_handled: u64,
    /// A sender was refused and waits for space.
    refused: bool,
    /// What arrived, how much of it was handled here, and how much of that was reported.
    received: u64,
    handled: u64,
    reported: u64,
}

impl Flow {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            limit,
            sent: 0,
            remote_handled: 0,
            refused: false,
            received: 0,
            handled: 0,
            reported: 0,
        }
    }

    /// Takes this cost from the window, if there is enough space.
    pub(crate) const fn reserve(&mut self, cost: u64) -> bool {
        let fits = self.in_flight().saturating_add(cost) <= self.limit;
        match fits {
            true => self.sent += cost,
            false => self.refused = true,
        }
        fits
    }

    /// The other node has handled this much. Returns whether refused senders can try again, which
    /// is when half of the window is free: they are not woken for each frame.
    pub(crate) fn remote_handled(&mut self, up_to: u64) -> bool {
        // Bounded by what was sent, and never decreasing, whatever the other node reports.
        self.remote_handled = up_to.clamp(self.remote_handled, self.sent);
        let again = self.refused && self.in_flight() <= self.limit / 2;
        self.refused &= !again;
        again
    }

    pub(crate) const fn in_flight(&self) -> u64 {
        self.sent - self.remote_handled
    }

    /// A frame arrived. Returns whether it is within the window: otherwise the other node ignores
    /// the reports.
    pub(crate) const fn received(&mut self, cost: u64) -> bool {
        self.received = self.received.saturating_add(cost);
        self.received.saturating_sub(self.handled) <= self.limit
    }

    /// A frame was handled here. Returns whether to report it at once, before the other node's
    /// window is used up.
    pub(crate) const fn handled(&mut self, cost: u64) -> bool {
        self.handled += cost;
        self.unreported() >= self.limit / 8
    }

    /// What was handled here and not reported yet.
    pub(crate) const fn unreported(&self) -> u64 {
        self.handled - self.reported
    }

    /// Returns the number to report now, and counts it as reported.
    pub(crate) const fn report(&mut self) -> u64 {
        self.reported = self.handled;
        self.handled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Send(usize),
        Handle,
        Report,
        Receive,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_usize..9_000).prop_map(Step::Send),
            2 => Just(Step::Handle),
            1 => Just(Step::Report),
            1 => Just(Step::Receive),
        ]
    }

    #[test]
    fn a_node_that_sends_more_than_the_window_is_detected() {
        let mut flow = Flow::new(1_000);
        assert!(flow.received(600) && flow.received(400) && !flow.received(1));
        flow.handled(600);
        assert!(flow.received(599) && !flow.received(1));
    }

    proptest! {
        #[test]
        fn in_flight_bytes_stay_within_the_window_and_a_refused_sender_is_notified_of_space(
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let limit = 20_000;
            let (mut local, mut remote) = (Flow::new(limit), Flow::new(limit));
            let (mut frames, mut reports) = (VecDeque::new(), VecDeque::new());
            let mut waits = false;
            for step in steps {
                match step {
                    Step::Send(bytes) => match local.reserve(cost(bytes)) {
                        true => {
                            prop_assert!(remote.received(cost(bytes)), "what may be sent may come");
                            frames.push_back(cost(bytes));
                        }
                        false => waits = true,
                    },
                    Step::Handle => if let Some(cost) = frames.pop_front()
                        && remote.handled(cost) {
                            reports.push_back(remote.report());
                        },
                    Step::Report => reports.push_back(remote.report()),
                    Step::Receive => if let Some(reported) = reports.pop_front() {
                        waits &= !local.remote_handled(reported);
                    },
                }
                prop_assert!(frames.iter().sum::<u64>() <= limit);
                prop_assert!(local.in_flight() <= limit);
            }
            // At the end everything is handled and reported, and no sender waits in vain.
            for cost in frames {
                remote.handled(cost);
            }
            reports.push_back(remote.report());
            for reported in reports {
                waits &= !local.remote_handled(reported);
            }
            prop_assert_eq!(local.in_flight(), 0);
            prop_assert!(!waits);
            prop_assert_eq!(remote.unreported(), 0);
        }

        #[test]
        fn no_report_of_a_node_frees_more_than_was_sent(
            sent in proptest::collection::vec(0_usize..5_000, 0..50),
            reports in proptest::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut flow = Flow::new(50_000);
            let mut taken = 0;
            for bytes in sent {
                if flow.reserve(cost(bytes)) {
                    taken += cost(bytes);
                }
            }
            for up_to in reports {
                let before = flow.in_flight();
                flow.remote_handled(up_to);
                prop_assert!(flow.in_flight() <= before);
                prop_assert!(flow.in_flight() <= taken);
            }
        }
    }
}
