//! A thread that does one thing after the other.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use super::file::Reply;
use crate::tasks::TaskStoreError;

/// How much may wait for a thread, and how much it is given at once at most. Who has more waits
/// for room.
pub(super) const QUEUE: usize = 256;

/// The thread, and the way to it. Dropping it lets the thread do what waits, and waits for it.
#[derive(Debug)]
pub(super) struct Worker<J> {
    jobs: Option<mpsc::Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    pub(super) fn start(
        name: &str,
        run: impl FnOnce(mpsc::Receiver<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has something done, and waits for the answer.
    pub(super) async fn ask<A>(
        &self,
        job: impl FnOnce(Reply<A>) -> J,
    ) -> Result<A, TaskStoreError> {
        let ended = || TaskStoreError::Failed("its thread has ended".into());
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // One commit at most, as nobody waits for an answer any more. A thread that has
            // panicked has said so.
            let _ = thread.join();
        }
    }
}
