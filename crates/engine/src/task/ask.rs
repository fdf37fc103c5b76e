//! Asking the client: one way for both eras.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use stentor_wire::bounds::shortened;
use stentor_wire::encode::{self, Question};
use stentor_wire::model::{ClientCapabilities, JsonObject};
use stentor_wire::{
    Era, ErrorObject, Id, ProtocolVersion, ResponseOutcome, notification, numbers, request,
};

use super::Context;
use super::lane::Lane;
use super::rounds::{Asked, Rounds, fits};
use crate::handler::{InputSchema, SchemaError, form, form_schema};
use crate::outlet::Frame;
use crate::outlet::policy::Class;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The user said no.
    #[error("the user declined")]
    Declined,
    /// The user closed the question without an answer.
    #[error("the user dismissed the question")]
    Dismissed,
    /// No answer came in time.
    #[error("the client did not answer in time")]
    TimedOut,
    /// The client did not declare that it can be asked this; these capabilities are missing.
    #[error("the client does not support this: it lacks the capability {0}")]
    Unsupported(Value),
    /// The client answered with an error.
    #[error("the client failed: {0}")]
    Client(ErrorObject),
    /// The answer does not have the form that was asked for.
    #[error("the answer is invalid: {0}")]
    Invalid(String),
    /// The call, or its session, ends; or too many calls wait for answers already.
    #[error("the question cannot be answered any more")]
    Ended,
}

/// A question to the user.
#[derive(Clone, Debug)]
pub struct Elicit {
    key: Option<String>,
    message: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The author's, and as the client is told.
    Schema(JsonObject, Result<JsonObject, SchemaError>),
    /// A page, and the name of the visit.
    Url(String, String),
}

impl Elicit {
    /// A form with the fields of a type: texts, numbers, booleans and enums, with defaults,
    /// titles and, for lists of an enum, several choices.
    #[must_use]
    pub fn form<T: JsonSchema>(message: impl Into<String>) -> Self {
        Self::schema(message, form_schema::<T>())
    }

    /// A form with a schema of one's own, in the subset that the protocol allows
    /// (client/elicitation). With a field that it does not have, the question fails.
    #[must_use]
    pub fn schema(message: impl Into<String>, schema: JsonObject) -> Self {
        let told = form::told(&schema);
        Self { key: None, message: message.into(), form: Form::Schema(schema, told) }
    }

    /// Sends the user to a web page, for what must not pass through the client. The answer
    /// only says that the user went there.
    #[must_use]
    pub fn url(message: impl Into<String>, url: impl Into<String>) -> Self {
        let id = crate::ids::random_text::<16>();
        Self { key: None, message: message.into(), form: Form::Url(url.into(), id) }
    }

    /// Gives the visit of a [`url`](Self::url) a name of the author's own, as where the page is to know
    /// it. It must be unguessable, and is what clients up to 2025-11-25 see as `elicitationId`. A form has
    /// none.
    #[must_use]
    pub fn elicitation(mut self, id: impl Into<String>) -> Self {
        if let Form::Url(_, named) = &mut self.form {
            *named = id.into();
        }
        self
    }

    /// The name of the visit of a [`url`](Self::url), a random one unless it was given another.
    #[must_use]
    pub fn elicitation_id(&self) -> Option<&str> {
        match &self.form {
            Form::Url(_, id) => Some(id),
            Form::Schema(..) => None,
        }
    }

    pub(super) fn key_or(&self, other: &str) -> String {
        self.key.clone().unwrap_or_else(|| other.to_owned())
    }

    /// The key under which a modern client sees and answers the question. Without one it gets
    /// one by itself.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Why a client of a version cannot show it.
    fn refused(&self, version: ProtocolVersion) -> Option<SchemaError> {
        match &self.form {
            Form::Schema(_, Err(error)) => Some(error.clone()),
            Form::Schema(_, Ok(form)) if !version.has_lists_in_forms() => {
                form::list_in(form).map(|field| SchemaError::Field(field.to_owned()))
            }
            Form::Schema(..) | Form::Url(..) => None,
        }
    }

    pub(super) fn question(&self, era: Era) -> Question {
        let mut params = json!({"message": self.message});
        match &self.form {
            Form::Schema(schema, told) => {
                let told = told.as_ref().unwrap_or(schema);
                params["requestedSchema"] = Value::Object(told.clone());
            }
            Form::Url(url, id) => {
                params["mode"] = "url".into();
                params["url"] = url.as_str().into();
                if era == Era::Legacy {
                    params["elicitationId"] = id.as_str().into();
                }
            }
        }
        Question { method: request::ELICIT, params }
    }
}

/// A question to the client's model.
#[derive(Clone, Debug)]
pub struct Sample {
    key: Option<String>,
    params: Map<String, Value>,
    messages: Vec<Value>,
}

impl Sample {
    /// Asks for an answer of at most so many tokens.
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

    /// Tells the model how to behave.
    #[must_use]
    pub fn system(self, prompt: impl Into<String>) -> Self {
        self.param("systemPrompt", prompt.into())
    }

    /// Any other parameter of `sampling/createMessage`, such as `temperature` or
    /// `modelPreferences`.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// The key under which a modern client sees and answers the question.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    fn question(&self) -> Question {
        let mut params = Map::from_iter([("messages".to_owned(), self.messages.clone().into())]);
        params.extend(self.params.clone());
        Question { method: request::SAMPLE, params: params.into() }
    }
}

/// A text that may be `null`.
fn or_empty<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// What the client's model said.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Sampled {
    /// Who speaks, as a rule `assistant`.
    pub role: String,
    /// A content block, or a list of them.
    pub content: Value,
    /// Which model it was.
    #[serde(default, deserialize_with = "or_empty")]
    pub model: String,
    /// Why it stopped.
    #[serde(default)]
    pub stop_reason: Option<String>,
}

impl Sampled {
    /// The texts of the answer, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        let blocks = match &self.content {
            Value::Array(blocks) => blocks.as_slice(),
            block => std::slice::from_ref(block),
        };
        blocks.iter().filter_map(|block| block["text"].as_str()).collect()
    }
}

/// A place that the client works in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Root {
    /// Where it is, as a rule a `file://` URI.
    pub uri: String,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
}

/// Questions to a modern client that end its request, for code that does not want to wait.
///
/// Return it with [`CallError::input_required`](crate::CallError::input_required). The
/// client's next request runs the code again, which then finds the answers in
/// [`Context::input_responses`] and what it gave to be sent back in
/// [`Context::request_state`]. Nobody can change that on its way; use it again is possible
/// until it expires.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputRequired {
    pub(crate) questions: Vec<(String, Question)>,
    pub(crate) state: Value,
    refused: Option<SchemaError>,
}

impl InputRequired {
    /// No questions yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the user, under a key.
    #[must_use]
    pub fn elicit(mut self, key: impl Into<String>, elicit: &Elicit) -> Self {
        self.refused = self.refused.or_else(|| elicit.refused(ProtocolVersion::V2026_07_28));
        self.question(key, elicit.question(Era::Modern))
    }

    /// Asks the client's model, under a key.
    #[must_use]
    pub fn sample(self, key: impl Into<String>, sample: &Sample) -> Self {
        self.question(key, sample.question())
    }

    /// Asks for the client's roots, under a key.
    #[must_use]
    pub fn list_roots(self, key: impl Into<String>) -> Self {
        self.question(key, Question { method: request::LIST_ROOTS, params: json!({}) })
    }

    /// A key that was used before gets the new question.
    fn question(mut self, key: impl Into<String>, question: Question) -> Self {
        let key = key.into();
        self.questions.retain(|(used, _)| *used != key);
        self.questions.push((key, question));
        self
    }

    /// What the client is to send back, sealed.
    #[must_use]
    pub fn state(mut self, state: impl Serialize) -> Self {
        self.state = serde_json::to_value(state).unwrap_or_default();
        self
    }

    /// Whether the client can be asked all this.
    pub(crate) fn check(&self, ctx: &Context) -> Result<(), ErrorObject> {
        if ctx.era() == Era::Legacy {
            return Err(ErrorObject::internal("this needs a client of the 2026-07-28 revision"));
        }
        if let Some(error) = &self.refused {
            return Err(ErrorObject::internal(error.to_string()));
        }
        let can = ctx.client_capabilities();
        let missing = self.questions.iter().find_map(|(_, question)| lacking(&can, question));
        missing.map_or(Ok(()), |missing| Err(ErrorObject::missing_capability(missing)))
    }
}

impl Context {
    /// The answers that a modern client sent with this request, by the key of their question.
    /// Those to questions of [`elicit`](Self::elicit) and the like are not among them once
    /// they have been asked.
    #[must_use]
    pub fn input_responses(&self) -> Map<String, Value> {
        self.call().rounds().given()
    }

    /// What [`InputRequired::state`] gave to be sent back with this request.
    #[must_use]
    pub fn request_state(&self) -> Option<&Value> {
        self.call().explicit.as_ref()
    }

    /// Asks the user to fill in the fields of a type.
    ///
    /// In the legacy era this is a request to the client on the stream of the call. In the
    /// modern one the call's request is answered with `input_required`, and the code goes on
    /// where it waits when the client retries: it does not run again from the top. Questions
    /// that are asked together, as with [`tokio::join!`], go out together.
    ///
    /// Works in tools, prompts and resources. Cancel safe: the question is withdrawn.
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

    /// As [`elicit`](Self::elicit), with a key or a schema of one's own.
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn elicit_typed<T: DeserializeOwned>(&self, elicit: Elicit) -> Result<T, AskError> {
        let content = self.elicit_with(elicit).await?;
        serde_json::from_value(Value::Object(content))
            .map_err(|error| AskError::Invalid(shortened(error)))
    }

    /// Asks the user with a key, a schema or a URL of one's own; returns the content of the
    /// answer, which a URL has none of. See also [`elicit_url`](Self::elicit_url).
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

    /// Asks which roots the client works in.
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn list_roots(&self) -> Result<Vec<Root>, AskError> {
        #[derive(Deserialize)]
        struct Roots {
            roots: Vec<Root>,
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
        if self.era().server_may_ask() {
            self.ask_on_stream(question).await
        } else {
            self.ask_in_round(key, question).await
        }
    }

    async fn ask_in_round(&self, key: Option<&str>, question: Question) -> Result<Value, AskError> {
        let rounds = self.call().rounds().clone();
        match rounds.ask(key, question) {
            Asked::Given(answer) => Ok(answer),
            Asked::Open(key, answer) => {
                let _withdrawn = Withdrawn(rounds, key);
                answer.await.map_err(|_| AskError::Ended)
            }
        }
    }

    async fn ask_on_stream(&self, question: Question) -> Result<Value, AskError> {
        let call = self.call();
        let questions = call.questions.clone().ok_or(AskError::Ended)?;
        let method = question.method;
        let open = questions.open();
        let mut given_up = GivenUp { lane: call.lane(), id: None };
        let asking = async {
            let lane = &given_up.lane;
            // Those that were given up wait, too, if nobody reads them.
            lane.outlet.room_to_ask().await;
            let frame = Frame::Message(encode::request(open.id(), &question));
            if !lane.outlet.say(&lane.gate, Class::Question, frame) {
                return None;
            }
            given_up.id = Some(open.id().clone());
            open.answer().await
        };
        let answered = tokio::time::timeout(call.core.config.ask_timeout, asking).await;
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

/// The data of an error of more bytes than this is left out, as it may end in an answer.
const MAX_ERROR_DATA: usize = 4 * 1024;

/// Tells a legacy client that nobody waits for its answer any more.
struct GivenUp {
    lane: Arc<Lane>,
    id: Option<Id>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let params = json!({"requestId": id, "reason": "the question was given up"});
            let given_up = encode::notification(notification::CANCELLED, Some(&params));
            self.lane.outlet.say(&self.lane.gate, Class::Question, Frame::Message(given_up));
        }
    }
}

/// The capability that a client would have to declare to be asked this.
pub(super) fn lacking(can: &ClientCapabilities, question: &Question) -> Option<Value> {
    let by_url = question.params.get("mode").is_some_and(|mode| mode == "url");
    match (question.method, &can.elicitation) {
        (request::ELICIT, None) if !by_url => Some(json!({"elicitation": {}})),
        (request::ELICIT, declared) if by_url => {
            let can = declared.as_ref().is_some_and(|can| can.url.is_some());
            (!can).then(|| json!({"elicitation": {"url": {}}}))
        }
        // One that names no mode at all means forms, as it did before there were modes.
        (request::ELICIT, Some(can)) => {
            (can.form.is_none() && can.url.is_some()).then(|| json!({"elicitation": {"form": {}}}))
        }
        (request::SAMPLE, _) => can.sampling.is_none().then(|| json!({"sampling": {}})),
        (request::LIST_ROOTS, _) => can.roots.is_none().then(|| json!({"roots": {}})),
        _ => None,
    }
}

/// Takes a question back when nobody waits for its answer.
struct Withdrawn(Arc<Rounds>, String);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.withdraw(&self.1);
    }
}
