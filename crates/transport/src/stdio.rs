//! stdio: one client at the other end of a pipe, one JSON message a line, in either era
//! (2026-07-28, basic/transports/stdio).

#[cfg(any(target_os = "android", target_os = "linux"))]
mod direct;
mod lines;
mod process;
mod skipped;
#[cfg(test)]
mod tests;
mod turns;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use stentor_engine::outlet::policy::Class;
use stentor_engine::outlet::{Delivered, Inlet};
use stentor_engine::port::{Pipe, Refused};
use stentor_engine::{Ended, EndedUnasked, Engine};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::signal;
use lines::{Line, Lines};
use turns::{at_once, turn};

/// How a pipe is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StdioConfig {
    /// The longest line that is read, in bytes. A request in a longer one is answered with an error
    /// (-32600), and an answer in one fails what it answers; the rest of it is skipped. Default 4 MiB.
    pub max_line: usize,
}

impl Default for StdioConfig {
    fn default() -> Self {
        Self { max_line: MAX_LINE }
    }
}

/// The longest line that is read by default, in bytes.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// How many lines are handled before what was answered is written.
const LINES_AT_ONCE: usize = 64;

/// From how many bytes on nothing is added to what is written at once.
const WRITTEN_AT_ONCE: usize = 16 * 1024;

/// After the session has ended, how long the client gets to read what was said.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Why serving a pipe ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StdioError {
    /// The engine takes no session.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Reading or writing failed.
    #[error("the pipe broke: {0}")]
    Io(#[from] io::Error),
    /// The engine ended, and nobody had asked it to.
    #[error(transparent)]
    Ended(#[from] EndedUnasked),
}

/// Serves the process's own stdin and stdout until stdin ends or a signal comes, then shuts
/// the engine down: running calls get their time, and everything said is written.
///
/// Nothing else may read stdin or write to stdout meanwhile; logs belong on stderr. A second
/// signal ends the process at once.
///
/// After the end of stdin calls and tasks have
/// [`Config::drain_timeout`](stentor_engine::Config::drain_timeout) together. Listens get their results
/// at once, and questions to the client, which it cannot answer any more, are over.
///
/// # Errors
///
/// [`StdioError`]; also if stdout was closed, and if the engine was killed or failed.
pub async fn serve(engine: &Engine) -> Result<(), StdioError> {
    serve_with(engine, StdioConfig::default()).await
}

/// As [`serve`], with limits of one's own.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_with(engine: &Engine, config: StdioConfig) -> Result<(), StdioError> {
    let (pipe, inlet) = engine.open_pipe().await?;
    let pipe = Arc::new(pipe);
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let talking = {
        let pipe = pipe.clone();
        async move {
            let reading = async {
                tokio::select! {
                    biased;
                    ended = read(&pipe, process::stdin(), &config) => ended,
                    _ = stopped => Ok(()),
                }
            };
            talk(reading, write(inlet, process::stdout()), end).await
        }
    };
    // Not in the task of the caller: that may be one that no thread of the runtime runs, and
    // they are who hears of input.
    let talking = AbortOnDropHandle::new(tokio::spawn(talking));
    let ended = tokio::select! {
        ended = ended => ended.is_ok(),
        () = signal::terminated() => false,
        () = engine.draining() => false,
    };
    signal::exit_on_next();
    drop(stop);
    let ended = leave(engine, ended.then_some(&pipe)).await;
    if let Ok(talked) = tokio::time::timeout(LAST_BYTES, talking).await {
        talked.map_err(io::Error::other)??;
    }
    Ok(ended.asked()?)
}

/// Shuts the engine down; before that, what the client of a pipe sent just before its end is still
/// answered. Both together have the time of one.
async fn leave(engine: &Engine, ended: Option<&Pipe>) -> Ended {
    let since = Instant::now();
    if let Some(pipe) = ended {
        pipe.finish().await;
    }
    engine.shutdown_within(engine.drain_timeout().saturating_sub(since.elapsed())).await;
    engine.stopped().await
}

/// Serves one client over any pair of byte streams, with stdio's framing: a socket, a pipe
/// to a child, an in-memory duplex. Returns when the client has closed its end and what it
/// asked for was answered, or when the engine has stopped; the engine goes on.
///
/// # Errors
///
/// [`StdioError`].
pub async fn serve_on(
    engine: &Engine,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> Result<(), StdioError> {
    serve_on_with(engine, StdioConfig::default(), reader, writer).await
}

/// As [`serve_on`], with limits of one's own.
///
/// # Errors
///
/// As [`serve_on`].
pub async fn serve_on_with(
    engine: &Engine,
    config: StdioConfig,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> Result<(), StdioError> {
    let (pipe, inlet) = engine.open_pipe().await?;
    let (end, ended) = oneshot::channel();
    let finishing = async {
        if ended.await.is_ok() {
            pipe.finish().await;
        }
        tokio::time::sleep(LAST_BYTES).await;
    };
    tokio::select! {
        biased;
        talked = talk(read(&pipe, reader, &config), write(inlet, writer), end) => talked?,
        // The client sends nothing and reads nothing any more.
        () = finishing => {}
    }
    engine.ended().map_or(Ok(()), Ended::asked).map_err(StdioError::from)
}

/// Reads and writes; when there is nothing more to read, says so and writes the rest. Nothing is
/// said if that is not how it ends.
///
/// One task does both, so that an answer that is there at once goes out without another thread,
/// and without another turn of the scheduler.
async fn talk(
    reading: impl Future<Output = Result<(), StdioError>>,
    writing: impl Future<Output = io::Result<()>>,
    end: oneshot::Sender<()>,
) -> Result<(), StdioError> {
    at_once(async {
        tokio::pin!(writing);
        tokio::select! {
            // What is read first is what is written next.
            biased;
            ended = reading => ended?,
            written = &mut writing => return Ok(written?),
        }
        // Who heard it may be gone: then nothing more is to be done.
        let _ = end.send(());
        Ok(writing.await?)
    })
    .await
}

/// Hands every line to the session, until there are no more.
async fn read(
    pipe: &Pipe,
    reader: impl AsyncRead + Unpin,
    config: &StdioConfig,
) -> Result<(), StdioError> {
    let mut lines = Lines::new(reader, config.max_line);
    while lines.fill().await? {
        for line in lines.by_ref().take(LINES_AT_ONCE) {
            let decoded = match line {
                Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole(line) => pipe.decode(line).await,
                Line::TooLong(skipped) => skipped.instead(config.max_line),
            };
            if pipe.deliver(decoded).await.is_err() {
                return Ok(());
            }
        }
        turn().await;
    }
    Ok(())
}

/// Between the last progress of a call and its response. The official TypeScript clients forget
/// a call's progress handler when they read its response, and run the handler a moment after
/// they read the progress: what they read in one piece with the response is lost.
const LAST_PROGRESS_PAUSE: Duration = Duration::from_millis(1);

/// Writes what the session says, as many messages at once as are waiting.
async fn write(mut inlet: Inlet, mut writer: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut batch = Vec::new();
    let mut out = BytesMut::new();
    let mut pause_until: Option<Instant> = None;
    let mut progress_waits = false;
    while inlet.next(&mut batch).await {
        while !batch.is_empty() {
            for (_, class, frame) in batch.drain(..) {
                if class == Class::Reply {
                    if std::mem::take(&mut progress_waits) {
                        flush(&mut writer, &mut out).await?;
                        pause_until = Some(Instant::now() + LAST_PROGRESS_PAUSE);
                    }
                    if let Some(until) = pause_until.take() {
                        sleep_until(until).await;
                    }
                }
                progress_waits |= class == Class::Progress;
                frame.write(&mut out);
                out.put_u8(b'\n');
            }
            if out.len() < WRITTEN_AT_ONCE {
                take_more(&mut inlet, &mut batch).await;
            }
        }
        flush(&mut writer, &mut out).await?;
        if std::mem::take(&mut progress_waits) {
            pause_until = Some(Instant::now() + LAST_PROGRESS_PAUSE);
        }
    }
    Ok(())
}

/// Takes what waits, if anything does.
async fn take_more(inlet: &mut Inlet, batch: &mut Vec<Delivered>) {
    poll_fn(|cx| {
        let _ = inlet.poll_next(cx, batch);
        Poll::Ready(())
    })
    .await;
}

async fn flush(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    writer.write_all(out).await?;
    // An answer that was very long is not to be remembered by the room that it took.
    if out.capacity() > 4 * WRITTEN_AT_ONCE {
        *out = BytesMut::new()
    } else {
        out.clear()
    }
    writer.flush().await
}
