//! The engine's events, kept for the log and for the progress of calls while somebody looks.
//!
//! A task reads them, and ends when nobody has asked for some time. So nothing is kept of an engine that
//! nobody looks at, and its events are not even made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use stentor_delivery::loggable;
use stentor_engine::{CallOutcome, Engine, EngineEvent, PeerChange};
use tokio::time::Instant;

use crate::clock::now;

/// Entries of the log that are kept.
const KEPT: usize = 2_000;
/// Events that may wait for the task.
const WAITING: usize = 4_096;
/// How long events are kept for after somebody has asked for them.
const LOOKED_AT_FOR: Duration = Duration::from_secs(30);
/// How many calls' progress is kept.
const CALLS: usize = 10_000;
/// Bytes of the text of an entry.
const MAX_TEXT: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Lookout(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Until when events are kept; `None` if no task reads them.
    until: Option<Instant>,
    entries: VecDeque<Entry>,
    last: u64,
    missed: u64,
    progress: HashMap<u64, (f64, Option<f64>)>,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    n: u64,
    at: u64,
    event: &'static str,
    level: &'static str,
    session: Option<String>,
    call: Option<u64>,
    text: String,
}

impl Lookout {
    /// Somebody looks: events are kept from now on.
    fn look(&self, engine: &Engine) {
        let mut kept = self.0.lock();
        let is_read = kept.until.replace(Instant::now() + LOOKED_AT_FOR).is_some();
        drop(kept);
        if !is_read {
            let (kept, mut events) = (self.0.clone(), engine.events(WAITING));
            tokio::spawn(async move {
                loop {
                    let until = kept.lock().until.unwrap_or_else(Instant::now);
                    let event = tokio::time::timeout_at(until, events.next()).await;
                    let mut kept = kept.lock();
                    match event {
                        Ok(Some(event)) => kept.add(&event),
                        // Somebody may have asked meanwhile.
                        Err(_) if kept.until.is_some_and(|it| it > Instant::now()) => {}
                        _ => {
                            let last = kept.last;
                            *kept = Kept { last, ..Kept::default() };
                            return;
                        }
                    }
                }
            });
        }
    }

    /// What happened after an entry, oldest first, and at most so much of it; without an entry the
    /// newest.
    pub(crate) fn log(&self, engine: &Engine, after: Option<u64>, limit: usize) -> Value {
        self.look(engine);
        let mut kept = self.0.lock();
        let missed = std::mem::take(&mut kept.missed);
        // A number of another process is larger than all.
        let after = after.filter(|after| *after <= kept.last);
        let skipped = match after {
            Some(after) => kept.entries.iter().take_while(|it| it.n <= after).count(),
            None => kept.entries.len().saturating_sub(limit),
        };
        let entries: Vec<_> = kept.entries.iter().skip(skipped).take(limit).collect();
        let last = entries.last().map_or(kept.last, |it| it.n);
        let oldest = kept.entries.front().map_or(kept.last + 1, |it| it.n);
        let gone = after.map_or(0, |after| oldest.saturating_sub(after + 1));
        json!({ "entries": entries, "last": last, "missed": missed + gone })
    }

    /// The progress of a call, if it reported one since somebody looks.
    pub(crate) fn progress(&self, engine: &Engine, call: u64) -> Value {
        self.look(engine);
        let progress = self.0.lock().progress.get(&call).copied();
        progress
            .map_or(Value::Null, |(progress, total)| json!({"progress": progress, "total": total}))
    }
}

impl Kept {
    fn add(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::CallProgressed { call, progress, total } => {
                if self.progress.len() < CALLS || self.progress.contains_key(&call.id.0) {
                    self.progress.insert(call.id.0, (*progress, *total));
                }
                return;
            }
            EngineEvent::CallFinished { call, .. } | EngineEvent::CallCancelled { call, .. } => {
                self.progress.remove(&call.id.0);
            }
            EngineEvent::Missed(count) => self.missed += count,
            _ => {}
        }
        let (name, level, mut text) = told(event);
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        let call = call_of(event);
        self.last += 1;
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            n: self.last,
            at: now(),
            event: name,
            level,
            session: event.session().map(|it| loggable(it.as_str()).to_owned()),
            call,
            text,
        });
    }
}

fn call_of(event: &EngineEvent) -> Option<u64> {
    match event {
        EngineEvent::CallStarted { call, .. }
        | EngineEvent::CallFinished { call, .. }
        | EngineEvent::CallCancelled { call, .. } => Some(call.id.0),
        _ => None,
    }
}

/// The name of an event, how bad it is, and what it says.
fn told(event: &EngineEvent) -> (&'static str, &'static str, String) {
    match event {
        EngineEvent::SessionOpened { kind, principal, .. } => {
            let of = principal.as_ref().map(|it| format!(" of {it}")).unwrap_or_default();
            ("session opened", "info", format!("{}{of}", kind.as_str()))
        }
        EngineEvent::SessionInitialized { version, client, .. } => {
            let client = client.as_ref().map(|it| format!("{} {}", it.name, it.version));
            let client = client.unwrap_or_else(|| "a client".to_owned());
            ("session initialized", "info", format!("{client}, {version}"))
        }
        EngineEvent::SessionClosed { reason, .. } => {
            ("session closed", "info", reason.as_str().to_owned())
        }
        EngineEvent::SessionCrashed { .. } => {
            ("session crashed", "error", "its actor failed".to_owned())
        }
        EngineEvent::SessionRestarted { .. } => {
            ("session restarted", "warn", "another actor serves it".to_owned())
        }
        EngineEvent::CallStarted { call, method } => {
            ("call started", "info", format!("{} {}", method.as_str(), call.subject))
        }
        EngineEvent::CallFinished { call, outcome, took } => {
            let level = if *outcome == CallOutcome::Ok { "info" } else { "warn" };
            let ms = took.as_millis();
            ("call finished", level, format!("{}: {outcome:?} after {ms} ms", call.subject))
        }
        EngineEvent::CallCancelled { call, reason, took } => {
            let ms = took.as_millis();
            ("call cancelled", "warn", format!("{}: {reason}, after {ms} ms", call.subject))
        }
        EngineEvent::CatalogChanged { revision, lists } => {
            let lists: Vec<_> = lists.iter().map(|it| format!("{it:?}").to_lowercase()).collect();
            ("catalog changed", "info", format!("revision {revision}: {}", lists.join(", ")))
        }
        EngineEvent::CatalogConflict { conflict } => {
            let nodes: Vec<_> = conflict.hidden.iter().map(|it| it.as_str()).collect();
            let text = format!("{}: what {} define is hidden", conflict.key, nodes.join(", "));
            ("catalog conflict", "warn", text)
        }
        EngineEvent::ActorRestarted { actor } => ("actor restarted", "error", (*actor).to_owned()),
        EngineEvent::PeerChanged { node, change } => match change {
            PeerChange::Connected => ("node connected", "info", node.to_string()),
            PeerChange::Disconnected => ("node disconnected", "warn", node.to_string()),
            _ => ("node gone", "warn", node.to_string()),
        },
        EngineEvent::FramesDropped { class, count, .. } => {
            ("frames dropped", "warn", format!("{count} of class {}", class.as_str()))
        }
        EngineEvent::StreamsClosed { count, .. } => {
            ("streams closed", "warn", format!("{count}, because nobody read them"))
        }
        EngineEvent::Extension { identifier, event } => {
            ("extension", "info", format!("{identifier}: {event:?}"))
        }
        EngineEvent::Missed(count) => {
            ("events missed", "warn", format!("{count}: more happened than could be read"))
        }
        EngineEvent::Stopped => ("engine stopped", "warn", String::new()),
        other => ("something else", "info", format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_while_somebody_looks_and_forgotten_after_that() {
        let engine = Engine::builder("s", "1").start().await.expect("an engine");
        let lookout = Lookout::default();
        assert_eq!(lookout.log(&engine, None, 10)["entries"], json!([]));
        let tool = stentor_engine::tool("noon", || async { "12:00" });
        engine.catalog().add(tool).await.expect("a new tool");
        settle().await;
        let log = lookout.log(&engine, None, 10);
        assert_eq!(log["entries"][0]["event"], "catalog changed");
        assert_eq!(lookout.log(&engine, Some(1), 10)["entries"], json!([]));
        assert_eq!(lookout.log(&engine, Some(99), 10)["last"], 1, "a number of another process");
        tokio::time::sleep(LOOKED_AT_FOR + Duration::from_secs(1)).await;
        assert!(lookout.0.lock().until.is_none(), "the task has ended");
        assert_eq!(lookout.log(&engine, None, 10)["entries"], json!([]));
        engine.shutdown().await;
    }
}
