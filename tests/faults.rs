//! Faults, and the clients that must not be affected by them.

#[path = "faults/crashes.rs"]
mod crashes;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/slow_clients.rs"]
mod slow_clients;
