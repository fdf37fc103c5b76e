//! What happens in the outside world reaches the clients that asked for it, by poll, push and webhook:
//! the Events extension of MCP, SEP-3415, `io.modelcontextprotocol/events`.
//!
//! * [`event_type`](fn@event_type) makes a type, and is the handle by which occurrences are emitted.
//! * [`Events`] is the extension, for `Engine::builder(..).extension(..)`.
//!
//! Each type has a bounded log (`log.rs`), and everybody reads it: streams, polls, webhooks. Nobody is
//! waited for; who is slower than the bounds of the log is told that something was skipped.
//!
//! A type whose upstream has cursors is asked instead ([`EventType::check`]): it has *branches*, each
//! with the log of one principal and equal arguments (`branches.rs`).
//!
//! Pure parts: `cursor.rs`, `log.rs`, `check.rs`, `error.rs`, `event_type/schema_change.rs`, and many of
//! [`webhook`](self). The actors: `keeper.rs` above all, `type_actor.rs` one for each type,
//! `checker.rs` one for each branch, `webhook/deliverer.rs` one for each webhook that has something to
//! deliver, `event_type/emitter.rs` one for each type that actors of the host emit by message.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod branches;
mod check;
mod checker;
mod config;
mod cursor;
mod error;
mod event_type;
mod events;
mod keeper;
mod log;
mod messages;
mod methods;
mod metrics;
mod occurrence;
mod peers;
mod push;
mod report;
mod running;
mod shared;
mod start;
mod store;
mod subscriber;
mod type_actor;
mod watches;
mod webhook;

pub use check::Checked;
pub use config::EventsConfig;
pub use error::{EventError, Numbering};
pub use event_type::{Emit, EmitError, EmitMessage, EventType, event_type};
pub use events::{Events, EventsHandle};
pub use report::{EventsReport, WebhookEnd};
pub use running::TypeView;
pub use shared::TypeError;
#[cfg(feature = "redb")]
pub use store::file::{EventsFileError, RedbEventsStore};
#[cfg(feature = "redis")]
pub use store::redis::{RedisEventsConfig, RedisEventsError, RedisEventsStore};
#[cfg(any(feature = "redb", feature = "redis"))]
pub use store::sealed::StoreKey;
pub use store::{EventsStore, MemoryEventsStore, StoreError, StoredOccurrence, StoredWebhook};
pub use subscriber::{Mode, Subscriber};
pub use webhook::{OriginError, WebhookConfig, WebhookView};

/// The identifier of the extension.
pub const IDENTIFIER: &str = "io.modelcontextprotocol/events";

/// Random text of 128 bits, for ids that nobody can guess.
pub(crate) fn token() -> String {
    let half = || getrandom::u64().expect("the operating system gives random bytes");
    format!("{:016x}{:016x}", half(), half())
}
