//! Questions to the user: a form, or a visit to a web page.

use schemars::JsonSchema;
use serde_json::{Value, json};
use stentor_wire::encode::Question;
use stentor_wire::model::JsonObject;
use stentor_wire::{Era, ProtocolVersion, request};

use crate::handler::{SchemaError, form, form_schema};

/// A question to the user.
#[derive(Clone, Debug)]
pub struct Elicit {
    pub(super) key: Option<String>,
    message: String,
    pub(super) form: Form,
}

#[derive(Clone, Debug)]
pub(super) enum Form {
    /// The author's schema, and the form that the client receives.
    Schema(JsonObject, Result<JsonObject, SchemaError>),
    /// The URL of a page, and the id of the visit.
    Url(String, String),
}

impl Elicit {
    /// A form with the fields of a type: texts, numbers, booleans and enums, with defaults and
    /// titles. A list of an enum is a field with several choices.
    #[must_use]
    pub fn form<T: JsonSchema>(message: impl Into<String>) -> Self {
        Self::schema(message, form_schema::<T>())
    }

    /// A form with the author's own schema, in the subset that the protocol allows
    /// (client/elicitation). A question with any other field fails, and so does one whose schema is
    /// no JSON object.
    #[must_use]
    pub fn schema(message: impl Into<String>, schema: impl Into<Value>) -> Self {
        let (schema, told) = match schema.into() {
            Value::Object(schema) => {
                let told = form::descriptor(&schema);
                (schema, told)
            }
            _ => (JsonObject::new(), Err(SchemaError::NotAnObject)),
        };
        Self { key: None, message: message.into(), form: Form::Schema(schema, told) }
    }

    /// Sends the user to a web page, for data that must not pass through the client. The answer
    /// only says that the user went there.
    #[must_use]
    pub fn url(message: impl Into<String>, url: impl Into<String>) -> Self {
        let id = crate::ids::random_text::<16>();
        Self { key: None, message: message.into(), form: Form::Url(url.into(), id) }
    }

    /// Sets the id of the visit of a [`url`](Self::url), for example because the page has to know
    /// it. The id must be unguessable. Clients up to 2025-11-25 see it as `elicitationId`. A form
    /// has no id.
    #[must_use]
    pub fn elicitation(mut self, id: impl Into<String>) -> Self {
        if let Form::Url(_, named) = &mut self.form {
            *named = id.into();
        }
        self
    }

    /// The id of the visit of a [`url`](Self::url): a random id, unless
    /// [`elicitation`](Self::elicitation) has set another.
    #[must_use]
    pub fn elicitation_id(&self) -> Option<&str> {
        match &self.form {
            Form::Url(_, id) => Some(id),
            Form::Schema(..) => None,
        }
    }

    pub(in crate::handler::context) fn key_or(&self, other: &str) -> String {
        self.key.clone().unwrap_or_else(|| other.to_owned())
    }

    /// Sets the key under which a modern client sees and answers the question. Without it, a key is
    /// generated.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Why a client of this version cannot show the form.
    pub(super) fn refused(&self, version: ProtocolVersion) -> Option<SchemaError> {
        match &self.form {
            Form::Schema(_, Err(error)) => Some(error.clone()),
            Form::Schema(_, Ok(form)) if !version.has_lists_in_forms() => {
                form::list_in(form).map(|field| SchemaError::Field(field.to_owned()))
            }
            Form::Schema(..) | Form::Url(..) => None,
        }
    }

    pub(in crate::handler::context) fn question(&self, era: Era) -> Question {
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
