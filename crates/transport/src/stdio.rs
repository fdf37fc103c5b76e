//! stdio: one client at the other end of a pipe, one JSON message a line, in either era
//! (2026-07-28, basic/transports/stdio).

mod lines;

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures::stream;
use stentor_engine::Engine;
use stentor_engine::outlet::Inlet;
use stentor_engine::outlet::policy::Class;
use stentor_engine::port::{Pipe, Refused};
use stentor_wire::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::io::StreamReader;

use crate::signal;
use lines::{Line, Lines};

/// The longest line that is read, in bytes.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

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
}

/// Serves the process's own stdin and stdout until stdin ends or a signal comes, then shuts
/// the engine down: running calls get their time, and everything said is written.
///
/// Nothing else may write to stdout meanwhile; logs belong on stderr. A second signal ends
/// the process at once.
///
/// # Errors
///
/// [`StdioError`]; also if stdout was closed.
pub async fn serve(engine: &Engine) -> Result<(), StdioError> {
    let (pipe, inlet) = engine.open_pipe().await?;
    let writing = tokio::spawn(write(inlet, tokio::io::stdout()));
    let ended = tokio::select! {
        ended = read(&pipe, process_stdin()) => { ended?; true }
        () = signal::terminated() => false,
        () = engine.draining() => false,
    };
    signal::exit_on_next();
    if ended {
        // What was sent just before the end is still answered.
        pipe.finish().await;
    }
    engine.shutdown().await;
    match tokio::time::timeout(LAST_BYTES, writing).await {
        Ok(written) => Ok(written.map_err(io::Error::other)??),
        Err(_elapsed) => Ok(()),
    }
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
    let (pipe, inlet) = engine.open_pipe().await?;
    let writing = write(inlet, writer);
    tokio::pin!(writing);
    tokio::select! {
        ended = read(&pipe, reader) => ended?,
        ended = &mut writing => return ended.map_err(Into::into),
    }
    let finishing = async {
        pipe.finish().await;
        tokio::time::sleep(LAST_BYTES).await;
    };
    tokio::select! {
        written = writing => Ok(written?),
        // The client sends nothing and reads nothing any more.
        () = finishing => Ok(()),
    }
}

/// Hands every line to the session, until there are no more.
async fn read(pipe: &Pipe, reader: impl AsyncRead + Unpin) -> Result<(), StdioError> {
    let mut lines = Lines::new(reader, MAX_LINE);
    while let Some(line) = lines.next().await? {
        match line {
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(line) => {
                if pipe.deliver(Message::decode(&line)).await.is_err() {
                    break;
                }
            }
            Line::TooLong => pipe.refuse_long_line(MAX_LINE),
        }
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
        flush(&mut writer, &mut out).await?;
        if std::mem::take(&mut progress_waits) {
            pause_until = Some(Instant::now() + LAST_PROGRESS_PAUSE);
        }
    }
    Ok(())
}

async fn flush(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(out).await?;
    writer.flush().await
}

/// The process's stdin, read by a thread of its own: tokio's reads on its pool, where one
/// that never returns would hold up the end of the runtime.
fn process_stdin() -> impl AsyncRead + Unpin {
    let (chunks, received) = tokio::sync::mpsc::channel::<io::Result<bytes::Bytes>>(4);
    let reader = move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let chunk = match io::Read::read(&mut stdin, &mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(bytes::Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("stentor-stdin".to_owned()).spawn(reader) {
        tracing::error!(%error, "no thread to read stdin");
    }
    StreamReader::new(Box::pin(stream::unfold(received, |mut received| async {
        received.recv().await.map(|chunk| (chunk, received))
    })))
}
