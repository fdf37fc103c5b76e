//! What one node answers for itself, and what all nodes answer together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stentor_delivery::loggable;
use stentor_engine::identity::Identity;
use stentor_engine::remote::NodeState;
use stentor_engine::{Engine, ItemKind, NodeId};

use crate::act::act;
use crate::actors;
use crate::clock::{millis, now};
use crate::config::ConsoleConfig;
use crate::lookout::Lookout;
use crate::query::{Acted, Action, PeerMessage, Query};
use crate::sessions;

/// Under this name consoles send each other messages.
const IDENTIFIER: &str = "stentor/console";
/// Tasks and webhooks that are listed.
const MAX_LISTED: usize = 500;
/// Items of the catalog that are listed.
const MAX_ITEMS: usize = 5_000;
/// Entries of the log in one answer.
const MAX_LOG: usize = 500;
/// How long a node is missed that was given up.
const MISSED_FOR: Duration = Duration::from_secs(10 * 60);

/// The console of one node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) config: ConsoleConfig,
    lookout: Lookout,
    started: Instant,
    /// Nodes that have not left and cannot be reached, and since when that is known here.
    given_up: Mutex<HashMap<NodeId, Instant>>,
}

/// Answers the consoles of other nodes as long as this one is there.
pub(crate) fn answer_peers(node: &Arc<Node>) {
    let weak = Arc::downgrade(node);
    node.engine.answer_peers(IDENTIFIER, move |message| {
        let node = weak.upgrade();
        async move {
            let answer = match (node, serde_json::from_slice(&message)) {
                (Some(node), Ok(PeerMessage::Ask(query))) => {
                    json!({"answer": node.answer(query).await})
                }
                (Some(node), Ok(PeerMessage::Act { action, operator })) => {
                    json!(act(&node, action, operator.as_deref()).await)
                }
                (Some(_), Err(error)) => {
                    json!({"error": format!("it has another release: {error}")})
                }
                (None, _) => json!({"error": "its console has ended"}),
            };
            answer.to_string().into()
        }
    });
}

impl Node {
    pub(crate) fn new(engine: Engine, config: ConsoleConfig) -> Self {
        let (lookout, given_up) = (Lookout::default(), Mutex::default());
        Self { engine, config, lookout, started: Instant::now(), given_up }
    }

    /// The answers of all nodes, or of one.
    pub(crate) async fn gather(&self, query: Query, of: Option<&str>) -> Value {
        let mut nodes = self.nodes();
        nodes.retain(|node| of.is_none_or(|of| node.as_str() == of));
        let answers = join_all(nodes.iter().map(|node| self.ask(node, query.clone()))).await;
        let answers = nodes.iter().zip(answers).map(|(node, answer)| match answer {
            Ok(answer) => json!({"node": node, "answer": answer}),
            Err(error) => json!({"node": node, "error": error}),
        });
        json!({
            "version": 1,
            "at": now(),
            "node": self.engine.node(),
            "nodes": answers.collect::<Vec<_>>(),
        })
    }

    /// This node and the others. Those that cannot be asked are among them: an operator has to see
    /// that they are gone. Nodes that have left are not.
    fn nodes(&self) -> Vec<NodeId> {
        let (peers, now) = (self.engine.node_views(), Instant::now());
        let mut given_up = self.given_up.lock();
        given_up.retain(|node, _| {
            peers.iter().any(|it| it.node == *node && it.state == NodeState::Dead)
        });
        let mut nodes = self.engine.peers();
        nodes.push(self.engine.node().clone());
        for peer in peers {
            let since = match peer.state {
                NodeState::Alive => now,
                NodeState::Dead => *given_up.entry(peer.node.clone()).or_insert(now),
                _ => continue,
            };
            if now.duration_since(since) < MISSED_FOR {
                nodes.push(peer.node);
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    async fn ask(&self, node: &NodeId, query: Query) -> Result<Value, String> {
        if node == self.engine.node() {
            return Ok(self.answer(query).await);
        }
        if self.given_up.lock().contains_key(node) {
            return Err("it was given up: nothing is heard of it any more".to_owned());
        }
        let mut answer = self.ask_peer(node, &PeerMessage::Ask(query)).await?;
        match answer.get_mut("answer") {
            Some(answer) => Ok(answer.take()),
            None => Err(answer["error"].as_str().unwrap_or("it answered nonsense").to_owned()),
        }
    }

    async fn ask_peer(&self, node: &NodeId, message: &PeerMessage) -> Result<Value, String> {
        let message = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let asking = self.engine.ask_peer(node, IDENTIFIER, message.into());
        match tokio::time::timeout(self.config.timeout, asking).await {
            Ok(Ok(answer)) => serde_json::from_slice(&answer).map_err(|error| error.to_string()),
            Ok(Err(_)) => Err("it cannot be reached, or has no console".to_owned()),
            Err(_) => Err("it did not answer in time".to_owned()),
        }
    }

    /// Does something on a node.
    pub(crate) async fn act(&self, node: &str, action: Action, operator: Option<&str>) -> Acted {
        if node == self.engine.node().as_str() {
            return act(self, action, operator).await;
        }
        let Some(peer) = self.engine.peers().into_iter().find(|it| it.as_str() == node) else {
            return Acted::NotFound("there is no such node now".to_owned());
        };
        let operator = operator.map(str::to_owned);
        match self.ask_peer(&peer, &PeerMessage::Act { action, operator }).await {
            Ok(done) => serde_json::from_value(done).unwrap_or_else(|error| {
                Acted::NotFound(format!("it has another release: {error}"))
            }),
            Err(error) => Acted::NotFound(error),
        }
    }

    async fn answer(&self, query: Query) -> Value {
        match query {
            Query::Overview => self.overview().await,
            Query::Actors => actors::answer(&self.engine).await,
            Query::Sessions(query) => sessions::list(&self.engine, &query).await,
            Query::Session { id } => self.session(&id),
            Query::Catalog { principal } => self.catalog(principal),
            Query::Events => self.events(),
            Query::Tasks => self.tasks(),
            Query::Log { after, limit } => {
                self.lookout.log(&self.engine, after, limit.min(MAX_LOG))
            }
        }
    }

    fn state(&self) -> &'static str {
        match self.engine.ended() {
            Some(_) => "ended",
            None => self.engine.not_ready().unwrap_or("running"),
        }
    }

    async fn overview(&self) -> Value {
        let (engine, totals) = (&self.engine, self.engine.totals());
        let actors = actors::observe(engine).await;
        let sessions: serde_json::Map<_, _> = totals
            .sessions
            .iter()
            .map(|(kind, count)| (kind.as_str().to_owned(), json!(count)))
            .collect();
        json!({
            "state": self.state(),
            "upMs": millis(self.started.elapsed()),
            "memoryBytes": resident().await,
            "peers": engine.peers(),
            "links": engine.node_views(),
            "sessions": sessions,
            "calls": {"running": totals.running_calls, "awaitingInput": totals.calls_awaiting_input},
            "tasks": totals.running_tasks,
            "subscribers": actors.as_ref().map(|it| it.hub.subscribers),
            "published": actors.as_ref().map(|it| it.hub.published),
            "revision": engine.catalog().snapshot().revision(),
            "openWindows": actors.as_ref().map(|it| it.registry.open_windows),
            "recentRestarts": actors.as_ref().map(|it| it.supervisor.recent_restarts),
            "frames": totals.frames,
            "held": {"bytes": totals.frames.held, "budget": totals.frames_budget},
            "requests": {"bytes": totals.request_bytes, "budget": totals.request_budget},
            "crashes": totals.crashes,
            "pools": {"task": totals.task_pool, "session": totals.session_pool},
        })
    }

    fn session(&self, id: &str) -> Value {
        let Some(session) = sessions::find(&self.engine, id) else { return Value::Null };
        let calls = self.engine.calls().into_iter();
        let calls = calls.filter(|it| it.call.session.as_ref() == Some(session.id()));
        let calls: Vec<_> = calls
            .map(|it| {
                json!({
                    "call": it.call.id, "request": it.call.request.to_string(), "method": it.method,
                    "target": it.call.subject, "ageMs": millis(it.age),
                    "progress": self.lookout.progress(&self.engine, it.call.id.0),
                })
            })
            .collect();
        let followed = match session.history() {
            None => json!({"on": false, "entries": []}),
            Some(history) => json!({
                "on": true, "until": now() + history.seconds * 1_000,
                "capacity": history.capacity, "missed": history.missed, "entries": history.entries,
            }),
        };
        json!({"session": sessions::shown(&session.view()), "calls": calls, "followed": followed})
    }

    fn catalog(&self, principal: Option<String>) -> Value {
        let catalog = self.engine.catalog().snapshot();
        let identity = principal.filter(|it| !it.is_empty()).map(Identity::named);
        let mut definitions = self.engine.definitions_for(identity.as_ref());
        let more = definitions.len().saturating_sub(MAX_ITEMS);
        definitions.truncate(MAX_ITEMS);
        let items = definitions.into_iter().map(|definition| {
            let described: Value = serde_json::from_slice(&definition.json).unwrap_or_default();
            let conflict = catalog.conflicts().iter();
            let mut conflict =
                conflict.filter(|it| it.kind == definition.kind && it.key == definition.key);
            json!({
                "kind": noun(definition.kind), "key": definition.key, "title": described["title"],
                "description": described["description"], "nodes": [self.engine.node()],
                "restricted": definition.is_restricted(), "labels": definition.seen_by(),
                "scopes": definition.scopes().collect::<Vec<_>>(), "conflict": conflict.next(),
            })
        });
        json!({
            "revision": catalog.revision(), "items": items.collect::<Vec<_>>(), "more": more,
        })
    }

    #[cfg(not(feature = "events"))]
    fn events(&self) -> Value {
        json!({"absent": true})
    }

    #[cfg(feature = "events")]
    fn events(&self) -> Value {
        let Some(events) = &self.config.events else { return json!({"absent": true}) };
        let webhooks = events.webhooks();
        let types = events.types().into_iter().map(|it| {
            let of_type = webhooks.iter().filter(|webhook| webhook.event_type == it.name).count();
            json!({
                "name": it.name, "modes": it.modes, "webhooks": of_type,
                "streams": it.listeners.saturating_sub(of_type), "lag": it.lag,
                "log": {"entries": it.kept.0, "bytes": it.kept.1, "end": it.seen},
            })
        });
        let shown = webhooks.iter().take(MAX_LISTED).map(|it| {
            json!({
                "id": it.id, "type": it.event_type, "principal": it.principal, "url": it.origin,
                "state": if it.is_paused { "paused" } else { "active" }, "lastError": it.last_error,
                "lastDelivery": it.last_delivery.map(crate::clock::since_1970),
            })
        });
        json!({
            "types": types.collect::<Vec<_>>(),
            "webhooks": shown.collect::<Vec<_>>(),
            "more": webhooks.len().saturating_sub(MAX_LISTED),
        })
    }

    fn tasks(&self) -> Value {
        let tasks = self.engine.tasks();
        let shown = tasks.iter().take(MAX_LISTED).map(|it| {
            json!({
                // Whoever knows the whole id may read the task of a stranger.
                "id": loggable(it.id.as_str()), "status": it.status, "method": "tools/call",
                "target": it.tool, "ageMs": now().saturating_sub(it.created_at),
                "principal": it.principal, "message": it.message,
            })
        });
        let more = tasks.len().saturating_sub(MAX_LISTED);
        json!({"tasks": shown.collect::<Vec<_>>(), "more": more})
    }
}

fn noun(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Tools => "tool",
        ItemKind::Resources => "resource",
        ItemKind::Templates => "template",
        ItemKind::Prompts => "prompt",
    }
}

/// The memory of this process in bytes, where `/proc` says it.
async fn resident() -> Option<usize> {
    let read = || std::fs::read_to_string("/proc/self/status").ok();
    let status = tokio::task::spawn_blocking(read).await.ok().flatten()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}
