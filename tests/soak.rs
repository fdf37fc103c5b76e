//! Load and faults, of adjustable size.
//!
//! `cargo test` uses small sizes. To run the large sizes and see the measurements:
//!
//! ```sh
//! ulimit -n "$(ulimit -Hn)"   # 10,000 clients are 10,000 sockets on either side
//! STENTOR_SOAK=1 cargo test --release -p stentor-tests --test soak -- --nocapture --test-threads=1
//! ```
//!
//! This takes about a quarter of an hour. Random choices come from a seed that is printed;
//! `STENTOR_SOAK_SEED=N` repeats a run.

// The tests print their measurements.
#![allow(clippy::print_stdout)]

#[path = "soak/churn.rs"]
mod churn;
#[path = "soak/http.rs"]
mod http;
#[path = "soak/kill.rs"]
mod kill;
#[path = "soak/stalled.rs"]
mod stalled;
#[path = "soak/tokens.rs"]
mod tokens;

use std::time::Duration;

use stentor_tests::{Process, Settings};
use tokio::time::{Instant, sleep};

/// Selects the small or the large size.
fn size<T>(small: T, big: T) -> T {
    if std::env::var_os("STENTOR_SOAK").is_some() { big } else { small }
}

async fn server(settings: Settings) -> Process {
    Process::start(env!("CARGO_BIN_EXE_soak_server"), settings).await
}

/// The time limit of every operation, on a machine that is busy with other work.
const BOUND: Duration = Duration::from_secs(60);

/// Polls for a state that nothing announces.
async fn until(what: impl std::fmt::Display, mut is: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(found) = is().await {
        assert!(begun.elapsed() < BOUND, "waited {BOUND:?} for {what}: {found}");
        sleep(Duration::from_millis(20)).await;
    }
}
