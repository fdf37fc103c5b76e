//! How many restarts are allowed within a minute.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Restarts {
    times: VecDeque<Instant>,
    most: usize,
}

impl Restarts {
    pub(crate) const fn at_most(most: usize) -> Self {
        Self { times: VecDeque::new(), most }
    }

    /// Records a restart; `false` if no more is allowed.
    pub(crate) fn spend(&mut self) -> bool {
        let may = self.recent() < self.most;
        if may {
            self.times.push_back(Instant::now());
        }
        may
    }

    pub(crate) fn recent(&mut self) -> usize {
        while self.times.front().is_some_and(|at| at.elapsed() > WINDOW) {
            self.times.pop_front();
        }
        self.times.len()
    }
}
