//! The messages of the mesh actor: those of other nodes, and those of the other parts of this one.

use std::collections::HashMap;

use ractor::message::{BoxedDowncastErr, SerializedMessage};
use stentor_engine::NodeId;

use super::hello::Proven;
use super::link_message::LinkMessage;
use super::member::Member;

pub(crate) enum MeshMsg {
    /// A message from the mesh actor of another node. `None` if it is of another version or
    /// malformed.
    LinkMessage(Option<LinkMessage>),
    /// All nodes that gossip shows alive.
    Members(HashMap<NodeId, Member>),
    Proven(Box<Proven>),
    /// The node server reports this link ready, and its own number for the session.
    Ready(u64, ractor_cluster::NodeId),
    Ended(u64),
    /// The time for this link to become ready is over.
    Overdue(u64),
    /// A frame was handled, and the other node does not know yet.
    Handled,
    /// It is time to report to other nodes what was handled.
    ReportHandled,
    Check,
    Cut(NodeId),
    Leave,
    /// The time for cut links to end is over.
    Left,
}

impl ractor::Message for MeshMsg {
    fn serializable() -> bool {
        true
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => {
                Ok(Self::LinkMessage(LinkMessage::decode(args.into())))
            }
            _ => Err(BoxedDowncastErr),
        }
    }
}
