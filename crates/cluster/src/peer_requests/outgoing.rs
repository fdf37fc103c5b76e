//! The peer requests that this node sent to others.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stentor_engine::NodeId;
use stentor_engine::remote::{PeerEvent, PeerRequest, PeerStream, ResponseControl, Unreachable};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;

use super::request::is_request;
use super::window::{ReceiveWindow, WINDOW};
use crate::mesh::SendError;
use crate::message_sender::MessageSender;
use crate::node_message::NodeMessage;

#[derive(Debug, Default)]
pub(crate) struct OutgoingRequests {
    next: AtomicU64,
    open: Mutex<HashMap<u64, OpenRequest>>,
}

#[derive(Debug)]
struct OpenRequest {
    node: NodeId,
    events: mpsc::Sender<PeerEvent>,
    window: Arc<ReceiveWindow>,
    is_request: bool,
}

impl OutgoingRequests {
    pub(crate) fn ask(
        self: &Arc<Self>,
        sender: &MessageSender,
        node: &NodeId,
        peer_request: PeerRequest,
    ) -> Result<PeerStream, Unreachable> {
        let (number, peer_stream) = self.register(sender, node, &peer_request);
        let sent = sender.try_send(node, &NodeMessage::Request(number, peer_request));
        self.finish_ask(number, sent, peer_stream).map_err(|error| {
            stentor_engine::log!(debug, %node, %error, "a node cannot be asked");
            Unreachable(node.clone())
        })
    }

    /// As [`ask`](Self::ask), as soon as the window has space. Cancel safe: the request is sent or
    /// not.
    pub(crate) async fn ask_when_space(
        self: &Arc<Self>,
        sender: &MessageSender,
        node: &NodeId,
        peer_request: PeerRequest,
    ) -> Result<PeerStream, SendError> {
        let (number, peer_stream) = self.register(sender, node, &peer_request);
        let sent = sender.send(node, &NodeMessage::Request(number, peer_request)).await;
        self.finish_ask(number, sent, peer_stream)
    }

    /// Registers a peer request that is not sent yet.
    fn register(
        self: &Arc<Self>,
        sender: &MessageSender,
        node: &NodeId,
        peer_request: &PeerRequest,
    ) -> (u64, PeerStream) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::channel(WINDOW);
        let window = Arc::new(ReceiveWindow::default());
        let back = Control {
            requests: self.clone(),
            sender: sender.clone(),
            node: node.clone(),
            number,
            window: window.clone(),
        };
        let is_request = is_request(peer_request);
        self.open
            .lock()
            .insert(number, OpenRequest { node: node.clone(), events, window, is_request });
        // From here on, dropping the stream removes the request.
        (number, PeerStream::new(receiver, Box::new(back)))
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
    pub(crate) fn on_event(&self, from: &NodeId, number: u64, event: PeerEvent, bytes: usize) {
        let last = matches!(
            event,
            PeerEvent::Refused(_) | PeerEvent::Ended | PeerEvent::Frames { last: true, .. }
        );
        let mut open = self.open.lock();
        // Events of a cancelled request may still arrive.
        let Some(peer_request) =
            open.get(&number).filter(|peer_request| peer_request.node == *from)
        else {
            return;
        };
        peer_request.window.received(bytes);
        let in_window = peer_request.events.try_send(event).is_ok();
        if last || !in_window {
            open.remove(&number);
        }
    }

    /// A node sends an event that this release does not know: the request fails.
    pub(crate) fn on_unknown_event(&self, from: &NodeId, number: u64) {
        let mut open = self.open.lock();
        if open.get(&number).is_some_and(|peer_request| peer_request.node == *from) {
            open.remove(&number);
        }
    }

    /// The link to a node has ended: the requests to it fail.
    pub(crate) fn on_link_lost(&self, node: &NodeId) {
        self.open.lock().retain(|_, peer_request| peer_request.node != *node);
    }

    /// The running requests that end by themselves.
    pub(crate) fn requests(&self) -> HashSet<u64> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.is_request).map(|(number, _)| *number).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

/// The channel back to the node that serves a request.
struct Control {
    requests: Arc<OutgoingRequests>,
    sender: MessageSender,
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
            self.sender.send_soon(&self.node, NodeMessage::Acknowledge(self.number, count));
        }
    }

    fn answer(&self, response: Response) {
        let message = Message::Response(response).encode();
        self.sender.send_soon(&self.node, NodeMessage::Answer(self.number, message));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let open = self.requests.open.lock().remove(&self.number).is_some();
        if open {
            self.sender.send_soon(&self.node, NodeMessage::Cancel(self.number));
        }
    }
}
