//! Logging that cannot harm who logs.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// An event for whoever subscribes to `tracing`: a level, and what `tracing`'s own macros take.
///
/// A subscriber is the host's code, and may panic: that of `tracing-subscriber` does by default once
/// stderr is closed. In an actor that would be its crash, and in the supervision of a crash the next
/// one, up to the end of the engine.
#[doc(hidden)]
#[macro_export]
macro_rules! log {
    ($level:ident, $($event:tt)+) => {
        { let _ = $crate::log::quietly(|| ::tracing::$level!($($event)+)); }
    };
}

/// Runs this. A panic of it is over when this returns, which is `None` then: what it says the panic
/// hook has said.
#[doc(hidden)]
pub fn quietly<T>(event: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(event)).ok()
}
