//! One thing that happened.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};

/// The longest id of an occurrence, in bytes: it becomes the value of a header.
pub(crate) const MAX_ID: usize = 256;

/// One thing that happened: encoded once, for everybody who hears of it.
pub(crate) struct Occurrence {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) at: SystemTime,
    /// The payload, a JSON object.
    pub(crate) data: Bytes,
    /// The payload as the author knows it: as it was emitted, or once it was read. `Some(None)` if it
    /// cannot be read.
    pub(crate) typed: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
    /// Set for an occurrence that only one subscription hears of.
    pub(crate) only_for: Option<Arc<str>>,
    members: OnceLock<String>,
}

impl fmt::Debug for Occurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occurrence").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Occurrence {
    pub(crate) fn new(id: Arc<str>, name: Arc<str>, at: SystemTime, data: Bytes) -> Self {
        Self {
            id,
            name,
            at,
            data,
            typed: OnceLock::new(),
            only_for: None,
            members: OnceLock::new(),
        }
    }

    /// The same occurrence with another payload.
    pub(crate) fn with_data(&self, data: Bytes) -> Self {
        Self::new(self.id.clone(), self.name.clone(), self.at, data)
    }

    /// The members of its JSON, without the braces and without a cursor.
    pub(crate) fn members(&self) -> &str {
        self.members.get_or_init(|| {
            let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
            // The payload was written by serde_json.
            let data = String::from_utf8_lossy(&self.data);
            let (id, name, at) = (text(&self.id), text(&self.name), timestamp(self.at));
            let parts = [
                r#""eventId":"#,
                &id,
                r#","name":"#,
                &name,
                r#","timestamp":""#,
                &at,
                r#"","data":"#,
                &data,
            ];
            parts.concat()
        })
    }

    /// Bytes of memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        // Its payload is kept once more in `members`.
        size_of::<Self>() + 2 * (self.data.len() + self.id.len()) + 128
    }
}

/// A moment as ISO 8601, in milliseconds and UTC.
pub(crate) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let at = DateTime::from_timestamp(seconds, since.subsec_nanos()).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Whether a text can be the id of an occurrence: visible ASCII, of bounded length.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    #[test]
    fn an_occurrence_as_json() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_547_200_042);
        let data = Bytes::from_static(br#"{"severity":"high"}"#);
        let it = Occurrence::new("evt_1".into(), "incident \"x\"".into(), at, data);
        let json: Value = serde_json::from_str(&format!("{{{}}}", it.members())).unwrap();
        let expected = serde_json::json!({
            "eventId": "evt_1", "name": "incident \"x\"",
            "timestamp": "2025-12-01T00:00:00.042Z", "data": {"severity": "high"},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn ids_are_values_of_headers() {
        assert!(is_id("evt_1") && is_id(&"x".repeat(256)));
        assert!(!is_id("") && !is_id("a b") && !is_id("é") && !is_id(&"x".repeat(257)));
    }
}
