//! How many attempts are made at once.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Bounds the attempts to each host, and all attempts together.
#[derive(Debug)]
pub(super) struct Slots {
    in_all: Semaphore,
    for_each: usize,
    /// Only hosts to which somebody sends, or waits to send.
    hosts: Mutex<HashMap<Box<str>, Host>>,
}

#[derive(Debug)]
struct Host {
    users: usize,
    semaphore: Arc<Semaphore>,
}

/// Leave to make one attempt.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    _in_all: SemaphorePermit<'a>,
    _of_host: OwnedSemaphorePermit,
    _user: User<'a>,
}

/// Keeps a host in the map.
#[derive(Debug)]
struct User<'a> {
    slots: &'a Slots,
    host: &'a str,
}

impl Slots {
    pub(super) fn new(for_each: usize, in_all: usize) -> Self {
        Self {
            in_all: Semaphore::new(in_all.clamp(1, Semaphore::MAX_PERMITS)),
            for_each: for_each.clamp(1, Semaphore::MAX_PERMITS),
            hosts: Mutex::default(),
        }
    }

    /// Waits until an attempt may be made.
    pub(super) async fn take<'a>(&'a self, host: &'a str) -> Permit<'a> {
        let semaphore = self.enter(host);
        // From here on the host leaves the map again also when nobody waits any longer.
        let user = User { slots: self, host };
        // A slow host must not hold a place among all while it waits for one of its own.
        let of_host = semaphore.acquire_owned().await.expect("it is never closed");
        let in_all = self.in_all.acquire().await.expect("it is never closed");
        Permit { _in_all: in_all, _of_host: of_host, _user: user }
    }

    fn enter(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get_mut(host) {
            host.users += 1;
            return host.semaphore.clone();
        }
        let semaphore = Arc::new(Semaphore::new(self.for_each));
        hosts.insert(host.into(), Host { users: 1, semaphore: semaphore.clone() });
        semaphore
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        let mut hosts = self.slots.hosts.lock();
        let Some(host) = hosts.get_mut(self.host) else { return };
        host.users -= 1;
        if host.users == 0 {
            hosts.remove(self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_busy_host_leaves_room_for_others() {
        let slots = Slots::new(1, 2);
        let first = slots.take("a").await;
        let mut waiting = Box::pin(slots.take("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        let other = slots.take("b").await;
        assert!(slots.take("c").now_or_never().is_none());
        drop(first);
        drop((waiting.await, other));
        assert!(slots.hosts.lock().is_empty());
        assert_eq!(slots.in_all.available_permits(), 2);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let slots = Slots::new(1, 1);
        let first = slots.take("a").await;
        let mut waiting = Box::pin(slots.take("b"));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(slots.hosts.lock().len(), 2);
        drop(waiting);
        assert_eq!(slots.hosts.lock().len(), 1);
        drop(first);
        assert!(slots.hosts.lock().is_empty());
    }
}
