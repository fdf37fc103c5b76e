//! Peer requests: those that this node sent to others, and those that it serves for others.
//!
//! A client's reading speed limits its own peer request only. The serving node sends no more than a
//! window (`window.rs`) beyond what the requesting node has acknowledged. So a slow client delays no
//! other request, and the memory for waiting events is bounded.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use stentor_engine::remote::{
    PeerEvent, PeerQuestions, PeerRequest, PeerStream, ResponseControl, SessionOp, Unreachable,
};
use stentor_engine::transport_api::Refused;
use stentor_engine::{Engine, NodeId};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::window::{ReceiveWindow, SendWindow, WINDOW};
use super::{MessageSender, NodeMessage};
use crate::mesh::{Receipt, SendError};

/// Whether a peer request ends by itself, unlike one that reads a stream of notices.
fn ends_by_itself(peer_request: &PeerRequest) -> bool {
    !matches!(
        peer_request,
        PeerRequest::Session {
            op: SessionOp::Attach | SessionOp::Resume(..) | SessionOp::ReadAgain(..),
            ..
        }
    )
}

/// The peer requests that this node sent to others, by their numbers.
#[derive(Debug)]
pub(super) struct OutgoingRequests {
    sender: MessageSender,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Outgoing>>,
}

#[derive(Debug)]
struct Outgoing {
    node: NodeId,
    events: mpsc::Sender<PeerEvent>,
    window: Arc<ReceiveWindow>,
    ends_by_itself: bool,
}

impl OutgoingRequests {
    pub(super) fn new(sender: MessageSender) -> Self {
        Self { sender, next: AtomicU64::default(), open: Mutex::default() }
    }

    pub(super) fn ask(
        self: &Arc<Self>,
        node: &NodeId,
        peer_request: PeerRequest,
    ) -> Result<PeerStream, Unreachable> {
        let (number, peer_stream) = self.register(node, &peer_request);
        let sent = self.sender.try_send(node, &NodeMessage::Request(number, peer_request));
        self.finish_ask(number, sent, peer_stream).map_err(|error| {
            stentor_engine::log!(debug, %node, %error, "a node cannot be asked");
            Unreachable(node.clone())
        })
    }

    /// As [`ask`](Self::ask), as soon as the window has space. Cancel safe: the request is sent or
    /// not.
    pub(super) async fn ask_when_space(
        self: &Arc<Self>,
        node: &NodeId,
        peer_request: PeerRequest,
    ) -> Result<PeerStream, SendError> {
        let (number, peer_stream) = self.register(node, &peer_request);
        let sent = self.sender.send(node, &NodeMessage::Request(number, peer_request)).await;
        self.finish_ask(number, sent, peer_stream)
    }

    /// Registers a peer request that is not sent yet.
    fn register(self: &Arc<Self>, node: &NodeId, peer_request: &PeerRequest) -> (u64, PeerStream) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::channel(WINDOW);
        let window = Arc::new(ReceiveWindow::default());
        let control =
            Control { requests: self.clone(), node: node.clone(), number, window: window.clone() };
        let (node, ends_by_itself) = (node.clone(), ends_by_itself(peer_request));
        self.open.lock().insert(number, Outgoing { node, events, window, ends_by_itself });
        // From here on, dropping the stream removes the request.
        (number, PeerStream::new(receiver, Box::new(control)))
    }

    fn finish_ask(
        &self,
        number: u64,
        sent: Result<(), SendError>,
        peer_stream: PeerStream,
    ) -> Result<PeerStream, SendError> {
        if sent.is_err() {
            // Removed here, so that no cancellation is sent for a request that was not sent.
            self.open.lock().remove(&number);
        }
        sent.map(|()| peer_stream)
    }

    /// A node sends an event of a request, which arrived in `bytes` bytes.
    pub(super) fn on_event(&self, from: &NodeId, number: u64, event: PeerEvent, bytes: usize) {
        let last = matches!(
            event,
            PeerEvent::Refused(_) | PeerEvent::Ended | PeerEvent::Frames { last: true, .. }
        );
        let mut open = self.open.lock();
        // Events of a cancelled request may still arrive.
        let Some(outgoing) = open.get(&number).filter(|it| it.node == *from) else { return };
        outgoing.window.received(bytes);
        let in_window = outgoing.events.try_send(event).is_ok();
        if last || !in_window {
            open.remove(&number);
        }
    }

    /// A node sends an event that this release does not know: the request fails.
    pub(super) fn on_unknown_event(&self, from: &NodeId, number: u64) {
        let mut open = self.open.lock();
        if open.get(&number).is_some_and(|it| it.node == *from) {
            open.remove(&number);
        }
    }

    /// The link to a node has ended: the requests to it fail.
    pub(super) fn on_link_lost(&self, node: &NodeId) {
        self.open.lock().retain(|_, it| it.node != *node);
    }

    /// The running requests that end by themselves.
    pub(super) fn requests(&self) -> HashSet<u64> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.ends_by_itself).map(|(number, _)| *number).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

/// The channel back to the node that serves a request.
struct Control {
    requests: Arc<OutgoingRequests>,
    node: NodeId,
    number: u64,
    window: Arc<ReceiveWindow>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("node", &self.node).field("number", &self.number).finish()
    }
}

impl ResponseControl for Control {
    fn took(&self, count: usize) {
        if let Some(count) = self.window.read(count) {
            self.requests
                .sender
                .send_soon(&self.node, NodeMessage::Acknowledge(self.number, count));
        }
    }

    fn answer(&self, response: Response) {
        let message = Message::Response(response).encode();
        self.requests.sender.send_soon(&self.node, NodeMessage::Answer(self.number, message));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let open = self.requests.open.lock().remove(&self.number).is_some();
        if open {
            self.requests.sender.send_soon(&self.node, NodeMessage::Cancel(self.number));
        }
    }
}

/// The peer requests that this node serves, by the requesting node and its number for the request.
#[derive(Debug)]
pub(super) struct IncomingRequests {
    engine: Engine,
    sender: MessageSender,
    /// How many may run at once.
    max: usize,
    open: Mutex<HashMap<(NodeId, u64), Incoming>>,
}

#[derive(Debug)]
struct Incoming {
    window: Arc<SendWindow>,
    /// Set once the request has begun.
    questions: PeerQuestions,
    ends_by_itself: bool,
    _cancel_on_drop: DropGuard,
}

impl IncomingRequests {
    pub(super) fn new(engine: Engine, sender: MessageSender, max: usize) -> Self {
        Self { engine, sender, max, open: Mutex::default() }
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        from: &NodeId,
        number: u64,
        peer_request: PeerRequest,
        receipt: Receipt,
    ) {
        let (window, cancel) = (Arc::new(SendWindow::default()), CancellationToken::new());
        let incoming = Incoming {
            window: window.clone(),
            questions: PeerQuestions::default(),
            ends_by_itself: ends_by_itself(&peer_request),
            _cancel_on_drop: cancel.clone().drop_guard(),
        };
        let key = (from.clone(), number);
        {
            let mut open = self.open.lock();
            if open.len() >= self.max {
                let refused = PeerEvent::Refused(Refused::TooManyRequests);
                return self.sender.send_soon(from, NodeMessage::Event(number, refused));
            }
            open.insert(key.clone(), incoming);
        }
        let this = self.clone();
        tokio::spawn(async move {
            let serve = this.serve(&key, peer_request, receipt, &window);
            // When cancelled, the future is dropped, which cancels the call's code.
            let _ = cancel.run_until_cancelled(serve).await;
            this.open.lock().remove(&key);
        });
    }

    /// Sends the events of a peer request, as fast as the window allows.
    async fn serve(
        &self,
        key: &(NodeId, u64),
        peer_request: PeerRequest,
        receipt: Receipt,
        window: &SendWindow,
    ) {
        let mut peer_response = self.engine.serve_peer(peer_request).await;
        // Until here the request waits in this node's memory, so it counts against the link's
        // window.
        drop(receipt);
        if let Some(open) = self.open.lock().get_mut(key) {
            open.questions = peer_response.questions();
        }
        loop {
            window.wait_for_space().await;
            let Some(event) = peer_response.next().await else { return };
            if self.send(key, event, window).await.is_none() {
                return;
            }
        }
    }

    /// Sends an event, without its largest frames if it is too large. `None` if that fails.
    async fn send(
        &self,
        (node, number): &(NodeId, u64),
        event: PeerEvent,
        window: &SendWindow,
    ) -> Option<()> {
        let mut message = NodeMessage::Event(*number, event);
        loop {
            if let Some(bytes) = message.encode() {
                // Counted before sending: the event may be acknowledged at once.
                window.sent(bytes.len());
                match self.sender.send_encoded(node, &bytes).await {
                    Ok(()) => return Some(()),
                    Err(SendError::TooLarge) => window.undo_sent(),
                    Err(_) => return None,
                }
            }
            let NodeMessage::Event(_, event) = &mut message else { return None };
            if !event.leave_out_largest() {
                return None;
            }
        }
    }

    /// The requesting node has read `count` events.
    pub(super) fn on_took(&self, from: &NodeId, number: u64, count: usize) {
        if let Some(open) = self.open.lock().get(&(from.clone(), number)) {
            open.window.acknowledge(count);
        }
    }

    pub(super) fn on_answer(&self, from: &NodeId, number: u64, message: &Bytes) {
        if let Ok(Message::Response(response)) = Message::decode(message)
            && let Some(open) = self.open.lock().get(&(from.clone(), number))
        {
            open.questions.answer(response);
        }
    }

    pub(super) fn cancel(&self, from: &NodeId, number: u64) {
        self.open.lock().remove(&(from.clone(), number));
    }

    /// The link to a node has ended: its requests are cancelled.
    pub(super) fn on_link_lost(&self, node: &NodeId) {
        self.open.lock().retain(|(from, _), _| from != node);
    }

    /// The running requests that end by themselves.
    pub(super) fn requests(&self) -> HashSet<(NodeId, u64)> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.ends_by_itself).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }
}
