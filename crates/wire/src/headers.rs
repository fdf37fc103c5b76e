//! The MCP request headers of Streamable HTTP, and how they must agree with the body.
//!
//! The modern era copies parts of a JSON-RPC request into HTTP headers, so that a load balancer or
//! a gateway can route without reading the body. A server that does read the body must then refuse
//! a request whose headers differ, or the two would act on different values. Everything here is a
//! pure function of header bytes and body values; the transport provides both.
//!
//! Specification: `basic/transports/streamable-http` of 2026-07-28, "Request Metadata", and
//! `server/tools` of 2026-07-28, "x-mcp-header".

mod mismatch;
mod names;
mod param_headers;
mod standard;
#[cfg(test)]
mod tests;
mod value;

pub use crate::bounds::quoted;
pub use mismatch::HeaderMismatch;
pub use names::{
    LAST_EVENT_ID, MCP_METHOD, MCP_NAME, MCP_PARAM_PREFIX, MCP_PROTOCOL_VERSION, MCP_SESSION_ID,
};
pub use param_headers::{ParamHeaderError, ParamHeaders};
pub use standard::{check_protocol_version, check_standard};
pub use value::{decode_value, encode_value};
