//! Errands between nodes: those that this node has sent others on, and those that it is on itself.
//!
//! What is said on an errand is taken in at the pace of whoever it is for. A node that is on one
//! says no more than [`WINDOW`] things, nor [`WINDOW_BYTES`], before it hears that some were taken, so
//! that a slow client holds up its own errand and no other, and nothing waits in memory without a
//! bound.

use stentor_engine::peers::{Act, Errand};

mod asked;
mod room;
mod served;

pub(crate) use asked::Asked;
pub(crate) use served::Served;

/// Whether an errand comes to an end by itself, and is not there to hear of whatever comes.
fn is_request(errand: &Errand) -> bool {
    !matches!(
        errand,
        Errand::Session { act: Act::Attach | Act::Resume(..) | Act::ReadAgain(..), .. }
    )
}

/// Things that may be said on an errand before they are taken in.
const WINDOW: usize = 32;

/// Bytes that may be said on an errand before they are taken in; whatever is said first, however long
/// it is. All nodes have the same: who takes something in says so before the other has to wait for it.
const WINDOW_BYTES: usize = 1 << 20;
