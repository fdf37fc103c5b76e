//! A thread that does one job after the other.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use super::file::Reply;
use crate::tasks::TaskStoreError;

/// How many jobs may wait for a thread, and how many it takes at once. Callers with more jobs wait
/// for space.
pub(super) const QUEUE: usize = 256;

/// A thread and its queue. When dropped, it waits until the thread has done the jobs in the queue.
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

    /// Gives the thread a job, and waits for the reply.
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
            // This takes one commit at most, because nobody waits for a reply any more. A thread
            // that has panicked has reported it.
            let _ = thread.join();
        }
    }
}
