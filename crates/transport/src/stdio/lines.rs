//! Lines of bounded length from a stream of bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    /// It was longer than it may be, and has been skipped.
    TooLong,
}

/// Reads lines and skips those that are too long, however long they are.
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// Up to where the buffer has no line end.
    searched: usize,
    skipping: bool,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, max: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), searched: 0, skipping: false, max }
    }

    /// The next line; `None` at the end, where a rest without a line end is a line. Cancel
    /// safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + end + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return Ok(Some(self.finish(line)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.max {
                self.buffer.clear();
                self.searched = 0;
                self.skipping = true;
            }
            self.buffer.reserve(8 * 1024);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                let rest = self.buffer.split();
                self.searched = 0;
                if rest.is_empty() && !self.skipping {
                    return Ok(None);
                }
                return Ok(Some(self.finish(rest)));
            }
        }
    }

    fn finish(&mut self, line: BytesMut) -> Line {
        if std::mem::take(&mut self.skipping) || line.len() > self.max {
            Line::TooLong
        } else {
            Line::Whole(line.freeze())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_come_in_order_and_the_last_needs_no_end() {
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        assert_eq!(lines(b"a\n\nbc", 10).await, [whole("a"), whole(""), whole("bc")]);
        assert_eq!(lines(b"", 10).await, []);
        assert_eq!(lines(b"a\r\n", 10).await, [whole("a\r")]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let mut input = vec![b'x'; 100_000];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(
            lines(&input, 10).await,
            [Line::TooLong, Line::Whole(Bytes::from_static(b"ok"))]
        );
        assert_eq!(lines(&[b'x'; 50], 10).await, [Line::TooLong]);
        assert_eq!(lines(b"1234567890\n12345678901\n", 10).await.len(), 2);
    }
}
