//! A pipe to the server with stdio's framing.

use serde_json::Value;
use stentor::stdio::StdioError;
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::task::JoinHandle;

use crate::{Server, soon};

/// The client's end of a pipe: it writes lines and reads messages.
#[derive(Debug)]
pub struct RawPipe {
    writer: WriteHalf<DuplexStream>,
    lines: Lines,
    ending: Ending,
}

impl RawPipe {
    /// Opens a pipe with a large buffer.
    #[must_use]
    pub fn open(server: &Server) -> Self {
        Self::sized(server, 1 << 20)
    }

    /// Opens a pipe that buffers this many bytes in each direction.
    #[must_use]
    pub fn sized(server: &Server, bytes: usize) -> Self {
        let (near, served) = server.pipe(bytes);
        let (reader, writer) = tokio::io::split(near);
        Self { writer, lines: Lines(BufReader::new(reader).lines()), ending: Ending(served) }
    }

    pub(crate) fn into_parts(self) -> (WriteHalf<DuplexStream>, Lines, Ending) {
        (self.writer, self.lines, self.ending)
    }

    /// Writes one line.
    pub async fn line(&mut self, line: impl AsRef<[u8]>) {
        self.bytes([line.as_ref(), b"\n"].concat()).await;
    }

    /// Writes bytes, which need not be a whole line.
    pub async fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.writer.write_all(bytes.as_ref());
        soon("the server to read", written).await.expect("an open pipe");
    }

    /// The next message; `None` once the server has closed its end.
    pub async fn next(&mut self) -> Option<Value> {
        soon("a line", self.lines.wait()).await
    }

    /// Closes the client's end. Messages from the server can still be read.
    pub async fn close(&mut self) {
        self.writer.shutdown().await.expect("an open pipe");
    }

    /// Waits until the server no longer serves this pipe.
    pub async fn served(self) -> Result<(), StdioError> {
        self.ending.served().await
    }
}

/// The lines that the server writes.
#[derive(Debug)]
pub(crate) struct Lines(tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>);

impl Lines {
    /// The next message, without a time limit.
    pub(crate) async fn wait(&mut self) -> Option<Value> {
        let line = self.0.next_line().await.expect("lines of UTF-8")?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }
}

/// The task that serves a pipe.
#[derive(Debug)]
pub(crate) struct Ending(JoinHandle<Result<(), StdioError>>);

impl Ending {
    pub(crate) async fn served(self) -> Result<(), StdioError> {
        soon("serve_on to return", self.0).await.expect("serve_on did not panic")
    }
}
