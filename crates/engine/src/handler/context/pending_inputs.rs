//! The questions of a modern call, gathered into rounds (2026-07-28, basic/patterns/mrtr).
//!
//! All questions that the code asks before it waits are sent in one round. The answers arrive with
//! the client's retry. A question that the retry leaves out is asked again.

use std::collections::HashSet;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use stentor_wire::encode::Question;
use stentor_wire::request;
use tokio::sync::{Notify, oneshot};

/// The open questions of one call, and answers that came before their question.
#[derive(Debug, Default)]
pub(crate) struct PendingInputs {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: IndexMap<String, (Question, oneshot::Sender<Value>)>,
    /// Answers that came with the first request, before their question.
    given: Map<String, Value>,
    unsent: bool,
    counter: u32,
    /// How often the open questions have changed.
    changes: u64,
    /// The end of every key, in a task that runs again.
    suffix: String,
    /// In a task, every key that was ever used: there, a key names one question only.
    used: Option<HashSet<String>>,
}

impl State {
    fn is_free(&self, key: &str) -> bool {
        !self.open.contains_key(key) && !self.used.as_ref().is_some_and(|used| used.contains(key))
    }

    fn answer(&mut self, answers: Map<String, Value>) {
        for (key, answer) in answers {
            let open = self.open.get(&key);
            if open.is_some_and(|(question, _)| fits(question.method, &answer))
                && let Some((_, sender)) = self.open.shift_remove(&key)
            {
                self.changes += 1;
                // Fails if the code has just stopped waiting.
                let _ = sender.send(answer);
            }
        }
    }
}

/// The state of a question that the code asked.
pub(crate) enum AskedQuestion {
    /// The client sent the answer before the question was asked.
    Given(Value),
    /// The question waits for a retry, under this key.
    Open(String, oneshot::Receiver<Value>),
}

impl PendingInputs {
    /// Starts with the answers of a request that had no state.
    pub(crate) fn with_given(given: Map<String, Value>) -> Self {
        let state = State { given, ..State::default() };
        Self { state: Mutex::new(state), asked: Notify::new() }
    }

    /// Asks under the author's key, or under a generated key. A key that is in use gets a number at
    /// its end.
    pub(crate) fn ask(&self, key: Option<&str>, question: Question) -> AskedQuestion {
        let mut state = self.state.lock();
        let named = key.map(|key| format!("{key}{}", state.suffix));
        let key = match named {
            Some(key) if state.is_free(&key) => key,
            _ => loop {
                state.counter += 1;
                let name = key.unwrap_or("question");
                let key = format!("{name}{}-{}", state.suffix, state.counter);
                if state.is_free(&key) {
                    break key;
                }
            },
        };
        if state.given.get(&key).is_some_and(|answer| fits(question.method, answer))
            && let Some(answer) = state.given.remove(&key)
        {
            return AskedQuestion::Given(answer);
        }
        let (sender, receiver) = oneshot::channel();
        state.open.insert(key.clone(), (question, sender));
        if let Some(used) = &mut state.used {
            used.insert(key.clone());
        }
        state.unsent = true;
        state.changes += 1;
        drop(state);
        self.asked.notify_one();
        AskedQuestion::Open(key, receiver)
    }

    /// Removes a question whose answer the code no longer waits for.
    pub(crate) fn withdraw(&self, key: &str) {
        let mut state = self.state.lock();
        if state.open.shift_remove(key).is_some() {
            state.unsent &= !state.open.is_empty();
            state.changes += 1;
            drop(state);
            self.asked.notify_one();
        }
    }

    /// From here on the questions belong to a task.
    pub(crate) fn belong_to_task(&self) {
        self.state.lock().used.get_or_insert_default();
    }

    /// Begins another run of a task, at this time: no key of an earlier run is used again.
    pub(crate) fn ask_anew(&self, now: u64) {
        self.state.lock().suffix = format!("-{now}");
    }

    /// Waits until the open questions have changed since `seen`, and updates `seen`. Cancel safe.
    pub(crate) async fn changed(&self, seen: &mut u64) {
        loop {
            let changes = self.state.lock().changes;
            if changes != *seen {
                *seen = changes;
                return;
            }
            self.asked.notified().await;
        }
    }

    pub(crate) fn open_questions(&self) -> Map<String, Value> {
        let state = self.state.lock();
        let shown = |question: &Question| serde_json::json!({"method": question.method, "params": question.params});
        state.open.iter().map(|(key, (question, _))| (key.clone(), shown(question))).collect()
    }

    /// Takes answers of a task's client. An answer that fits no open question is ignored.
    pub(crate) fn answer(&self, answers: Map<String, Value>) {
        self.state.lock().answer(answers);
        self.asked.notify_one();
    }

    /// Completes when there is a question that has not been sent. Cancel safe.
    pub(crate) async fn asked(&self) {
        while !self.state.lock().unsent {
            self.asked.notified().await;
        }
    }

    /// All open questions, to be sent now.
    pub(crate) fn round(&self) -> Vec<(String, Question)> {
        let mut state = self.state.lock();
        state.unsent = false;
        state.open.iter().map(|(key, (question, _))| (key.clone(), question.clone())).collect()
    }

    /// Takes the answers of a retry. An answer without a question, or of the wrong form, counts as
    /// left out. A question without an answer is asked again.
    pub(crate) fn deliver(&self, answers: Map<String, Value>) {
        let mut state = self.state.lock();
        state.answer(answers);
        state.unsent = !state.open.is_empty();
        drop(state);
        self.asked.notify_one();
    }

    /// Answers whose question has not been asked yet.
    pub(crate) fn given(&self) -> Map<String, Value> {
        self.state.lock().given.clone()
    }

    /// Ends all questions without an answer.
    pub(crate) fn fail(&self) {
        let mut state = self.state.lock();
        state.open.clear();
        state.unsent = false;
    }
}

/// Whether a value has the form of an answer to a question of this method.
pub(crate) fn fits(method: &str, answer: &Value) -> bool {
    match method {
        request::ELICIT => {
            let action = answer.get("action").and_then(Value::as_str);
            matches!(action, Some("accept" | "decline" | "cancel"))
                && answer
                    .get("content")
                    .is_none_or(|content| content.is_object() || content.is_null())
        }
        request::SAMPLE => {
            answer.get("role").is_some_and(Value::is_string) && answer.get("content").is_some()
        }
        request::LIST_ROOTS => answer.get("roots").is_some_and(Value::is_array),
        _ => answer.is_object(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn elicit() -> Question {
        Question { method: request::ELICIT, params: json!({}) }
    }

    fn open(asked: AskedQuestion) -> (String, oneshot::Receiver<Value>) {
        match asked {
            AskedQuestion::Open(key, receiver) => (key, receiver),
            AskedQuestion::Given(_) => panic!("given"),
        }
    }

    fn answers(json: Value) -> Map<String, Value> {
        json.as_object().cloned().unwrap_or_default()
    }

    #[tokio::test]
    async fn questions_asked_together_are_sent_together_and_unanswered_ones_again() {
        let inputs = PendingInputs::default();
        let (first, mut name) = open(inputs.ask(Some("name"), elicit()));
        let (second, mut other) = open(inputs.ask(Some("name"), elicit()));
        assert_eq!((&*first, &*second), ("name", "name-1"));
        inputs.asked().await;
        assert_eq!(inputs.round().len(), 2);
        inputs.deliver(answers(json!({
            "name": {"action": "accept", "content": {}}, "name-1": 12345, "extra": {},
        })));
        assert_eq!(name.try_recv().unwrap()["action"], "accept");
        assert!(other.try_recv().is_err());
        inputs.asked().await;
        assert_eq!(inputs.round().len(), 1);
        assert!(inputs.given().is_empty(), "what was not asked for is not kept");
        inputs.withdraw("name-1");
        assert_eq!(inputs.round(), []);
    }

    #[test]
    fn an_answer_may_come_before_its_question_if_it_has_the_right_form() {
        let given = answers(json!({"a": {"action": "decline"}, "b": {"action": "dance"}}));
        let inputs = PendingInputs::with_given(given);
        assert!(matches!(inputs.ask(Some("a"), elicit()), AskedQuestion::Given(_)));
        assert!(matches!(inputs.ask(Some("b"), elicit()), AskedQuestion::Open(..)));
    }
}
