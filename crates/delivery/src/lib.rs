//! The bounded stream to one client.
//!
//! Whoever has something to send on a stream writes into its [`StreamSender`]. The one transport task
//! that owns the pipe or the response body reads the [`StreamReceiver`]; a [`DirectWrite`] that the
//! transport lends to the stream can read in place of that task. Between the two ends is a queue that
//! never grows past its limits, whatever the client does. The table in [`policy`] says what becomes of
//! frames that do not fit.
//!
//! No write waits for the client, except [`StreamSender::progress_paced`] and the two methods that wait
//! for space.
//!
//! This crate knows the protocol's values (`stentor-wire`) and no actors.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod call_sender;
mod counters;
mod direct_write;
mod event_store;
mod frame;
mod history;
mod ids;
pub mod policy;
mod progress_gate;
mod queue;
mod receiver;
mod record;
mod sender;
mod serialized;
mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use counters::{Counters, CountersView, LossCounters};
pub use direct_write::DirectWrite;
pub use event_store::{EventLog, EventStore, Log, MemoryEventStore, Reopened, Replay};
pub use frame::{Delivered, Frame, ProgressValue};
pub use history::{History, HistoryEntry, HistoryView, Outcome};
pub use ids::{Seq, SessionId, StreamId, loggable};
pub use progress_gate::ProgressGate;
pub use receiver::{Next, RemoteSource, StreamReceiver};
pub use record::StreamRecord;
pub use sender::{Resumed, StreamSender};
pub use serialized::{FrameBody, SerializedFrame, leave_out_largest, written};
pub use shared::{Notified, Terms, WhenGone};
