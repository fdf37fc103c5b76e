//! How much is on the way between two nodes: pure accounting, one for each link.
//!
//! Mailboxes have no bound. What bounds them is that a node sends no more than a window's worth
//! that the other has not said it has handled.

/// What a frame costs beside its bytes: what it is wrapped in where it waits.
pub(crate) const OVERHEAD: u64 = 256;

/// What a frame of so many bytes takes from the window.
pub(crate) const fn cost(bytes: usize) -> u64 {
    bytes as u64 + OVERHEAD
}

/// Both directions of one link. Everything is counted from the link's beginning.
#[derive(Debug)]
pub(crate) struct Flow {
    limit: u64,
    /// What was sent, and what of it the other node has handled.
    sent: u64,
    handled_there: u64,
    /// Somebody was told that there is no room.
    refused: bool,
    /// What came, what of it was handled here, and what of that the other node was told.
    came: u64,
    handled: u64,
    told: u64,
}

impl Flow {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, sent: 0, handled_there: 0, refused: false, came: 0, handled: 0, told: 0 }
    }

    /// Takes this from the window, if it has so much.
    pub(crate) const fn reserve(&mut self, cost: u64) -> bool {
        let fits = self.in_flight().saturating_add(cost) <= self.limit;
        match fits {
            true => self.sent += cost,
            false => self.refused = true,
        }
        fits
    }

    /// The other node has handled so much. Whether those who were refused can try again now,
    /// which is when half of the window is free: they are not woken for each frame.
    pub(crate) fn handled_there(&mut self, up_to: u64) -> bool {
        // Never more than was sent, and never back, whatever it says.
        self.handled_there = up_to.clamp(self.handled_there, self.sent);
        let again = self.refused && self.in_flight() <= self.limit / 2;
        self.refused &= !again;
        again
    }

    /// What was sent and not handled yet.
    pub(crate) const fn in_flight(&self) -> u64 {
        self.sent - self.handled_there
    }

    /// This came. Whether it is within what may be on the way: a node that sends more does not heed
    /// what it is told.
    pub(crate) const fn came(&mut self, cost: u64) -> bool {
        self.came = self.came.saturating_add(cost);
        self.came.saturating_sub(self.handled) <= self.limit
    }

    /// This was handled here. Whether the other node should be told at once, lest its window is
    /// used up meanwhile.
    pub(crate) const fn handled(&mut self, cost: u64) -> bool {
        self.handled += cost;
        self.owed() >= self.limit / 8
    }

    /// What was handled here and the other node does not know.
    pub(crate) const fn owed(&self) -> u64 {
        self.handled - self.told
    }

    /// What the other node is told now.
    pub(crate) const fn tell(&mut self) -> u64 {
        self.told = self.handled;
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
        Tell,
        Hear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_usize..9_000).prop_map(Step::Send),
            2 => Just(Step::Handle),
            1 => Just(Step::Tell),
            1 => Just(Step::Hear),
        ]
    }

    #[test]
    fn who_sends_more_than_a_window_is_noticed() {
        let mut flow = Flow::new(1_000);
        assert!(flow.came(600) && flow.came(400) && !flow.came(1));
        flow.handled(600);
        assert!(flow.came(599) && !flow.came(1));
    }

    proptest! {
        #[test]
        fn no_more_is_on_the_way_than_the_window_and_who_was_refused_hears_of_room(
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let limit = 20_000;
            let (mut here, mut there) = (Flow::new(limit), Flow::new(limit));
            let (mut way, mut back) = (VecDeque::new(), VecDeque::new());
            let mut waits = false;
            for step in steps {
                match step {
                    Step::Send(bytes) => match here.reserve(cost(bytes)) {
                        true => {
                            prop_assert!(there.came(cost(bytes)), "what may be sent may come");
                            way.push_back(cost(bytes));
                        }
                        false => waits = true,
                    },
                    Step::Handle => if let Some(cost) = way.pop_front()
                        && there.handled(cost) {
                            back.push_back(there.tell());
                        },
                    Step::Tell => back.push_back(there.tell()),
                    Step::Hear => if let Some(told) = back.pop_front() {
                        waits &= !here.handled_there(told);
                    },
                }
                prop_assert!(way.iter().sum::<u64>() <= limit);
                prop_assert!(here.in_flight() <= limit);
            }
            // In the end everything is handled and told, and nobody waits in vain.
            for cost in way {
                there.handled(cost);
            }
            back.push_back(there.tell());
            for told in back {
                waits &= !here.handled_there(told);
            }
            prop_assert_eq!(here.in_flight(), 0);
            prop_assert!(!waits);
            prop_assert_eq!(there.owed(), 0);
        }

        #[test]
        fn nothing_that_a_node_says_frees_more_than_was_sent(
            sent in proptest::collection::vec(0_usize..5_000, 0..50),
            said in proptest::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut flow = Flow::new(50_000);
            let mut taken = 0;
            for bytes in sent {
                if flow.reserve(cost(bytes)) {
                    taken += cost(bytes);
                }
            }
            for up_to in said {
                let before = flow.in_flight();
                flow.handled_there(up_to);
                prop_assert!(flow.in_flight() <= before);
                prop_assert!(flow.in_flight() <= taken);
            }
        }
    }
}
