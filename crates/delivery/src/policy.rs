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
//! | event            | each, in order  | the rest is read from the log later  | closed; told a gap  |
//!
//! A client *falls behind* when more frames wait for it than [`Limits`] allow. While a notice of a
//! list or resource is unread, the same notice is not queued again, even if the client keeps up.
//!
//! A client is *stalled* when it has not read for `Config::stall_timeout`
//! although frames wait. Its HTTP stream is closed then. A legacy client can come back for the
//! frames that were kept; a modern client listens again. A pipe is never closed for this: it has
//! one client, and its queue is bounded.

use stentor_macros::Setters;
use stentor_wire::{Notice, Topic};

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
    /// The status of a task changed.
    Task,
    /// The progress of a call.
    Progress,
    /// A log message.
    Log,
    /// A notification of the application's own.
    Custom,
    /// Something that happened, on a stream of the events extension.
    Event,
}

impl Class {
    /// All classes, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Reply,
        Self::Question,
        Self::ListChanged,
        Self::ResourceUpdated,
        Self::Task,
        Self::Progress,
        Self::Log,
        Self::Custom,
        Self::Event,
    ];

    /// The class of a notice.
    #[must_use]
    pub const fn of(notice: &Notice) -> Self {
        match notice {
            Notice::Changed(topic) | Notice::State { topic, .. } => match topic {
                Topic::List(_) => Self::ListChanged,
                Topic::Resource(_) => Self::ResourceUpdated,
                Topic::Task(_) => Self::Task,
            },
            Notice::Custom { .. } => Self::Custom,
        }
    }

    /// What happens to a frame of this class when its client falls behind.
    #[must_use]
    pub const fn when_behind(self) -> WhenBehind {
        match self {
            Self::Reply | Self::Question | Self::Event => WhenBehind::Keep,
            Self::ListChanged | Self::ResourceUpdated => WhenBehind::OneFlag,
            Self::Task | Self::Progress => WhenBehind::LatestWins,
            Self::Log | Self::Custom => WhenBehind::DropOldest,
        }
    }

    /// Whether a frame of this class may be dropped.
    #[must_use]
    pub const fn may_drop(self) -> bool {
        matches!(self.when_behind(), WhenBehind::DropOldest)
    }

    /// The name of the class in metrics and views.
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
            Self::Event => "event",
        }
    }
}

/// What happens to a frame when its client falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBehind {
    /// It is kept. Requests are limited, and who sends events asks first whether there is
    /// [room](crate::StreamSender::has_room).
    Keep,
    /// At most one for the same list or resource waits.
    OneFlag,
    /// The newest replaces the previous one.
    LatestWins,
    /// The oldest one is dropped and counted.
    DropOldest,
}

/// How much may wait unread on one stream. Bytes are bytes of memory, including a frame's overhead.
#[derive(Clone, Copy, Debug, Setters)]
#[non_exhaustive]
pub struct Limits {
    /// Frames of the classes that may be dropped (log, custom). Default 1,024.
    pub frames: usize,
    /// Bytes of these frames. Default 256 KiB.
    pub bytes: usize,
    /// Unread progress values of one call; beyond them the latest wins. Default 256.
    pub progress: u32,
    /// Bytes of replies and questions. Beyond them the engine reads no more messages of a pipe, and
    /// no call sends another question on this stream. Default 1 MiB.
    pub answers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frames: 1_024, bytes: 256 * 1024, progress: 256, answers: 1024 * 1024 }
    }
}

/// How many frames that were read are kept for a client that comes back to a stream. The newest
/// frame is always kept.
#[derive(Clone, Copy, Debug, Setters)]
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

/// Bytes of memory that the streams of one session, and of all sessions, may hold together: in
/// queues, and in event logs for clients that come back. Up to 1 KiB in the queue of each stream is
/// not counted: exact counting would cost too much.
///
/// When half of a budget is used, the limits of each stream shrink to a quarter. When a budget is
/// used up, a stream holds little more than the frames that are never dropped.
#[derive(Clone, Copy, Debug, Setters)]
#[non_exhaustive]
pub struct Budget {
    /// Bytes of one session. Default 2 MiB.
    pub session: usize,
    /// Bytes of all sessions. Default 256 MiB.
    pub total: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { session: 2 * 1024 * 1024, total: 256 * 1024 * 1024 }
    }
}

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Less than half.
    None,
    /// Half or more.
    High,
    /// All.
    Full,
}

impl Pressure {
    /// The pressure when this many of a budget's bytes are held.
    pub const fn of(held: usize, budget: usize) -> Self {
        if held >= budget {
            Self::Full
        } else if held >= budget / 2 {
            Self::High
        } else {
            Self::None
        }
    }
}

/// What a stream may hold when a budget is used up.
const LAST_FRAMES: usize = 16;
const LAST_BYTES: usize = 4 * 1024;

impl Limits {
    /// The limits under this pressure: a quarter from half of the budget on, and little when it is used up.
    pub fn under(&self, pressure: Pressure) -> Self {
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
    /// What is kept under this pressure.
    pub fn under(self, pressure: Pressure) -> Self {
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
        assert_eq!(here, table(include_str!("../../../docs/FLOWS.md")));
    }

    #[test]
    fn limits_shrink_as_the_budget_is_used_up() {
        let bytes = |held| Limits::default().under(Pressure::of(held, 1_000)).bytes;
        assert_eq!(bytes(499), Limits::default().bytes);
        assert_eq!(bytes(500), Limits::default().bytes / 4);
        assert_eq!(bytes(1_000), LAST_BYTES);
    }
}
