//! Middleware that many servers want.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use stentor_wire::ErrorObject;
use tokio::time::Instant;

use super::{Middleware, Next, Operation, OperationKind, Reply};
use crate::handler::{CallError, Context, Running};
use crate::shares::Group;

/// Logs each operation when it has ended, at the level `info` with the target `stentor::access`: its
/// kind and subject, its session and principal, how it ended and how long it took. One that was
/// cancelled, or whose code panicked, has `dropped` as its outcome.
///
/// ```
/// use stentor::{Engine, middleware::AccessLog};
///
/// let builder = Engine::builder("s", "1").layer(AccessLog);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLog;

impl Middleware for AccessLog {
    fn handle(&self, operation: Operation, next: Next) -> Running<Result<Reply, CallError>> {
        let entry = Entry {
            kind: operation.kind(),
            ctx: operation.context().clone(),
            started: Instant::now(),
            outcome: Cow::Borrowed("dropped"),
        };
        async move {
            // The whole entry is moved in, to be dropped with this future.
            let mut entry = entry;
            let reply = next.run(operation).await;
            entry.outcome = match &reply {
                Ok(Reply::Tool(result)) if result.is_error == Some(true) => "failed".into(),
                Ok(_) => "ok".into(),
                Err(error) => error.to_string().into(),
            };
            reply
        }
        .boxed()
    }
}

/// An entry of the access log, written when it is dropped, in whatever way the operation ends.
struct Entry {
    kind: OperationKind,
    ctx: Context,
    started: Instant,
    outcome: Cow<'static, str>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        crate::log!(
            info,
            target: "stentor::access",
            kind = ?self.kind,
            subject = self.ctx.uri(),
            session = self.ctx.session_id().map(tracing::field::debug),
            principal = self.ctx.principal(),
            outcome = &*self.outcome,
            took = ?self.started.elapsed(),
        );
    }
}

/// Ends the code of an operation that takes longer than this. A call that waits for its client's
/// answer to a question takes time, too.
///
/// ```
/// use std::time::Duration;
/// use stentor::{Engine, middleware::Timeout};
///
/// let builder = Engine::builder("s", "1").layer(Timeout(Duration::from_secs(30)));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub Duration);

impl Middleware for Timeout {
    fn handle(&self, operation: Operation, next: Next) -> Running<Result<Reply, CallError>> {
        let limit = self.0;
        async move {
            match tokio::time::timeout(limit, next.run(operation)).await {
                Ok(reply) => reply,
                Err(_elapsed) => Err(CallError::new(format!("timed out after {limit:?}"))),
            }
        }
        .boxed()
    }
}

/// Refuses operations of a caller who has more than so many in a time. After a burst of `burst` the
/// caller gets one more each `per / burst`. A caller is a principal; when nobody is known, an address,
/// and in the legacy era a session, of which a stranger may open several: limit strangers in front of
/// the server.
///
/// ```
/// use std::time::Duration;
/// use stentor::{Engine, middleware::RateLimit};
///
/// // A hundred at once, and a hundred a minute in the long run.
/// let builder = Engine::builder("s", "1").layer(RateLimit::new(100, Duration::from_secs(60)));
/// # let _ = builder;
/// ```
#[derive(Debug)]
pub struct RateLimit {
    /// How much time one operation uses up.
    cost: Duration,
    /// How much may be used up in advance.
    burst: Duration,
    /// When each caller has used up no more. Callers of whom that has passed are forgotten.
    until: Mutex<HashMap<Group, Instant>>,
}

/// From so many callers on, those who have used up nothing are looked for.
const MANY_CALLERS: usize = 10_000;

impl RateLimit {
    /// At most `burst` operations of one caller at once, and `burst` in each `per` in the long run.
    /// A `burst` of 0 counts as 1, a `per` of more than a day as a day.
    #[must_use]
    pub fn new(burst: u32, per: Duration) -> Self {
        let per = per.min(Duration::from_secs(24 * 60 * 60));
        let cost = (per / burst.max(1)).max(Duration::from_nanos(1));
        Self { cost, burst: per, until: Mutex::default() }
    }

    /// Takes one operation of a caller. If there are too many, how long the caller has to wait.
    fn take(&self, caller: Group, now: Instant) -> Result<(), Duration> {
        let mut until = self.until.lock();
        if until.len() >= MANY_CALLERS && !until.contains_key(&caller) {
            until.retain(|_, until| *until > now);
            // If all are busy, the one that is soonest forgotten is forgotten now.
            if until.len() >= MANY_CALLERS
                && let Some(soonest) =
                    until.iter().min_by_key(|(_, until)| **until).map(|(caller, _)| caller.clone())
            {
                until.remove(&soonest);
            }
        }
        let until = until.entry(caller).or_insert(now);
        let next = (*until).max(now) + self.cost;
        let too_early = next.saturating_duration_since(now + self.burst);
        if !too_early.is_zero() {
            return Err(too_early);
        }
        *until = next;
        Ok(())
    }
}

impl Middleware for RateLimit {
    fn handle(&self, operation: Operation, next: Next) -> Running<Result<Reply, CallError>> {
        let caller = operation.context().call().caller.share().group().clone();
        match self.take(caller, Instant::now()) {
            Ok(()) => next.run(operation),
            Err(wait) => {
                let why = format!("too many requests: try again in {} ms", wait.as_millis() + 1);
                let error = CallError::protocol(ErrorObject::unavailable(why));
                std::future::ready(Err(error)).boxed()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_burst_and_then_a_rate() {
        let limit = RateLimit::new(3, Duration::from_secs(3));
        let caller = |name: &str| Group::Principal(name.into());
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(limit.take(caller("ann"), start), Ok(()));
        }
        assert_eq!(limit.take(caller("ann"), start), Err(Duration::from_secs(1)));
        assert_eq!(limit.take(caller("bob"), start), Ok(()), "another caller has another burst");
        let later = start + Duration::from_secs(1);
        assert_eq!(limit.take(caller("ann"), later), Ok(()));
        assert!(limit.take(caller("ann"), later).is_err());
    }

    #[test]
    fn callers_are_forgotten_so_that_their_number_is_bounded() {
        let limit = RateLimit::new(1, Duration::from_secs(1));
        let start = Instant::now();
        for n in 0..MANY_CALLERS + 10 {
            let at = start + Duration::from_nanos(n as u64);
            assert_eq!(limit.take(Group::Principal(n.to_string().into()), at), Ok(()));
        }
        assert!(limit.until.lock().len() <= MANY_CALLERS);
    }
}
