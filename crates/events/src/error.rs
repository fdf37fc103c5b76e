//! The errors of the extension, with the numbers that a client expects.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stentor_engine::Requester;
use stentor_wire::ErrorObject;
use stentor_wire::bounds::{quoted, shortened};

use crate::IDENTIFIER;

/// Which numbers errors have. The draft of SEP-3415 calls its own provisional, and clients that came
/// before it know others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Numbering {
    /// Those of the draft for a client that declares the extension, else those of the design sketch.
    #[default]
    Auto,
    /// -32023 to -32027, as in the draft of SEP-3415.
    Draft,
    /// -32011 to -32015, as in the design sketch before it.
    Sketch,
}

/// The numbers for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Numbers {
    Draft,
    Sketch,
}

impl Numbering {
    pub(crate) fn of(self, requester: &Requester) -> Numbers {
        match self {
            Self::Draft => Numbers::Draft,
            Self::Sketch => Numbers::Sketch,
            Self::Auto if requester.declares(IDENTIFIER) => Numbers::Draft,
            Self::Auto => Numbers::Sketch,
        }
    }
}

/// Why a request is refused, or a subscription ends (SEP-3415, "Errors").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The parameters do not fit.
    #[error("{0}")]
    InvalidParams(String),
    /// There is no such event type.
    #[error("unknown event type {}", quoted(.0))]
    UnknownType(String),
    /// There is no such subscription.
    #[error("there is no such subscription")]
    UnknownSubscription,
    /// The principal may not, or may no longer.
    #[error("{0}")]
    Forbidden(String),
    /// The token lacks these scopes.
    #[error("the subscription needs a token with more scopes")]
    MissingScope(String),
    /// A limit is reached.
    #[error("there are as many {limit} as there may be ({max})")]
    Exhausted {
        /// What is limited.
        limit: String,
        /// How many there may be.
        max: usize,
    },
    /// The type is not delivered in this way.
    #[error("the event type is not delivered by {}", quoted(.0))]
    UnsupportedMode(String),
    /// This schema of the type has changed in a way that old arguments or readers do not fit.
    #[error("the {0} of the event type has changed")]
    SchemaChanged(String),
    /// The endpoint of the client did not answer the challenge. The field says why, in one word.
    #[error("the callback endpoint failed: {0}")]
    Callback(String),
    /// The source of the events failed.
    #[error("{0}")]
    Failed(String),
}

impl EventError {
    /// As the error of an answer or of a notice.
    pub(crate) fn object(&self, numbers: Numbers) -> ErrorObject {
        let code = |draft, sketch| match numbers {
            Numbers::Draft => draft,
            Numbers::Sketch => sketch,
        };
        let (code, data) = match self {
            Self::InvalidParams(_) => return ErrorObject::invalid_params(shortened(self)),
            Self::Failed(_) => return ErrorObject::internal(shortened(self)),
            Self::UnknownType(_) => (code(-32023, -32011), json!({"kind": "event"})),
            Self::UnknownSubscription => (code(-32023, -32011), json!({"kind": "subscription"})),
            Self::Forbidden(why) => (code(-32024, -32012), json!({"reason": shortened(why)})),
            Self::MissingScope(scope) => {
                (code(-32024, -32012), json!({"reason": "insufficient_scope", "scope": scope}))
            }
            Self::Exhausted { limit, max } => {
                (code(-32025, -32013), json!({"limit": limit, "max": max}))
            }
            Self::UnsupportedMode(mode) => {
                let data = json!({"feature": "deliveryMode", "value": shortened(mode)});
                (code(-32026, -32014), data)
            }
            Self::SchemaChanged(feature) => {
                (code(-32026, -32014), json!({"feature": feature, "reason": "schema_changed"}))
            }
            Self::Callback(reason) => (code(-32027, -32015), json!({"reason": reason})),
        };
        ErrorObject::new(code, shortened(self)).with_data(data)
    }

    /// As JSON, for a notice or a control body.
    pub(crate) fn json(&self, numbers: Numbers) -> Value {
        serde_json::to_value(self.object(numbers)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numberings_and_their_data() {
        let both = |error: EventError| {
            let of = |numbers| {
                let object = error.object(numbers);
                (object.code, object.data.unwrap_or_default())
            };
            let (draft, sketch) = (of(Numbers::Draft), of(Numbers::Sketch));
            assert_eq!(draft.1, sketch.1);
            (draft.0, sketch.0, draft.1)
        };
        let event = json!({"kind": "event"});
        assert_eq!(both(EventError::UnknownType("x".into())), (-32023, -32011, event));
        let subscription = json!({"kind": "subscription"});
        assert_eq!(both(EventError::UnknownSubscription), (-32023, -32011, subscription));
        assert_eq!(both(EventError::Forbidden("no".into())).0, -32024);
        let full = EventError::Exhausted { limit: "subscriptions".into(), max: 3 };
        assert_eq!(both(full), (-32025, -32013, json!({"limit": "subscriptions", "max": 3})));
        let push = json!({"feature": "deliveryMode", "value": "push"});
        assert_eq!(both(EventError::UnsupportedMode("push".into())), (-32026, -32014, push));
        let changed = json!({"feature": "inputSchema", "reason": "schema_changed"});
        let error = EventError::SchemaChanged("inputSchema".into());
        assert_eq!(both(error), (-32026, -32014, changed));
        let timeout = json!({"reason": "timeout"});
        assert_eq!(both(EventError::Callback("timeout".into())), (-32027, -32015, timeout));
        assert_eq!(both(EventError::InvalidParams("no".into())).1, -32602);
        assert_eq!(both(EventError::Failed("no".into())).1, -32603);
    }

    #[test]
    fn a_long_name_is_cut() {
        let error = EventError::UnknownType("x".repeat(100_000)).object(Numbers::Draft);
        assert!(error.message.len() < 1_000, "{}", error.message.len());
    }
}
