//! The budget of unfinished requests: one for all connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

/// What an unfinished request costs beside the bytes read of it, in bytes: the buffer that it is
/// read into.
pub(super) const OVERHEAD: usize = 8 * 1024;

/// The requests that the server waits for. A request that arrives at once is never among them.
#[derive(Debug)]
pub(super) struct Unfinished {
    max: usize,
    held: Mutex<Buffered>,
}

#[derive(Debug, Default)]
struct Buffered {
    bytes: usize,
    next: u64,
    requests: HashMap<u64, Request>,
}

#[derive(Debug)]
struct Request {
    bytes: usize,
    since: Instant,
    /// Woken when the request has to give way.
    waker: Option<Waker>,
    gives_way: bool,
}

impl Unfinished {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// Counts a request until the share is dropped.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        let mut held = self.held.lock();
        let key = held.next;
        held.next += 1;
        let since = Instant::now();
        held.requests.insert(key, Request { bytes: 0, since, waker: None, gives_way: false });
        Share { of: self.clone(), key }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

impl Buffered {
    /// The request that has kept the most for the longest.
    fn greediest(&mut self) -> Option<&mut Request> {
        let now = Instant::now();
        let holds = |request: &Request| {
            let micros = now.saturating_duration_since(request.since).as_micros() + 1;
            micros.saturating_mul(request.bytes as u128)
        };
        let requests = self.requests.values_mut().filter(|request| !request.gives_way);
        requests.max_by_key(|request| holds(request))
    }
}

#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Unfinished>,
    key: u64,
}

impl Share {
    /// Sets how many bytes the request keeps now. When the budget is full, the greediest requests
    /// give way. Returns `false` if this request has to give way.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        let mut held = self.of.held.lock();
        let held = &mut *held;
        let bytes = bytes.saturating_add(OVERHEAD);
        match held.requests.get_mut(&self.key) {
            Some(request) if !request.gives_way => {
                held.bytes = held.bytes - request.bytes + bytes;
                request.bytes = bytes;
            }
            _ => return false,
        }
        while held.bytes > self.of.max {
            let Some(request) = held.greediest() else { break };
            request.gives_way = true;
            let (bytes, waker) = (std::mem::take(&mut request.bytes), request.waker.take());
            held.bytes -= bytes;
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        held.requests.get(&self.key).is_some_and(|request| !request.gives_way)
    }

    /// Completes when this request has to give way.
    pub(super) fn poll_gives_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held = self.of.held.lock();
        match held.requests.get_mut(&self.key) {
            Some(request) if !request.gives_way => {
                if !request.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    request.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock();
        if let Some(request) = held.requests.remove(&self.key) {
            held.bytes -= request.bytes;
        }
    }
}
