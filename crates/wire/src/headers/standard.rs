//! The headers that every request has or may have: the protocol version, the method and the name.

use super::mismatch::HeaderMismatch;
use super::value::{decode, literal};
use crate::uri;

/// Checks the `MCP-Protocol-Version` header against the protocol version in the body's `_meta`.
///
/// # Errors
///
/// The header is missing, malformed or not exactly `version`.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Protocol Version Header".
pub fn check_protocol_version(version: &str, header: Option<&[u8]>) -> Result<(), HeaderMismatch> {
    check_literal("MCP-Protocol-Version", version, header)
}

/// Checks the `Mcp-Method` and `Mcp-Name` headers against the body.
///
/// `method` is the body's method. `name` is the body value that `Mcp-Name` mirrors, for the
/// requests that need the header: `params.name` of `tools/call` and `prompts/get`, `params.uri` of
/// `resources/read`, `params.taskId` of `tasks/*`. For all others it is `None`, and an `Mcp-Name`
/// header is ignored. For `tasks/*` without the header it may be `None`, too, because not all
/// clients send the header.
///
/// # Errors
///
/// A required header is missing, malformed or not exactly the body's value. A URI may be spelled in
/// another way that has the same [normal form](uri::normal). Only `Mcp-Name` may use the base64
/// form.
///
/// Specification: `basic/transports/streamable-http` of 2026-07-28, "Standard Request Headers" and
/// "Server Validation".
pub fn check_standard(
    method: &str,
    name: Option<&str>,
    mcp_method: Option<&[u8]>,
    mcp_name: Option<&[u8]>,
) -> Result<(), HeaderMismatch> {
    check_literal("Mcp-Method", method, mcp_method)?;
    let Some(expected) = name else {
        return Ok(());
    };
    let raw = mcp_name.ok_or_else(|| HeaderMismatch::missing("Mcp-Name"))?;
    let found = decode("Mcp-Name", raw)?;
    // Another spelling of the same URI names the same resource.
    let is_same_uri = || method == "resources/read" && uri::normal(&found) == uri::normal(expected);
    if found == expected || is_same_uri() {
        Ok(())
    } else {
        Err(HeaderMismatch::different("Mcp-Name", &found, expected))
    }
}

/// Compares a header that has no base64 form.
fn check_literal(header: &str, expected: &str, raw: Option<&[u8]>) -> Result<(), HeaderMismatch> {
    let raw = raw.ok_or_else(|| HeaderMismatch::missing(header))?;
    let found = literal(header, raw)?;
    if found == expected { Ok(()) } else { Err(HeaderMismatch::different(header, found, expected)) }
}
