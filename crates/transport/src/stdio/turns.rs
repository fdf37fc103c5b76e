//! Runs a future whose parts wake each other, in one task.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// How many times a future is polled again before other tasks get their turn.
const TURNS: usize = 16;

/// The future is not being polled: waking it wakes the task.
const IDLE: u8 = 0;
const POLLED: u8 = 1;
/// The future will be polled once more; no further wake is needed.
const WOKEN: u8 = 2;

/// Runs a future that wakes itself. It is polled again at once; otherwise the task would go through
/// the scheduler, and maybe to another thread.
pub(super) async fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let flag = Arc::new(WakeFlag { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
    let waker = Waker::from(flag.clone());
    poll_fn(move |cx| {
        flag.task.register(cx.waker());
        for _ in 0..TURNS {
            // Synchronizes with what happened before the wake.
            flag.state.swap(POLLED, Ordering::AcqRel);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            let is_idle =
                flag.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if polled.is_ready() || is_idle.is_ok() {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

struct WakeFlag {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            self.task.wake();
        }
    }
}

/// Lets the other parts of the task run. Within [`at_once`] it does nothing else.
pub(super) async fn turn() {
    let mut taken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut taken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::channel::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn taken(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_without_waking_the_task() {
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let mut turns = pin!(at_once(async {
            turn().await;
            turn().await;
        }));
        assert!(turns.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(woken.taken(), 0);
    }

    #[test]
    fn a_waiting_future_is_woken_with_its_task() {
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let (one, first) = oneshot::channel::<()>();
        let (two, second) = oneshot::channel::<()>();
        let mut waiting = pin!(at_once(async {
            let _ = first.await;
            let _ = second.await;
        }));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        assert_eq!(woken.taken(), 0, "it waits");
        drop(one);
        assert_eq!(woken.taken(), 1);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(two);
        assert_eq!(woken.taken(), 1);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_future_that_always_wakes_itself_lets_other_tasks_run() {
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut turns = 0;
        let mut endless = Box::pin(at_once(async {
            loop {
                turns += 1;
                turn().await;
            }
        }));
        for _ in 0..2 {
            let polled: Poll<()> = endless.as_mut().poll(&mut cx);
            assert!(polled.is_pending());
            assert_eq!(woken.taken(), 1, "it is to be polled again");
        }
        drop(endless);
        assert_eq!(turns, 2 * TURNS);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        let (one, mut other) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for n in 0..100_000 {
                one.send(n).await.unwrap();
            }
        });
        let mut received = 0;
        at_once(async {
            while let Some(n) = other.recv().await {
                assert_eq!(n, received);
                received += 1;
            }
        })
        .await;
        sending.await.unwrap();
        assert_eq!(received, 100_000);
    }
}
