//! Which capability a client needs for a question.

use serde_json::{Value, json};
use stentor_wire::encode::Question;
use stentor_wire::model::ClientCapabilities;
use stentor_wire::request;

/// The capability that the client would have to declare for this question; `None` if it does.
pub(in crate::handler::context) fn lacking(
    can: &ClientCapabilities,
    question: &Question,
) -> Option<Value> {
    let by_url = question.params.get("mode").is_some_and(|mode| mode == "url");
    match (question.method, &can.elicitation) {
        (request::ELICIT, None) if !by_url => Some(json!({"elicitation": {}})),
        (request::ELICIT, declared) if by_url => {
            let can = declared.as_ref().is_some_and(|can| can.url.is_some());
            (!can).then(|| json!({"elicitation": {"url": {}}}))
        }
        // A client that names no mode supports forms, as before modes existed.
        (request::ELICIT, Some(can)) => {
            (can.form.is_none() && can.url.is_some()).then(|| json!({"elicitation": {"form": {}}}))
        }
        (request::SAMPLE, _) => can.sampling.is_none().then(|| json!({"sampling": {}})),
        (request::LIST_ROOTS, _) => can.roots.is_none().then(|| json!({"roots": {}})),
        _ => None,
    }
}
