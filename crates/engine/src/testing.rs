//! For tests and demonstrations: kills actors, and checks what a store has to do.

mod sessions;

use ractor::ActorCell;
pub use stentor_delivery::testing::{
    event_store_keeps_its_contract, event_store_outlives_its_process,
};
use stentor_wire::TaskStatus;

use crate::call::TaskMsg;
use crate::engine::Engine;
use crate::ids::{SessionId, TaskId};
use crate::reasons::Stopped;
use crate::session::Session;
use crate::tasks::{TaskRecord, TaskStore};
pub use sessions::{SharedStore, session_record, session_store_keeps_its_contract};

/// An actor of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultTarget {
    /// The registry.
    Registry,
    /// The hub.
    Hub,
    /// All task actors, and with them the calls that they run.
    TaskActors,
    /// A session.
    Session(SessionId),
}

/// Kills an actor in the middle of its work, as a bug would, and waits until it has ended.
///
/// A session that is passive is activated for this.
///
/// # Errors
///
/// [`Stopped`] if there is no such actor.
pub async fn kill(engine: &Engine, target: FaultTarget) -> Result<(), Stopped> {
    let cells = find(engine, &target).await.filter(|cells| !cells.is_empty()).ok_or(Stopped)?;
    for cell in cells {
        cell.kill_and_wait(None).await.map_err(|_| Stopped)?;
    }
    Ok(())
}

async fn find(engine: &Engine, target: &FaultTarget) -> Option<Vec<ActorCell>> {
    let core = engine.core();
    let cell = match target {
        FaultTarget::Registry => core.registry.actor()?.get_cell(),
        FaultTarget::Hub => core.hub.actor()?.get_cell(),
        FaultTarget::TaskActors => {
            let mut children = engine.supervisor_cell().get_children();
            children.retain(|child| child.is_message_type_of::<TaskMsg>() == Some(true));
            return Some(children);
        }
        FaultTarget::Session(id) => {
            let session = core.sessions.directory.get(id.as_str())?;
            Session::new(core.sessions.clone(), session.clone()).actor().await?;
            session.kill_actor()?.get_cell()
        }
    };
    Some(vec![cell])
}

/// A running task, for tests of stores.
#[must_use]
pub fn task_record(id: &str) -> TaskRecord {
    TaskRecord {
        id: TaskId::new(id),
        owner: Some("ann".into()),
        tool: "work".to_owned(),
        arguments: serde_json::json!({"b": 1, "a": 2.5}),
        capabilities: serde_json::json!({}),
        status: TaskStatus::Working,
        message: Some("half way".to_owned()),
        created_at: 1_000,
        updated_at: 2_000,
        ttl_ms: Some(10_000),
        poll_interval_ms: 100,
        checkpoint: None,
        version: 1,
    }
}

/// Checks what every [`TaskStore`] has to do: return the last record of a task, unchanged to the
/// byte, list the tasks that have not ended, and remove expired tasks and no others. The store must
/// be empty.
///
/// # Panics
///
/// If the store does not do it.
pub async fn task_store_keeps_its_contract(store: &dyn TaskStore) {
    let json = |task: &TaskRecord| serde_json::to_string(task).expect("a task is JSON");
    let (one, other) = (task_record("one"), task_record("other"));
    assert!(store.get(&one.id).await.expect("it works").is_none(), "an empty store has nothing");
    assert!(store.unfinished().await.expect("it works").is_empty());

    store.put(one.clone()).await.expect("there is room");
    store.put(other.clone()).await.expect("there is room");
    let found = store.get(&one.id).await.expect("it works").expect("it was put");
    assert_eq!(json(&found), json(&one));
    assert_eq!(store.unfinished().await.expect("it works").len(), 2);

    let result = serde_json::value::RawValue::from_string(r#"{"z":1,"a":2.50}"#.to_owned());
    let status = TaskStatus::Completed { result: result.expect("JSON") };
    let done = TaskRecord { status, checkpoint: Some(7.into()), version: 2, ..one.clone() };
    store.put(done.clone()).await.expect("there is room");
    let found = store.get(&one.id).await.expect("it works").expect("it was put");
    assert_eq!(json(&found), json(&done), "the last one counts, to the letter");
    let unfinished = store.unfinished().await.expect("it works");
    assert_eq!(unfinished.iter().map(json).collect::<Vec<_>>(), [json(&other)]);

    let forever = TaskRecord { ttl_ms: None, ..task_record("forever") };
    let later = TaskRecord { ttl_ms: Some(20_000), ..task_record("later") };
    store.put(forever.clone()).await.expect("there is room");
    store.put(later.clone()).await.expect("there is room");
    assert_eq!(store.sweep(10_999).await.expect("it works"), 0, "nothing has expired");
    assert_eq!(store.sweep(11_000).await.expect("it works"), 2);
    assert!(store.get(&one.id).await.expect("it works").is_none());
    assert!(store.get(&other.id).await.expect("it works").is_none());
    assert!(store.get(&later.id).await.expect("it works").is_some());
    store.put(other.clone()).await.expect("there is room");
    store.forget(&other.id).await.expect("it works");
    store.forget(&other.id).await.expect("that it is gone is no error");
    let unfinished = store.unfinished().await.expect("it works");
    assert!(unfinished.iter().all(|task| task.id != other.id), "it runs no more");
    let kept = store.get(&other.id).await.expect("it works");
    assert!(kept.is_none_or(|task| task.is_expired(0)), "it is forgotten, or is to be");
    store.sweep(0).await.expect("it works");
    assert!(store.get(&other.id).await.expect("it works").is_none());

    assert_eq!(store.sweep(u64::MAX).await.expect("it works"), 1);
    assert!(store.get(&forever.id).await.expect("it works").is_some(), "it is kept for ever");
}

/// A sender whose principal has this name.
#[must_use]
pub fn sent_by(principal: &str) -> crate::transport_api::RequestSender {
    crate::transport_api::RequestSender::known(crate::identity::Identity::named(principal))
}
