//! The names of the headers, in lowercase.

/// The protocol version of the request (2026-07-28: required, equal to the one in `_meta`;
/// 2025-06-18 and 2025-11-25: on every request after `initialize`).
pub const MCP_PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// The session of the request (2025-03-26 to 2025-11-25, `basic/transports`, "Session Management").
/// The modern era ignores it.
pub const MCP_SESSION_ID: &str = "mcp-session-id";

/// The JSON-RPC method of the request (2026-07-28, "Standard Request Headers").
pub const MCP_METHOD: &str = "mcp-method";

/// The subject of the request: `params.name`, `params.uri` or `params.taskId` (2026-07-28,
/// "Standard Request Headers", and the tasks extension).
pub const MCP_NAME: &str = "mcp-name";

/// The prefix of every header that mirrors a tool parameter (2026-07-28, "Custom Headers from Tool
/// Parameters").
pub const MCP_PARAM_PREFIX: &str = "mcp-param-";

/// The last event that a client received of a stream it wants to resume (2025-03-26 to 2025-11-25,
/// `basic/transports`, "Resumability and Redelivery"). The modern era ignores it.
pub const LAST_EVENT_ID: &str = "last-event-id";
