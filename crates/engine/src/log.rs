//! Logging that cannot harm the code that logs.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Emits an event to the subscriber of `tracing`: a level, and the arguments of `tracing`'s own
/// macros.
///
/// A subscriber is the host's code and may panic: that of `tracing-subscriber` does by default once
/// stderr is closed. In an actor such a panic would be a crash, and logging that crash would crash
/// the supervisor, up to the end of the engine.
#[doc(hidden)]
#[macro_export]
macro_rules! log {
    ($level:ident, $($event:tt)+) => {
        { let _ = $crate::log::quietly(|| ::tracing::$level!($($event)+)); }
    };
}

/// Runs `event`. Returns `None` if it panicked; the panic hook has reported the panic by then.
#[doc(hidden)]
pub fn quietly<T>(event: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(event)).ok()
}

/// Logs that a message of this length was left out.
pub(crate) fn left_out(bytes: usize) {
    crate::log!(warn, bytes, "a message is too large to be sent to another node");
}
