//! Reads members of parameters. None is longer than [`bounds`](crate::bounds) allow.

use std::collections::BTreeMap;

use rmcp::model::{ClientCapabilities, Implementation};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::bounds::{MAX_NAME, MAX_REASON, MAX_URI};
use crate::client::{read_capabilities, read_client_info};

/// An optional member may be `null`, too.
pub(super) fn or_default<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Reads arguments by name, without those that are `null`.
pub(super) fn given<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let all: BTreeMap<String, Option<String>> = or_default(input)?;
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Reads a text of at most `most` bytes; errors call it `what`.
fn at_most<'de, D: Deserializer<'de>>(
    input: D,
    what: &str,
    most: usize,
) -> Result<String, D::Error> {
    let text = String::deserialize(input)?;
    check_length(&text, what, most).map_err(D::Error::custom)?;
    Ok(text)
}

pub(super) fn check_length(text: &str, what: &str, most: usize) -> Result<(), String> {
    match text.len() <= most {
        true => Ok(()),
        false => Err(format!("the {what} has more than {most} bytes")),
    }
}

pub(super) fn name<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    at_most(input, "name", MAX_NAME)
}

pub(super) fn uri<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    at_most(input, "URI", MAX_URI)
}

pub(super) fn task_id<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    at_most(input, "task id", MAX_NAME)
}

pub(super) fn version<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    at_most(input, "protocol version", MAX_NAME)
}

pub(super) fn cursor<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    let cursor = Option::<String>::deserialize(input)?;
    let checked = cursor.as_deref().map_or(Ok(()), |text| check_length(text, "cursor", MAX_NAME));
    checked.map_err(D::Error::custom)?;
    Ok(cursor)
}

/// Reads a reason. It is only for logs, so a long reason is cut.
pub(super) fn reason<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    let mut reason = Option::<String>::deserialize(input)?;
    if let Some(text) = &mut reason {
        text.truncate(text.floor_char_boundary(MAX_REASON));
        text.shrink_to_fit();
    }
    Ok(reason)
}

pub(super) fn client_info<'de, D: Deserializer<'de>>(input: D) -> Result<Implementation, D::Error> {
    let raw = Box::<RawValue>::deserialize(input)?;
    read_client_info(raw.get())
        .map_err(|error| D::Error::custom(format_args!("invalid clientInfo: {error}")))
}

pub(super) fn capabilities<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<ClientCapabilities, D::Error> {
    let raw = Box::<RawValue>::deserialize(input)?;
    read_capabilities(raw.get())
        .map_err(|error| D::Error::custom(format_args!("invalid capabilities: {error}")))
}
