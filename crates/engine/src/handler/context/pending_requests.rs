//! Questions of the server to a legacy client that wait for their response.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use stentor_wire::{Id, Response, ResponseOutcome};
use tokio::sync::oneshot;

/// The open questions of one session, by request id.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingRequests(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    prefix: Option<String>,
    next: AtomicI64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    waiting: HashMap<Id, oneshot::Sender<ResponseOutcome>>,
    closed: bool,
}

/// One question. Dropping it withdraws the question.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    questions: PendingRequests,
    id: Id,
    answer: oneshot::Receiver<ResponseOutcome>,
}

impl PendingRequests {
    /// Questions of a call that another node asked for. Their ids begin with `prefix`, so that they
    /// differ from all others in the session of the client.
    pub(crate) fn named(prefix: String) -> Self {
        Self(Arc::new(Inner { prefix: Some(prefix), ..Inner::default() }))
    }

    pub(crate) fn open(&self) -> PendingRequest {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.expect(match &self.0.prefix {
            None => Id::Number(number),
            Some(prefix) => Id::Text(format!("{prefix}-{number}").into()),
        })
    }

    /// Registers a question that was asked under this id.
    pub(crate) fn expect(&self, id: Id) -> PendingRequest {
        let (sender, answer) = oneshot::channel();
        let mut open = self.0.open.lock();
        // Otherwise `sender` is dropped here, which ends the question without an answer.
        if !open.closed {
            open.waiting.insert(id.clone(), sender);
        }
        drop(open);
        PendingRequest { questions: self.clone(), id, answer }
    }

    /// Ends all open questions, and each later one at once: the client can send no more answers.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut open = self.0.open.lock();
            open.closed = true;
            std::mem::take(&mut open.waiting)
        };
        drop(waiting);
    }

    pub(crate) fn withdraw(&self, id: &Id) {
        self.0.open.lock().waiting.remove(id);
    }

    /// Delivers a response. `false` if no question waits for it.
    ///
    /// Some clients write each id as a string, so a string that contains a number also matches that
    /// number.
    pub(crate) fn answer(&self, response: Response) -> bool {
        let as_number = match &response.id {
            Id::Text(text) => text.parse().ok().map(Id::Number),
            _ => None,
        };
        let mut open = self.0.open.lock();
        let sender = open.waiting.remove(&response.id).or_else(|| open.waiting.remove(&as_number?));
        drop(open);
        sender.is_some_and(|sender| sender.send(response.outcome).is_ok())
    }
}

impl PendingRequest {
    pub(crate) fn id(&self) -> &Id {
        &self.id
    }

    /// Waits for the answer. `None` if none can come any more.
    pub(crate) async fn answer(mut self) -> Option<ResponseOutcome> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.questions.0.open.lock().waiting.remove(&self.id);
    }
}
