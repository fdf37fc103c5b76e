//! How often something may be restarted before that helps nobody.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);

/// The restarts of the last minute, and how many there may be.
#[derive(Debug)]
pub(crate) struct Restarts {
    times: VecDeque<Instant>,
    most: usize,
}

impl Restarts {
    pub(crate) const fn at_most(most: usize) -> Self {
        Self { times: VecDeque::new(), most }
    }

    /// One more; `false` if there may not be.
    pub(crate) fn spend(&mut self) -> bool {
        let may = self.recent() < self.most;
        if may {
            self.times.push_back(Instant::now());
        }
        may
    }

    /// How many there were within the last minute.
    pub(crate) fn recent(&mut self) -> usize {
        while self.times.front().is_some_and(|at| at.elapsed() > WINDOW) {
            self.times.pop_front();
        }
        self.times.len()
    }
}
