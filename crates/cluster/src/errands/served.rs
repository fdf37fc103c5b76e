//! The errands that this node is on for others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stentor_engine::peers::{Errand, Said, Serving};
use stentor_engine::port::Refused;
use stentor_engine::{Engine, NodeId};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::is_request;
use super::room::Room;
use crate::frame::Frame;
use crate::mesh::{Receipt, SendError};
use crate::post::Post;

/// Answers to questions of one errand that may wait to be handed in.
const ANSWERS: usize = 16;

/// The errands that this node is on for others, by who asked and their number there.
#[derive(Debug)]
pub(crate) struct Served {
    open: Mutex<HashMap<(NodeId, u64), Open>>,
    max: usize,
}

#[derive(Debug)]
struct Open {
    /// How much more may be said.
    room: Arc<Room>,
    answers: mpsc::Sender<Response>,
    is_request: bool,
    _called_off: DropGuard,
}

impl Served {
    /// `max` may be under way at once.
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Mutex::default(), max }
    }

    /// Goes on an errand.
    pub(crate) fn begin(
        self: &Arc<Self>,
        engine: &Engine,
        post: &Post,
        from: &NodeId,
        number: u64,
        (errand, receipt): (Errand, Receipt),
    ) {
        let (room, called_off) = (Arc::new(Room::default()), CancellationToken::new());
        let (answers, answered) = mpsc::channel(ANSWERS);
        let key = (from.clone(), number);
        {
            let mut open = self.open.lock();
            if open.len() >= self.max {
                let refused = Said::Refused(Refused::TooManyRequests);
                return post.soon(from, Frame::Said(number, refused));
            }
            let guard = called_off.clone().drop_guard();
            open.insert(
                key.clone(),
                Open {
                    room: room.clone(),
                    answers,
                    is_request: is_request(&errand),
                    _called_off: guard,
                },
            );
        }
        let (served, engine, post) = (self.clone(), engine.clone(), post.clone());
        tokio::spawn(async move {
            let run = async {
                let serving = engine.serve_peer(errand).await;
                // Until here it waits in this node's memory.
                drop(receipt);
                run(serving, &post, &key, &room, answered).await;
            };
            // What is under way is dropped with it, which is how its code learns.
            let _ = called_off.run_until_cancelled(run).await;
            served.open.lock().remove(&key);
        });
    }

    /// So much that was said was taken in.
    pub(crate) fn took(&self, from: &NodeId, number: u64, count: usize) {
        if let Some(open) = self.open.lock().get(&(from.clone(), number)) {
            open.room.took(count);
        }
    }

    /// A client answers.
    pub(crate) fn answer(&self, from: &NodeId, number: u64, message: &bytes::Bytes) {
        if let Ok(Message::Response(response)) = Message::decode(message)
            && let Some(open) = self.open.lock().get(&(from.clone(), number))
        {
            // More than that at once are no answers to questions.
            let _ = open.answers.try_send(response);
        }
    }

    /// An errand is called off.
    pub(crate) fn hang_up(&self, from: &NodeId, number: u64) {
        self.open.lock().remove(&(from.clone(), number));
    }

    /// There is no link to a node any more: nobody waits for what it asked.
    pub(crate) fn lost(&self, node: &NodeId) {
        self.open.lock().retain(|(from, _), _| from != node);
    }

    /// Those under way that come to an end by themselves.
    pub(crate) fn requests(&self) -> HashSet<(NodeId, u64)> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.is_request).map(|(key, _)| key.clone()).collect()
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

/// Says what comes of an errand, as fast as it is taken in.
async fn run(
    mut serving: Serving,
    post: &Post,
    (node, number): &(NodeId, u64),
    room: &Room,
    mut answered: mpsc::Receiver<Response>,
) {
    loop {
        tokio::select! {
            () = room.wait() => {
                let said = tokio::select! {
                    said = serving.next() => said,
                    Some(response) = answered.recv() => {
                        serving.client_answers(response);
                        continue;
                    }
                };
                let Some(said) = said else { return };
                let mut frame = Frame::Said(*number, said);
                loop {
                    if let Some(bytes) = frame.encode() {
                        // Before it is on its way: it may be taken in at once.
                        room.said(bytes.len());
                        match post.wait_encoded(node, &bytes).await {
                            Ok(()) => break,
                            Err(SendError::TooLarge) => room.unsaid(),
                            Err(_) => return,
                        }
                    }
                    let Frame::Said(_, said) = &mut frame else { return };
                    if !said.leave_out_largest() {
                        return;
                    }
                }
            }
            Some(response) = answered.recv() => serving.client_answers(response),
        }
    }
}
