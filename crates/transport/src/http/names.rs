//! The protocol's headers as `HeaderName`s: a string would be parsed again at each lookup.

use http::HeaderName;
use stentor_wire::headers;

pub(super) static METHOD: HeaderName = HeaderName::from_static(headers::MCP_METHOD);
pub(super) static NAME: HeaderName = HeaderName::from_static(headers::MCP_NAME);
pub(super) static PROTOCOL_VERSION: HeaderName =
    HeaderName::from_static(headers::MCP_PROTOCOL_VERSION);
pub(super) static SESSION_ID: HeaderName = HeaderName::from_static(headers::MCP_SESSION_ID);
