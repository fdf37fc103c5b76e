use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::json;
use stentor_wire::ErrorObject;
use stentor_wire::encode::ResultBody;

use super::Running;

/// The most values that one answer may contain (server/utilities/completion).
const MAX_VALUES: usize = 100;

/// A request to complete one argument of a prompt or of a resource template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The argument's name.
    pub argument: String,
    /// The text that has been typed so far.
    pub value: String,
    /// Arguments that are already known, by name.
    pub known: BTreeMap<String, String>,
}

type CompletionCode = dyn Fn(Completion) -> Running<Vec<String>> + Send + Sync;

/// The author's code that completes arguments. It returns all values that fit, best first.
#[derive(Clone)]
pub(crate) struct Completer(Arc<CompletionCode>);

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completer")
    }
}

impl Completer {
    pub(crate) fn new<F, Fut>(function: F) -> Self
    where
        F: Fn(Completion) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<String>> + Send + 'static,
    {
        Self(Arc::new(move |completion| function(completion).boxed()))
    }

    pub(crate) fn run(&self, completion: Completion) -> Running<Vec<String>> {
        (self.0)(completion)
    }
}

/// The result of `completion/complete`: at most a hundred values, and whether there are more.
pub(crate) fn completed(mut values: Vec<String>) -> Result<ResultBody, ErrorObject> {
    let total = values.len();
    values.truncate(MAX_VALUES);
    let has_more = total > values.len();
    ResultBody::new(&json!({"completion": {"values": values, "total": total, "hasMore": has_more}}))
}

#[cfg(test)]
mod tests {
    use stentor_wire::encode::{ServerIdentity, response};
    use stentor_wire::model::Implementation;
    use stentor_wire::{Era, Id};

    #[test]
    fn at_most_a_hundred_values_are_sent_and_whether_there_are_more() {
        let values = (0..250).map(|n| n.to_string()).collect();
        let server = ServerIdentity::new(Implementation::new("s", "1"));
        let body = super::completed(values).unwrap();
        let answer = response(&Id::Number(1), Era::Legacy, &server, &body);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let completion = &answer["result"]["completion"];
        assert_eq!(completion["values"].as_array().unwrap().len(), 100);
        assert_eq!(completion["total"], 250);
        assert_eq!(completion["hasMore"], true);
    }
}
