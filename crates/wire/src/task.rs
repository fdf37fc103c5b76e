//! A task as clients see it (extension `io.modelcontextprotocol/tasks`).

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use rmcp::model::ClientCapabilities;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::ErrorObject;
use crate::encode::ResultBody;

/// The name of the extension, as both sides declare it.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// Whether a client accepts tasks as results.
#[must_use]
pub fn takes_tasks(capabilities: &ClientCapabilities) -> bool {
    let declared = capabilities.extensions.as_ref();
    declared.is_some_and(|extensions| extensions.contains_key(TASKS_EXTENSION))
}

/// -32021: the client must declare the extension first.
#[must_use]
pub fn tasks_required() -> ErrorObject {
    let required = serde_json::json!({ "extensions": { (TASKS_EXTENSION): {} } });
    ErrorObject::missing_capability(required)
}

/// The status of a task, with the data that belongs to it. Stores serialize it; clients see a
/// [`TaskView`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// The task runs.
    Working,
    /// The task waits for answers of the client.
    InputRequired {
        /// The open questions, by their keys.
        input_requests: Map<String, Value>,
    },
    /// The task has a result, which may say that the tool failed.
    Completed {
        /// The result for the response to the request.
        result: Box<RawValue>,
    },
    /// The task has ended with a protocol error.
    Failed {
        /// The error for the response to the request.
        error: ErrorObject,
    },
    /// The task was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired { .. } => "input_required",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a task with this result.
    ///
    /// # Errors
    ///
    /// -32603 if the result is not JSON.
    pub fn completed(result: &ResultBody) -> Result<Self, ErrorObject> {
        let json = String::from_utf8(result.to_json().into()).ok();
        match json.map(RawValue::from_string) {
            Some(Ok(result)) => Ok(Self::Completed { result: typed(&result).into_owned() }),
            _ => Err(ErrorObject::internal("the result is not JSON")),
        }
    }

    /// Whether the status is final.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        !matches!(self, Self::Working | Self::InputRequired { .. })
    }
}

/// A task as clients see it: in the response to the call, and in everything later.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// The id of the task, which nobody can guess.
    pub id: &'a str,
    /// The status of the task.
    pub status: &'a TaskStatus,
    /// A message for people.
    pub message: Option<&'a str>,
    /// When the task was created, in milliseconds since 1970.
    pub created_at: u64,
    /// When the task last changed, in milliseconds since 1970.
    pub updated_at: u64,
    /// How many milliseconds after its creation the task is kept; `None` means forever.
    pub ttl_ms: Option<u64>,
    /// How many milliseconds a client should wait before it asks again.
    pub poll_interval_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    task_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    created_at: String,
    last_updated_at: String,
    ttl_ms: Option<u64>,
    poll_interval_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_requests: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorObject>,
}

impl TaskView<'_> {
    /// The task as a result.
    ///
    /// # Errors
    ///
    /// -32603 if the task does not serialize, which does not happen.
    pub fn to_result(&self) -> Result<ResultBody, ErrorObject> {
        let (mut input_requests, mut result, mut error) = (None, None, None);
        match self.status {
            TaskStatus::InputRequired { input_requests: open } => input_requests = Some(open),
            TaskStatus::Completed { result: with } => result = Some(typed(with)),
            TaskStatus::Failed { error: with } => error = Some(with),
            TaskStatus::Working | TaskStatus::Cancelled => {}
        }
        ResultBody::new(&Members {
            task_id: self.id,
            status: self.status.as_str(),
            status_message: self.message,
            created_at: timestamp(self.created_at),
            last_updated_at: timestamp(self.updated_at),
            ttl_ms: self.ttl_ms,
            poll_interval_ms: self.poll_interval_ms,
            input_requests,
            result,
            error,
        })
    }
}

/// The beginning of the result in a completed task: the type of the result.
const TYPED: &str = "{\"resultType\":";

/// A result as a task contains it. A stored result may have been written before results had a type.
fn typed(result: &RawValue) -> Cow<'_, RawValue> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        result_type: Option<IgnoredAny>,
    }
    let json = result.get();
    let says = json.starts_with(TYPED)
        || serde_json::from_str::<Typed>(json).is_ok_and(|typed| typed.result_type.is_some());
    let members = json.strip_prefix('{').map(str::trim_start).filter(|_| !says);
    let Some(members) = members else { return Cow::Borrowed(result) };
    let comma = if members == "}" { "" } else { "," };
    RawValue::from_string(format!("{TYPED}\"complete\"{comma}{members}"))
        .map_or(Cow::Borrowed(result), Cow::Owned)
}

/// ISO 8601, in UTC.
fn timestamp(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(status: &TaskStatus) -> Value {
        let task = TaskView {
            id: "t",
            status,
            message: None,
            created_at: 1_764_065_400_000,
            updated_at: 1_764_065_400_250,
            ttl_ms: None,
            poll_interval_ms: 5,
        };
        serde_json::from_slice(&task.to_result().unwrap().to_json()).unwrap()
    }

    #[test]
    fn a_task_has_the_members_of_its_status() {
        assert_eq!(
            shown(&TaskStatus::Working),
            json!({"taskId": "t", "status": "working", "createdAt": "2025-11-25T10:10:00.000Z",
                "lastUpdatedAt": "2025-11-25T10:10:00.250Z", "ttlMs": null, "pollIntervalMs": 5})
        );
        let result = RawValue::from_string(r#"{"content":[],"n":1.50}"#.into()).unwrap();
        let completed = TaskStatus::Completed { result };
        assert_eq!(shown(&completed)["result"]["n"], 1.5);
        assert_eq!(shown(&completed)["result"]["resultType"], "complete");
        let failed = TaskStatus::Failed { error: ErrorObject::internal("no") };
        assert_eq!(shown(&failed)["error"]["code"], -32603);
        let asks = TaskStatus::InputRequired { input_requests: Map::new() };
        assert_eq!(shown(&asks)["status"], "input_required");
        assert_eq!(shown(&asks)["inputRequests"], json!({}));
    }

    #[test]
    fn the_result_in_a_task_names_its_type_once_wherever_it_comes_from() {
        for (stored, shown) in [
            ("{}", r#"{"resultType":"complete"}"#),
            ("{ }", r#"{"resultType":"complete"}"#),
            (r#"{"content":[]}"#, r#"{"resultType":"complete","content":[]}"#),
            // As a store that formats JSON in another way.
            (r#"{ "content": [] }"#, r#"{"resultType":"complete","content": [] }"#),
            (
                r#"{"content":[],"resultType":"complete"}"#,
                r#"{"content":[],"resultType":"complete"}"#,
            ),
            (r#"{"resultType":"complete"}"#, r#"{"resultType":"complete"}"#),
            // The type must be a member of the result itself, not of a value inside it.
            (r#"{"a":{"resultType":"x"}}"#, r#"{"resultType":"complete","a":{"resultType":"x"}}"#),
        ] {
            let stored = RawValue::from_string(stored.into()).unwrap();
            assert_eq!(typed(&stored).get(), shown);
        }
        let body = ResultBody::from_json(r#"{"content":[]}"#).unwrap();
        let TaskStatus::Completed { result } = TaskStatus::completed(&body).unwrap() else {
            panic!()
        };
        assert_eq!(result.get(), r#"{"resultType":"complete","content":[]}"#);
    }

    #[test]
    fn a_status_survives_being_stored() {
        let result = RawValue::from_string(r#"{"b":1,"a":2.50}"#.into()).unwrap();
        let stored = serde_json::to_string(&TaskStatus::Completed { result }).unwrap();
        let read: TaskStatus = serde_json::from_str(&stored).unwrap();
        let TaskStatus::Completed { result } = read else { panic!("{read:?}") };
        assert_eq!(result.get(), r#"{"b":1,"a":2.50}"#);
    }
}
