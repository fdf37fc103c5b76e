//! What a session store has to do, and a store that the engines of one process share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all, ready};
use parking_lot::Mutex;
use stentor_delivery::policy::Retention;
use stentor_delivery::{Delivered, EventLog, EventStore, MemoryEventStore, Reopened, Replay};

use crate::identity::Owner;
use crate::ids::{NodeId, Seq, SessionId, StreamId};
use crate::session::{SessionRecord, SessionStore, SessionStoreError, TakeOver};

/// Keeps sessions and their streams for several engines of one process, like a store that nodes
/// share.
#[derive(Clone, Debug, Default)]
pub struct SharedStore {
    sessions: Arc<Mutex<HashMap<SessionId, (NodeId, SessionRecord)>>>,
    streams: Streams,
}

type Streams = Arc<Mutex<HashMap<(SessionId, StreamId), KeptStream>>>;

#[derive(Debug)]
struct KeptStream {
    log: Box<dyn EventLog>,
    last: Option<Delivered>,
}

impl SharedStore {
    /// The stored sessions, and the nodes that have them.
    #[must_use]
    pub fn owners(&self) -> HashMap<SessionId, NodeId> {
        let sessions = self.sessions.lock();
        sessions.iter().map(|(id, (node, _))| (id.clone(), node.clone())).collect()
    }

    /// The stored record of a session.
    #[must_use]
    pub fn session(&self, session: &SessionId) -> Option<SessionRecord> {
        self.sessions.lock().get(session).map(|(_, record)| record.clone())
    }

    /// The stored streams of a session.
    #[must_use]
    pub fn streams(&self, session: &SessionId) -> Vec<StreamId> {
        let streams = self.streams.lock();
        streams.keys().filter(|(of, _)| of == session).map(|(_, stream)| *stream).collect()
    }

    /// Removes a stream, as if its node had died before it wrote anything.
    pub fn forget_stream(&self, session: &SessionId, stream: StreamId) {
        self.streams.lock().remove(&(session.clone(), stream));
    }

    fn keep(&self, node: &NodeId, session: &SessionRecord) -> bool {
        let mut sessions = self.sessions.lock();
        let known = sessions.get(session.id());
        let keeps = known.is_none_or(|(owner, known)| {
            known.moves() < session.moves() || (known.moves() == session.moves() && owner == node)
        });
        if keeps {
            sessions.insert(session.id().clone(), (node.clone(), session.clone()));
        }
        keeps
    }

    fn give(&self, session: &SessionId, owner: &Owner, from: &NodeId, by: &NodeId) -> TakeOver {
        match self.sessions.lock().get_mut(session) {
            Some((_, record)) if record.owner() != owner => TakeOver::Unknown,
            Some((node, record)) if node == from => {
                *node = by.clone();
                let moves = record.moves() + 1;
                *record = record.clone().with_moves(moves);
                TakeOver::Given(Box::new(record.clone()))
            }
            Some((node, _)) => TakeOver::Held(node.clone()),
            None => TakeOver::Unknown,
        }
    }

    fn forget(&self, node: &NodeId, session: &SessionId) {
        let mut sessions = self.sessions.lock();
        if sessions.get(session).is_some_and(|(owner, _)| owner == node) {
            sessions.remove(session);
        }
    }
}

impl SessionStore for SharedStore {
    fn save<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionRecord,
        _keep_for: Duration,
    ) -> BoxFuture<'a, Result<bool, SessionStoreError>> {
        Box::pin(ready(Ok(self.keep(node, session))))
    }

    fn take_over<'a>(
        &'a self,
        session: &'a SessionId,
        owner: &'a Owner,
        from: &'a NodeId,
        by: &'a NodeId,
    ) -> BoxFuture<'a, Result<TakeOver, SessionStoreError>> {
        Box::pin(ready(Ok(self.give(session, owner, from, by))))
    }

    fn remove<'a>(
        &'a self,
        node: &'a NodeId,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), SessionStoreError>> {
        self.forget(node, session);
        Box::pin(ready(Ok(())))
    }
}

impl EventStore for SharedStore {
    fn open(
        &self,
        session: &SessionId,
        stream: StreamId,
        retention: Retention,
    ) -> Box<dyn EventLog> {
        let (key, log) =
            ((session.clone(), stream), MemoryEventStore.open(session, stream, retention));
        self.streams.lock().insert(key.clone(), KeptStream { log, last: None });
        Box::new(SharedLog { key, streams: self.streams.clone(), left: false })
    }

    fn reopen<'a>(
        &'a self,
        session: &'a SessionId,
        stream: StreamId,
        _retention: Retention,
    ) -> BoxFuture<'a, Option<Reopened>> {
        let key = (session.clone(), stream);
        let last = self.streams.lock().get(&key).and_then(|kept| kept.last.clone());
        let reopened = last.map(|Delivered { seq, class, .. }| Reopened {
            log: Box::new(SharedLog { key, streams: self.streams.clone(), left: false }),
            last: (seq, class),
        });
        Box::pin(ready(reopened))
    }
}

#[derive(Debug)]
struct SharedLog {
    key: (SessionId, StreamId),
    streams: Streams,
    left: bool,
}

impl SharedLog {
    fn with<T>(&self, then: impl FnOnce(&mut KeptStream) -> T) -> Option<T> {
        self.streams.lock().get_mut(&self.key).map(then)
    }
}

impl EventLog for SharedLog {
    fn append(&mut self, event: &Delivered) {
        self.with(|kept| {
            kept.log.append(event);
            kept.last = Some(event.clone());
        });
    }

    fn replay(&mut self, next: Seq) -> BoxFuture<'static, Replay> {
        let replay = self.with(|kept| kept.log.replay(next));
        let gone = || Box::pin(ready(Replay { events: Vec::new(), complete: false })) as _;
        replay.unwrap_or_else(gone)
    }

    fn held(&self) -> usize {
        self.with(|kept| kept.log.held()).unwrap_or_default()
    }

    fn trim(&mut self, retention: Retention) {
        self.with(|kept| kept.log.trim(retention));
    }

    fn leave(&mut self) {
        self.left = true;
    }
}

impl Drop for SharedLog {
    fn drop(&mut self) {
        if !self.left {
            self.streams.lock().remove(&self.key);
        }
    }
}

/// A session of a node, for tests of stores.
///
/// # Panics
///
/// Never, because the record is valid.
#[must_use]
pub fn session_record(node: &NodeId) -> SessionRecord {
    let id = crate::ids::new_session_id(node);
    let record = serde_json::json!({
        "id": id, "principal": "ann", "initialized": true, "watched": ["test://ä"],
        "next_stream": 3, "unanswered": [[2, "b"]], "moves": 0, "kept": [],
        "client": {
            "version": "2025-11-25", "client": {"name": "c", "version": "1"}, "capabilities": {},
            "session": id, "resumes": true, "level": "error",
        },
        "notices": {
            "stream": 0, "floor": 0, "past": [], "next": 0, "unread": [], "finished": false,
        },
    });
    serde_json::from_value(record).expect("a session")
}

/// Checks what every [`SessionStore`] has to do: give a session to one node at a time, as it was
/// saved last, only for its owner, and obey no other.
///
/// # Panics
///
/// If the store does not do it.
pub async fn session_store_keeps_its_contract(store: &dyn SessionStore) {
    let json = |record: &SessionRecord| serde_json::to_value(record).expect("a session is JSON");
    let node = |name: &str| NodeId::new(name).expect("a name");
    let keep_for = Duration::from_secs(60);
    let (one, two, three) = (node("one"), node("two"), node("three"));
    let (session, other) = (session_record(&one), session_record(&one));
    let id = session.id();
    let ann = session.owner();
    let owner = |principal: Option<&str>, oauth_client: Option<&str>| Owner {
        principal: principal.map(Into::into),
        oauth_client: oauth_client.map(Into::into),
    };
    let take_over = async |from: &NodeId, by: &NodeId| {
        store.take_over(id, ann, from, by).await.expect("it works")
    };
    let save = async |node: &NodeId, record: &SessionRecord| {
        store.save(node, record, keep_for).await.expect("it works")
    };
    let held =
        |take_over: TakeOver, by: &NodeId| matches!(take_over, TakeOver::Held(node) if node == *by);

    assert!(matches!(take_over(&one, &two).await, TakeOver::Unknown), "an empty store has nothing");
    assert!(save(&one, &session).await && save(&one, &other).await);
    let mut changed = json(&session);
    changed["watched"] = serde_json::json!(["test://ä", "b"]);
    let changed = serde_json::from_value(changed).expect("a session");
    assert!(save(&one, &changed).await, "the node that has it saves it again");

    for stranger in [None, Some(""), Some("bob"), Some("Ann"), Some("ann "), Some("a"), Some("änn")]
    {
        for from in [&one, &two] {
            for client in [None, Some("editor")] {
                let stranger = owner(stranger, client);
                let answer = store.take_over(id, &stranger, from, &two).await.expect("it works");
                assert!(matches!(answer, TakeOver::Unknown), "it is not there for {stranger:?}");
            }
        }
    }
    let client = owner(Some("ann"), Some("editor"));
    let answer = store.take_over(id, &client, &one, &two).await.expect("it works");
    assert!(matches!(answer, TakeOver::Unknown), "another client of hers is somebody else");
    assert!(held(take_over(&two, &two).await, &one), "two does not have it");
    let TakeOver::Given(given) = take_over(&one, &two).await else { panic!("one has it") };
    assert_eq!(json(&given), json(&changed.clone().with_moves(1)), "as it was saved last");
    assert!(held(take_over(&one, &three).await, &two), "it is given once");

    assert!(!save(&one, &changed).await, "one does not have it any more");
    store.remove(&one, id).await.expect("it works");
    let TakeOver::Given(given) = take_over(&two, &two).await else { panic!("two still has it") };
    assert_eq!(given.moves(), 2, "it moves with each claim");
    assert!(!save(&three, &given).await, "nobody else has it after as many moves");
    assert!(save(&three, &given.clone().with_moves(3)).await, "it has migrated");
    assert!(!save(&two, &given).await);
    assert!(held(take_over(&two, &two).await, &three));

    let many: Vec<_> = (0..16).map(|index| node(&format!("n{index}"))).collect();
    let claims = join_all(many.iter().map(|by| take_over(&three, by))).await;
    let given = claims.iter().filter(|take_over| matches!(take_over, TakeOver::Given(_))).count();
    assert_eq!(given, 1, "of many who claim it at once one gets it");
    let winner = claims.iter().position(|take_over| matches!(take_over, TakeOver::Given(_)));
    let winner = &many[winner.expect("one")];
    assert!(
        claims
            .into_iter()
            .all(|take_over| matches!(take_over, TakeOver::Given(_)) || held(take_over, winner))
    );

    store.remove(winner, id).await.expect("it works");
    assert!(matches!(take_over(winner, &one).await, TakeOver::Unknown), "it is forgotten");
    let rest = store.take_over(other.id(), ann, &one, &two).await.expect("it works");
    assert!(matches!(rest, TakeOver::Given(_)), "and no other is");
    store.remove(&two, other.id()).await.expect("it works");

    // Principals and clients of any characters, and none at all.
    for principal in [None, Some(""), Some("0"), Some("null"), Some("a\"\\\u{1}\u{0}\n ü 語")] {
        let mut record = json(&session_record(&one));
        record["principal"] = principal.into();
        let record: SessionRecord = serde_json::from_value(record).expect("a session");
        let id = record.id();
        assert!(save(&one, &record).await);
        for stranger in [None, Some(""), Some("0"), Some("1"), Some("null"), Some("ann")] {
            for stranger in [owner(stranger, None), owner(stranger, Some(""))] {
                if stranger != *record.owner() {
                    let answer = store.take_over(id, &stranger, &one, &two).await;
                    let is_unknown = matches!(answer.expect("it works"), TakeOver::Unknown);
                    assert!(is_unknown, "{:?} is not {stranger:?}", record.owner());
                }
            }
        }
        let own = store.take_over(id, record.owner(), &one, &two).await.expect("it works");
        assert!(matches!(own, TakeOver::Given(_)), "{principal:?} is itself");
        store.remove(&two, id).await.expect("it works");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shared_store_keeps_the_contracts() {
        let store = SharedStore::default();
        session_store_keeps_its_contract(&store).await;
        assert!(store.owners().is_empty());
        crate::testing::event_store_keeps_its_contract(&store).await;
        crate::testing::event_store_outlives_its_process(&store, &store.clone()).await;
    }
}
