//! The outcomes of the author's code, and their form for clients.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use stentor_wire::model::{CallToolResult, ContentBlock, JsonObject};
use stentor_wire::{Era, ErrorObject, code};

use super::{AskError, InputRequired};

/// Why a call failed: a message that the model can act on, or an error of the protocol.
///
/// `?` turns every [`std::error::Error`] into a message for the model. For other errors, use
/// [`CallError::protocol`]. `CallError` does not implement `Error`, because `?` could not convert
/// other errors then.
#[derive(Clone, PartialEq)]
pub struct CallError(Kind);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Message(String),
    Protocol(ErrorObject),
    Ask(Box<InputRequired>),
}

/// Why a tool failed; see [`CallError`].
pub type ToolError = CallError;
/// Why a resource could not be read; see [`CallError`].
pub type ResourceError = CallError;
/// Why a prompt could not be filled in; see [`CallError`].
pub type PromptError = CallError;

impl CallError {
    /// A failure that the model reads and can act on. A tool turns it into a result with
    /// `isError: true`, a resource or prompt into a JSON-RPC error.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(Kind::Message(message.into()))
    }

    /// A JSON-RPC error with a code and data of the author's choice.
    #[must_use]
    pub fn protocol(error: ErrorObject) -> Self {
        Self(Kind::Protocol(error))
    }

    /// -32602: the request's parameters are wrong.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::protocol(ErrorObject::invalid_params(message))
    }

    /// Questions instead of a failure. A modern client gets them as the response to its request,
    /// which ends, and sends the answers with a new request. Nothing waits meanwhile, and the code
    /// runs again from the start; see [`InputRequired`].
    #[must_use]
    pub fn input_required(asked: InputRequired) -> Self {
        Self(Kind::Ask(Box::new(asked)))
    }

    /// The same error in a form that a client of this era can read. Only the modern era has a code
    /// for a missing capability; legacy clients get it as an ordinary failure.
    pub(crate) fn in_words_of(self, era: Era) -> Self {
        match self.0 {
            Kind::Protocol(ErrorObject { code: code::MISSING_CAPABILITY, message, data })
                if era == Era::Legacy =>
            {
                let missing = data.as_ref().and_then(|data| data.get("requiredCapabilities"));
                let missing = missing.map(|missing| format!(": {missing}"));
                Self::new(message + missing.as_deref().unwrap_or_default())
            }
            _ => self,
        }
    }

    pub(crate) fn into_kind(self) -> Kind {
        self.0
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Message(message) => f.write_str(message),
            Kind::Protocol(error) => error.fmt(f),
            Kind::Ask(_) => f.write_str("input required"),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for CallError {
    fn from(error: E) -> Self {
        // An error of the protocol keeps its code through `?`.
        let any = &error as &dyn std::any::Any;
        match (any.downcast_ref::<ErrorObject>(), any.downcast_ref::<AskError>()) {
            (Some(protocol), _) => Self::protocol(protocol.clone()),
            (_, Some(AskError::Unsupported(missing))) => {
                Self::protocol(ErrorObject::missing_capability(missing.clone()))
            }
            _ => Self::new(error.to_string()),
        }
    }
}

/// A type that a tool may return.
///
/// A text becomes one text block. Content blocks are used as they are. [`Structured`] adds
/// `structuredContent` and an output schema. A [`CallToolResult`] sets everything.
pub trait IntoToolResult: Send + 'static {
    /// The schema of `structuredContent`, if results of this type have one.
    #[must_use]
    fn output_schema() -> Option<JsonObject> {
        None
    }

    /// The result as clients see it.
    ///
    /// # Errors
    ///
    /// If the value has no JSON form.
    fn into_tool_result(self) -> Result<CallToolResult, ToolError>;
}

macro_rules! content {
    ($($type:ty: |$value:ident| $blocks:expr;)*) => {
        $(impl IntoToolResult for $type {
            fn into_tool_result(self) -> Result<CallToolResult, ToolError> {
                let $value = self;
                let mut result = CallToolResult::success($blocks);
                result.result_type = None;
                result.is_error = None;
                Ok(result)
            }
        })*
    };
}

content! {
    (): |_nothing| Vec::new();
    String: |text| vec![ContentBlock::text(text)];
    &'static str: |text| vec![ContentBlock::text(text)];
    ContentBlock: |block| vec![block];
    Vec<ContentBlock>: |blocks| blocks;
}

impl IntoToolResult for CallToolResult {
    fn into_tool_result(mut self) -> Result<CallToolResult, ToolError> {
        self.result_type = None;
        Ok(self)
    }
}

/// A structured result: `structuredContent`, the same value as text for older clients, and an
/// output schema made from the type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structured<T>(pub T);

impl<T: Serialize + JsonSchema + Send + 'static> IntoToolResult for Structured<T> {
    fn output_schema() -> Option<JsonObject> {
        Some(super::schema::of_type::<T>())
    }

    fn into_tool_result(self) -> Result<CallToolResult, ToolError> {
        let value: Value = serde_json::to_value(self.0)?;
        let mut result = CallToolResult::structured(value);
        result.result_type = None;
        result.is_error = None;
        Ok(result)
    }
}
