//! Questions that a modern call asks, gathered into rounds (2026-07-28, basic/patterns/mrtr).
//!
//! All that is asked before the code waits goes out in one round; the answers come back with
//! the client's retry, and what it left out is asked again.

use std::collections::HashSet;

use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use stentor_wire::encode::Question;
use stentor_wire::request;
use tokio::sync::{Notify, oneshot};

/// The questions of one call that are open, and answers that came before their question.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: IndexMap<String, (Question, oneshot::Sender<Value>)>,
    /// What the first request brought along.
    given: Map<String, Value>,
    unsent: bool,
    counter: u32,
    /// Counts changes of what is open.
    changes: u64,
    /// What the keys of a task that runs again end with.
    suffix: String,
    /// In a task, every key that was ever used: there it stands for one question only.
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
                // The code may have stopped waiting for it just now.
                let _ = sender.send(answer);
            }
        }
    }
}

/// What became of a question.
pub(crate) enum Asked {
    /// It was answered before it was asked: the client sent the answer along.
    Given(Value),
    /// It waits for a retry, under this key.
    Open(String, oneshot::Receiver<Value>),
}

impl Rounds {
    /// Answers that a request without a state brought along.
    pub(crate) fn with_given(given: Map<String, Value>) -> Self {
        let state = State { given, ..State::default() };
        Self { state: Mutex::new(state), asked: Notify::new() }
    }

    /// Asks under a key of the author's, or one of our own. A key that is open already gets a
    /// number behind it.
    pub(crate) fn ask(&self, key: Option<&str>, question: Question) -> Asked {
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
            return Asked::Given(answer);
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
        Asked::Open(key, receiver)
    }

    /// The code waits for this answer no longer.
    pub(crate) fn withdraw(&self, key: &str) {
        let mut state = self.state.lock();
        if state.open.shift_remove(key).is_some() {
            state.unsent &= !state.open.is_empty();
            state.changes += 1;
            drop(state);
            self.asked.notify_one();
        }
    }

    /// From here on the questions are a task's.
    pub(crate) fn belong_to_task(&self) {
        self.state.lock().used.get_or_insert_default();
    }

    /// The questions are those of another run, at this time: none of its keys comes again.
    pub(crate) fn ask_anew(&self, now: u64) {
        self.state.lock().suffix = format!("-{now}");
    }

    /// Waits until what is open is not what it was; `seen` is then what it is. Cancel safe.
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

    /// All open questions, as a task shows them.
    pub(crate) fn open_questions(&self) -> Map<String, Value> {
        let state = self.state.lock();
        let shown = |question: &Question| serde_json::json!({"method": question.method, "params": question.params});
        state.open.iter().map(|(key, (question, _))| (key.clone(), shown(question))).collect()
    }

    /// Hands in answers of a task's client. Those that no open question fits are ignored.
    pub(crate) fn answer(&self, answers: Map<String, Value>) {
        self.state.lock().answer(answers);
        self.asked.notify_one();
    }

    /// Completes when something is asked that has not gone out. Cancel safe.
    pub(crate) async fn asked(&self) {
        while !self.state.lock().unsent {
            self.asked.notified().await;
        }
    }

    /// All open questions, to go out now.
    pub(crate) fn round(&self) -> Vec<(String, Question)> {
        let mut state = self.state.lock();
        state.unsent = false;
        state.open.iter().map(|(key, (question, _))| (key.clone(), question.clone())).collect()
    }

    /// Hands in the answers of a retry. Those without a question, or not of its form, are as
    /// good as left out, and what is left out is asked again.
    pub(crate) fn deliver(&self, answers: Map<String, Value>) {
        let mut state = self.state.lock();
        state.answer(answers);
        state.unsent = !state.open.is_empty();
        drop(state);
        self.asked.notify_one();
    }

    /// Answers that nobody asked for yet.
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

/// Whether a value has the form of an answer to such a question.
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

    fn open(asked: Asked) -> (String, oneshot::Receiver<Value>) {
        match asked {
            Asked::Open(key, receiver) => (key, receiver),
            Asked::Given(_) => panic!("given"),
        }
    }

    fn answers(json: Value) -> Map<String, Value> {
        json.as_object().cloned().unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_asked_together_goes_out_together_and_what_is_left_out_again() {
        let rounds = Rounds::default();
        let (first, mut name) = open(rounds.ask(Some("name"), elicit()));
        let (second, mut other) = open(rounds.ask(Some("name"), elicit()));
        assert_eq!((&*first, &*second), ("name", "name-1"));
        rounds.asked().await;
        assert_eq!(rounds.round().len(), 2);
        rounds.deliver(answers(json!({
            "name": {"action": "accept", "content": {}}, "name-1": 12345, "extra": {},
        })));
        assert_eq!(name.try_recv().unwrap()["action"], "accept");
        assert!(other.try_recv().is_err());
        rounds.asked().await;
        assert_eq!(rounds.round().len(), 1);
        assert!(rounds.given().is_empty(), "what was not asked for is not kept");
        rounds.withdraw("name-1");
        assert_eq!(rounds.round(), []);
    }

    #[test]
    fn an_answer_may_come_before_its_question_if_it_has_the_right_form() {
        let given = answers(json!({"a": {"action": "decline"}, "b": {"action": "dance"}}));
        let rounds = Rounds::with_given(given);
        assert!(matches!(rounds.ask(Some("a"), elicit()), Asked::Given(_)));
        assert!(matches!(rounds.ask(Some("b"), elicit()), Asked::Open(..)));
    }
}
