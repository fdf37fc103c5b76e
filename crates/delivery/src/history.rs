//! What became of the last frames of a session, and why, while somebody follows it.
//!
//! Nothing is noted of a session that nobody follows. A queue notes its [`Change`]s; the history of
//! the session puts those of all its streams together.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor_wire::{Notice, Topic};
use tokio::time::Instant;

use crate::frame::Frame;
use crate::ids::StreamId;
use crate::policy::Class;

/// Bytes of a frame's name.
const MAX_NAME: usize = 128;
/// How long a session is followed at most. It can be added to any clock's time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It waits for the client.
    Waits,
    /// The transport has taken it.
    Delivered,
    /// The same notice was waiting already.
    Coalesced,
    /// A newer value took its place.
    Conflated,
    /// It was dropped, because the client fell behind.
    Dropped,
    /// It was refused: a progress value that did not increase.
    Refused,
    /// The stream, or the call that sent it, had ended, or its client stopped reading.
    Closed,
    /// It was not for this session.
    Filtered,
}

/// One frame in a [`History`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When it was sent, in milliseconds since 1970.
    pub at: u64,
    /// How long it took until it was what it is now, in milliseconds.
    pub took: u64,
    /// The stream in the session; `None` if it reached none.
    pub stream: Option<u64>,
    /// Its number in the stream; for one that was coalesced, the number of the one that waited.
    pub seq: Option<u64>,
    /// Its class.
    pub class: Class,
    /// The method and the key, or what it is, cut to 128 bytes.
    pub what: String,
    /// What became of it.
    pub became: Outcome,
    /// Why, if that is not plain.
    pub why: Option<&'static str>,
}

/// A copy of a history at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HistoryView {
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
    /// How many are kept.
    pub capacity: usize,
    /// How many older ones were forgotten.
    pub missed: u64,
    /// For how many seconds the session is followed from now on.
    pub seconds: u64,
}

/// What a queue did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) seq: Option<u64>,
    pub(crate) outcome: Outcome,
    /// The frame, if it is a new one.
    pub(crate) new: Option<(Class, String)>,
}

/// The last frames of one session.
#[derive(Debug)]
pub struct History {
    entries: VecDeque<HistoryEntry>,
    capacity: usize,
    missed: u64,
    until: Instant,
}

impl History {
    /// A history of `capacity` entries, that ends after `time`, and after a year at the latest. It is
    /// dropped when something is sent after that.
    #[must_use]
    pub fn new(capacity: usize, time: Duration) -> Self {
        let until = Instant::now() + time.min(LONGEST);
        Self { entries: VecDeque::new(), capacity: capacity.max(1), missed: 0, until }
    }

    /// Continues an older one.
    pub(crate) fn after(mut self, before: Option<Self>) -> Self {
        if let Some(before) = before {
            (self.entries, self.missed) = (before.entries, before.missed);
        }
        self
    }

    pub(crate) fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }

    pub(crate) fn view(&self) -> HistoryView {
        let seconds = self.until.saturating_duration_since(Instant::now()).as_secs();
        let entries = self.entries.iter().cloned().collect();
        HistoryView { entries, capacity: self.capacity, missed: self.missed, seconds }
    }

    pub(crate) fn changed(&mut self, stream: StreamId, changes: Vec<Change>) {
        for Change { seq, outcome, new } in changes {
            // One that replaces another has the number of that.
            if outcome == Outcome::Conflated || new.is_none() {
                self.became(stream, seq, outcome);
            }
            if let Some((class, what)) = new {
                let (became, why) = match outcome {
                    Outcome::Conflated => (Outcome::Waits, None),
                    Outcome::Coalesced => (outcome, Some("the same notice was waiting")),
                    Outcome::Refused => (outcome, Some("the value did not increase")),
                    Outcome::Closed => (outcome, Some("the stream or the call had ended")),
                    outcome => (outcome, None),
                };
                self.add(Some(stream), seq, class, what, became, why);
            }
        }
    }

    /// A notice that was not sent to this session.
    pub(crate) fn filtered(&mut self, class: Class, what: String, why: &'static str) {
        self.add(None, None, class, what, Outcome::Filtered, Some(why));
    }

    fn became(&mut self, stream: StreamId, seq: Option<u64>, outcome: Outcome) {
        let now = now();
        let found =
            self.entries.iter_mut().rev().find(|it| {
                it.became == Outcome::Waits && it.stream == Some(stream.0) && it.seq == seq
            });
        if let Some(entry) = found {
            entry.became = outcome;
            entry.took = now.saturating_sub(entry.at);
            entry.why = match outcome {
                Outcome::Conflated => Some("a newer value took its place"),
                Outcome::Dropped => Some("the client fell behind, and newer ones were kept"),
                Outcome::Closed => Some("the client left it unread"),
                _ => None,
            };
        }
    }

    fn add(
        &mut self,
        stream: Option<StreamId>,
        seq: Option<u64>,
        class: Class,
        what: String,
        became: Outcome,
        why: Option<&'static str>,
    ) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
            self.missed += 1;
        }
        let (at, stream) = (now(), stream.map(|it| it.0));
        let entry = HistoryEntry { at, took: 0, stream, seq, class, what, became, why };
        self.entries.push_back(entry);
    }
}

/// In milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The method and the key of a notice.
#[must_use]
pub(crate) fn name_of(notice: &Notice) -> String {
    let topic = |topic: &Topic| match topic.keyed() {
        Some((_, key)) => format!("{} {key}", topic.method()),
        None => topic.method().to_owned(),
    };
    match notice {
        Notice::Changed(it) | Notice::State { topic: it, .. } => cut(&topic(it)),
        Notice::Custom { method, .. } => cut(method),
    }
}

/// What a frame is.
pub(crate) fn name_of_frame(frame: &Frame) -> String {
    match frame {
        Frame::Reply(_, None) => "response".into(),
        Frame::Reply(_, Some(code)) => cut(&format!("response with error {code}")),
        Frame::Message(bytes) => name_of_message(bytes),
        Frame::Log(level, _) => cut(&format!("notifications/message {level}")),
        Frame::Dropped(_, count) => cut(&format!("report of {count} dropped log messages")),
        Frame::Notice(notice, _) => name_of(notice.notice()),
        Frame::Progress(value) => name_of_progress(value.progress, value.total),
    }
}

pub(crate) fn name_of_progress(progress: f64, total: Option<f64>) -> String {
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    cut(&format!("notifications/progress {progress}{of}"))
}

fn name_of_message(message: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        method: Option<std::borrow::Cow<'a, str>>,
    }
    let named = serde_json::from_slice::<Named<'_>>(message).ok().and_then(|it| it.method);
    named.map_or_else(|| "response".into(), |method| cut(&method))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_NAME)].into()
}

#[cfg(test)]
mod tests;
