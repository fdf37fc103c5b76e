//! The sessions of one node: which are listed, and which are slow.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};
use stentor_delivery::{CountersView, loggable};
use stentor_engine::{Engine, SessionRef, SessionView};
use stentor_wire::Era;

use crate::query::{Order, SessionsQuery};

/// Sessions on one page at most.
const MAX_PAGE: usize = 200;
/// Sessions that are looked at in one go, before other tasks get their turn.
const PART: usize = 256;
/// From so many unread frames on a client is slow.
const SLOW_FRAMES: usize = 4;
/// From so many unread bytes on a client is slow.
const SLOW_BYTES: usize = 64 * 1024;

/// Finds a session by the part of its id that is shown.
pub(crate) fn find(engine: &Engine, shown: &str) -> Option<SessionRef> {
    engine.session_refs().into_iter().find(|it| loggable(it.id().as_str()) == shown)
}

/// One page of the sessions that a query asks for.
pub(crate) async fn list(engine: &Engine, query: &SessionsQuery) -> Value {
    let all = engine.session_refs();
    let total = all.len();
    let wanted = Wanted::new(query);
    let mut found = Vec::new();
    for part in all.chunks(PART) {
        found.extend(part.iter().map(SessionRef::view).filter(|view| wanted.has(view)));
        tokio::task::yield_now().await;
    }
    match query.order {
        Order::Slow => found.sort_by_cached_key(|it| Reverse(slowness(it))),
        Order::Newest => found.sort_by_key(|it| it.age),
        Order::Oldest => found.sort_by_key(|it| Reverse(it.age)),
        Order::Id => found.sort_by(|a, b| a.id.cmp(&b.id)),
    }
    let limit = query.limit.unwrap_or(50).clamp(1, MAX_PAGE);
    let page: Vec<_> = found.iter().skip(query.offset).take(limit).map(shown).collect();
    json!({ "total": total, "found": found.len(), "sessions": page })
}

/// Which sessions a query asks for, in lower case.
struct Wanted {
    text: String,
    principal: String,
    kind: String,
}

impl Wanted {
    fn new(query: &SessionsQuery) -> Self {
        Self {
            text: query.text.to_lowercase(),
            principal: query.principal.clone(),
            kind: query.kind.clone(),
        }
    }

    fn has(&self, view: &SessionView) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.text);
        let principal = view.principal.as_deref().unwrap_or_default();
        let client = view.client.as_ref().map(|it| it.name.as_str()).unwrap_or_default();
        (self.kind.is_empty() || view.kind.as_str() == self.kind)
            && (self.principal.is_empty() || principal == self.principal)
            && (self.text.is_empty()
                || loggable(view.id.as_str()).to_lowercase().starts_with(&self.text)
                || has(principal)
                || has(client))
    }
}

/// How far a client is behind: those come first that read nothing now, then those that lost something.
fn slowness(view: &SessionView) -> (usize, usize, u64) {
    let CountersView { dropped, closed, held, .. } = view.counters;
    (view.unread, held, dropped.iter().sum::<u64>() + closed)
}

fn is_slow(view: &SessionView) -> bool {
    view.unread >= SLOW_FRAMES || view.counters.held >= SLOW_BYTES
}

/// What a client lacks, in words.
fn why(view: &SessionView) -> Option<String> {
    let CountersView { dropped, closed, held, conflated, coalesced, .. } = view.counters;
    let (dropped, coalesced) = (dropped.iter().sum::<u64>(), coalesced.iter().sum::<u64>());
    let parts = [
        (view.unread as u64, "wait to be read"),
        (held as u64, "bytes wait"),
        (dropped, "were dropped"),
        (closed, "streams were closed because nobody read them"),
        (conflated, "progress values were replaced by newer ones"),
        (coalesced, "repeated what was waiting already"),
    ];
    let said = parts.into_iter().filter(|(count, _)| *count > 0);
    let said: Vec<_> = said.map(|(count, what)| format!("{count} {what}")).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// A session as the page shows it. Of its id only the part that may be logged: with the whole one
/// somebody could use the session of a stranger.
pub(crate) fn shown(view: &SessionView) -> Value {
    let mut shown = match serde_json::to_value(view) {
        Ok(Value::Object(shown)) => shown,
        _ => Map::new(),
    };
    let era = if view.version.is_some() { Era::Legacy } else { Era::Modern };
    for (from, to) in [("age", "ageMs"), ("counters", "frames")] {
        if let Some(value) = shown.remove(from) {
            shown.insert(to.to_owned(), value);
        }
    }
    shown.insert("id".to_owned(), loggable(view.id.as_str()).into());
    shown.insert("era".to_owned(), json!(era));
    shown.insert("openCalls".to_owned(), view.open_calls.len().into());
    shown.insert("heldBytes".to_owned(), view.counters.held.into());
    shown.insert("slow".to_owned(), is_slow(view).into());
    shown.insert("why".to_owned(), json!(why(view)));
    Value::Object(shown)
}
