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

/// Whether a client can be given a task.
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

/// How far a task is, with what belongs to that. How it serializes is for stores; clients see
/// a [`TaskView`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It runs.
    Working,
    /// It waits for answers of the client.
    InputRequired {
        /// The questions that are open, by their keys.
        input_requests: Map<String, Value>,
    },
    /// It has come to a result, which may say that the tool failed.
    Completed {
        /// What the request would have been answered with.
        result: Box<RawValue>,
    },
    /// It has come to an error of the protocol.
    Failed {
        /// What the request would have been answered with.
        error: ErrorObject,
    },
    /// It was ended early.
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

    /// It has come to this result.
    ///
    /// # Errors
    ///
    /// -32603 if it is no JSON.
    pub fn completed(result: &ResultBody) -> Result<Self, ErrorObject> {
        let json = String::from_utf8(result.to_json().into()).ok();
        match json.map(RawValue::from_string) {
            Some(Ok(result)) => Ok(Self::Completed { result: typed(&result).into_owned() }),
            _ => Err(ErrorObject::internal("the result is not JSON")),
        }
    }

    /// Whether it stays so.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        !matches!(self, Self::Working | Self::InputRequired { .. })
    }
}

/// A task as it is told, the seed that a call is answered with as well as all that follows.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// Its name, which nobody can guess.
    pub id: &'a str,
    /// How far it is.
    pub status: &'a TaskStatus,
    /// For people.
    pub message: Option<&'a str>,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// Milliseconds since 1970.
    pub updated_at: u64,
    /// For how many milliseconds from its creation it is kept; `None` for ever.
    pub ttl_ms: Option<u64>,
    /// How many milliseconds a client should let pass before it asks again.
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
    /// -32603 if it does not serialize, which it does.
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

/// What the result in a completed task begins with: it is a whole one, and says its type.
const TYPED: &str = "{\"resultType\":";

/// A result as a task carries it. What is stored may be of before results said their type.
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
    fn a_task_says_what_belongs_to_its_status() {
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
    fn the_result_in_a_task_says_its_type_once_wherever_it_comes_from() {
        for (stored, shown) in [
            ("{}", r#"{"resultType":"complete"}"#),
            ("{ }", r#"{"resultType":"complete"}"#),
            (r#"{"content":[]}"#, r#"{"resultType":"complete","content":[]}"#),
            // A store that writes JSON anew.
            (r#"{ "content": [] }"#, r#"{"resultType":"complete","content": [] }"#),
            (
                r#"{"content":[],"resultType":"complete"}"#,
                r#"{"content":[],"resultType":"complete"}"#,
            ),
            (r#"{"resultType":"complete"}"#, r#"{"resultType":"complete"}"#),
            // Of the result itself, not of what is in it.
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
