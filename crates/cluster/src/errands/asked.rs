//! The errands that this node has sent others on.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use stentor_engine::NodeId;
use stentor_engine::peers::{Conversation, Errand, Said, Talkback, Unreachable};
use stentor_wire::{Message, Response};
use tokio::sync::mpsc;

use super::{WINDOW, is_request};
use crate::frame::Frame;
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
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (say, said) = mpsc::channel(WINDOW);
        self.open
            .lock()
            .insert(number, Open { node: node.clone(), say, is_request: is_request(&errand) });
        let back = Back {
            asked: self.clone(),
            post: post.clone(),
            node: node.clone(),
            number,
            taken: AtomicUsize::new(0),
        };
        // From here on its drop takes it out again.
        let conversation = Conversation::new(said, Box::new(back));
        match post.now(node, &Frame::Ask(number, errand)) {
            Ok(()) => Ok(conversation),
            Err(error) => {
                tracing::debug!(%node, %error, "a node cannot be asked");
                self.open.lock().remove(&number);
                Err(Unreachable(node.clone()))
            }
        }
    }

    /// A node says something on an errand.
    pub(crate) fn said(&self, from: &NodeId, number: u64, said: Said) {
        let last = matches!(said, Said::Refused(_) | Said::Over | Said::Frames { last: true, .. });
        let mut open = self.open.lock();
        // One that was called off may still be on its way.
        let Some(errand) = open.get(&number).filter(|errand| errand.node == *from) else { return };
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
    /// What was taken in and the node does not know of.
    taken: AtomicUsize,
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("node", &self.node).field("number", &self.number).finish()
    }
}

impl Talkback for Back {
    fn took(&self, count: usize) {
        let taken = self.taken.fetch_add(count, Ordering::Relaxed) + count;
        // Not each by itself, but before the node has to wait for it.
        if taken >= WINDOW / 2 {
            self.taken.fetch_sub(taken, Ordering::Relaxed);
            self.post.soon(&self.node, Frame::Took(self.number, taken));
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
