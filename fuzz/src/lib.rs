//! What is fuzzed: one function for each target. A function panics if something that always holds
//! does not hold for its input.
//!
//! `cargo +nightly fuzz run TARGET fuzz/corpus/TARGET fuzz/seeds/TARGET` lets libfuzzer choose the
//! inputs. `tests/fuzz.rs` runs the same functions on stable, on the seeds and on changed ones.

mod server;
mod wire;

pub use server::{cursor, http, template};
pub use wire::{headers, ids, message, param_headers, params, uri};

/// The input as a text; the bytes that are not UTF-8 are replaced.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}
