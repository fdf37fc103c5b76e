//! Peer requests: those that this node sent to others, and those that it serves for others.
//!
//! A client's reading speed limits its own peer request only. The serving node sends at most
//! [`WINDOW`] events, or about [`WINDOW_BYTES`], that the requesting node has not acknowledged. So
//! a slow client delays no other request, and the memory for waiting events is bounded.

use stentor_engine::remote::{PeerRequest, SessionOp};

mod incoming;
mod outgoing;
mod window;

pub(crate) use incoming::IncomingRequests;
pub(crate) use outgoing::OutgoingRequests;

/// Whether a peer request ends by itself, unlike one that reads a stream of notices.
fn is_request(peer_request: &PeerRequest) -> bool {
    !matches!(
        peer_request,
        PeerRequest::Session {
            act: SessionOp::Attach | SessionOp::Resume(..) | SessionOp::ReadAgain(..),
            ..
        }
    )
}

/// Events of one peer request that may be sent before they are acknowledged.
const WINDOW: usize = 32;

/// Bytes of one peer request that may be sent before they are acknowledged. The first event is sent
/// whatever its size. All nodes use the same value: the reader acknowledges events before the
/// sender has to wait.
const WINDOW_BYTES: usize = 1 << 20;
