//! What a client says of itself, in either era.

use rmcp::model::{ClientCapabilities, Implementation};

use crate::bounds::{MAX_CAPABILITIES, MAX_CLIENT_INFO, shortened};

/// Reads the description that a client gives of itself. Its icons are dropped if they make it too
/// long.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read_client_info(raw: &str) -> Result<Implementation, String> {
    let mut info: Implementation = serde_json::from_str(raw).map_err(shortened)?;
    if raw.len() > MAX_CLIENT_INFO {
        info.icons = None;
        let kept = serde_json::to_vec(&info).map_or(0, |json| json.len());
        if kept > MAX_CLIENT_INFO {
            return Err(format!("it has more than {MAX_CLIENT_INFO} bytes without its icons"));
        }
    }
    Ok(info)
}

/// Reads the capabilities of a client.
///
/// # Errors
///
/// What is wrong with them.
pub(crate) fn read_capabilities(raw: &str) -> Result<ClientCapabilities, String> {
    if raw.len() > MAX_CAPABILITIES {
        return Err(format!("they have more than {MAX_CAPABILITIES} bytes"));
    }
    serde_json::from_str(raw).map_err(shortened)
}
