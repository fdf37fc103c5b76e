//! The arguments of a tool, before they are parsed.

use bytestring::ByteString;
use serde_json::Value;
use stentor_wire::bounds::shortened;
use stentor_wire::{ErrorObject, numbers};

use super::ToolError;
use crate::offload::LARGE;

/// The arguments of a tool as the client wrote them. They are parsed when the tool runs.
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

    /// Whether they take long to parse.
    pub(crate) fn are_large(&self) -> bool {
        self.0.len() > LARGE
    }

    /// Parses the arguments.
    ///
    /// # Errors
    ///
    /// -32602 if they contain a number that is out of range.
    pub(crate) fn read(&self) -> Result<Value, ToolError> {
        let mut read = serde_json::from_str(&self.0).map_err(|error| {
            let message = format!("invalid arguments: {}", shortened(error));
            ToolError::protocol(ErrorObject::invalid_params(message))
        })?;
        // The code receives integers as integers, however the client wrote them.
        numbers::settle(&mut read);
        Ok(read)
    }
}
