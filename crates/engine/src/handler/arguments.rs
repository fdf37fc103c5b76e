//! The arguments of a tool, before the tool has them.

use bytestring::ByteString;
use serde_json::Value;
use stentor_wire::bounds::shortened;
use stentor_wire::{ErrorObject, numbers};

use super::ToolError;
use crate::offload::LARGE;

/// The arguments of a tool as the client wrote them, which are read when the tool runs.
#[derive(Clone, Debug)]
pub(crate) struct Arguments(ByteString);

impl Default for Arguments {
    fn default() -> Self {
        Self(ByteString::from_static("{}"))
    }
}

impl From<&Value> for Arguments {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Arguments {
    /// From the JSON of an object.
    pub(crate) fn new(json: ByteString) -> Self {
        Self(json)
    }

    /// Whether it takes long to read them.
    pub(crate) fn are_large(&self) -> bool {
        self.0.len() > LARGE
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// -32602 if they have a number that is beyond all bounds.
    pub(crate) fn read(&self) -> Result<Value, ToolError> {
        let mut read = serde_json::from_str(&self.0).map_err(|error| {
            let message = format!("invalid arguments: {}", shortened(error));
            ToolError::protocol(ErrorObject::invalid_params(message))
        })?;
        // An integer is one to the code, too, however the client wrote it.
        numbers::settle(&mut read);
        Ok(read)
    }
}
