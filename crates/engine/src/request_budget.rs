//! The memory that requests and other messages of clients take: requests that run or wait,
//! subscriptions, and clients' descriptions of themselves.
//!
//! A [`Meter`] counts for one session, for one caller, or for all. A [`Charge`] is counted by each
//! meter above it, and given back when it is dropped.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use stentor_macros::Setters;
use stentor_wire::{Params, Request};

use crate::offload::LARGE;
use crate::shares::{Group, Share};

/// How much memory the messages of clients may take, in bytes. What goes beyond is refused with an
/// error; nothing that was accepted is lost.
///
/// Counted are: calls that run, wait for an answer or became tasks, with their parameters;
/// subscriptions, with their URIs; clients' descriptions of themselves; and large responses until
/// they are read. Other frames that wait for clients have a [budget](stentor_delivery::policy::Budget)
/// of their own.
///
/// A caller is a principal if it is known, otherwise everything from one address. A caller gets at
/// most as much as it leaves for all others: alone, half of the total.
#[derive(Clone, Copy, Debug, Setters)]
#[non_exhaustive]
pub struct RequestBudget {
    /// Bytes of one session. Default 32 MiB.
    pub session: usize,
    /// Bytes of all callers together. Default 256 MiB.
    pub total: usize,
}

impl Default for RequestBudget {
    fn default() -> Self {
        Self { session: 32 * 1024 * 1024, total: 256 * 1024 * 1024 }
    }
}

/// Bytes of a call beside its parameters: its actor, its stream, and its small parts.
pub(crate) const CALL_COST: usize = 16 * 1024;

/// Bytes of a JSON value beside its text, with capacity to grow.
const VALUE_COST: usize = 128;

/// Bytes of a subscription beside its text: its entries in the session and in the hub.
pub(crate) const SUBSCRIPTION_COST: usize = 128;

pub(crate) fn cost_of_call(request: &Request) -> usize {
    CALL_COST + cost_of_params(&request.params)
}

/// The memory of parameters, in bytes: once as received, once as values.
pub(crate) fn cost_of_params(params: &Params) -> usize {
    2 * params.source_len() + VALUE_COST * params.values()
}

#[derive(Debug)]
pub(crate) struct Meter {
    held: AtomicUsize,
    limit: Limit,
    above: Option<Arc<Meter>>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Bytes(usize),
    /// As much as the meter above has left.
    Remaining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as much is kept of requests as may be; wait for some to end, then try again")]
pub(crate) struct OverBudget;

impl Meter {
    pub(crate) fn total(limit: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit: Limit::Bytes(limit), above: None })
    }

    pub(crate) fn caller(total: &Arc<Self>) -> Arc<Self> {
        let (held, above) = (AtomicUsize::new(0), Some(total.clone()));
        Arc::new(Self { held, limit: Limit::Remaining, above })
    }

    pub(crate) fn session(caller: Arc<Self>, limit: usize) -> Arc<Self> {
        let (held, above) = (AtomicUsize::new(0), Some(caller));
        Arc::new(Self { held, limit: Limit::Bytes(limit), above })
    }

    /// Counts `bytes` more, if the budgets allow it.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = self.nothing();
        charge.resize(bytes)?;
        Ok(charge)
    }

    pub(crate) fn nothing(self: &Arc<Self>) -> Charge {
        Charge { meter: self.clone(), bytes: 0 }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn add(&self, bytes: usize) -> Result<(), OverBudget> {
        // Added before the check, so that two threads cannot both take the last bytes.
        let own = self.held.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let most = match (self.limit, &self.above) {
            (Limit::Bytes(limit), _) => limit,
            (Limit::Remaining, Some(above)) => above.left(),
            (Limit::Remaining, None) => usize::MAX,
        };
        let added = match &self.above {
            _ if own > most => Err(OverBudget),
            Some(above) => above.add(bytes),
            None => Ok(()),
        };
        if added.is_err() {
            self.held.fetch_sub(bytes, Relaxed);
        }
        added
    }

    /// Whether this meter's own limit allows `bytes` more.
    pub(crate) fn own_limit_allows(&self, bytes: usize) -> bool {
        match (self.limit, &self.above) {
            (Limit::Bytes(limit), Some(_)) => self.held().saturating_add(bytes) <= limit,
            _ => true,
        }
    }

    /// The same response. If it is large, it is counted until its last owner drops it: wherever it
    /// is by then, it waits for a client that does not read. It is counted even beyond the limit;
    /// but the engine does nothing more for its caller while too many responses wait.
    pub(crate) fn counted(self: &Arc<Self>, answer: Bytes) -> Bytes {
        if answer.len() <= LARGE {
            return answer;
        }
        let mut charge = self.nothing();
        charge.take_over(answer.len());
        Bytes::from_owner(Counted { answer, _charge: charge })
    }

    pub(crate) fn is_too_much(&self) -> bool {
        let own = match (self.limit, &self.above) {
            (Limit::Bytes(limit), _) => self.held() > limit,
            (Limit::Remaining, Some(above)) => self.held() > above.left(),
            (Limit::Remaining, None) => false,
        };
        // The meter of all callers is left out: one caller cannot have too much of it.
        own || self.above.as_ref().is_some_and(|above| above.above.is_some() && above.is_too_much())
    }

    fn left(&self) -> usize {
        match self.limit {
            Limit::Bytes(limit) => limit.saturating_sub(self.held()),
            Limit::Remaining => usize::MAX,
        }
    }

    fn sub(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
        if let Some(above) = &self.above {
            above.sub(bytes);
        }
    }

    /// Counts `bytes` more, whatever the limit.
    fn force(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
        if let Some(above) = &self.above {
            above.force(bytes);
        }
    }
}

/// The meters of all callers for which something is counted.
#[derive(Debug)]
pub(crate) struct Callers {
    session_budget: usize,
    total: Arc<Meter>,
    unknown: Arc<Meter>,
    known: Mutex<Meters>,
}

#[derive(Debug, Default)]
struct Meters {
    meters: HashMap<Group, Weak<Meter>>,
    /// The number of entries at which unused ones are removed.
    sweep_at: usize,
}

impl Callers {
    pub(crate) fn new(budget: RequestBudget) -> Self {
        let total = Meter::total(budget.total);
        let (session_budget, unknown) = (budget.session, Meter::caller(&total));
        Self { session_budget, total, unknown, known: Mutex::default() }
    }

    /// Counts the bytes that are kept of what the client of a new session sends.
    pub(crate) fn session_meter(&self, share: &Share) -> Arc<Meter> {
        Meter::session(self.of(share), self.session_budget)
    }

    pub(crate) fn of(&self, share: &Share) -> Arc<Meter> {
        let group = share.group();
        if *group == Group::Unknown {
            return self.unknown.clone();
        }
        let mut known = self.known.lock();
        if let Some(meter) = known.meters.get(group).and_then(Weak::upgrade) {
            return meter;
        }
        if known.meters.len() >= known.sweep_at {
            known.meters.retain(|_, meter| meter.strong_count() > 0);
            known.sweep_at = 2 * known.meters.len() + 64;
        }
        let meter = Meter::caller(&self.total);
        known.meters.insert(group.clone(), Arc::downgrade(&meter));
        meter
    }

    /// Whether a caller has so much that its requests are refused: large responses wait for clients
    /// that do not read. Checked only while all callers together have more than half of the total.
    pub(crate) fn is_too_much(&self, share: &Share) -> bool {
        self.is_scarce() && self.of(share).is_too_much()
    }

    /// Whether all callers together have more than half of the total.
    pub(crate) fn is_scarce(&self) -> bool {
        self.total.left() < self.total.held()
    }

    pub(crate) fn held(&self) -> usize {
        self.total.held()
    }
}

struct Counted {
    answer: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// Bytes that are counted for something until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Changes the number of bytes. A smaller number is always accepted.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), OverBudget> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.meter.add(more)?,
            None => self.meter.sub(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.resize(self.bytes.saturating_add(bytes))
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = bytes.min(self.bytes);
        self.meter.sub(less);
        self.bytes -= less;
    }

    /// As [`grow`](Self::grow), but beyond any limit: another part has accepted the bytes already.
    pub(crate) fn take_over(&mut self, bytes: usize) {
        self.meter.force(bytes);
        self.bytes += bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_session_a_caller_and_all_have_their_limits() {
        let total = Meter::total(1_000);
        let (one, other) = (Meter::caller(&total), Meter::caller(&total));
        let session = Meter::session(one.clone(), 300);
        let first = session.charge(300).unwrap();
        assert_eq!(session.charge(1).unwrap_err(), OverBudget);
        // 700 bytes are left, and this caller has 300.
        let second = Meter::session(one.clone(), 300).charge(200).unwrap();
        assert_eq!(one.charge(1).unwrap_err(), OverBudget, "half is left for others");
        let third = other.charge(250).unwrap();
        assert!(other.charge(1).is_err());
        assert_eq!(total.held(), 750);
        drop((first, second, third));
        assert_eq!((total.held(), one.held(), session.held()), (0, 0, 0));
    }

    #[test]
    fn a_caller_has_one_meter_as_long_as_something_is_counted_for_it() {
        let callers = Callers::new(RequestBudget { session: 10, total: 1_000 });
        let of = |n: usize| callers.of(&Share::of(Some(&Arc::from(n.to_string())), None, None));
        let charge = of(0).charge(400).unwrap();
        assert!(of(0).charge(400).is_err());
        assert!(callers.of(&Share::of(None, None, None)).charge(400).is_ok());
        for n in 1..1_000 {
            assert!(of(n).charge(1).is_ok());
        }
        assert!(callers.known.lock().meters.len() <= 66);
        assert_eq!(callers.held(), 400);
        drop(charge);
        assert_eq!(callers.held(), 0);
    }

    #[test]
    fn a_large_response_is_counted_until_it_is_dropped_and_only_its_caller_has_too_much() {
        let callers = Callers::new(RequestBudget { session: 1, total: 1_000_000 });
        let of = |name: &str| Share::of(Some(&Arc::from(name)), None, None);
        let (greedy, other) = (callers.of(&of("greedy")), callers.of(&of("other")));
        let small = greedy.counted(Bytes::from(vec![b'x'; 100]));
        let large = greedy.counted(Bytes::from(vec![b'x'; 400_000]));
        assert_eq!((small.len(), large.len(), callers.held()), (100, 400_000, 400_000));
        assert!(!callers.is_too_much(&of("greedy")) && !callers.is_scarce());
        let session = Meter::session(greedy.clone(), 1_000_000);
        let another = session.counted(large.slice(..300_000));
        assert!(callers.is_too_much(&of("greedy")) && session.is_too_much());
        assert!(!callers.is_too_much(&of("other")) && other.charge(200_000).is_ok());
        assert!(greedy.charge(1).is_err());
        let part = large.slice(10..20);
        drop((large, another));
        assert_eq!(callers.held(), 400_000, "a part keeps the whole");
        drop(part);
        assert_eq!((callers.held(), session.is_too_much()), (0, false));
    }

    #[test]
    fn what_was_already_accepted_is_counted_whatever_the_limit() {
        let total = Meter::total(100);
        let mut charge = total.nothing();
        charge.take_over(500);
        assert_eq!(total.held(), 500);
        assert!(total.charge(1).is_err());
        charge.shrink(450);
        assert!(total.charge(50).is_ok());
        drop(charge);
        assert_eq!(total.held(), 0);
    }

    proptest! {
        #[test]
        fn whatever_some_callers_take_another_caller_gets_something(
            steps in prop::collection::vec((0..3_usize, 1..400_usize, any::<bool>()), 0..200),
        ) {
            let total = Meter::total(10_000);
            let callers = [Meter::caller(&total), Meter::caller(&total), Meter::caller(&total)];
            let mut charges: Vec<(usize, usize, Charge)> = Vec::new();
            for (caller, bytes, drops) in steps {
                if drops && !charges.is_empty() {
                    charges.swap_remove(bytes % charges.len());
                } else if let Ok(charge) = callers[caller].charge(bytes) {
                    charges.push((caller, bytes, charge));
                }
                let held = |of: usize| charges.iter().filter(|it| it.0 == of).map(|it| it.1).sum::<usize>();
                for (index, caller) in callers.iter().enumerate() {
                    prop_assert_eq!(caller.held(), held(index));
                }
                prop_assert_eq!(total.held(), held(0) + held(1) + held(2));
                // Three callers that take all they can leave a quarter, less one step each.
                prop_assert!(total.held() <= 7_500 + 400);
            }
            let newcomer = Meter::caller(&total);
            prop_assert!(newcomer.charge(1_000).is_ok());
        }
    }
}
