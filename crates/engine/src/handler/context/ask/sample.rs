//! Questions to the client's model, and its answers.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use stentor_wire::encode::Question;
use stentor_wire::request;

/// A question to the client's model.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(super) key: Option<String>,
    params: Map<String, Value>,
    messages: Vec<Value>,
}

impl Sample {
    /// Asks for an answer of at most `max_tokens` tokens.
    #[must_use]
    pub fn new(max_tokens: u32) -> Self {
        let params = Map::from_iter([("maxTokens".to_owned(), max_tokens.into())]);
        Self { key: None, params, messages: Vec::new() }
    }

    /// Adds a message of the user.
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Self {
        self.message("user", &text.into())
    }

    /// Adds a message of the model.
    #[must_use]
    pub fn assistant(self, text: impl Into<String>) -> Self {
        self.message("assistant", &text.into())
    }

    fn message(mut self, role: &str, text: &str) -> Self {
        self.messages.push(json!({"role": role, "content": {"type": "text", "text": text}}));
        self
    }

    /// Sets the system prompt, which instructs the model.
    #[must_use]
    pub fn system(self, prompt: impl Into<String>) -> Self {
        self.param("systemPrompt", prompt.into())
    }

    /// Sets any other parameter of `sampling/createMessage`, such as `temperature` or
    /// `modelPreferences`.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Sets the key under which a modern client sees and answers the question.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(super) fn question(&self) -> Question {
        let mut params = Map::from_iter([("messages".to_owned(), self.messages.clone().into())]);
        params.extend(self.params.clone());
        Question { method: request::SAMPLE, params: params.into() }
    }
}

/// Reads a text that may be `null`.
fn or_empty<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// The answer of the client's model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Sampled {
    /// The role of the speaker, usually `assistant`.
    pub role: String,
    /// A content block, or a list of them.
    pub content: Value,
    /// The name of the model.
    #[serde(default, deserialize_with = "or_empty")]
    pub model: String,
    /// Why the model stopped.
    #[serde(default)]
    pub stop_reason: Option<String>,
}

impl Sampled {
    /// The texts of the answer, concatenated.
    #[must_use]
    pub fn text(&self) -> String {
        let blocks = match &self.content {
            Value::Array(blocks) => blocks.as_slice(),
            block => std::slice::from_ref(block),
        };
        blocks.iter().filter_map(|block| block["text"].as_str()).collect()
    }
}
