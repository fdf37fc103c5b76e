//! Questions to the client, with one API for both eras.

mod capabilities;
mod elicit;
mod input_required;
mod sample;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stentor_delivery::Frame;
use stentor_delivery::policy::Class;
use stentor_wire::bounds::shortened;
use stentor_wire::encode::{self, Question};
use stentor_wire::model::JsonObject;
use stentor_wire::{ErrorObject, Id, ResponseOutcome, notification, numbers, request};

use super::Context;
use super::output::CallOutput;
use super::pending_inputs::{AskedQuestion, PendingInputs, fits};
use crate::handler::InputSchema;
pub(super) use capabilities::lacking;
pub use elicit::Elicit;
use elicit::Form;
pub use input_required::InputRequired;
pub use sample::{Sample, Sampled};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The user declined.
    #[error("the user declined")]
    Declined,
    /// The user closed the question without an answer.
    #[error("the user dismissed the question")]
    Dismissed,
    /// No answer came in time.
    #[error("the client did not answer in time")]
    TimedOut,
    /// The client did not declare the capabilities for this question; these are missing.
    #[error("the client does not support this: it lacks the capability {0}")]
    Unsupported(Value),
    /// The client answered with an error.
    #[error("the client failed: {0}")]
    Client(ErrorObject),
    /// The answer does not have the form that was asked for, or the client cannot show the form.
    #[error("the answer is invalid: {0}")]
    Invalid(String),
    /// The call or its session ends, or too many calls await input already.
    #[error("the question cannot be answered any more")]
    Ended,
}

/// Turns the answer that a user refused to give into none. That a client cannot ask its user is not
/// that: match [`AskError::Unsupported`] for it, or look at
/// [`Context::client_capabilities`](crate::Context::client_capabilities).
///
/// ```
/// # use schemars::JsonSchema;
/// # use serde::Deserialize;
/// use stentor::{Context, OptionalAnswer as _, ToolError};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Login {
///     user: String,
/// }
///
/// async fn greet(ctx: Context) -> Result<String, ToolError> {
///     let Some(login) = ctx.elicit::<Login>("Who are you?").await.optional()? else {
///         return Ok("Hello, whoever you are!".to_owned());
///     };
///     Ok(format!("Hello, {}!", login.user))
/// }
/// # let _ = greet;
/// ```
pub trait OptionalAnswer<T> {
    /// `None` if the user declined or dismissed the question.
    ///
    /// # Errors
    ///
    /// Every other [`AskError`].
    fn optional(self) -> Result<Option<T>, AskError>;
}

impl<T> OptionalAnswer<T> for Result<T, AskError> {
    fn optional(self) -> Result<Option<T>, AskError> {
        match self {
            Ok(answer) => Ok(Some(answer)),
            Err(AskError::Declined | AskError::Dismissed) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A root of the client: a folder that the client works in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientRoot {
    /// Its URI, usually a `file://` URI.
    pub uri: String,
    /// Its name for people.
    #[serde(default)]
    pub name: Option<String>,
}

impl Context {
    /// The answers that a modern client sent with this request, by the key of their question. An
    /// answer that was used by [`elicit`](Self::elicit) or a similar method is no longer included.
    #[must_use]
    pub fn input_responses(&self) -> Map<String, Value> {
        self.call().inputs().given()
    }

    /// The state of [`InputRequired::state`] that the client sent back with this request.
    #[must_use]
    pub fn request_state(&self) -> Option<&Value> {
        self.call().explicit.as_ref()
    }

    /// Asks the user to fill in the fields of a type.
    ///
    /// In the legacy era the question is a request to the client on the stream of the call. In the
    /// modern era the request of the call is answered with `input_required`. When the client
    /// retries, the code continues where it waits: it does not run again from the start. Questions
    /// that are asked together, as with [`tokio::join!`], are sent together.
    ///
    /// Works in tools, prompts, resources and methods of extensions. Cancel safe: the question is withdrawn.
    ///
    /// # Errors
    ///
    /// [`AskError`]; with `?` it becomes the tool's error.
    pub async fn elicit<T: JsonSchema + DeserializeOwned>(
        &self,
        message: impl Into<String>,
    ) -> Result<T, AskError> {
        self.elicit_typed(Elicit::form::<T>(message)).await
    }

    /// As [`elicit`](Self::elicit), with the author's own key or schema.
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn elicit_typed<T: DeserializeOwned>(&self, elicit: Elicit) -> Result<T, AskError> {
        let content = self.elicit_with(elicit).await?;
        serde_json::from_value(Value::Object(content))
            .map_err(|error| AskError::Invalid(shortened(error)))
    }

    /// Asks the user with the author's own key, schema or URL. Returns the content of the answer,
    /// which is empty for a URL. See also [`elicit_url`](Self::elicit_url).
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn elicit_with(&self, elicit: Elicit) -> Result<JsonObject, AskError> {
        let question = elicit.question(self.era());
        let missing = lacking(&self.client_capabilities(), &question);
        if let Some(error) = elicit.refused(self.protocol_version()) {
            return Err(AskError::Invalid(error.to_string()));
        }
        let schema = match &elicit.form {
            Form::Schema(schema, _) => {
                let schema = InputSchema::compile(schema);
                Some(schema.map_err(|error| AskError::Invalid(error.to_string()))?)
            }
            Form::Url(..) => None,
        };
        let mut answer = self.ask(elicit.key.as_deref(), question, missing).await?;
        match answer["action"].as_str() {
            Some("accept") => {
                let content = match answer["content"].take() {
                    content @ Value::Object(_) => content,
                    _ => Value::Object(Map::new()),
                };
                let problems = schema.map(|schema| schema.problems(&content)).unwrap_or_default();
                match (problems.first(), content) {
                    (Some(problem), _) => Err(AskError::Invalid(problem.to_string())),
                    (None, Value::Object(content)) => Ok(content),
                    (None, _) => Ok(Map::new()),
                }
            }
            Some("decline") => Err(AskError::Declined),
            _ => Err(AskError::Dismissed),
        }
    }

    /// Asks the client's model.
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn sample(&self, sample: Sample) -> Result<Sampled, AskError> {
        let question = sample.question();
        let missing = lacking(&self.client_capabilities(), &question);
        let answer = self.ask(sample.key.as_deref(), question, missing).await?;
        serde_json::from_value(answer).map_err(|error| AskError::Invalid(shortened(error)))
    }

    /// Asks for the roots that the client works in.
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn list_roots(&self) -> Result<Vec<ClientRoot>, AskError> {
        #[derive(Deserialize)]
        struct Roots {
            roots: Vec<ClientRoot>,
        }
        let question = Question { method: request::LIST_ROOTS, params: json!({}) };
        let missing = lacking(&self.client_capabilities(), &question);
        let answer = self.ask(Some("roots"), question, missing).await?;
        serde_json::from_value::<Roots>(answer)
            .map(|answer| answer.roots)
            .map_err(|error| AskError::Invalid(shortened(error)))
    }

    async fn ask(
        &self,
        key: Option<&str>,
        question: Question,
        missing: Option<Value>,
    ) -> Result<Value, AskError> {
        if let Some(missing) = missing {
            return Err(AskError::Unsupported(missing));
        }
        if !self.era().server_may_ask() && !self.call().may_ask {
            let why = "a request of this kind cannot be answered with questions";
            return Err(AskError::Invalid(why.to_owned()));
        }
        if self.era().server_may_ask() {
            self.ask_on_stream(question).await
        } else {
            self.ask_in_round(key, question).await
        }
    }

    async fn ask_in_round(&self, key: Option<&str>, question: Question) -> Result<Value, AskError> {
        let inputs = self.call().inputs().clone();
        match inputs.ask(key, question) {
            AskedQuestion::Given(answer) => Ok(answer),
            AskedQuestion::Open(key, answer) => {
                let _withdraw = WithdrawOnDrop(inputs, key);
                answer.await.map_err(|_| AskError::Ended)
            }
        }
    }

    async fn ask_on_stream(&self, question: Question) -> Result<Value, AskError> {
        let call = self.call();
        let questions = call.questions.clone().ok_or(AskError::Ended)?;
        let method = question.method;
        let open = questions.open();
        let mut given_up = CancelOnDrop { output: call.output(), id: None };
        let asking = async {
            let output = &given_up.output;
            // Questions that were given up use space, too, until the client reads them.
            output.sender.wait_for_space_to_ask().await;
            let frame = Frame::Message(encode::request(open.id(), &question));
            if !output.sender.send(&output.gate, Class::Question, frame) {
                return None;
            }
            given_up.id = Some(open.id().clone());
            open.answer().await
        };
        let answered = tokio::time::timeout(call.host.ask_timeout(), asking).await;
        if answered.is_ok() {
            given_up.id = None;
        }
        match answered {
            Ok(Some(ResponseOutcome::Result(result))) => serde_json::from_slice(&result)
                .ok()
                .filter(|answer| fits(method, answer))
                .map(|mut answer| {
                    numbers::settle(&mut answer);
                    answer
                })
                .ok_or_else(|| AskError::Invalid(format!("it is no answer to {method}"))),
            Ok(Some(ResponseOutcome::Error(error))) => {
                let failed = ErrorObject::internal("the client failed");
                let mut said: ErrorObject = serde_json::from_slice(&error).unwrap_or(failed);
                said.message = shortened(&said.message);
                said.data = said.data.filter(|_| error.len() <= MAX_ERROR_DATA);
                Err(AskError::Client(said))
            }
            Ok(None) => Err(AskError::Ended),
            Err(_elapsed) => Err(AskError::TimedOut),
        }
    }
}

/// The data of an error of more bytes than this is dropped, because it may be part of a response.
const MAX_ERROR_DATA: usize = 4 * 1024;

/// When dropped, notifies a legacy client that nobody waits for its answer any more.
struct CancelOnDrop {
    output: Arc<CallOutput>,
    id: Option<Id>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let params = json!({"requestId": id, "reason": "the question was given up"});
            let given_up = encode::notification(notification::CANCELLED, Some(&params));
            self.output.sender.send(&self.output.gate, Class::Question, Frame::Message(given_up));
        }
    }
}

/// When dropped, withdraws a question, because nobody waits for its answer.
struct WithdrawOnDrop(Arc<PendingInputs>, String);

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        self.0.withdraw(&self.1);
    }
}
