//! The parameters of the requests that a server answers.

mod filter;
mod raw;
mod read;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rmcp::model::{ClientCapabilities, Implementation};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::bounds::{MAX_NAME, MAX_VALUES, count_values};
use crate::{ErrorObject, LogLevel};
pub use filter::NoticeFilter;
pub use raw::{Member, Params};
pub(crate) use raw::{Seen, values_of};
use read::{capabilities, client_info, given, or_default};

/// `initialize` (2025-11-25, basic/lifecycle).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Initialize {
    /// The newest version that the client supports.
    #[serde(deserialize_with = "read::version")]
    pub protocol_version: String,
    /// The capabilities of the client.
    #[serde(deserialize_with = "capabilities")]
    pub capabilities: ClientCapabilities,
    /// The name and version of the client.
    #[serde(deserialize_with = "client_info")]
    pub client_info: Implementation,
}

/// The lists: `tools/list`, `resources/list`, `resources/templates/list`, `prompts/list`.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct List {
    /// Where the page begins; absent for the first page.
    #[serde(default, deserialize_with = "read::cursor")]
    pub cursor: Option<String>,
}

/// `tools/call`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallTool<'a> {
    /// The name of the tool.
    pub name: std::borrow::Cow<'a, str>,
    /// Its arguments, raw.
    pub arguments: Option<&'a str>,
}

impl<'a> CallTool<'a> {
    /// Reads the parameters; the arguments stay raw.
    ///
    /// # Errors
    ///
    /// -32602 without a name, or if the name is not a string or longer than [`MAX_NAME`].
    pub fn read(params: &'a Params) -> Result<Self, ErrorObject> {
        let name = params.string(Member::Name)?;
        let name = name.ok_or_else(|| raw::invalid(&"missing field `name`"))?;
        read::check_length(&name, "name", MAX_NAME).map_err(|error| raw::invalid(&error))?;
        Ok(Self { name, arguments: params.member(Member::Arguments)? })
    }
}

/// The members that a retried request adds to its own parameters (2026-07-28, basic/patterns/mrtr).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Retry {
    /// The answers, by the keys of their questions.
    pub input_responses: Option<serde_json::Map<String, serde_json::Value>>,
    /// The state token of the result that asked, sent back by the client.
    pub request_state: Option<String>,
}

impl Retry {
    /// Reads the members of a retry from the parameters of a request.
    ///
    /// # Errors
    ///
    /// -32602 if a member has the wrong type, or if the answers have more values than
    /// [`MAX_VALUES`].
    pub fn read(params: &Params) -> Result<Self, ErrorObject> {
        let responses = params.member(Member::InputResponses)?;
        if responses.is_some_and(|raw| count_values(raw.as_bytes(), MAX_VALUES) > MAX_VALUES) {
            let error = format_args!("inputResponses have more than {MAX_VALUES} values");
            return Err(raw::invalid(&error));
        }
        let responses = responses.map(|raw| answers(&mut serde_json::Deserializer::from_str(raw)));
        Ok(Self {
            input_responses: responses.transpose().map_err(|error| raw::invalid(&error))?,
            request_state: params.string(Member::RequestState)?.map(Into::into),
        })
    }
}

/// Reads the answers of a client, by their keys.
fn answers<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<serde_json::Map<String, serde_json::Value>, D::Error> {
    let mut answers = serde_json::Map::deserialize(input)?;
    answers.values_mut().for_each(crate::numbers::settle);
    Ok(answers)
}

/// `resources/read`, `resources/subscribe` and `resources/unsubscribe`.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct ResourceUri {
    /// The URI of the resource.
    #[serde(deserialize_with = "read::uri")]
    pub uri: String,
}

/// `prompts/get`.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct GetPrompt {
    /// The name of the prompt.
    #[serde(deserialize_with = "read::name")]
    pub name: String,
    /// Its arguments.
    #[serde(default, deserialize_with = "given")]
    pub arguments: BTreeMap<String, String>,
}

/// `completion/complete` (server/utilities/completion).
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Complete {
    /// The prompt or the resource template.
    pub r#ref: CompletionRef,
    /// The argument to complete.
    pub argument: CompletionArgument,
    /// The arguments that are known already.
    #[serde(default, deserialize_with = "or_default")]
    pub context: CompletionContext,
}

/// The object of a completion.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum CompletionRef {
    /// A prompt.
    #[serde(rename = "ref/prompt")]
    Prompt {
        /// Its name.
        #[serde(deserialize_with = "read::name")]
        name: String,
    },
    /// A resource template.
    #[serde(rename = "ref/resource")]
    Resource {
        /// Its URI template.
        #[serde(deserialize_with = "read::uri")]
        uri: String,
    },
}

/// The argument that is being completed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct CompletionArgument {
    /// Its name.
    #[serde(deserialize_with = "read::name")]
    pub name: String,
    /// The text typed so far.
    pub value: String,
}

/// The arguments that are known already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct CompletionContext {
    /// The values, by name.
    #[serde(default, deserialize_with = "given")]
    pub arguments: BTreeMap<String, String>,
}

/// `logging/setLevel`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[non_exhaustive]
pub struct SetLevel {
    /// The severity of the least severe message that the session wants.
    pub level: LogLevel,
}

/// `tasks/get` and `tasks/cancel` (extension `io.modelcontextprotocol/tasks`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OneTask {
    /// The id of the task.
    #[serde(deserialize_with = "read::task_id")]
    pub task_id: String,
}

/// `tasks/update`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UpdateTask {
    /// The id of the task.
    #[serde(deserialize_with = "read::task_id")]
    pub task_id: String,
    /// The answers, by the keys of their questions.
    #[serde(deserialize_with = "answers")]
    pub input_responses: serde_json::Map<String, serde_json::Value>,
}

/// `notifications/cancelled`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Cancelled {
    /// The id of the cancelled request.
    pub request_id: crate::Id,
    /// The reason, for logs; a long reason is cut.
    #[serde(default, deserialize_with = "read::reason")]
    pub reason: Option<String>,
}

/// `subscriptions/listen` (2026-07-28, basic/patterns/subscriptions).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listen {
    /// The notices that the client wants to receive.
    pub notifications: NoticeFilter,
}

impl Listen {
    /// Reads the parameters of a listen.
    ///
    /// # Errors
    ///
    /// -32602 without `notifications`, or if it or one of its members has the wrong type.
    pub fn read(params: &Params) -> Result<Self, ErrorObject> {
        let raw = params.member(Member::Notifications)?;
        let raw = raw.ok_or_else(|| raw::invalid(&"missing field `notifications`"))?;
        // Serde would accept a list for a struct, too.
        if !raw.starts_with('{') {
            return Err(raw::invalid(&"notifications must be an object"));
        }
        let notifications = serde_json::from_str(raw).map_err(|error| raw::invalid(&error))?;
        Ok(Self { notifications })
    }

    /// Those of `offered` that the parameters of a listen ask for: members of `notifications` that
    /// are `true`.
    ///
    /// # Errors
    ///
    /// -32602 if `notifications` is no object.
    pub fn asked_members(
        params: &Params,
        offered: &[Arc<str>],
    ) -> Result<Vec<Arc<str>>, ErrorObject> {
        let raw = params.member(Member::Notifications)?.unwrap_or("{}");
        let members: HashMap<String, &RawValue> =
            serde_json::from_str(raw).map_err(|error| raw::invalid(&error))?;
        let asked =
            |member: &&Arc<str>| members.get(&***member).is_some_and(|it| it.get() == "true");
        Ok(offered.iter().filter(asked).cloned().collect())
    }
}
