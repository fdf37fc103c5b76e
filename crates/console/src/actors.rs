//! The supervision tree of an engine as it is now, and the actors that failed.

use std::cmp::Reverse;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use stentor_delivery::loggable;
use stentor_engine::{ActorPoolView, ActorsView, CallView, Engine, SessionRef, SessionView};

use crate::clock::millis;

/// Children of an actor that are listed.
const LISTED: usize = 20;
/// How long actors may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// An actor, or some that do the same.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Actor {
    name: String,
    kind: &'static str,
    state: &'static str,
    detail: Option<String>,
    mailbox: Option<usize>,
    age_ms: Option<u64>,
    restarts: Option<usize>,
    session: Option<String>,
    /// Children that are not listed.
    more: usize,
    children: Vec<Actor>,
}

impl Actor {
    fn new(name: impl Into<String>, kind: &'static str) -> Self {
        Self {
            name: name.into(),
            kind,
            state: "running",
            detail: None,
            mailbox: None,
            age_ms: None,
            restarts: None,
            session: None,
            more: 0,
            children: Vec::new(),
        }
    }

    /// An actor that was asked; `None` if it did not answer.
    fn asked(name: &str, kind: &'static str, answer: Option<(String, Duration)>) -> Self {
        let mut actor = Self::new(name, kind);
        match answer {
            Some((detail, took)) => {
                let ms = took.as_secs_f64() * 1_000.0;
                actor.detail = Some(format!("{detail}, answers in {ms:.2} ms"));
            }
            None => actor.state = "does not answer",
        }
        actor
    }

    fn pool(name: &str, pool: ActorPoolView, children: Vec<Self>, all: usize) -> Self {
        let mut actor = Self::new(name, "pool");
        actor.detail = Some(format!("{} work, {} are idle", pool.working, pool.idle));
        (actor.more, actor.children) = (all - children.len(), children);
        actor
    }

    fn session(view: &SessionView) -> Self {
        let id = loggable(view.id.as_str()).to_owned();
        let mut actor = Self::new(id.clone(), "session");
        actor.detail = view.client.as_ref().map(|it| it.name.clone());
        (actor.mailbox, actor.age_ms) = (Some(view.mailbox), Some(millis(view.age)));
        (actor.restarts, actor.session) = (Some(view.recent_restarts), Some(id));
        actor
    }

    fn task(view: &CallView) -> Self {
        let mut actor = Self::new(format!("call {}", view.call.id), "task");
        actor.detail = Some(format!("{} {}", view.method.as_str(), view.call.subject));
        actor.age_ms = Some(millis(view.age));
        actor.session = view.call.session.as_ref().map(|it| loggable(it.as_str()).to_owned());
        actor
    }
}

/// The views of the actors that serve all clients, if they answer in time.
pub(crate) async fn observe(engine: &Engine) -> Option<ActorsView> {
    tokio::time::timeout(TIMEOUT, engine.observe_actors()).await.ok().and_then(Result::ok)
}

pub(crate) async fn answer(engine: &Engine) -> Value {
    let mut crashes = json!(engine.crashes());
    for crash in crashes.as_array_mut().into_iter().flatten() {
        if let Some(session) = crash["session"].as_str() {
            crash["session"] = loggable(session).into();
        }
    }
    json!({ "tree": tree(engine).await, "crashes": crashes })
}

async fn tree(engine: &Engine) -> Actor {
    let (totals, actors) = (engine.totals(), observe(engine).await);
    let asked = |name, kind, index: usize, detail: &dyn Fn(&ActorsView) -> String| {
        Actor::asked(name, kind, actors.as_ref().map(|it| (detail(it), it.took[index])))
    };
    let working = engine.session_refs().into_iter().filter(|it| it.actor().is_some());
    let mut sessions: Vec<_> = working.map(|it| SessionRef::view(&it)).collect();
    sessions.sort_by_key(|it| Reverse(it.mailbox));
    let calls = engine.calls();
    let (session_pool, task_pool) = (totals.session_pool, totals.task_pool);
    let mut supervisor =
        asked("supervisor", "supervisor", 0, &|it| format!("{} sessions", it.supervisor.sessions));
    supervisor.restarts = actors.as_ref().map(|it| it.supervisor.recent_restarts);
    supervisor.children = vec![
        asked("registry", "registry", 1, &|it| {
            format!("{} open windows", it.registry.open_windows)
        }),
        asked("hub", "hub", 2, &|it| {
            format!("{} subscribers, {} notices", it.hub.subscribers, it.hub.published)
        }),
        Actor::pool(
            "session actors",
            session_pool,
            sessions.iter().take(LISTED).map(Actor::session).collect(),
            sessions.len(),
        ),
        Actor::pool(
            "task actors",
            task_pool,
            calls.iter().take(LISTED).map(Actor::task).collect(),
            calls.len(),
        ),
    ];
    let pools = [session_pool, task_pool].iter().map(|it| it.working + it.idle).sum::<usize>();
    // The supervisor has the registry and the hub as children, too.
    let children = engine.supervisor_cell().get_children().len();
    let others = children.saturating_sub(pools + 2);
    if others > 0 {
        let mut actor = Actor::new("actors of extensions", "extension");
        (actor.detail, actor.more) = (Some(format!("{others} below the supervisor")), others);
        supervisor.children.push(actor);
    }
    supervisor
}
