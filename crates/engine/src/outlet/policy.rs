//! The delivery policy: one table.
//!
//! | class            | client keeps up | client falls behind                  |
//! |------------------|-----------------|--------------------------------------|
//! | reply            | always          | kept: one for each request           |
//! | question         | always          | kept: each makes its call wait       |
//! | list changed     | each            | one flag for each list               |
//! | resource updated | each            | one flag for each URI                |
//! | progress         | each            | latest wins, the last value arrives  |
//! | log, custom      | each            | oldest dropped and counted           |
//!
//! A client *falls behind* when more than [`Limits`] allow waits for it, unread. A notice of
//! a list or resource that is still unread is not repeated even while the client keeps up:
//! it would say the same twice.

use stentor_wire::Notice;

/// What a frame is, for the delivery policy and for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// A call came closer to its end.
    Progress,
    /// A log message.
    Log,
    /// An application's own notification.
    Custom,
}

impl Class {
    /// All classes, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Reply,
        Self::Question,
        Self::ListChanged,
        Self::ResourceUpdated,
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
            Notice::Custom { .. } => Self::Custom,
        }
    }

    /// What happens to a frame of this class when its client falls behind.
    #[must_use]
    pub const fn when_behind(self) -> WhenBehind {
        match self {
            Self::Reply | Self::Question => WhenBehind::Keep,
            Self::ListChanged | Self::ResourceUpdated => WhenBehind::OneFlag,
            Self::Progress => WhenBehind::LatestWins,
            Self::Log | Self::Custom => WhenBehind::DropOldest,
        }
    }

    /// The class in metrics and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Question => "question",
            Self::ListChanged => "list_changed",
            Self::ResourceUpdated => "resource_updated",
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

/// How much may wait unread on one stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Frames that may be dropped when there are more of them (log, custom).
    pub frames: usize,
    /// Bytes of such frames.
    pub bytes: usize,
    /// Unread progress values of one call before the latest wins.
    pub progress: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frames: 1024, bytes: 64 * 1024, progress: 256 }
    }
}

/// How much that has been read is kept for a client that comes back.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Retention {
    /// Frames.
    pub frames: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { frames: 1024, bytes: 64 * 1024 }
    }
}

impl Retention {
    /// Keeps nothing: what has been read is gone.
    pub const NONE: Self = Self { frames: 0, bytes: 0 };
}
