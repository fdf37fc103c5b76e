//! What the server keeps of a line that is too long.

use memchr::memchr2;
use stentor_wire::{DecodeError, ErrorObject, Id, Message, Response, code};

/// The longest member name and the longest id that are kept, in bytes.
const MAX_KEPT: usize = 1024;

/// A message that is read piece by piece. Only its id and its kind are kept. So the client receives
/// an error with the id of its message, and does not wait for a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// Whether the current position is behind the colon of a member of the message itself.
    in_value: bool,
    name: Vec<u8>,
    value: Vec<u8>,
    id: Option<Id>,
    is_request: bool,
    is_response: bool,
}

impl Skipped {
    pub(super) fn read(&mut self, mut piece: &[u8]) {
        while let Some((&byte, rest)) = piece.split_first() {
            if self.in_string && !self.is_escaped && self.depth != 1 {
                // Most of a long message is strings.
                let Some(end) = memchr2(b'"', b'\\', piece) else { return };
                if end > 0 {
                    piece = &piece[end..];
                    continue;
                }
            }
            self.read_byte(byte);
            piece = rest;
        }
    }

    fn read_byte(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.keep(byte);
                self.depth += 1;
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_member();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 => self.in_value = true,
            b',' if self.depth == 1 => self.end_member(),
            byte if byte.is_ascii_whitespace() => {}
            byte => self.keep(byte),
        }
    }

    /// Keeps the names of the message's own members, and the value of the id.
    fn keep(&mut self, byte: u8) {
        let is_id = self.in_value && self.name == b"\"id\"";
        let kept = match self.in_value {
            false => &mut self.name,
            true if is_id => &mut self.value,
            true => return,
        };
        if self.depth == 1 && kept.len() < MAX_KEPT {
            kept.push(byte);
        }
    }

    fn end_member(&mut self) {
        match &self.name[..] {
            b"\"id\"" if self.value.len() < MAX_KEPT => {
                self.id = std::str::from_utf8(&self.value).ok().and_then(Id::from_json);
            }
            b"\"method\"" => self.is_request = true,
            b"\"result\"" | b"\"error\"" => self.is_response = true,
            _ => {}
        }
        self.in_value = false;
        self.name.clear();
        self.value.clear();
    }

    /// The message to process instead: an error that answers a request, or, for a response, a
    /// failed response.
    pub(super) fn instead(mut self, limit: usize) -> Result<Message, DecodeError> {
        if self.depth == 1 {
            // The line ended inside the object.
            self.end_member();
        }
        let message = format!("a message must not be longer than {limit} bytes");
        let error = DecodeError { id: self.id, code: code::INVALID_REQUEST, message };
        match error.id {
            Some(id) if self.is_response && !self.is_request => {
                let message = format!("the answer is longer than {limit} bytes");
                let error = ErrorObject::new(code::INVALID_REQUEST, message);
                Ok(Message::Response(Response::failed(id, &error)))
            }
            id => Err(DecodeError { id, ..error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn skipped(line: &str, piece: usize) -> Skipped {
        let mut skipped = Skipped::default();
        line.as_bytes().chunks(piece).for_each(|piece| skipped.read(piece));
        skipped
    }

    #[test]
    fn the_id_of_a_message_is_found_wherever_it_is_and_however_the_message_is_split() {
        let long = "x\\\"}{]id:1,".repeat(50);
        for (line, id, answers) in [
            (
                format!(
                    r#"{{"jsonrpc":"2.0","id":7,"method":"m","params":{{"id":1,"a":"{long}"}}}}"#
                ),
                json!(7),
                false,
            ),
            (
                format!(r#"{{"method":"m","params":[["{long}",{{"id":2}}]] , "id" : "a\"b" }}"#),
                json!("a\"b"),
                false,
            ),
            (format!(r#"{{"a":"{long}","id":1.0,"method":"m"}}"#), json!(1), false),
            (format!(r#"{{"id":8,"method":"m","params":{{"a":"{long}"#), json!(8), false),
            (format!(r#"{{"result":{{"a":"{long}"}},"id":3}}"#), json!(3), true),
            (format!(r#"{{"id":"4","error":"{long}"}}"#), json!("4"), true),
            (format!(r#"{{"params":"{long}","method":"notifications/x"}}"#), Value::Null, false),
            (
                format!(r#"{{"id":"{}","method":"m"}}"#, "y".repeat(2 * MAX_KEPT)),
                Value::Null,
                false,
            ),
            (format!(r#"{{"id":{{"id":5}},"method":"{long}"}}"#), Value::Null, false),
            (format!(r#"[{{"id":5,"method":"{long}"}}]"#), Value::Null, false),
            (long.clone(), Value::Null, false),
        ] {
            for piece in [1, 2, 3, 7, 10_000] {
                let (told, answered) = match skipped(&line, piece).instead(9) {
                    Ok(Message::Response(response)) => (Some(response.id), true),
                    Err(error) => (error.id, false),
                    other => panic!("{other:?}"),
                };
                let told = told.map(|id| serde_json::to_value(id).unwrap()).unwrap_or_default();
                assert_eq!((told, answered), (id.clone(), answers), "{line}");
            }
        }
    }

    #[test]
    fn little_is_kept_of_a_long_line() {
        let mut skipped = Skipped::default();
        skipped.read(b"{\"id\":\"");
        for _ in 0..1_000 {
            skipped.read(&[b'y'; 1_000]);
        }
        assert!(skipped.value.capacity() <= 2 * MAX_KEPT);
        skipped.read(b"\",\"");
        for _ in 0..1_000 {
            skipped.read(&[b'n'; 1_000]);
        }
        assert!(skipped.name.capacity() <= 2 * MAX_KEPT);
    }
}
