//! Requests of the server to a legacy client that wait for their response.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use stentor_wire::{Id, Response, ResponseOutcome};
use tokio::sync::oneshot;

/// The open questions of one session, by the id of their request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    prefix: Option<String>,
    next: AtomicI64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    waiting: HashMap<Id, oneshot::Sender<ResponseOutcome>>,
    /// The client can answer nothing any more.
    closed: bool,
}

/// One question; dropping it withdraws it.
#[derive(Debug)]
pub(crate) struct OpenQuestion {
    questions: Questions,
    id: Id,
    answer: oneshot::Receiver<ResponseOutcome>,
}

impl Questions {
    /// Questions of a call that another node has asked for: their ids begin with this, so that no
    /// others in the session of its client are the same.
    pub(crate) fn named(prefix: String) -> Self {
        Self(Arc::new(Inner { prefix: Some(prefix), ..Inner::default() }))
    }

    pub(crate) fn open(&self) -> OpenQuestion {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.expect(match &self.0.prefix {
            None => Id::Number(number),
            Some(prefix) => Id::Text(format!("{prefix}-{number}").into()),
        })
    }

    /// A question that was asked under this id.
    pub(crate) fn expect(&self, id: Id) -> OpenQuestion {
        let (sender, answer) = oneshot::channel();
        let mut open = self.0.open.lock();
        // What is dropped here is answered with nothing at once.
        if !open.closed {
            open.waiting.insert(id.clone(), sender);
        }
        drop(open);
        OpenQuestion { questions: self.clone(), id, answer }
    }

    /// The client can answer nothing any more: no question waits longer, nor does any that is asked
    /// from here on.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut open = self.0.open.lock();
            open.closed = true;
            std::mem::take(&mut open.waiting)
        };
        drop(waiting);
    }

    /// No answer to this question is waited for any more.
    pub(crate) fn withdraw(&self, id: &Id) {
        self.0.open.lock().waiting.remove(id);
    }

    /// Hands in a response. `false` if nobody waits for it.
    ///
    /// Some clients write each id as a text: that of a number is the number.
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

impl OpenQuestion {
    pub(crate) fn id(&self) -> &Id {
        &self.id
    }

    /// The answer; `None` if none can come any more.
    pub(crate) async fn answer(mut self) -> Option<ResponseOutcome> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        self.questions.0.open.lock().waiting.remove(&self.id);
    }
}
