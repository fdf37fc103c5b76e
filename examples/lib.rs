//! Shared by the examples: logs that cannot block or crash the server.
//!
//! `tracing-subscriber` writes to stderr from the thread that logs. By default it panics when
//! stderr is closed, and blocks when stderr is a pipe that nobody reads. The message of a panic
//! does the same. A server survives both cases only if another thread writes, and lines beyond its
//! buffer are dropped.

use std::fmt::Display;
use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

/// The capacity of the buffer in lines; further lines are dropped.
const LINES: usize = 1_024;

/// At the end, the time that stderr gets to take the buffered lines.
const LAST_LINES: Duration = Duration::from_millis(500);

static STDERR: OnceLock<SyncSender<Line>> = OnceLock::new();

enum Line {
    Text(Vec<u8>),
    /// Confirms that all earlier lines are written.
    Flush(SyncSender<()>),
}

/// Writes the buffered lines when dropped. Keep it until the end of `main`.
#[must_use]
#[derive(Debug)]
pub struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        let (written, all) = sync_channel(1);
        if stderr().try_send(Line::Flush(written)).is_ok() {
            let _ = all.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes to stderr. Never blocks and never fails: lines beyond the buffer are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = stderr().try_send(Line::Text(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stderr() -> &'static SyncSender<Line> {
    STDERR.get_or_init(|| {
        let (sender, lines) = sync_channel(LINES);
        // Without the thread nothing is written.
        let _ = thread::Builder::new().name("stderr".to_owned()).spawn(move || write(&lines));
        sender
    })
}

fn write(lines: &Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        match line {
            Line::Text(text) => drop(io::stderr().write_all(&text)),
            Line::Flush(written) => drop(written.try_send(())),
        }
    }
}

/// Writes a line to stderr. `eprintln!` would panic when stderr is closed, and block when it is
/// full.
pub fn say(line: impl Display) {
    let _ = writeln!(Stderr, "{line}");
}

/// Logs to stderr what passes the filter, and the messages of panics.
pub fn log(filter: &str) -> Logs {
    log_as(filter, |logs| logs.init())
}

/// Like [`log`], with a custom format.
pub fn log_as(
    filter: &str,
    begin: impl FnOnce(SubscriberBuilder<DefaultFields, Format, EnvFilter, fn() -> Stderr>),
) -> Logs {
    let writer: fn() -> Stderr = || Stderr;
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter));
    begin(logs.log_internal_errors(false).with_writer(writer));
    panic::set_hook(Box::new(|panic| say(panic)));
    Logs(())
}

/// The snippets of `docs/EMBEDDING.md`, compiled together with the examples.
#[cfg(doctest)]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;
