//! The errands that this node has sent others on.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stentor_engine::NodeId;
use stentor_engine::peers::{Conversation, Errand, Said, Talkback, Unreachable};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;

use super::room::Waiting;
use super::{WINDOW, is_request};
use crate::frame::Frame;
use crate::mesh::SendError;
use crate::post::Post;

/// The errands that this node has sent others on, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    node: NodeId,
    say: mpsc::Sender<Said>,
    waiting: Arc<Waiting>,
    is_request: bool,
}

impl Asked {
    /// Sends a node on an errand.
    pub(crate) fn ask(
        self: &Arc<Self>,
        post: &Post,
        node: &NodeId,
        errand: Errand,
    ) -> Result<Conversation, Unreachable> {
        let (number, conversation) = self.open(post, node, &errand);
        let sent = post.now(node, &Frame::Ask(number, errand));
        self.asked(number, sent, conversation).map_err(|error| {
            stentor_engine::log!(debug, %node, %error, "a node cannot be asked");
            Unreachable(node.clone())
        })
    }

    /// As [`ask`](Self::ask), as soon as there is room. Cancel safe: it is asked or not.
    pub(crate) async fn ask_in_turn(
        self: &Arc<Self>,
        post: &Post,
        node: &NodeId,
        errand: Errand,
    ) -> Result<Conversation, SendError> {
        let (number, conversation) = self.open(post, node, &errand);
        let sent = post.wait(node, &Frame::Ask(number, errand)).await;
        self.asked(number, sent, conversation)
    }

    /// An errand that nobody is on yet.
    fn open(self: &Arc<Self>, post: &Post, node: &NodeId, errand: &Errand) -> (u64, Conversation) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (say, said) = mpsc::channel(WINDOW);
        let waiting = Arc::new(Waiting::default());
        let back = Back {
            asked: self.clone(),
            post: post.clone(),
            node: node.clone(),
            number,
            waiting: waiting.clone(),
        };
        let is_request = is_request(errand);
        self.open.lock().insert(number, Open { node: node.clone(), say, waiting, is_request });
        // From here on its drop takes it out again.
        (number, Conversation::new(said, Box::new(back)))
    }

    fn asked(
        &self,
        number: u64,
        sent: Result<(), SendError>,
        conversation: Conversation,
    ) -> Result<Conversation, SendError> {
        if sent.is_err() {
            // Nobody has to be told that it is called off.
            self.open.lock().remove(&number);
        }
        sent.map(|()| conversation)
    }

    /// A node says something on an errand, in so many bytes.
    pub(crate) fn said(&self, from: &NodeId, number: u64, said: Said, bytes: usize) {
        let last = matches!(said, Said::Refused(_) | Said::Over | Said::Frames { last: true, .. });
        let mut open = self.open.lock();
        // One that was called off may still be on its way.
        let Some(errand) = open.get(&number).filter(|errand| errand.node == *from) else { return };
        errand.waiting.came(bytes);
        let in_window = errand.say.try_send(said).is_ok();
        if last || !in_window {
            open.remove(&number);
        }
    }

    /// A node says something that is not understood, so that nothing can come of it.
    pub(crate) fn said_something_else(&self, from: &NodeId, number: u64) {
        let mut open = self.open.lock();
        if open.get(&number).is_some_and(|errand| errand.node == *from) {
            open.remove(&number);
        }
    }

    /// There is no link to a node any more: what it was asked comes to nothing.
    pub(crate) fn lost(&self, node: &NodeId) {
        self.open.lock().retain(|_, errand| errand.node != *node);
    }

    /// Those under way that come to an end by themselves.
    pub(crate) fn requests(&self) -> HashSet<u64> {
        let open = self.open.lock();
        open.iter().filter(|(_, open)| open.is_request).map(|(number, _)| *number).collect()
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

/// What goes back to a node that is on an errand.
struct Back {
    asked: Arc<Asked>,
    post: Post,
    node: NodeId,
    number: u64,
    waiting: Arc<Waiting>,
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("node", &self.node).field("number", &self.number).finish()
    }
}

impl Talkback for Back {
    fn took(&self, count: usize) {
        if let Some(count) = self.waiting.take(count) {
            self.post.soon(&self.node, Frame::Took(self.number, count));
        }
    }

    fn answer(&self, response: Response) {
        let message = Message::Response(response).encode();
        self.post.soon(&self.node, Frame::Answer(self.number, message));
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        let open = self.asked.open.lock().remove(&self.number).is_some();
        if open {
            self.post.soon(&self.node, Frame::HangUp(self.number));
        }
    }
}
