//! Runs slow work on data of clients outside the threads that serve everybody.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Data of more bytes than this takes long to parse.
pub(crate) const LARGE: usize = 64 * 1024;

/// Runs slow work on threads of its own. At most one thread per processor works at once, which also
/// bounds the memory. Further work waits in order.
#[derive(Clone, Debug)]
pub(crate) struct Offload(Arc<Semaphore>);

impl Default for Offload {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors)))
    }
}

impl Offload {
    /// Runs some work. When dropped early, the work may or may not be done, and its result is
    /// dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // The semaphore is never closed, so that there is always a permit in the end.
        let permit = self.0.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        match done.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it the code that waits.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn no_more_work_is_done_at_once_than_there_are_processors() {
        let offload = Offload(Arc::new(Semaphore::new(2)));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..20).map(|_| {
            let (running, most) = (running.clone(), most.clone());
            offload.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures::future::join_all(work).await;
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_panic_reaches_only_the_code_that_waits() {
        let offload = Offload(Arc::new(Semaphore::new(1)));
        let panicked = std::panic::AssertUnwindSafe(offload.run(|| panic!("on purpose")));
        assert!(panicked.catch_unwind().await.is_err());
        assert_eq!(offload.run(|| 1).await, 1);
    }
}
