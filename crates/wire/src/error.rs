use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ProtocolVersion;
use crate::bounds::{quoted, shortened};

/// Error codes (2026-07-28, basic/index, "Error Codes").
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The body is JSON but not one JSON-RPC 2.0 message.
    pub const INVALID_REQUEST: i32 = -32600;
    /// The method does not exist.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The server failed.
    pub const INTERNAL_ERROR: i32 = -32603;
    /// Headers and body disagree.
    pub const HEADER_MISMATCH: i32 = -32020;
    /// The client did not declare a capability that the request needs.
    pub const MISSING_CAPABILITY: i32 = -32021;
    /// The server does not support the protocol version.
    pub const UNSUPPORTED_VERSION: i32 = -32022;
    /// The user must visit web pages first, in 2025-11-25 only.
    pub const URL_ELICITATION_REQUIRED: i32 = -32042;
    /// The resource does not exist, up to 2025-11-25.
    pub const RESOURCE_NOT_FOUND_LEGACY: i32 = -32002;
    /// The server accepts no more work now: it is shutting down, or a limit is reached. An
    /// application code, outside of the range that JSON-RPC and MCP reserve; `docs/ERRORS.md` lists
    /// all codes.
    pub const UNAVAILABLE: i32 = 503;
    /// The credential of the request lacks a scope, which its data names. An application code, too.
    pub const FORBIDDEN: i32 = 403;
    /// The call was cancelled while its client still waits.
    pub const CANCELLED: i32 = 499;
}

/// A JSON-RPC error: what went wrong, as the client reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// One of [`code`], or an application's own outside of the reserved ranges.
    pub code: i32,
    /// One sentence, lowercase, that names what is wrong and where.
    pub message: String,
    /// Details for a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ErrorObject {
    /// An error with a code and a message.
    #[must_use]
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Adds data for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// -32601: the method does not exist.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::new(code::METHOD_NOT_FOUND, format!("method not found: {}", quoted(method)))
    }

    /// -32602: the parameters do not fit.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_PARAMS, message)
    }

    /// -32603: the server failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL_ERROR, message)
    }

    /// -32021: the client must declare these capabilities first.
    #[must_use]
    pub fn missing_capability(required: Value) -> Self {
        Self::new(code::MISSING_CAPABILITY, "missing required client capability")
            .with_data(json!({ "requiredCapabilities": required }))
    }

    /// -32022: the server does not support the protocol version.
    #[must_use]
    pub fn unsupported_version(requested: &str) -> Self {
        let supported = ProtocolVersion::ALL.map(ProtocolVersion::as_str);
        Self::new(code::UNSUPPORTED_VERSION, "unsupported protocol version")
            .with_data(json!({ "supported": supported, "requested": quoted(requested) }))
    }

    /// The resource does not exist: -32602 in the modern era, -32002 before.
    #[must_use]
    pub fn resource_not_found(era: crate::Era, uri: &str) -> Self {
        Self::new(era.resource_not_found_code(), "resource not found")
            .with_data(json!({ "uri": shortened(uri) }))
    }

    /// The credential of the request lacks a scope. `scope` has all scopes that a client should ask
    /// for, separated by spaces (RFC 6750, section 3).
    #[must_use]
    pub fn insufficient_scope(scope: &str) -> Self {
        Self::new(code::FORBIDDEN, "the request needs a token with more scopes")
            .with_data(json!({ "error": "insufficient_scope", "scope": scope }))
    }

    /// The server accepts no more work now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(code::UNAVAILABLE, message)
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for ErrorObject {}

impl From<crate::headers::HeaderMismatch> for ErrorObject {
    fn from(mismatch: crate::headers::HeaderMismatch) -> Self {
        Self::new(code::HEADER_MISMATCH, mismatch.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// The codes of this file, by name.
    fn codes() -> BTreeMap<&'static str, i32> {
        let lines = include_str!("error.rs").lines().map(str::trim);
        let constants =
            lines.filter_map(|line| line.strip_prefix("pub const ")?.split_once(": i32 = "));
        constants.map(|(name, code)| (name, code.trim_end_matches(';').parse().unwrap())).collect()
    }

    #[test]
    fn the_table_of_codes_has_all_of_them() {
        let page = include_str!("../../../docs/ERRORS.md");
        let (first_table, _) = page.split_once("\n## ").unwrap();
        let rows = first_table.lines().filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`')))
        });
        let documented: BTreeMap<&str, i32> = rows.map(|(code, name)| (name, code)).collect();
        assert_eq!(documented, codes());
    }

    #[test]
    fn application_codes_are_outside_of_the_reserved_range() {
        let of_protocols =
            [-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022, -32002, -32042];
        for (name, code) in codes() {
            let reserved = (-32_768..=-32_000).contains(&code);
            assert_eq!(reserved, of_protocols.contains(&code), "{name}");
        }
    }
}
