//! The time, as tokens and as caches tell it.

use std::time::SystemTime;

use tokio::time::Instant;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// For how long things are kept: it never goes back.
    pub(crate) instant: Instant,
    /// What the claims of tokens are compared with.
    pub(crate) wall: SystemTime,
}

/// Tells the time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Machine,
    /// The wall clock goes as tokio's does, which tests can stop.
    #[cfg(test)]
    Stopped {
        began: Now,
    },
}

impl Clock {
    /// A clock that goes on only as tokio's does.
    #[cfg(test)]
    pub(crate) fn stopped() -> Self {
        Self::Stopped { began: Now { instant: Instant::now(), wall: SystemTime::now() } }
    }

    pub(crate) fn now(self) -> Now {
        let instant = Instant::now();
        match self {
            Self::Machine => Now { instant, wall: SystemTime::now() },
            #[cfg(test)]
            Self::Stopped { began } => {
                Now { instant, wall: began.wall + (instant - began.instant) }
            }
        }
    }
}
