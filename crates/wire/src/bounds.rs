//! Bounds on what a client writes, and how error messages repeat it.
//!
//! A server keeps some of what a client sends for as long as a request, a stream or a session
//! lasts, and repeats some of it in errors. Both are short, whatever the client sends.

use std::fmt::{self, Display, Write};

/// The longest id of a request and the longest progress token, in bytes of JSON. A request with a
/// longer one is refused.
pub const MAX_ID: usize = 256;

/// The longest name of a method, in bytes. A message with a longer one is refused.
pub const MAX_METHOD: usize = 256;

/// The longest name of a tool, prompt, argument or task, and the longest cursor and version, in
/// bytes. A longer one names nothing.
pub const MAX_NAME: usize = 1024;

/// The longest URI of a resource, in bytes. A request with a longer one is refused.
pub const MAX_URI: usize = 8 * 1024;

/// The longest `_meta` of a request, in bytes of JSON. A request with a longer one is refused.
pub const MAX_META: usize = 64 * 1024;

/// The longest description that a client gives of itself, in bytes of JSON without its icons. The
/// icons of a longer one are dropped; a request is refused if it is too long without them.
pub const MAX_CLIENT_INFO: usize = 4 * 1024;

/// The longest capabilities of a client, in bytes of JSON. A request with longer ones is refused.
pub const MAX_CAPABILITIES: usize = 16 * 1024;

/// The longest reason that a client gives for a cancellation, in bytes. A longer one is cut.
pub const MAX_REASON: usize = 1024;

/// The most values of one message other than a tool call, including the names of members. A message
/// with more is refused.
pub const MAX_VALUES: usize = 10_000;

/// The default for the most values of a tool call, including the names of members.
pub const MAX_ARGUMENT_VALUES: usize = 100_000;

/// How many characters of a value an error message quotes.
const QUOTED_CHARS: usize = 80;

/// How many bytes of an explanation an error message repeats from its beginning and from its end.
const HEAD: usize = 256;
const TAIL: usize = 128;

/// A value for an error message: control characters are escaped, and long values are cut.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut shown = String::new();
    let mut chars = text.chars();
    for char in chars.by_ref().take(QUOTED_CHARS) {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    if chars.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// An explanation for an error message, cut to its beginning and its end.
///
/// An explanation may repeat what a client sent. Its ends say what was found and what was expected.
#[must_use]
pub fn shortened(explanation: impl Display) -> String {
    let mut ends = Ends::default();
    // Writing to memory cannot fail. If the explanation's own `Display` fails, the text so far is
    // used.
    let _ = write!(ends, "{explanation}");
    ends.join()
}

/// The beginning and the end of a text of any length.
#[derive(Default)]
struct Ends {
    head: String,
    tail: String,
    cut: bool,
}

impl Write for Ends {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = HEAD.saturating_sub(self.head.len());
        let (head, rest) = match self.tail.is_empty() {
            true => text.split_at(text.floor_char_boundary(room)),
            false => ("", text),
        };
        self.head.push_str(head);
        if rest.len() > TAIL {
            self.cut = true;
            self.tail.clear();
            self.tail.push_str(&rest[rest.ceil_char_boundary(rest.len() - TAIL)..]);
        } else {
            self.tail.push_str(rest);
            if self.tail.len() > 2 * TAIL {
                self.trim();
            }
        }
        Ok(())
    }
}

impl Ends {
    fn trim(&mut self) {
        if self.tail.len() > TAIL {
            self.cut = true;
            self.tail.drain(..self.tail.ceil_char_boundary(self.tail.len() - TAIL));
        }
    }

    fn join(mut self) -> String {
        self.trim();
        let between = if self.cut { " ... " } else { "" };
        [&self.head, between, &self.tail].concat()
    }
}

/// How many values a JSON text has, including the names of members. It stops counting above `most`.
/// The result for a text that is not JSON has no meaning.
#[must_use]
pub fn count_values(json: &[u8], most: usize) -> usize {
    let mut count = 0;
    let mut in_word = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        let was_in_word = std::mem::take(&mut in_word);
        match byte {
            b'"' => {
                count += 1;
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => count += 1,
            b'}' | b']' | b':' | b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
            // A number, `true`, `false` or `null`.
            _ => {
                count += usize::from(!was_in_word);
                in_word = true;
            }
        }
        if count > most {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn values(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(values).sum(),
            Value::Object(members) => members.values().map(|value| 1 + values(value)).sum(),
            _ => 0,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_and_names_are_counted_however_they_are_written(value in any_json()) {
            let count = values(&value);
            for text in [value.to_string(), format!("{value:#}")] {
                prop_assert_eq!(count_values(text.as_bytes(), usize::MAX), count, "{}", text);
                prop_assert_eq!(count_values(text.as_bytes(), count / 2).min(count / 2 + 1), count.min(count / 2 + 1));
            }
        }

        #[test]
        fn an_explanation_keeps_its_ends_and_no_more(parts in prop::collection::vec(".{0,300}", 0..6)) {
            struct Parts<'a>(&'a [String]);
            impl Display for Parts<'_> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|part| f.write_str(part))
                }
            }
            let (whole, short) = (parts.concat(), shortened(Parts(&parts)));
            prop_assert!(short.len() <= HEAD + TAIL + 5);
            if whole.len() <= HEAD {
                prop_assert_eq!(short, whole);
            } else if let Some((head, tail)) = short.split_once(" ... ") {
                prop_assert!(whole.starts_with(head) && whole.ends_with(tail) || whole.contains(" ... "));
            } else {
                prop_assert_eq!(short, whole);
            }
        }
    }

    #[test]
    fn counting_stops_at_its_bound() {
        let many = json!(vec![0; 1_000]).to_string();
        assert_eq!(count_values(many.as_bytes(), usize::MAX), 1_001);
        assert_eq!(count_values(many.as_bytes(), 10), 11);
    }

    #[test]
    fn a_quoted_value_is_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "a\\nb");
        assert_eq!(quoted(&"x".repeat(1_000)).len(), 83);
    }
}
