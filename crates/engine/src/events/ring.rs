//! The events that wait for one subscriber, and how many were dropped.

use std::collections::VecDeque;

use super::EngineEvent;

#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<EngineEvent>,
    capacity: usize,
    /// Dropped events, which came before all that wait.
    missed: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        // Grows as it fills: a large capacity costs nothing until it is used.
        Self { events: VecDeque::new(), capacity: capacity.max(1), missed: 0 }
    }

    pub(super) fn push(&mut self, event: EngineEvent) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<EngineEvent> {
        self.missed().or_else(|| self.events.pop_front())
    }

    pub(super) fn take(&mut self) -> VecDeque<EngineEvent> {
        let missed = self.missed();
        let mut events = std::mem::take(&mut self.events);
        if let Some(missed) = missed {
            events.push_front(missed);
        }
        events
    }

    fn missed(&mut self) -> Option<EngineEvent> {
        match std::mem::take(&mut self.missed) {
            0 => None,
            missed => Some(EngineEvent::Missed(missed)),
        }
    }
}
