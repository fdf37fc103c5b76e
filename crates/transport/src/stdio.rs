//! stdio: one client at the other end of a pipe, one JSON message per line, in either era
//! (2026-07-28, basic/transports/stdio).

#[cfg(any(target_os = "android", target_os = "linux"))]
mod direct;
mod lines;
mod process;
mod skipped;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use stentor_delivery::policy::Class;
use stentor_delivery::{Delivered, StreamReceiver};
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::{Pipe, Refused, RequestSender};
use stentor_engine::{Ended, EndedUnasked, Engine};
use stentor_macros::Setters;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::signal;
use lines::{Line, Lines};

/// The configuration of a pipe.
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct StdioConfig {
    /// The longest line that is read, in bytes. The rest of a longer line is skipped. A request in
    /// it is answered with an error (-32600), and a response in it fails the question that it
    /// answers. Default 4 MiB.
    pub max_line: usize,
    /// Who the client is, where the program knows better than that it is the user who started it: from
    /// its environment, or from a socket. Default `None`: the user who started the process, who sees
    /// everything and may do everything.
    pub identity: Option<Identity>,
}

impl Default for StdioConfig {
    fn default() -> Self {
        Self { max_line: MAX_LINE, identity: None }
    }
}

impl StdioConfig {
    fn sender(&self) -> RequestSender {
        self.identity.clone().map_or_else(RequestSender::local, RequestSender::known)
    }
}

/// The default of [`StdioConfig::max_line`], in bytes.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// Frames are added to one write until it has this many bytes.
const WRITTEN_AT_ONCE: usize = 16 * 1024;

/// How long the client may still read the last messages after the session has ended.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Why serving a pipe ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StdioError {
    /// The engine accepts no session.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Reading or writing failed.
    #[error("the pipe broke: {0}")]
    Io(#[from] io::Error),
    /// The engine ended without a shutdown.
    #[error(transparent)]
    Ended(#[from] EndedUnasked),
}

/// Serves the process's own stdin and stdout until stdin ends or a signal arrives, then shuts the
/// engine down.
///
/// On shutdown, running calls may finish within their time, and all messages are written.
///
/// Nothing else may read stdin or write to stdout meanwhile; write logs to stderr. A second signal
/// ends the process at once.
///
/// After the end of stdin, calls and tasks together have
/// [`Config::drain_timeout`](stentor_engine::Config::drain_timeout). Listens get their results at
/// once, and questions to the client end, because the client cannot answer them any more.
///
/// # Errors
///
/// [`StdioError`]; also if stdout was closed, and if the engine was killed or failed.
pub async fn serve(engine: &Engine) -> Result<(), StdioError> {
    serve_with(engine, StdioConfig::default()).await
}

/// As [`serve`], for a client with this identity: it sees what this identity sees, and may do what its
/// scopes allow.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_as(engine: &Engine, identity: Identity) -> Result<(), StdioError> {
    serve_with(engine, StdioConfig::default().identity(Some(identity))).await
}

/// As [`serve`], with your own limits.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_with(engine: &Engine, config: StdioConfig) -> Result<(), StdioError> {
    let (pipe, receiver) = engine.open_pipe_for(config.sender()).await?;
    let pipe = Arc::new(pipe);
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let pipe_task = {
        let pipe = pipe.clone();
        async move {
            let reading = async {
                tokio::select! {
                    biased;
                    ended = read(&pipe, process::stdin(), &config) => ended,
                    _ = stopped => Ok(()),
                }
            };
            exchange(reading, write(receiver, process::stdout()), end).await
        }
    };
    // Not in the task of the caller: that task may run outside the runtime's worker threads, and
    // those receive the input events.
    let pipe_task = AbortOnDropHandle::new(tokio::spawn(pipe_task));
    let ended = tokio::select! {
        ended = ended => ended.is_ok(),
        () = signal::terminated() => false,
        () = engine.draining() => false,
    };
    signal::exit_on_next();
    drop(stop);
    let ended = leave(engine, ended.then_some(&pipe)).await;
    if let Ok(outcome) = tokio::time::timeout(LAST_BYTES, pipe_task).await {
        outcome.map_err(io::Error::other)??;
    }
    Ok(ended.asked()?)
}

/// Shuts the engine down. Before that, it answers what the client sent just before the end of its
/// input. Both together may take the time of one.
async fn leave(engine: &Engine, ended: Option<&Pipe>) -> Ended {
    let since = Instant::now();
    if let Some(pipe) = ended {
        pipe.finish().await;
    }
    engine.shutdown_within(engine.drain_timeout().saturating_sub(since.elapsed())).await;
    engine.stopped().await
}

/// Serves one client over any pair of byte streams, with stdio's framing: a socket, a pipe to a
/// child, an in-memory duplex.
///
/// Returns when the client has closed its end and its requests were answered, or when the engine
/// has stopped. The engine keeps running.
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

/// As [`serve_on`], with your own limits.
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
    let (pipe, receiver) = engine.open_pipe_for(config.sender()).await?;
    let (end, ended) = oneshot::channel();
    let finishing = async {
        if ended.await.is_ok() {
            pipe.finish().await;
        }
        tokio::time::sleep(LAST_BYTES).await;
    };
    tokio::select! {
        biased;
        outcome = exchange(read(&pipe, reader, &config), write(receiver, writer), end) => outcome?,
        // The client sends nothing more and does not read.
        () = finishing => {}
    }
    engine.ended().map_or(Ok(()), Ended::asked).map_err(StdioError::from)
}

/// Reads and writes. When the input ends, sends on `end`, and writes the rest. Sends nothing if
/// reading or writing fails first.
async fn exchange(
    reading: impl Future<Output = Result<(), StdioError>>,
    writing: impl Future<Output = io::Result<()>>,
    end: oneshot::Sender<()>,
) -> Result<(), StdioError> {
    tokio::pin!(writing);
    tokio::select! {
        // Read first, so that responses to the lines are written next.
        biased;
        ended = reading => ended?,
        written = &mut writing => return Ok(written?),
    }
    // The receiver may have been dropped: then there is nothing more to do.
    let _ = end.send(());
    Ok(writing.await?)
}

/// Passes every line to the session, until the input ends.
async fn read(
    pipe: &Pipe,
    reader: impl AsyncRead + Unpin,
    config: &StdioConfig,
) -> Result<(), StdioError> {
    let mut lines = Lines::new(reader, config.max_line);
    while lines.fill().await? {
        for line in lines.by_ref() {
            let decoded = match line {
                Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Whole(line) => pipe.decode(line).await,
                Line::TooLong(skipped) => skipped.instead(config.max_line),
            };
            if pipe.deliver(decoded).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The pause between the last progress of a call and its response. The official TypeScript clients
/// remove a call's progress handler when they read its response, but run the handler a moment after
/// they read the progress. So they lose a progress notification that they read together with the
/// response.
const LAST_PROGRESS_PAUSE: Duration = Duration::from_millis(1);

/// Writes the messages of the session, as many at once as are waiting.
async fn write(
    mut receiver: StreamReceiver,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut batch = Vec::new();
    let mut out = BytesMut::new();
    let mut pause_until: Option<Instant> = None;
    let mut progress_waits = false;
    while receiver.next(&mut batch).await {
        while !batch.is_empty() {
            for Delivered { class, frame, .. } in batch.drain(..) {
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
                take_more(&mut receiver, &mut batch).await;
            }
        }
        flush(&mut writer, &mut out).await?;
        if std::mem::take(&mut progress_waits) {
            pause_until = Some(Instant::now() + LAST_PROGRESS_PAUSE);
        }
    }
    Ok(())
}

/// Takes the waiting frames, if there are any.
async fn take_more(receiver: &mut StreamReceiver, batch: &mut Vec<Delivered>) {
    poll_fn(|cx| {
        let _ = receiver.poll_next(cx, batch);
        Poll::Ready(())
    })
    .await;
}

async fn flush(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    writer.write_all(out).await?;
    // A very long message must not keep its buffer allocated.
    if out.capacity() > 4 * WRITTEN_AT_ONCE {
        *out = BytesMut::new()
    } else {
        out.clear()
    }
    writer.flush().await
}
