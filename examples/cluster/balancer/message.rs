//! Heads of requests and responses, and where their bodies end.

use super::SERVED_BY;
use super::forward::Failed;

/// The head of a request or a response.
pub(super) struct Head<'a> {
    pub(super) first: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    pub(super) fn parse(head: &'a str) -> Result<Self, Failed> {
        const BAD: Failed = Failed::Status("400 Bad Request");
        let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
        let first = lines.next().ok_or(BAD)?;
        let header = |line: &'a str| match line.split_once(':') {
            Some((name, value)) if !name.is_empty() && !name.contains([' ', '\t']) => {
                // Trims only spaces and tabs: each character stands for one byte.
                Ok((name, value.trim_matches([' ', '\t'])))
            }
            _ => Err(BAD),
        };
        Ok(Self { first, headers: lines.map(header).collect::<Result<_, _>>()? })
    }

    fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a str> + 'b {
        let named = move |header: &&(&'a str, &'a str)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| *value)
    }

    pub(super) fn closes(&self) -> bool {
        let mut tokens = self.all("connection").flat_map(|value| value.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
    }

    /// The length of the body. An ambiguous length is refused.
    pub(super) fn body(&self, otherwise: Body) -> Result<Body, Failed> {
        const BAD: Failed = Failed::Status("400 Bad Request");
        let coding: Vec<_> = self.all("transfer-encoding").collect();
        let length: Vec<_> = self.all("content-length").collect();
        match (&*coding, &*length) {
            ([], []) => Ok(otherwise),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => {
                Ok(Body::Chunked(Chunk::Size { size: 0, digits: 0 }))
            }
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map(Body::Exactly).map_err(|_| BAD)
            }
            _ => Err(BAD),
        }
    }

    /// The head without its hop-by-hop headers, with `more` added.
    pub(super) fn passed_on(&self, more: &str) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            let own = ["connection", "keep-alive", "proxy-connection", "upgrade", SERVED_BY];
            if own.iter().all(|own| !name.eq_ignore_ascii_case(own)) {
                head.extend([name, ": ", value, "\r\n"]);
            }
        }
        head.extend([more, "\r\n"]);
        // Restores the original bytes: each character stands for one byte.
        head.chars().map(|it| it as u8).collect()
    }
}

/// Decodes a head with one character per byte, because headers may contain almost any byte.
pub(super) fn latin_1(head: &[u8]) -> String {
    head.iter().copied().map(char::from).collect()
}

/// The unread rest of a body.
#[derive(Debug)]
pub(super) enum Body {
    Exactly(u64),
    Chunked(Chunk),
    /// Until the connection ends.
    ToTheEnd,
}

/// The position within a chunked body.
#[derive(Debug)]
pub(super) enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    Data { left: u64 },
    DataEnd,
    Trailer { empty: bool },
    Over,
}

impl Body {
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Exactly(0) | Self::Chunked(Chunk::Over))
    }

    /// Consumes bytes of the body, and returns how many of these bytes belong to it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Failed> {
        match self {
            Self::ToTheEnd => Ok(bytes.len()),
            Self::Exactly(left) => Ok(take_up_to(left, bytes.len())),
            Self::Chunked(chunk) => {
                let mut taken = 0;
                while taken < bytes.len() && !matches!(chunk, Chunk::Over) {
                    taken += chunk.step(&bytes[taken..])?;
                }
                Ok(taken)
            }
        }
    }
}

fn take_up_to(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left -= taken as u64;
    taken
}

impl Chunk {
    /// Consumes one byte, or several bytes of data. `bytes` must not be empty.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Failed> {
        const BAD: Failed = Failed::Status("400 Bad Request");
        let byte = bytes[0];
        match self {
            Self::Data { left } => {
                let taken = take_up_to(left, bytes.len());
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                return Ok(taken);
            }
            Self::Size { size, digits } => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(_)) if *digits == 15 => return Err(BAD),
                (_, Some(digit)) => {
                    *size = *size << 4 | u64::from(digit);
                    *digits += 1;
                }
                _ if *digits == 0 => return Err(BAD),
                (b'\n', _) => *self = Self::after_size(*size),
                (b'\r', _) => {}
                (b';' | b' ' | b'\t', _) => *self = Self::Extension { size: *size },
                _ => return Err(BAD),
            },
            Self::Extension { size } if byte == b'\n' => *self = Self::after_size(*size),
            Self::Extension { .. } => {}
            Self::DataEnd => match byte {
                b'\r' => {}
                b'\n' => *self = Self::Size { size: 0, digits: 0 },
                _ => return Err(BAD),
            },
            Self::Trailer { empty } => match byte {
                b'\r' => {}
                b'\n' if *empty => *self = Self::Over,
                b'\n' => *empty = true,
                _ => *empty = false,
            },
            Self::Over => return Ok(0),
        }
        Ok(1)
    }

    fn after_size(size: u64) -> Self {
        match size {
            0 => Self::Trailer { empty: true },
            _ => Self::Data { left: size },
        }
    }
}
