//! Sends one other node what it lacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use stentor_engine::Engine;
use tokio::time::{Instant, sleep, timeout_at};

use super::message::{Appended, Have, Known, PeerMessage};
use super::watching::{self, look_at_members};
use super::{Peer, ask};
use crate::cursor::Cursor;
use crate::log::{Position, Step};
use crate::running::RunningType;
use crate::shared::Shared;
use crate::store::StoredOccurrence;

/// How often logs are compared.
const COMPARE: Duration = Duration::from_secs(2);
/// The pause after a node did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// The most occurrences in one message, and about how many bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 512 << 10;

/// Where this node stands in sending one type.
struct Sending {
    running: Arc<RunningType>,
    position: Position,
    /// Up to this index what others have emitted is sent, too: the node may lack it.
    all_until: u64,
}

/// Feeds a node as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    while let Some(engine) = shared.engine.load_full() {
        if round(&shared, &engine, &peer).await.is_none() {
            watching::lost(&peer);
            sleep(PAUSE).await;
        }
    }
}

/// Compares logs, then sends what is new for a while. `None` if the node does not answer.
async fn round(shared: &Shared, engine: &Engine, peer: &Peer) -> Option<()> {
    let all = shared.all();
    let hello = PeerMessage::Hello { node: engine.node().clone(), have: Have::here(shared) };
    let have: Have = serde_json::from_slice(&ask(engine, &peer.node, &hello).await?).ok()?;
    if shared.peers.learn(&peer.node, &have) {
        shared.webhooks.take_over(shared, Some(&peer.node));
        watching::forget(shared, std::slice::from_ref(&peer.node));
    }
    have.note(shared);
    look_at_members(shared);
    if !peer.state.lock().has_webhooks {
        for message in shared.webhooks.messages(engine.node()) {
            ask(engine, &peer.node, &message).await?;
        }
        peer.state.lock().has_webhooks = true;
    }
    let mut sending = compare(&all, &have.types);
    note(peer, &sending);
    shared.peers.compared();
    let until = Instant::now() + COMPARE;
    loop {
        // Before the logs are looked at, so that nothing is missed in between.
        let grown = shared.peers.grown.notified();
        watching::tell(shared, engine, peer).await?;
        // Each type is the first one in its turn.
        if !sending.is_empty() {
            sending.rotate_left(1);
        }
        let (batch, sent) = collect(&mut sending);
        if batch.is_empty() {
            if Instant::now() >= until || timeout_at(until, grown).await.is_err() {
                return Some(());
            }
            continue;
        }
        let appended = ask(engine, &peer.node, &PeerMessage::Append(batch)).await?;
        if serde_json::from_slice::<Appended>(&appended).is_ok_and(|it| it.refused) {
            // What has to come before it is on its way.
            sleep(PAUSE).await;
            return Some(());
        }
        {
            let mut state = peer.state.lock();
            state.has.extend(sent);
            state.lags = false;
        }
        shared.peers.moved.notify_waiters();
        if Instant::now() >= until {
            return Some(());
        }
    }
}

/// Where the node stands in each type that both have.
fn compare(all: &[Arc<RunningType>], have: &BTreeMap<Arc<str>, Vec<Known>>) -> Vec<Sending> {
    let both = all.iter().filter_map(|running| Some((running, have.get(&running.name())?)));
    let sending = both.map(|(running, known)| {
        let log = running.log.lock();
        let mut cursor = Cursor::default();
        for known in known {
            cursor.pass(&known.origin(), known.last);
        }
        let (position, all_until) = (log.behind(&cursor), log.end_index());
        Sending { running: running.clone(), position, all_until }
    });
    sending.collect()
}

fn note(peer: &Peer, sending: &[Sending]) {
    let mut state = peer.state.lock();
    let has = sending.iter().map(|it| {
        (it.running.name(), it.position.seen.get(it.running.origin()).unwrap_or_default())
    });
    state.has = has.collect();
}

/// What is to be sent next, and by type the number up to which the node has what was emitted here then.
fn collect(sending: &mut [Sending]) -> (Vec<StoredOccurrence>, HashMap<Arc<str>, u64>) {
    let (mut batch, mut bytes, mut sent) = (Vec::new(), 0, HashMap::default());
    for one in sending {
        let own = one.running.origin();
        let log = one.running.log.lock();
        let mut after_gap = false;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            match log.step(&mut one.position) {
                Step::Entry(entry)
                    if entry.origin == *own || one.position.index <= one.all_until =>
                {
                    let stored = StoredOccurrence::of(&entry.origin, entry.seq, &entry.occurrence);
                    let is_first = after_gap || log.is_first_kept(&entry.origin, entry.seq);
                    after_gap = false;
                    if entry.origin == *own {
                        sent.insert(one.running.name(), entry.seq);
                    }
                    bytes += entry.occurrence.data.len();
                    batch.extend(stored.map(|stored| stored.first_kept(is_first)));
                }
                // Who emitted it sends it.
                Step::Entry(_) => {}
                Step::Gap => after_gap = true,
                Step::End => break,
            }
        }
    }
    (batch, sent)
}
