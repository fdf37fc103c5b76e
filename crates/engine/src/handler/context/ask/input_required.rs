//! Questions that end the request of a modern call, for code that does not wait.

use serde::Serialize;
use serde_json::{Value, json};
use stentor_wire::encode::Question;
use stentor_wire::{Era, ErrorObject, ProtocolVersion, request};

use super::capabilities::lacking;
use super::elicit::Elicit;
use super::sample::Sample;
use crate::handler::{Context, SchemaError};

/// Questions to a modern client that end its request, for code that should not wait.
///
/// Return it with [`CallError::input_required`](crate::CallError::input_required). The client's
/// next request runs the code again. The code then finds the answers in
/// [`Context::input_responses`], and its state in [`Context::request_state`]. Nobody can change the
/// state on its way, but the client can send the same state again until it expires.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputRequired {
    pub(crate) questions: Vec<(String, Question)>,
    pub(crate) state: Value,
    refused: Option<SchemaError>,
}

impl InputRequired {
    /// Starts without questions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a question to the user, under a key.
    #[must_use]
    pub fn elicit(mut self, key: impl Into<String>, elicit: &Elicit) -> Self {
        self.refused = self.refused.or_else(|| elicit.refused(ProtocolVersion::V2026_07_28));
        self.question(key, elicit.question(Era::Modern))
    }

    /// Adds a question to the client's model, under a key.
    #[must_use]
    pub fn sample(self, key: impl Into<String>, sample: &Sample) -> Self {
        self.question(key, sample.question())
    }

    /// Adds a question for the client's roots, under a key.
    #[must_use]
    pub fn list_roots(self, key: impl Into<String>) -> Self {
        self.question(key, Question { method: request::LIST_ROOTS, params: json!({}) })
    }

    /// Adds a question, and replaces an earlier one with the same key.
    fn question(mut self, key: impl Into<String>, question: Question) -> Self {
        let key = key.into();
        self.questions.retain(|(used, _)| *used != key);
        self.questions.push((key, question));
        self
    }

    /// Sets the state that the client has to send back; the state is sealed.
    #[must_use]
    pub fn state(mut self, state: impl Serialize) -> Self {
        self.state = serde_json::to_value(state).unwrap_or_default();
        self
    }

    /// Checks whether the client can be asked all these questions.
    pub(crate) fn check(&self, ctx: &Context) -> Result<(), ErrorObject> {
        if ctx.era() == Era::Legacy {
            return Err(ErrorObject::internal("this needs a client of the 2026-07-28 revision"));
        }
        if !ctx.call().may_ask {
            let why = "a request of this kind cannot be answered with questions";
            return Err(ErrorObject::internal(why));
        }
        if let Some(error) = &self.refused {
            return Err(ErrorObject::internal(error.to_string()));
        }
        let can = ctx.client_capabilities();
        let missing = self.questions.iter().find_map(|(_, question)| lacking(&can, question));
        missing.map_or(Ok(()), |missing| Err(ErrorObject::missing_capability(missing)))
    }
}
