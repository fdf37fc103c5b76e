//! Calls: how one begins, runs, is cancelled, awaits input and is answered.
//!
//! A [`Target`] is the code of a call. [`begin`] makes a [`Run`] of it, and the task pool runs that
//! in a task actor.

mod awaiting_input;
mod calls;
mod charge;
mod open_calls;
mod pool;
mod record;
mod responder;
mod run;
mod start;
mod state_token;
mod stateless;
mod target;
mod task;

pub use calls::CallConfig;
pub(crate) use calls::Calls;
pub(crate) use open_calls::OpenCalls;
#[cfg(any(test, feature = "testing"))]
pub(crate) use pool::TaskMsg;
pub use record::CallView;
pub(crate) use responder::{FinishStreams, Responder, answer_now};
pub(crate) use run::Run;
pub(crate) use start::{NotAdmitted, ResumedTask, Start, admit, begin, resume};
pub use state_token::StateKey;
pub(crate) use target::{Dispatch, Failure, Target};
pub(crate) use task::{NewTask, TaskHandle, TaskMaker};
