//! The delivery policy: one table.
//!
//! | class            | client keeps up | client falls behind                  | stalled             |
//! |------------------|-----------------|--------------------------------------|---------------------|
//! | reply            | always          | kept: one for each request           | kept for its return |
//! | question         | always          | kept: each makes its call wait       | kept for its return |
//! | list changed     | each            | one flag for each list               | told on its return  |
//! | resource updated | each            | one flag for each URI                | told on its return  |
//! | task             | each            | latest wins for each task            | told when asked     |
//! | progress         | each            | latest wins, the last value arrives  | as before           |
//! | log              | each            | oldest dropped, the client is told   | as before           |
//! | custom           | each            | oldest dropped and counted           | as before           |
//!
//! A client *falls behind* when more than [`Limits`] allow waits for it, unread. A notice of
//! a list or resource that is still unread is not repeated even while the client keeps up:
//! it would say the same twice.
//!
//! A client is *stalled* when it has not read for [`Config::stall_timeout`](crate::Config)
//! although something waits: its HTTP stream is closed. A legacy client can come back to what
//! was kept; a modern one listens again. A pipe is never closed for this: it has one client,
//! and what it holds is bounded.

use stentor_wire::Notice;

/// What a frame is, for the delivery policy and for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Class {
    /// The response to a request.
    Reply,
    /// A request of the server to a legacy client.
    Question,
    /// A list changed.
    ListChanged,
    /// A resource changed.
    ResourceUpdated,
    /// A task has another status.
    Task,
    /// A call came closer to its end.
    Progress,
    /// A log message.
    Log,
    /// An application's own notification.
    Custom,
}

impl Class {
    /// All classes, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Reply,
        Self::Question,
        Self::ListChanged,
        Self::ResourceUpdated,
        Self::Task,
        Self::Progress,
        Self::Log,
        Self::Custom,
    ];

    /// The class of a notice.
    #[must_use]
    pub const fn of(notice: &Notice) -> Self {
        match notice {
            Notice::ListChanged(_) => Self::ListChanged,
            Notice::ResourceUpdated(_) => Self::ResourceUpdated,
            Notice::Task { .. } => Self::Task,
            Notice::Custom { .. } => Self::Custom,
        }
    }

    /// What happens to a frame of this class when its client falls behind.
    #[must_use]
    pub const fn when_behind(self) -> WhenBehind {
        match self {
            Self::Reply | Self::Question => WhenBehind::Keep,
            Self::ListChanged | Self::ResourceUpdated => WhenBehind::OneFlag,
            Self::Task | Self::Progress => WhenBehind::LatestWins,
            Self::Log | Self::Custom => WhenBehind::DropOldest,
        }
    }

    /// Whether a frame of this class may be dropped.
    #[must_use]
    pub(crate) const fn may_drop(self) -> bool {
        matches!(self.when_behind(), WhenBehind::DropOldest)
    }

    /// The class in metrics and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Question => "question",
            Self::ListChanged => "list_changed",
            Self::ResourceUpdated => "resource_updated",
            Self::Task => "task",
            Self::Progress => "progress",
            Self::Log => "log",
            Self::Custom => "custom",
        }
    }
}

/// What happens to a frame when its client falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBehind {
    /// It is kept. There is one for each request, and requests are limited.
    Keep,
    /// At most one of its kind waits.
    OneFlag,
    /// The newest takes the place of the one before.
    LatestWins,
    /// The oldest one makes room, and is counted.
    DropOldest,
}

/// How much may wait unread on one stream. Bytes are of memory, with what a frame costs beside
/// its text.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Frames that may be dropped when there are more of them (log, custom). Default 1,024.
    pub frames: usize,
    /// Bytes of such frames. Default 256 KiB.
    pub bytes: usize,
    /// Unread progress values of one call before the latest wins. Default 256.
    pub progress: u32,
    /// Bytes of answers and questions that may wait: beyond them, no more of a pipe's messages are read,
    /// and no call asks anything more on this stream. Default 1 MiB.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frames: 1_024, bytes: 256 * 1024, progress: 256, answers: 1024 * 1024 }
    }
}

/// How much that has been read is kept for a client that comes back to a stream. The newest
/// frame is kept in any case.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Retention {
    /// Frames. Default 1,024.
    pub frames: usize,
    /// Bytes of memory. Default 256 KiB.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { frames: 1_024, bytes: 256 * 1024 }
    }
}

/// How much all streams of a session, and of all sessions, may hold together: what waits, and
/// what is kept for clients that come back, in bytes of memory. Of what waits on a stream up to
/// 1 KiB is not seen: counting costs more than what it counts.
///
/// From half of a budget on, the limits of each stream are a quarter of what they are else;
/// when it is used up a stream holds little more than what is never dropped.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Budget {
    /// Of one session. Default 2 MiB.
    pub session: usize,
    /// Of all sessions. Default 256 MiB.
    pub total: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { session: 2 * 1024 * 1024, total: 256 * 1024 * 1024 }
    }
}

/// How near a budget is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    None,
    High,
    Full,
}

impl Pressure {
    pub(crate) const fn of(held: usize, budget: usize) -> Self {
        if held >= budget {
            Self::Full
        } else if held >= budget / 2 {
            Self::High
        } else {
            Self::None
        }
    }
}

/// What a stream may hold when there is no room left.
const LAST_FRAMES: usize = 16;
const LAST_BYTES: usize = 4 * 1024;

impl Limits {
    pub(crate) fn under(&self, pressure: Pressure) -> Self {
        match pressure {
            Pressure::None => *self,
            Pressure::High => Self {
                frames: self.frames.div_ceil(4),
                bytes: self.bytes / 4,
                progress: self.progress.div_ceil(4),
                ..*self
            },
            Pressure::Full => Self {
                frames: self.frames.min(LAST_FRAMES),
                bytes: self.bytes.min(LAST_BYTES),
                progress: self.progress.min(1),
                ..*self
            },
        }
    }
}

impl Retention {
    pub(crate) fn under(self, pressure: Pressure) -> Self {
        match pressure {
            Pressure::None => self,
            Pressure::High => Self { frames: self.frames.div_ceil(4), bytes: self.bytes / 4 },
            Pressure::Full => {
                Self { frames: self.frames.min(LAST_FRAMES), bytes: self.bytes.min(LAST_BYTES) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_repeat_the_table() {
        let table = |text: &'static str| -> Vec<&str> {
            let rows = text.lines().map(|line| line.trim_start_matches("//! "));
            let header = |row: &&str| !row.starts_with("| class  ");
            rows.skip_while(header).take_while(|row| row.starts_with('|')).collect()
        };
        let here = table(include_str!("policy.rs"));
        assert_eq!(here.len(), Class::ALL.len() + 2);
        assert_eq!(here, table(include_str!("../../../../docs/FLOWS.md")));
    }

    #[test]
    fn limits_shrink_as_the_budget_is_used_up() {
        let bytes = |held| Limits::default().under(Pressure::of(held, 1_000)).bytes;
        assert_eq!(bytes(499), Limits::default().bytes);
        assert_eq!(bytes(500), Limits::default().bytes / 4);
        assert_eq!(bytes(1_000), LAST_BYTES);
    }
}
