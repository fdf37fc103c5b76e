//! Facts for the tests, and what is read back from a follower.

use bytes::Bytes;
use serde_json::json;
use stentor_engine::remote::{Definition, Fact, WatchState};
use stentor_engine::{Audience, ItemKind, Topic};

use crate::replication_log::{Follower, ReplicationLimits};

pub(super) const LARGE: ReplicationLimits =
    ReplicationLimits { removals: 1000, topics: 1000, notes: 1000, note_bytes: 1 << 20 };

pub(super) fn tool(name: usize, version: usize) -> Definition {
    let json = Bytes::from(format!(r#"{{"name":"tool-{name}","version":{version}}}"#));
    Definition::new(ItemKind::Tools, format!("tool-{name}"), name as u64, json)
}

pub(super) fn topic(name: usize) -> Topic {
    Topic::Resource(format!("a://{name}").into())
}

pub(super) fn changed(name: usize) -> Fact {
    Fact::Changed(topic(name))
}

pub(super) fn watch(name: usize, running: Option<bool>) -> Fact {
    let state = WatchState { watched: running.is_some(), running: running == Some(true) };
    Fact::Watch(format!("a://{name}").into(), state)
}

pub(super) fn note(number: u64) -> Fact {
    let params = Some(json!({ "number": number }));
    Fact::Notify { audience: Audience::all(), method: "notifications/note".into(), params }
}

pub(super) fn number(fact: &Fact) -> Option<u64> {
    match fact {
        Fact::Notify { params: Some(params), .. } => params["number"].as_u64(),
        _ => None,
    }
}

pub(super) fn offers(follower: &Follower) -> Vec<Definition> {
    follower.definitions().cloned().collect()
}
