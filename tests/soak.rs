//! Load and faults, for as long and as many as one likes.
//!
//! With `cargo test` the sizes are small. For the big ones, with what was measured:
//!
//! ```sh
//! ulimit -n "$(ulimit -Hn)"   # 10,000 clients are 10,000 sockets on either side
//! STENTOR_SOAK=1 cargo test --release -p stentor-tests --test soak -- --nocapture --test-threads=1
//! ```
//!
//! takes about a quarter of an hour. What is random comes from a seed that is printed; with
//! `STENTOR_SOAK_SEED=N` it is that one again.

// What is measured is printed.
#![allow(clippy::print_stdout)]

#[path = "soak/churn.rs"]
mod churn;
#[path = "soak/http.rs"]
mod http;
#[path = "soak/kill.rs"]
mod kill;
#[path = "soak/stalled.rs"]
mod stalled;

use std::time::Duration;

use stentor_tests::{Process, Settings};
use tokio::time::{Instant, sleep};

/// The small size, or the big one.
fn size<T>(small: T, big: T) -> T {
    if std::env::var_os("STENTOR_SOAK").is_some() { big } else { small }
}

async fn server(settings: Settings) -> Process {
    Process::start(env!("CARGO_BIN_EXE_soak_server"), settings).await
}

/// How long anything may take on a machine that has much else to do.
const BOUND: Duration = Duration::from_secs(60);

/// Waits for a state that nothing announces.
async fn until(what: impl std::fmt::Display, mut is: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(found) = is().await {
        assert!(begun.elapsed() < BOUND, "waited {BOUND:?} for {what}: {found}");
        sleep(Duration::from_millis(20)).await;
    }
}
