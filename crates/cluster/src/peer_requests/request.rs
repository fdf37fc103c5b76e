//! The kinds of peer requests.

use stentor_engine::remote::{PeerRequest, SessionOp};

/// Whether a peer request ends by itself, unlike one that reads a stream of notices.
pub(super) fn is_request(peer_request: &PeerRequest) -> bool {
    !matches!(
        peer_request,
        PeerRequest::Session {
            act: SessionOp::Attach | SessionOp::Resume(..) | SessionOp::ReadAgain(..),
            ..
        }
    )
}
