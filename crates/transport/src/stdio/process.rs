//! This process's own stdin and stdout.

use std::io;
#[cfg(any(target_os = "android", target_os = "linux"))]
use std::os::fd::AsFd as _;

use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;

#[cfg(any(target_os = "android", target_os = "linux"))]
use super::direct;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The process's stdin, read directly if possible, else by a thread.
pub(super) fn stdin() -> Reader {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    match direct::reader(io::stdin().as_fd()) {
        Ok(reader) => return reader,
        Err(error) => stentor_engine::log!(debug, %error, "stdin is read by a thread"),
    }
    Box::new(read_by_thread())
}

/// The process's stdout, written directly if possible, else by threads.
pub(super) fn stdout() -> Writer {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    match direct::writer(io::stdout().as_fd()) {
        Ok(writer) => return writer,
        Err(error) => stentor_engine::log!(debug, %error, "stdout is written by a thread"),
    }
    Box::new(tokio::io::stdout())
}

/// Reads stdin in a thread of its own. tokio would read in its pool, where a read that never
/// returns would block the shutdown of the runtime.
fn read_by_thread() -> impl AsyncRead + Send + Unpin {
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
        stentor_engine::log!(error, %error, "no thread to read stdin");
    }
    StreamReader::new(Box::pin(stream::unfold(received, |mut received| async {
        received.recv().await.map(|chunk| (chunk, received))
    })))
}
