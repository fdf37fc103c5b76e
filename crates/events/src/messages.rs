//! The notices of a stream (SEP-3415, "Push").

use std::sync::Arc;

use serde_json::Value;
use stentor_wire::EncodedNotice;

use crate::cursor::Cursor;
use crate::error::{EventError, Numbers};
use crate::occurrence::Occurrence;

const EVENT: &str = "notifications/events/event";
const ACTIVE: &str = "notifications/events/active";
const HEARTBEAT: &str = "notifications/events/heartbeat";
const ERROR: &str = "notifications/events/error";
const TERMINATED: &str = "notifications/events/terminated";

/// The list of types has changed.
pub(crate) const LIST_CHANGED: &str = "notifications/events/list_changed";

/// A cursor as JSON; `null` for a type without replay.
pub(crate) fn cursor_json(cursor: Option<&Cursor>) -> String {
    cursor.map_or_else(|| "null".to_owned(), Cursor::json)
}

fn notice(method: &'static str, members: &str) -> Arc<EncodedNotice> {
    Arc::new(EncodedNotice::of_members(method.into(), members))
}

/// The stream is open, or goes on after a gap.
pub(crate) fn active(cursor: Option<&Cursor>, truncated: bool) -> Arc<EncodedNotice> {
    notice(ACTIVE, &format!(r#""cursor":{},"truncated":{truncated}"#, cursor_json(cursor)))
}

pub(crate) fn heartbeat(cursor: Option<&Cursor>) -> Arc<EncodedNotice> {
    notice(HEARTBEAT, &format!(r#""cursor":{}"#, cursor_json(cursor)))
}

/// An occurrence, with the position after it.
pub(crate) fn event(occurrence: &Occurrence, cursor: Option<&Cursor>) -> Arc<EncodedNotice> {
    notice(EVENT, &with_cursor(occurrence, cursor))
}

/// The members of an occurrence, with the position after it.
pub(crate) fn with_cursor(occurrence: &Occurrence, cursor: Option<&Cursor>) -> String {
    let mut text = String::with_capacity(occurrence.members().len() + CURSOR);
    write_with_cursor(&mut text, occurrence, cursor);
    text
}

/// An occurrence as a JSON object, with a cursor.
pub(crate) fn object(occurrence: &Occurrence, cursor: Option<&Cursor>) -> String {
    let mut text = String::with_capacity(occurrence.members().len() + CURSOR);
    text.push('{');
    write_with_cursor(&mut text, occurrence, cursor);
    text.push('}');
    text
}

/// Most cursors of one node have fewer bytes.
const CURSOR: usize = 64;

fn write_with_cursor(text: &mut String, occurrence: &Occurrence, cursor: Option<&Cursor>) {
    text.push_str(occurrence.members());
    text.push_str(r#","cursor":"#);
    text.push_str(&cursor_json(cursor));
}

/// The source has failed; the stream goes on.
pub(crate) fn failure(error: &EventError, numbers: Numbers) -> Arc<EncodedNotice> {
    notice(ERROR, &error_member(&error.json(numbers)))
}

/// The subscription has ended.
pub(crate) fn terminated(error: &EventError, numbers: Numbers) -> Arc<EncodedNotice> {
    notice(TERMINATED, &error_member(&error.json(numbers)))
}

fn error_member(error: &Value) -> String {
    format!(r#""error":{error}"#)
}
