//! An upstream with cursors of its own, and types that ask it.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_engine::Engine;
use stentor_engine::identity::Identity;
use stentor_events::{Checked, EventError, Mode, Subscriber, event_type};
use tokio::time::Instant;

use crate::support::{Filter, Job, Jobs, engine};

/// How often the loops ask.
pub(crate) const EVERY: Duration = Duration::from_secs(30);

/// What an upstream does when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Well,
    Fails,
    Panics,
    Hangs,
}

/// Who asked, with which queue and cursor, and when.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) principal: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) mode: Option<Mode>,
    pub(crate) scopes: String,
    pub(crate) at: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) jobs: Vec<(SystemTime, Job)>,
    pub(crate) mood: Mood,
    /// How many it returns at once; all if 0.
    pub(crate) page: usize,
    pub(crate) calls: Vec<Call>,
}

/// An upstream: its cursor is the number of jobs.
#[derive(Clone, Default)]
pub(crate) struct Upstream(pub(crate) Arc<Mutex<State>>);

impl Upstream {
    pub(crate) fn happens(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut state = self.0.lock();
        for number in numbers {
            state.jobs.push((SystemTime::now(), Job::in_queue(number, "q")));
        }
    }

    pub(crate) fn has(&self, age: Duration, job: Job) {
        self.0.lock().jobs.push((SystemTime::now() - age, job));
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.0.lock().mood = mood;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().calls.clone()
    }

    pub(crate) fn cursors(&self) -> Vec<Option<String>> {
        self.calls().into_iter().map(|it| it.cursor).collect()
    }

    async fn asked(
        self,
        subscriber: Option<Subscriber>,
        filter: Arc<Filter>,
        cursor: Option<String>,
    ) -> Result<Checked<Job>, EventError> {
        let principal = subscriber.as_ref().and_then(|it| it.principal().map(str::to_owned));
        let (mood, queue) = (self.0.lock().mood, filter.queue.clone());
        let mode = subscriber.as_ref().map(Subscriber::mode);
        let identity = subscriber.as_ref().and_then(Subscriber::identity);
        let scopes: Vec<_> = identity.into_iter().flat_map(Identity::granted_scopes).collect();
        let scopes = scopes.join(" ");
        let call =
            Call { principal, queue, cursor: cursor.clone(), mode, scopes, at: Instant::now() };
        self.0.lock().calls.push(call);
        match mood {
            Mood::Well => {}
            Mood::Fails => return Err(EventError::Failed("the tracker is away".to_owned())),
            Mood::Panics => panic!("a bug"),
            Mood::Hangs => std::future::pending().await,
        }
        let state = self.0.lock();
        let end = state.jobs.len();
        let known = cursor.as_deref().map(|it| it.strip_prefix('#').and_then(|it| it.parse().ok()));
        let from = match known {
            None => return Ok(Checked::new(format!("#{end}"))),
            Some(None) => return Ok(Checked::new(format!("#{end}")).truncated()),
            Some(Some(from)) => end.min(from),
        };
        let until = if state.page == 0 { end } else { end.min(from + state.page) };
        let new = state.jobs[from..until].iter();
        let new = new.map(|(at, job)| (format!("up-{}", job.number), *at, job.clone()));
        let checked = Checked::new(format!("#{until}")).events(new);
        Ok(if until < end { checked.more() } else { checked })
    }

    /// A type that asks it for each principal.
    pub(crate) fn jobs(&self) -> Jobs {
        let upstream = self.clone();
        event_type::<Filter, Job>("job.done").every(EVERY).check(
            move |subscriber, filter, cursor| {
                upstream.clone().asked(Some(subscriber), filter, cursor)
            },
        )
    }

    /// A type that asks it once for equal arguments.
    pub(crate) fn shared_jobs(&self) -> Jobs {
        let upstream = self.clone();
        event_type::<Filter, Job>("job.done")
            .every(EVERY)
            .check_shared(move |filter, cursor| upstream.clone().asked(None, filter, cursor))
    }
}

pub(crate) async fn of(jobs: &Jobs) -> Engine {
    engine(&[jobs]).await
}

pub(crate) fn since(cursor: &str) -> Value {
    json!({"name": "job.done", "cursor": cursor})
}

pub(crate) fn now() -> Value {
    json!({"name": "job.done"})
}

pub(crate) fn ids(answer: &Value) -> Vec<&str> {
    answer["events"].as_array().unwrap().iter().map(|it| it["eventId"].as_str().unwrap()).collect()
}

/// A type whose loops are quick: sockets need the real time.
pub(crate) fn quick(upstream: &Upstream) -> Jobs {
    upstream.jobs().every(Duration::from_millis(100))
}
