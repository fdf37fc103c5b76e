//! Lines of bounded length from a stream of bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::skipped::Skipped;

/// How many bytes are read at once: few after a small read, so that an idle pipe keeps little
/// memory, and a whole pipe buffer of the kernel after a read that filled its buffer.
const LITTLE: usize = 16 * 1024;
const MUCH: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    /// The line was longer than allowed, and was skipped.
    TooLong(Skipped),
}

/// Reads lines, and skips lines that are too long, however long they are. The iterator returns the
/// lines that need no further reading. At the end of the input, a rest without a line end is a
/// line.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// The buffer has no line end before this position.
    searched: usize,
    room: usize,
    skipped: Option<Skipped>,
    ended: bool,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, max: usize) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            searched: 0,
            room: LITTLE,
            skipped: None,
            ended: false,
            max,
        }
    }

    /// Reads until a line is complete; `false` at the end of the input. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        while !self.find_end() {
            if self.ended {
                return Ok(self.has_rest());
            }
            if self.skipped.is_some() || self.buffer.len() > self.max {
                self.skipped.get_or_insert_default().read(&self.buffer);
                self.buffer.clear();
                self.searched = 0;
            }
            let spare = self.make_room();
            let read = self.reader.read_buf(&mut self.buffer).await?;
            self.ended = read == 0;
            self.room = if read == spare { MUCH } else { LITTLE };
        }
        Ok(true)
    }

    /// Continues the search for the first line end, and stops before it.
    fn find_end(&mut self) -> bool {
        let found = memchr(b'\n', &self.buffer[self.searched..]);
        self.searched += found.unwrap_or(self.buffer.len() - self.searched);
        found.is_some()
    }

    fn has_rest(&self) -> bool {
        self.skipped.is_some() || !self.buffer.is_empty()
    }

    /// Returns how many bytes fit into the buffer. A buffer whose lines were all taken is not used
    /// again: lines still in use may keep it alive, and a long line may have grown it.
    fn make_room(&mut self) -> usize {
        let spare = self.buffer.capacity() - self.buffer.len();
        if self.buffer.is_empty() && !(self.room / 2..=self.room).contains(&spare) {
            self.buffer = BytesMut::with_capacity(self.room);
        } else if spare < self.room / 2 {
            self.buffer.reserve(self.room);
        }
        self.buffer.capacity() - self.buffer.len()
    }

    fn line(&mut self, line: BytesMut) -> Line {
        self.searched = 0;
        if self.skipped.is_none() && line.len() <= self.max {
            return Line::Whole(line.freeze());
        }
        let mut skipped = self.skipped.take().unwrap_or_default();
        skipped.read(&line);
        Line::TooLong(skipped)
    }
}

impl<R: AsyncRead + Unpin> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.find_end() {
            let mut line = self.buffer.split_to(self.searched + 1);
            line.truncate(self.searched);
            Some(self.line(line))
        } else if self.ended && self.has_rest() {
            let rest = self.buffer.split();
            Some(self.line(rest))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, max);
        let mut all = Vec::new();
        while lines.fill().await.unwrap() {
            all.extend(&mut lines);
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
            [Line::TooLong(Skipped::default()), Line::Whole(Bytes::from_static(b"ok"))]
        );
        assert_eq!(lines(&[b'x'; 50], 10).await, [Line::TooLong(Skipped::default())]);
        assert_eq!(lines(b"1234567890\n12345678901\n", 10).await.len(), 2);
    }

    #[tokio::test]
    async fn lines_of_all_lengths_arrive_whole_however_they_are_cut() {
        let line = |n: usize| format!("{n}:{}\n", "x".repeat(n * n % 9_973)).into_bytes();
        let input: Vec<u8> = (0..400).flat_map(line).collect();
        let (mut near, far) = tokio::io::duplex(50_000);
        let writing = async {
            for piece in input.chunks(7_001) {
                tokio::io::AsyncWriteExt::write_all(&mut near, piece).await.unwrap();
            }
            drop(near);
        };
        let reading = async {
            let mut lines = Lines::new(far, 20_000);
            let mut all = Vec::new();
            while lines.fill().await.unwrap() {
                all.extend(&mut lines);
            }
            all
        };
        let ((), all) = tokio::join!(writing, reading);
        assert_eq!(all.len(), 400);
        for (n, read) in all.into_iter().enumerate() {
            let Line::Whole(read) = read else { panic!("{n} is short") };
            assert_eq!([&read[..], b"\n"].concat(), line(n));
        }
    }

    #[tokio::test]
    async fn reads_grow_with_the_input_and_little_memory_is_kept_afterwards() {
        let mut input = vec![b'x'; 1 << 20];
        input.extend_from_slice(b"\n");
        input.extend(b"short\n".repeat(40_000));
        let mut lines = Lines::new(&input[..], 1 << 21);
        let mut most = 0;
        while lines.fill().await.unwrap() {
            most = most
                .max(lines.by_ref().skip_while(|line| matches!(line, Line::TooLong(_))).count());
            assert!(lines.buffer.capacity() <= 2 << 20);
        }
        assert!(most >= MUCH / 6, "only {most} lines at once");
        assert!(lines.buffer.capacity() <= LITTLE, "{} are kept", lines.buffer.capacity());
    }
}
