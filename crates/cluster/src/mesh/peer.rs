//! Another node, as the relay knows it, and how far the link to it has come.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::NodeState;
use super::gossip::Member;
use super::link::{Link, Proof, Proven};
use super::window::cost;
use super::wire::Parcel;

/// Another node.
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) state: NodeState,
    /// The connection that the node server has.
    pub(super) session: Option<Session>,
    /// The one that it gets when it is done with that.
    pub(super) next: Option<Proven>,
    /// Set while a link is being made from here.
    pub(super) dialling: Option<DropGuard>,
    /// How often that was tried since there was one.
    pub(super) attempts: u32,
}

/// A connection in the care of the node server.
pub(super) struct Session {
    pub(super) proof: Proof,
    pub(super) cut: CancellationToken,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// The node servers have not made it ready. The other may be before ours and send already.
    Early(Early),
    Up(Arc<Link>),
    Cut,
}

/// What comes before a link is up.
#[derive(Default)]
pub(super) struct Early {
    pub(super) parcels: Vec<Parcel>,
    cost: u64,
}

impl Early {
    /// Keeps a parcel; `false` if that is more than a window, as nothing is told to be handled yet.
    pub(super) fn push(&mut self, parcel: Parcel, window: usize) -> bool {
        self.cost += cost(parcel.frame.as_ref().map_or(0, Bytes::len));
        self.parcels.push(parcel);
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
