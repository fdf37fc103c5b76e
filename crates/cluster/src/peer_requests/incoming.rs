//! The peer requests that this node serves for others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use stentor_engine::remote::{PeerEvent, PeerRequest, PeerResponse};
use stentor_engine::transport_api::Refused;
use stentor_engine::{Engine, NodeId};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::request::is_request;
use super::window::SendWindow;
use crate::mesh::{Receipt, SendError};
use crate::message_sender::MessageSender;
use crate::node_message::NodeMessage;

/// Answers to questions of one peer request that may wait to be delivered.
const MAX_PENDING_ANSWERS: usize = 16;

/// The peer requests that this node serves, by the requesting node and its number for the request.
#[derive(Debug)]
pub(crate) struct IncomingRequests {
    open: Mutex<HashMap<(NodeId, u64), OpenRequest>>,
    max: usize,
}

#[derive(Debug)]
struct OpenRequest {
    window: Arc<SendWindow>,
    answers: mpsc::Sender<Response>,
    is_request: bool,
    _cancel_on_drop: DropGuard,
}

impl IncomingRequests {
    /// `max` is how many may run at once.
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Mutex::default(), max }
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        engine: &Engine,
        sender: &MessageSender,
        from: &NodeId,
        number: u64,
        (peer_request, receipt): (PeerRequest, Receipt),
    ) {
        let (window, cancel) = (Arc::new(SendWindow::default()), CancellationToken::new());
        let (answers, answered) = mpsc::channel(MAX_PENDING_ANSWERS);
        let key = (from.clone(), number);
        {
            let mut open = self.open.lock();
            if open.len() >= self.max {
                let refused = PeerEvent::Refused(Refused::TooManyRequests);
                return sender.send_soon(from, NodeMessage::Event(number, refused));
            }
            let guard = cancel.clone().drop_guard();
            open.insert(
                key.clone(),
                OpenRequest {
                    window: window.clone(),
                    answers,
                    is_request: is_request(&peer_request),
                    _cancel_on_drop: guard,
                },
            );
        }
        let (incoming, engine, sender) = (self.clone(), engine.clone(), sender.clone());
        tokio::spawn(async move {
            let run = async {
                let peer_response = engine.serve_peer(peer_request).await;
                // Until here the request waits in this node's memory, so it counts against the
                // link's window.
                drop(receipt);
                run(peer_response, &sender, &key, &window, answered).await;
            };
            // When cancelled, the future is dropped, which cancels the call's code.
            let _ = cancel.run_until_cancelled(run).await;
            incoming.open.lock().remove(&key);
        });
    }

    /// The requesting node has read `count` events.
    pub(crate) fn on_took(&self, from: &NodeId, number: u64, count: usize) {
        if let Some(open) = self.open.lock().get(&(from.clone(), number)) {
            open.window.acknowledge(count);
        }
    }

    pub(crate) fn on_answer(&self, from: &NodeId, number: u64, message: &bytes::Bytes) {
        if let Ok(Message::Response(response)) = Message::decode(message)
            && let Some(open) = self.open.lock().get(&(from.clone(), number))
        {
            // When the channel is full, the message cannot be an answer to a question.
            let _ = open.answers.try_send(response);
        }
    }

    pub(crate) fn cancel(&self, from: &NodeId, number: u64) {
        self.open.lock().remove(&(from.clone(), number));
    }

    /// The link to a node has ended: its requests are cancelled.
    pub(crate) fn on_link_lost(&self, node: &NodeId) {
        self.open.lock().retain(|(from, _), _| from != node);
    }

    /// The running requests that end by themselves.
    pub(crate) fn requests(&self) -> HashSet<(NodeId, u64)> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.is_request).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

/// Sends the events of a peer request, as fast as the window allows.
async fn run(
    mut peer_response: PeerResponse,
    sender: &MessageSender,
    (node, number): &(NodeId, u64),
    window: &SendWindow,
    mut answered: mpsc::Receiver<Response>,
) {
    loop {
        tokio::select! {
            () = window.wait_for_space() => {
                let event = tokio::select! {
                    event = peer_response.next() => event,
                    Some(response) = answered.recv() => {
                        peer_response.client_answers(response);
                        continue;
                    }
                };
                let Some(event) = event else { return };
                let mut frame = NodeMessage::Event(*number, event);
                loop {
                    if let Some(bytes) = frame.encode() {
                        // Counted before sending: the event may be acknowledged at once.
                        window.sent(bytes.len());
                        match sender.send_encoded(node, &bytes).await {
                            Ok(()) => break,
                            Err(SendError::TooLarge) => window.undo_sent(),
                            Err(_) => return,
                        }
                    }
                    let NodeMessage::Event(_, event) = &mut frame else { return };
                    if !event.leave_out_largest() {
                        return;
                    }
                }
            }
            Some(response) = answered.recv() => peer_response.client_answers(response),
        }
    }
}
