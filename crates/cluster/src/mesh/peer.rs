//! Another node, as the mesh actor knows it, and the state of the link to it.

use std::sync::Arc;

use bytes::Bytes;
use stentor_engine::remote::NodeState;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hello::{Proof, Proven};
use super::link::Link;
use super::link_message::LinkMessage;
use super::member::Member;
use super::window::cost;

pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) state: NodeState,
    /// The connection that the node server has now.
    pub(super) session: Option<LinkSession>,
    /// The connection that replaces it once it has ended.
    pub(super) next: Option<Proven>,
    /// Set while this node dials.
    pub(super) dialling: Option<DropGuard>,
    /// How often this node has dialled since the last link.
    pub(super) attempts: u32,
}

/// A connection that the node server has.
pub(super) struct LinkSession {
    pub(super) proof: Proof,
    pub(super) cut: CancellationToken,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// The link is not ready yet. The other node server may be ready earlier, so messages may
    /// already arrive.
    Connecting(EarlyMessages),
    Up(Arc<Link>),
    Cut,
}

/// The messages that arrive before a link is up.
#[derive(Default)]
pub(super) struct EarlyMessages {
    pub(super) messages: Vec<LinkMessage>,
    cost: u64,
}

impl EarlyMessages {
    /// Keeps a message. `false` if the messages exceed twice the window: nothing is reported as
    /// handled yet, so a correct sender stops before.
    pub(super) fn push(&mut self, message: LinkMessage, window: usize) -> bool {
        self.cost += cost(message.frame.as_ref().map_or(0, Bytes::len));
        self.messages.push(message);
        self.cost <= 2 * window as u64
    }
}

impl Peer {
    pub(super) const fn new(member: Member) -> Self {
        Self {
            member,
            state: NodeState::Alive,
            session: None,
            next: None,
            dialling: None,
            attempts: 0,
        }
    }

    pub(super) fn wants_link(&self) -> bool {
        self.state == NodeState::Alive
            && self.session.is_none()
            && self.next.is_none()
            && self.dialling.is_none()
    }
}
