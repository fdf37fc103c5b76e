//! What an upstream has, of a type whose author asks it (`check`). Pure, but for [`call`].

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use serde::Serialize;
use tokio::time::timeout;

use crate::cursor::MAX_CURSOR;
use crate::error::EventError;
use crate::event_type::{Definition, WatchedArguments, guarded};
use crate::occurrence::{MAX_ID, Occurrence, is_id};
use crate::subscriber::Subscriber;

/// The longest cursor of an upstream, in bytes: with an id it is still a cursor.
const MAX_UPSTREAM: usize = MAX_CURSOR - MAX_ID - 2;

/// Occurrences that are taken from one call. What more there is comes with the next one.
const MAX_AT_ONCE: usize = 1_000;

/// What an upstream has after a cursor: the answer of a [`check`](crate::EventType::check).
///
/// ```
/// # use stentor_events::Checked;
/// # use std::time::SystemTime;
/// # #[derive(Debug)]
/// # struct Incident;
/// let nothing_new = Checked::<Incident>::new("42");
/// let two = Checked::new("44")
///     .event("inc-43", SystemTime::now(), Incident)
///     .event("inc-44", SystemTime::now(), Incident);
/// # let _ = (nothing_new, two);
/// ```
#[derive(Debug)]
#[must_use]
pub struct Checked<P> {
    cursor: String,
    events: Vec<(Arc<str>, SystemTime, P)>,
    has_more: bool,
    truncated: bool,
}

impl<P> Checked<P> {
    /// An answer without events. The cursor is the upstream's position after them, 1 to about 15,000
    /// bytes of any text. Clients keep it, and can read it.
    pub fn new(cursor: impl Into<String>) -> Self {
        Self { cursor: cursor.into(), events: Vec::new(), has_more: false, truncated: false }
    }

    /// Adds an event behind those that were added before: the id that the upstream gave it (1 to 256
    /// characters of visible ASCII), when it happened, and its payload.
    pub fn event(mut self, id: impl Into<Arc<str>>, at: SystemTime, payload: P) -> Self {
        self.events.push((id.into(), at, payload));
        self
    }

    /// Adds many events, each as [`event`](Self::event) does.
    pub fn events<I: Into<Arc<str>>>(
        mut self,
        events: impl IntoIterator<Item = (I, SystemTime, P)>,
    ) -> Self {
        self.events.extend(events.into_iter().map(|(id, at, payload)| (id.into(), at, payload)));
        self
    }

    /// Says that the upstream has more behind the cursor, which is asked for at once.
    pub fn more(mut self) -> Self {
        self.has_more = true;
        self
    }

    /// Says that something between the cursor that was asked with and these events is missing. For a
    /// cursor that the upstream does not know, too: any client can send any text.
    pub fn truncated(mut self) -> Self {
        self.truncated = true;
        self
    }
}

/// The answer of an author without its types. Payloads are encoded when they are taken.
pub(crate) struct Found {
    cursor: String,
    ids: Vec<Arc<str>>,
    events: Box<dyn Iterator<Item = FoundEvent> + Send>,
    has_more: bool,
    truncated: bool,
}

struct FoundEvent {
    id: Arc<str>,
    at: SystemTime,
    data: Bytes,
    typed: Arc<dyn Any + Send + Sync>,
}

impl<P: Serialize + Send + Sync + 'static> From<Checked<P>> for Found {
    fn from(checked: Checked<P>) -> Self {
        let Checked { cursor, events, has_more, truncated } = checked;
        let ids = events.iter().map(|(id, ..)| id.clone()).collect();
        let events = events.into_iter().map(|(id, at, payload)| {
            let data = serde_json::to_vec(&payload).unwrap_or_default().into();
            FoundEvent { id, at, data, typed: Arc::new(payload) }
        });
        Self { cursor, ids, events: Box::new(events), has_more, truncated }
    }
}

/// A position at an upstream, as clients keep it: the upstream's own cursor. Between the events of one
/// answer it is the cursor before them, with the id of the last one that was read: `~ID CURSOR`. A
/// cursor of an upstream that begins with `~` is written without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamCursor {
    from: String,
    after: Option<Arc<str>>,
}

impl UpstreamCursor {
    /// Reads what a client has sent; `None` if it is empty or too long.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_CURSOR {
            return None;
        }
        let parts = text.strip_prefix('~').and_then(|rest| rest.split_once(' '));
        let Some((id, from)) = parts.filter(|(id, _)| id.is_empty() || is_id(id)) else {
            return Some(Self { from: text.to_owned(), after: None });
        };
        Some(Self { from: from.to_owned(), after: (!id.is_empty()).then(|| id.into()) })
    }

    /// The position after an event of the answer.
    fn after(&self, id: &Arc<str>) -> Self {
        Self { from: self.from.clone(), after: Some(id.clone()) }
    }
}

impl fmt::Display for UpstreamCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            Some(id) => write!(f, "~{id} {}", self.from),
            None if self.from.starts_with('~') => write!(f, "~ {}", self.from),
            None => f.write_str(&self.from),
        }
    }
}

/// How much is taken from one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest payload, in bytes.
    pub(crate) max_payload: usize,
    /// Bytes of payloads after which nothing more is taken.
    pub(crate) max_bytes: usize,
}

/// What was taken from one call.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Each with the position after it, as clients keep it.
    pub(crate) occurrences: Vec<(Arc<Occurrence>, Arc<str>)>,
    /// The position after all of them.
    pub(crate) cursor: Arc<str>,
    /// Whether there is more behind it already.
    pub(crate) has_more: bool,
    /// Whether something is missing.
    pub(crate) truncated: bool,
}

impl Batch {
    /// Takes what there is room for. Without a cursor nothing is taken but the position.
    fn of(
        name: &Arc<str>,
        found: Found,
        from: Option<&UpstreamCursor>,
        limits: Limits,
    ) -> Result<Self, EventError> {
        let Found { cursor, ids, events, has_more, truncated } = found;
        if !(1..=MAX_UPSTREAM).contains(&cursor.len()) {
            tracing::error!(%name, bytes = cursor.len(), "a check gave a cursor of a wrong length");
            return Err(failed());
        }
        let end: Arc<str> = UpstreamCursor { from: cursor, after: None }.to_string().into();
        let mut batch = Self { occurrences: Vec::new(), cursor: end.clone(), has_more, truncated };
        let Some(from) = from else {
            // Who begins now begins behind everything that there is.
            (batch.has_more, batch.truncated) = (false, false);
            return Ok(batch);
        };
        // Who asks for the same again and again would do nothing else.
        batch.has_more &= *end != *from.to_string();
        // An event that is not there any more was deleted: all others come again.
        let had = from.after.as_ref().and_then(|id| ids.iter().position(|it| it == id));
        // That was told with the first part.
        batch.truncated &= had.is_none();
        let (skip, last) = (had.map_or(0, |had| had + 1), ids.len().saturating_sub(1));
        let mut bytes = 0;
        for (index, event) in events.enumerate().skip(skip) {
            let after = match index == last {
                true => end.clone(),
                false => from.after(&event.id).to_string().into(),
            };
            let is_whole = event.data.first() == Some(&b'{') && is_id(&event.id);
            if is_whole && event.data.len() <= limits.max_payload {
                bytes += event.data.len();
                let occurrence = Occurrence::new(event.id, name.clone(), event.at, event.data);
                // It is empty until here.
                let _ = occurrence.typed.set(Some(event.typed));
                batch.occurrences.push((Arc::new(occurrence), after.clone()));
            } else {
                tracing::error!(
                    %name,
                    bytes = event.data.len(),
                    "a check gave an event with a wrong id or payload, which is left out"
                );
                batch.truncated = true;
                if !is_id(&event.id) {
                    continue;
                }
            }
            let is_full = batch.occurrences.len() >= MAX_AT_ONCE || bytes >= limits.max_bytes;
            if is_full && index < last {
                (batch.cursor, batch.has_more) = (after, true);
                break;
            }
        }
        Ok(batch)
    }
}

/// What clients are told of a failure of which the author has said nothing.
pub(crate) fn failed() -> EventError {
    EventError::Failed("the source of these events failed".to_owned())
}

/// Calls the author's code once: with a time limit, and caught if it panics.
pub(crate) async fn call(
    definition: &Definition,
    subscriber: &Subscriber,
    watched: &WatchedArguments,
    from: Option<&UpstreamCursor>,
    limits: Limits,
) -> Result<Batch, EventError> {
    let (name, cursor) = (&definition.name, from.map(|from| from.from.clone()));
    let asked = guarded(|| definition.ask_upstream(subscriber, watched, cursor)).flatten();
    let asking = AssertUnwindSafe(asked.ok_or_else(failed)?).catch_unwind();
    match timeout(definition.check_limit, asking).await {
        Ok(Ok(found)) => {
            // Payloads are encoded by the author's code, too.
            let taken = found.map(|found| guarded(|| Batch::of(name, found, from, limits)));
            taken?.ok_or_else(failed)?
        }
        Ok(Err(_)) => {
            tracing::error!(%name, "a check panicked");
            Err(failed())
        }
        Err(_) => {
            tracing::warn!(%name, "a check took too long");
            Err(EventError::Failed("the source of these events is too slow".to_owned()))
        }
    }
}

/// How long the upstream is left alone after this many failures in a row: twice as long each time, up to
/// five minutes or the usual pause. `jitter` is between 0 and 1.
pub(crate) fn pause(every: Duration, failures: u32, jitter: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(5 * 60);
    let doubled = every.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    // Loops that fail together do not come back together.
    doubled.min(LONGEST.max(every)).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_payload: 1_000, max_bytes: 100_000 };

    #[derive(Serialize)]
    struct Payload {
        text: String,
    }

    fn checked(numbers: impl IntoIterator<Item = usize>, bytes: usize) -> Found {
        let payload = || Payload { text: "x".repeat(bytes) };
        let events = numbers.into_iter().map(|it| (it.to_string(), SystemTime::now(), payload()));
        Checked::new("~end").events(events).into()
    }

    fn taken(from: &str, found: Found) -> Batch {
        let from = UpstreamCursor::parse(from).unwrap();
        Batch::of(&"t".into(), found, Some(&from), LIMITS).unwrap()
    }

    fn ids(batch: &Batch) -> Vec<usize> {
        batch.occurrences.iter().map(|(it, _)| it.id.parse().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(
            from in ".{1,40}",
            after in prop::option::of("[!-~]{1,9}"),
        ) {
            let position = UpstreamCursor { from, after: after.map(Into::into) };
            prop_assert_eq!(UpstreamCursor::parse(&position.to_string()), Some(position));
        }

        /// However many there are and however large: each comes once, in order, whoever goes on from any
        /// position that was told.
        #[test]
        fn what_is_taken_in_parts_is_taken_once(
            count in 0..1_500_usize,
            bytes in 0..300_usize,
            stop in 0..1_500_usize,
        ) {
            let (mut at, mut all) = ("C".to_owned(), Vec::new());
            loop {
                let batch = taken(&at, checked(0..count, bytes));
                all.extend(ids(&batch));
                at = (*batch.cursor).to_owned();
                for (occurrence, after) in &batch.occurrences {
                    if occurrence.id.parse() == Ok(stop) && stop + 1 < count {
                        let rest = taken(after, checked(0..count, bytes));
                        prop_assert_eq!(ids(&rest).first().copied(), Some(stop + 1));
                    }
                }
                if !batch.has_more {
                    break;
                }
            }
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
            prop_assert_eq!(UpstreamCursor::parse(&at).unwrap().from, "~end");
        }
    }

    #[test]
    fn without_a_cursor_there_is_only_the_position() {
        let batch = Batch::of(&"t".into(), checked(0..5, 10), None, LIMITS).unwrap();
        assert_eq!((ids(&batch), &*batch.cursor, batch.has_more), (vec![], "~ ~end", false));
    }

    #[test]
    fn what_is_wrong_is_left_out_and_told() {
        let batch = taken("C", checked(0..1, 2_000));
        assert_eq!((ids(&batch), &*batch.cursor, batch.truncated), (vec![], "~ ~end", true));
        let found: Found = Checked::new("2")
            .event("no id", SystemTime::now(), Payload { text: String::new() })
            .event("7", SystemTime::now(), Payload { text: String::new() })
            .into();
        let batch = taken("C", found);
        assert_eq!((ids(&batch), batch.truncated), (vec![7], true));
        let found: Found = Checked::new("2").event("7", SystemTime::now(), vec![1]).into();
        assert_eq!(ids(&taken("C", found)), Vec::<usize>::new());
        for cursor in [String::new(), "x".repeat(MAX_CURSOR)] {
            let found: Found = Checked::<Payload>::new(cursor).into();
            assert!(Batch::of(&"t".into(), found, None, LIMITS).is_err());
        }
    }

    #[test]
    fn an_event_that_is_gone_lets_all_others_come_again() {
        assert_eq!(ids(&taken("~7 C", checked([5, 6, 8], 1))), [5, 6, 8]);
        assert_eq!(ids(&taken("~6 C", checked([5, 6, 8], 1))), [8]);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pause = |every, failures, jitter| {
            super::pause(Duration::from_secs(every), failures, jitter).as_secs_f64()
        };
        assert_eq!([0, 1, 2, 3].map(|it| pause(30, it, 0.0)), [30.0, 60.0, 120.0, 240.0]);
        assert_eq!([4, 100, u32::MAX].map(|it| pause(30, it, 0.0)), [300.0; 3]);
        assert_eq!(pause(30, 2, 1.0), 60.0);
        assert_eq!(pause(3_600, 5, 0.0), 3_600.0);
    }
}
