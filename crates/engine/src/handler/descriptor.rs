//! The descriptor of a tool as JSON, as clients of each era receive it.

use std::sync::Arc;

use bytes::Bytes;
use stentor_wire::{Era, model};

use super::SchemaError;
use super::schema::clean;

#[derive(Debug)]
pub(crate) struct ToolDescriptor {
    modern: Bytes,
    legacy: Bytes,
}

impl ToolDescriptor {
    /// The descriptor of a tool whose schemas its author wrote.
    pub(super) fn of(tool: &model::Tool) -> Result<Self, SchemaError> {
        let mut descriptor = tool.clone();
        descriptor.input_schema = Arc::new(clean::input(&tool.input_schema)?);
        descriptor.output_schema = tool.output_schema.as_deref().map(clean::output).map(Arc::new);
        let modern = serde_json::to_vec(&descriptor)
            .map_err(|error| SchemaError::Invalid(error.to_string()))?
            .into();
        Ok(Self::from_definition(&descriptor, modern))
    }

    /// The descriptor of a tool from its modern JSON, which another node may have sent.
    pub(crate) fn from_definition(tool: &model::Tool, json: Bytes) -> Self {
        let schema = tool.output_schema.as_deref();
        let legacy_schema = schema.and_then(clean::legacy_output);
        if legacy_schema.as_ref() == schema {
            return Self { legacy: json.clone(), modern: json };
        }
        let mut legacy = tool.clone();
        legacy.output_schema = legacy_schema.map(Arc::new);
        let legacy = serde_json::to_vec(&legacy).map_or_else(|_| json.clone(), Bytes::from);
        Self { modern: json, legacy }
    }

    pub(crate) fn json(&self, era: Era) -> &Bytes {
        match era {
            Era::Modern => &self.modern,
            Era::Legacy => &self.legacy,
        }
    }
}
