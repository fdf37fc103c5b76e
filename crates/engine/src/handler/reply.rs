//! What the author's functions return, as clients see it.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use stentor_wire::encode::ResultBody;
use stentor_wire::model::{
    CallToolResult, ContentBlock, GetPromptResult, JsonObject, PromptMessage, ReadResourceResult,
    ResourceContents, Role,
};

use super::{CallError, schema};

/// What a [`Handler`](crate::Handler) may return, for a result of the kind `R`.
///
/// | returned | by a tool: `R` is [`CallToolResult`] | by a resource or template: [`ReadResourceResult`] | by a prompt: [`GetPromptResult`] | by a method: [`ResultBody`] |
/// |---|---|---|---|---|
/// | a text: `String`, `&'static str`, `Cow`, `Arc<str>` | one text block | the text | one message of the user | |
/// | a number, `bool` | its text | | | |
/// | [`Json<T>`], [`Value`] | structured content, the same as text; for `Json` its output schema | the JSON | | the result |
/// | `()` | no content | | | an empty result |
/// | `Vec<u8>`, [`Bytes`] | | a blob | | |
/// | a [`ContentBlock`] or several | the content | | | |
/// | a [`ResourceContents`] or several | | the contents | | |
/// | a [`PromptMessage`] or several | | | the messages | |
/// | `R` itself | everything is yours | the same | the same | the same |
/// | `Result<T, E>` of any of them | an `E` that is `Into<CallError>` fails the call | the same | the same | the same |
///
/// ```
/// use stentor::{ToolError, tool};
///
/// async fn halve(n: std::collections::BTreeMap<String, f64>) -> Result<f64, ToolError> {
///     n.get("n").map(|n| n / 2.0).ok_or_else(|| ToolError::new("give me an n"))
/// }
///
/// let tools = [tool("halve", halve), tool("noon", || async { "12:00" })];
/// # let _ = tools;
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}` where a `{R}` is needed",
    label = "cannot be returned here",
    note = "a tool returns a text, a number, `()`, `Json<T>` (`T: Serialize + JsonSchema`), content blocks or a `CallToolResult`",
    note = "a resource or template returns a text, bytes, `Json<T>`, contents or a `ReadResourceResult`; a prompt returns a text, messages or a `GetPromptResult`",
    note = "each also returns a `Result` of these, whose error is a `ToolError` or any `std::error::Error + Send + Sync`"
)]
pub trait IntoReply<R>: Send + 'static {
    /// The schema of `structuredContent`, if what is returned has one.
    #[must_use]
    fn output_schema() -> Option<JsonObject> {
        None
    }

    /// The result as clients see it. `subject` is the URI that is read; of a tool or prompt, its
    /// name.
    ///
    /// # Errors
    ///
    /// If the call failed, or if what is returned has no JSON form.
    fn into_reply(self, subject: &str) -> Result<R, CallError>;
}

impl<R, T: IntoReply<R>, E: Into<CallError> + Send + 'static> IntoReply<R> for Result<T, E> {
    fn output_schema() -> Option<JsonObject> {
        T::output_schema()
    }

    fn into_reply(self, subject: &str) -> Result<R, CallError> {
        self.map_err(Into::into)?.into_reply(subject)
    }
}

macro_rules! into_reply {
    ($result:ty: $($type:ty => |$value:pat_param, $subject:pat_param| $reply:expr;)*) => {
        $(impl IntoReply<$result> for $type {
            fn into_reply(self, $subject: &str) -> Result<$result, CallError> {
                let $value = self;
                Ok($reply)
            }
        })*
    };
}

/// JSON. A tool returns it as `structuredContent`, with the same value as text for older clients and
/// an output schema made from the type. A resource returns it as text of the type
/// `application/json`, a method of an extension as its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

// Tools

fn content(blocks: Vec<ContentBlock>) -> CallToolResult {
    bare(CallToolResult::success(blocks))
}

fn untyped(mut result: CallToolResult) -> CallToolResult {
    result.result_type = None;
    result
}

/// Without the members that are the same in every result.
fn bare(mut result: CallToolResult) -> CallToolResult {
    result.is_error = result.is_error.filter(|failed| *failed);
    untyped(result)
}

into_reply! { CallToolResult:
    () => |(), _| content(Vec::new());
    String => |text, _| content(vec![ContentBlock::text(text)]);
    &'static str => |text, _| content(vec![ContentBlock::text(text)]);
    Cow<'static, str> => |text, _| content(vec![ContentBlock::text(text)]);
    Arc<str> => |text, _| content(vec![ContentBlock::text(&*text)]);
    ContentBlock => |block, _| content(vec![block]);
    Vec<ContentBlock> => |blocks, _| content(blocks);
    Value => |value, _| bare(CallToolResult::structured(value));
    CallToolResult => |result, _| untyped(result);
}

macro_rules! text_of {
    ($($type:ty)*) => {
        into_reply! { CallToolResult:
            $($type => |value, _| content(vec![ContentBlock::text(value.to_string())]);)*
        }
    };
}

text_of! { bool u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 }

impl<T: Serialize + JsonSchema + Send + 'static> IntoReply<CallToolResult> for Json<T> {
    fn output_schema() -> Option<JsonObject> {
        Some(schema::of_type::<T>())
    }

    fn into_reply(self, subject: &str) -> Result<CallToolResult, CallError> {
        serde_json::to_value(self.0)?.into_reply(subject)
    }
}

// Resources and templates

fn text(text: impl Into<String>, uri: &str) -> ReadResourceResult {
    ReadResourceResult::new(vec![ResourceContents::TextResourceContents {
        uri: uri.to_owned(),
        mime_type: None,
        text: text.into(),
        meta: None,
    }])
}

fn json(json: String, uri: &str) -> ReadResourceResult {
    ReadResourceResult::new(vec![ResourceContents::TextResourceContents {
        uri: uri.to_owned(),
        mime_type: Some("application/json".to_owned()),
        text: json,
        meta: None,
    }])
}

fn blob(bytes: &[u8], uri: &str) -> ReadResourceResult {
    ReadResourceResult::new(vec![ResourceContents::blob(STANDARD.encode(bytes), uri)])
}

into_reply! { ReadResourceResult:
    String => |contents, uri| text(contents, uri);
    &'static str => |contents, uri| text(contents, uri);
    Cow<'static, str> => |contents, uri| text(contents, uri);
    Arc<str> => |contents, uri| text(&*contents, uri);
    Value => |value, uri| json(value.to_string(), uri);
    Vec<u8> => |bytes, uri| blob(&bytes, uri);
    Bytes => |bytes, uri| blob(&bytes, uri);
    Arc<[u8]> => |bytes, uri| blob(&bytes, uri);
    ResourceContents => |contents, _| ReadResourceResult::new(vec![contents]);
    Vec<ResourceContents> => |contents, _| ReadResourceResult::new(contents);
    ReadResourceResult => |result, _| result;
}

impl<T: Serialize + Send + 'static> IntoReply<ReadResourceResult> for Json<T> {
    fn into_reply(self, uri: &str) -> Result<ReadResourceResult, CallError> {
        Ok(json(serde_json::to_string(&self.0)?, uri))
    }
}

// Prompts

fn message(text: impl Into<String>) -> GetPromptResult {
    GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
}

into_reply! { GetPromptResult:
    String => |text, _| message(text);
    &'static str => |text, _| message(text);
    Cow<'static, str> => |text, _| message(text);
    Arc<str> => |text, _| message(&*text);
    PromptMessage => |message, _| GetPromptResult::new(vec![message]);
    Vec<PromptMessage> => |messages, _| GetPromptResult::new(messages);
    GetPromptResult => |result, _| result;
}

// Methods of extensions

into_reply! { ResultBody:
    () => |(), _| ResultBody::empty();
    Value => |value, _| ResultBody::new(&value).map_err(CallError::protocol)?;
    ResultBody => |result, _| result;
}

impl<T: Serialize + Send + 'static> IntoReply<ResultBody> for Json<T> {
    fn into_reply(self, _subject: &str) -> Result<ResultBody, CallError> {
        ResultBody::new(&self.0).map_err(CallError::protocol)
    }
}
