//! Peer requests: those that this node sent to others, and those that it serves for others.
//!
//! A client's reading speed limits its own peer request only. The serving node sends no more than a
//! window (`window.rs`) beyond what the requesting node has acknowledged. So a slow client delays no
//! other request, and the memory for waiting events is bounded.

mod incoming;
mod outgoing;
mod request;
mod window;

pub(crate) use incoming::IncomingRequests;
pub(crate) use outgoing::OutgoingRequests;
