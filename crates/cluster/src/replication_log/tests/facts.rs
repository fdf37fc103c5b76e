//! Facts for the tests, and what is read back from a follower.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use stentor_engine::remote::{Definition, Fact, Revocation, WatchState};
use stentor_engine::{Audience, ItemKind, Topic};

use crate::replication_log::{Follower, ReplicationLimits, Update};

pub(super) const LARGE: ReplicationLimits =
    ReplicationLimits { removals: 1000, topics: 1000, notes: 1000, note_bytes: 1 << 20 };

pub(super) fn tool(name: usize, version: usize) -> Definition {
    let json = Bytes::from(format!(r#"{{"name":"tool-{name}","version":{version}}}"#));
    Definition::new(ItemKind::Tools, format!("tool-{name}"), name as u64, json)
}

/// A tool that only some clients see.
pub(super) fn restricted(name: usize, label: &str) -> Definition {
    let mut tool = serde_json::to_value(tool(name, 0)).unwrap();
    tool["access"] = json!({"rule": [[{ "label": label }]]});
    let tool: Definition = serde_json::from_value(tool).unwrap();
    assert!(tool.is_restricted());
    tool
}

/// That a principal is locked out until this second; or not any more.
pub(super) fn revoked(principal: &str, until: Option<u64>) -> Fact {
    let revocation = |secs| Revocation {
        until: SystemTime::UNIX_EPOCH + Duration::from_secs(secs),
        cancel_calls: true,
    };
    Fact::Revoked(principal.into(), until.map(revocation))
}

/// What a node of a release without rules reads of an update.
pub(super) fn as_older_release(mut update: Update) -> Update {
    update.facts.retain(|fact| {
        !matches!(fact, Fact::PutRestricted(_) | Fact::Refresh(_) | Fact::Revoked(..))
    });
    update
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
