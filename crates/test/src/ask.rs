//! Questions of the server, and the test's answers.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use stentor_wire::{ErrorObject, request};

/// A question to the user: a form, or a web page to visit.
#[derive(Clone, Debug)]
pub struct ElicitRequest {
    params: Value,
}

impl ElicitRequest {
    /// What the user is asked.
    #[must_use]
    pub fn message(&self) -> &str {
        self.params["message"].as_str().unwrap_or_default()
    }

    /// The schema of the form; `None` for a web page.
    #[must_use]
    pub fn schema(&self) -> Option<&Value> {
        self.params.get("requestedSchema")
    }

    /// The web page to visit; `None` for a form.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.params["url"].as_str()
    }

    /// All parameters of the question.
    #[must_use]
    pub fn params(&self) -> &Value {
        &self.params
    }
}

/// A question to the client's model.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    params: Value,
}

impl SampleRequest {
    /// The texts of all messages, oldest first.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        let messages = self.params["messages"].as_array().into_iter().flatten();
        let contents = messages.flat_map(|message| match &message["content"] {
            Value::Array(blocks) => blocks.iter().collect(),
            block => vec![block],
        });
        contents.filter_map(|block| block["text"].as_str()).collect()
    }

    /// All parameters of the question.
    #[must_use]
    pub fn params(&self) -> &Value {
        &self.params
    }
}

/// An answer to a question of the server.
///
/// The same answer goes to a legacy request of the server and into the retry of a modern request.
#[derive(Clone, Debug)]
pub struct Answer(Result<Value, ErrorObject>);

impl Answer {
    /// The user accepts: fills in the form with `content`, or visits the web page.
    ///
    /// # Panics
    ///
    /// If `content` does not serialize to JSON.
    #[must_use]
    #[track_caller]
    pub fn accept(content: impl Serialize) -> Self {
        let content = serde_json::to_value(content).expect("content that serializes to JSON");
        Self::raw(match content {
            Value::Null => json!({"action": "accept"}),
            content => json!({"action": "accept", "content": content}),
        })
    }

    /// The user declines.
    #[must_use]
    pub fn decline() -> Self {
        Self::raw(json!({"action": "decline"}))
    }

    /// The user dismisses the question.
    #[must_use]
    pub fn cancel() -> Self {
        Self::raw(json!({"action": "cancel"}))
    }

    /// The model says this.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        let content = json!({"type": "text", "text": text.into()});
        Self::raw(json!({"role": "assistant", "model": "test", "content": content}))
    }

    /// The client fails. A modern client cannot say so: it does not retry its request, which fails
    /// with this error.
    #[must_use]
    pub fn error(error: ErrorObject) -> Self {
        Self(Err(error))
    }

    /// Any other result.
    #[must_use]
    pub fn raw(result: Value) -> Self {
        Self(Ok(result))
    }
}

type OnElicit = Arc<dyn Fn(ElicitRequest) -> Answer + Send + Sync>;
type OnSample = Arc<dyn Fn(SampleRequest) -> Answer + Send + Sync>;

/// What a client answers to the questions of the server.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub(crate) elicit: Option<OnElicit>,
    pub(crate) sample: Option<OnSample>,
    pub(crate) roots: Option<Value>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.capabilities();
        f.debug_list().entries(known.keys()).finish()
    }
}

impl Answers {
    /// The capabilities that a client with these answers has.
    pub(crate) fn capabilities(&self) -> Map<String, Value> {
        let known = [
            ("elicitation", self.elicit.is_some(), json!({"form": {}, "url": {}})),
            ("sampling", self.sample.is_some(), json!({})),
            ("roots", self.roots.is_some(), json!({})),
        ];
        let known = known.into_iter().filter(|(_, has, _)| *has);
        known.map(|(name, _, settings)| (name.to_owned(), settings)).collect()
    }

    /// The result, or the error, for a question.
    pub(crate) fn answer(&self, question: &Value) -> Result<Value, ErrorObject> {
        let method = question["method"].as_str().unwrap_or_default();
        let params = question["params"].clone();
        let answer = match method {
            request::ELICIT => self.elicit.as_ref().map(|on| on(ElicitRequest { params })),
            request::SAMPLE => self.sample.as_ref().map(|on| on(SampleRequest { params })),
            request::LIST_ROOTS => {
                self.roots.clone().map(|roots| Answer::raw(json!({ "roots": roots })))
            }
            "ping" => Some(Answer::raw(json!({}))),
            _ => None,
        };
        answer.map_or_else(|| Err(ErrorObject::method_not_found(method)), |answer| answer.0)
    }
}
