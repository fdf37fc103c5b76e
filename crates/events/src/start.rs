//! Where a stream or a webhook begins to read.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::check::UpstreamCursor;
use crate::cursor::Cursor;
use crate::error::EventError;
use crate::event_type::WatchedArguments;
use crate::log::Position;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::subscriber::Subscriber;

/// A stream or a webhook that counts as a listener of a running type, of a branch for one with `check`.
/// Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Listening(Arc<RunningType>);

impl Listening {
    /// From here on the actor is told of what is new.
    pub(crate) fn new(running: Arc<RunningType>) -> Self {
        running.add_listener();
        Self(running)
    }
}

impl Deref for Listening {
    type Target = Arc<RunningType>;

    fn deref(&self) -> &Arc<RunningType> {
        &self.0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.remove_listener();
    }
}

/// Where a stream or a webhook begins.
pub(crate) struct Start {
    pub(crate) listening: Listening,
    pub(crate) position: Position,
    /// Whether there may be something to read there already.
    pub(crate) replays: bool,
    /// Whether something before it is left out.
    pub(crate) truncated: bool,
}

impl Shared {
    /// Finds where a subscription begins, which was [asked](Self::ask) for.
    pub(crate) async fn start(
        &self,
        running: &Arc<RunningType>,
        who: (&Subscriber, &WatchedArguments),
        cursor: Option<&str>,
        max_age_ms: Option<f64>,
    ) -> Result<Start, EventError> {
        if running.branches().is_some() {
            return start_in_branch(running, who, cursor, max_age_ms).await;
        }
        // `Some(None)` for a text that is no cursor.
        let cursor = cursor.filter(|_| running.replays()).map(Cursor::parse);
        self.peers.know(running, cursor.as_ref().and_then(Option::as_ref)).await;
        // Counted before the log is looked at: from there on the actor is told of what is new.
        let listening = Listening::new(running.clone());
        let replays = matches!(cursor, Some(Some(_)));
        let (position, truncated) = {
            let log = running.log.lock();
            match cursor {
                Some(Some(cursor)) => log.start(&cursor, oldest(max_age_ms)),
                Some(None) => (log.end(), true),
                None => (log.end(), false),
            }
        };
        Ok(Start { listening, position, replays, truncated })
    }
}

async fn start_in_branch(
    running: &Arc<RunningType>,
    who: (&Subscriber, &WatchedArguments),
    cursor: Option<&str>,
    max_age_ms: Option<f64>,
) -> Result<Start, EventError> {
    let unknown = || EventError::UnknownType((*running.name()).to_owned());
    let branches = running.branches().ok_or_else(unknown)?;
    if let Some(cursor) = cursor.filter(|it| UpstreamCursor::parse(it).is_some()) {
        let oldest = oldest_time(max_age_ms);
        let joined = branches.join_at(running, who, cursor, oldest, branches.max());
        let (listening, position, truncated) = joined?;
        if let Some(branch) = listening.branch() {
            branch.has_actor().await?;
        }
        return Ok(Start { listening, position, replays: true, truncated });
    }
    let listening = branches.join_now(running, who, branches.max())?;
    if let Some(branch) = listening.branch() {
        branch.fresh().await?;
    }
    let position = listening.log.lock().end();
    Ok(Start { listening, position, replays: false, truncated: cursor.is_some() })
}

/// Where a webhook goes on that had read up to its watermark, if that is known; and whether something may
/// be lost. `None` if its type ends just now.
pub(crate) fn position_of(
    running: &Arc<RunningType>,
    who: (&Subscriber, &WatchedArguments),
    watermark: &str,
) -> Option<(Listening, Option<Position>, bool)> {
    if let Some(branches) = running.branches() {
        // The upstream is asked from there on.
        let joined = branches.rejoin(running, who, watermark);
        return joined.ok().map(|(listening, position, lost)| (listening, Some(position), lost));
    }
    let listening = Listening::new(running.clone());
    let found = Cursor::parse(watermark).map(|cursor| running.log.lock().start(&cursor, None));
    Some(match found {
        Some((position, truncated)) => (listening, Some(position), truncated),
        None => (listening, None, true),
    })
}

/// Occurrences of before this are left out.
pub(crate) fn oldest(max_age_ms: Option<f64>) -> Option<Instant> {
    // The clock may have begun later than that; then nothing is older.
    Instant::now().checked_sub(age(max_age_ms)?)
}

/// As [`oldest`], for when something happened upstream.
pub(crate) fn oldest_time(max_age_ms: Option<f64>) -> Option<SystemTime> {
    SystemTime::now().checked_sub(age(max_age_ms)?)
}

fn age(max_age_ms: Option<f64>) -> Option<Duration> {
    let age = max_age_ms.filter(|age| age.is_finite())?.max(0.0);
    Duration::try_from_secs_f64(age / 1_000.0).ok()
}
