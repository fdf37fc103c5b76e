//! How a text is written as the value of a header, and read from it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::mismatch::{Fault, HeaderMismatch};

const BASE64_PREFIX: &str = "=?base64?";
const BASE64_SUFFIX: &str = "?=";

/// Reads the value of an `Mcp-Name` or `Mcp-Param-*` header.
///
/// Spaces and tabs around the value are not part of it. A value of the form `=?base64?...?=` is the
/// base64 of UTF-8 text. Any other value is literal.
///
/// # Errors
///
/// The value contains a character other than visible ASCII, space and tab, or it has the base64
/// form but does not contain canonical, padded standard base64 of UTF-8 text. The error says "a
/// header", because this function does not know which header it reads.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Value Encoding".
pub fn decode_value(raw: &[u8]) -> Result<Cow<'_, str>, HeaderMismatch> {
    decode("a", raw)
}

/// Writes a text as the value of an `Mcp-Name` or `Mcp-Param-*` header.
///
/// [`decode_value`] returns the same text again. The value is the text itself if a header can carry
/// it, otherwise `=?base64?...?=`.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Value Encoding".
pub fn encode_value(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let plain = bytes.iter().all(|&byte| is_value_byte(byte))
        && trim(bytes).len() == bytes.len()
        && !(text.starts_with(BASE64_PREFIX) && text.ends_with(BASE64_SUFFIX));
    if plain {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{BASE64_PREFIX}{}{BASE64_SUFFIX}", STANDARD.encode(bytes)))
    }
}

pub(super) fn decode<'a>(header: &str, raw: &'a [u8]) -> Result<Cow<'a, str>, HeaderMismatch> {
    let text = literal(header, raw)?;
    let Some(inner) =
        text.strip_prefix(BASE64_PREFIX).and_then(|rest| rest.strip_suffix(BASE64_SUFFIX))
    else {
        return Ok(Cow::Borrowed(text));
    };
    let fault = |fault| HeaderMismatch::malformed(header, raw, fault);
    let bytes = STANDARD.decode(inner).map_err(|_| fault(Fault::Base64))?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| fault(Fault::Utf8))
}

pub(super) fn literal<'a>(header: &str, raw: &'a [u8]) -> Result<&'a str, HeaderMismatch> {
    if let Some(&byte) = raw.iter().find(|&&byte| !is_value_byte(byte)) {
        return Err(HeaderMismatch::malformed(header, raw, Fault::Character(byte)));
    }
    std::str::from_utf8(trim(raw)).map_err(|_| HeaderMismatch::malformed(header, raw, Fault::Utf8))
}

pub(super) fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

/// Removes the optional whitespace of RFC 9110; `trim_ascii` would remove line ends, too.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
