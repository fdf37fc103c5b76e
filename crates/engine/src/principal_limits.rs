//! How much each principal may have at once.

use std::sync::Arc;

use foldhash::HashMap;
use metrics::counter;
use parking_lot::Mutex;

use crate::viewers::RightsConfig;

/// What is counted for each principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Sessions,
    Listens,
    Calls,
    Subscriptions,
}

const KINDS: usize = 4;

impl Counted {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Listens => "listens",
            Self::Calls => "calls",
            Self::Subscriptions => "subscriptions",
        }
    }
}

/// Counts what principals have, where that is limited. Strangers have no name by which they could be
/// counted; shares bound them.
#[derive(Debug)]
pub(crate) struct PrincipalLimits {
    limits: [Option<usize>; KINDS],
    held: Mutex<HashMap<Arc<str>, [usize; KINDS]>>,
}

/// What one holder has of a principal's limit. Given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct PrincipalPermit(Option<Held>);

#[derive(Debug)]
struct Held {
    limits: Arc<PrincipalLimits>,
    principal: Arc<str>,
    what: Counted,
    count: usize,
}

impl PrincipalLimits {
    pub(crate) fn new(config: &RightsConfig) -> Self {
        let mut limits = [None; KINDS];
        limits[Counted::Sessions as usize] = config.max_sessions;
        limits[Counted::Listens as usize] = config.max_listens;
        limits[Counted::Calls as usize] = config.max_calls;
        limits[Counted::Subscriptions as usize] = config.max_subscriptions;
        Self { limits, held: Mutex::default() }
    }

    /// The permit for something of a principal, with nothing counted yet.
    pub(crate) fn nothing(
        self: &Arc<Self>,
        principal: Option<&Arc<str>>,
        what: Counted,
    ) -> PrincipalPermit {
        let principal = principal.filter(|_| self.limits[what as usize].is_some());
        PrincipalPermit(principal.map(|principal| Held {
            limits: self.clone(),
            principal: principal.clone(),
            what,
            count: 0,
        }))
    }

    /// The permit for one thing; `None` if the principal has as many as it may have.
    pub(crate) fn one(
        self: &Arc<Self>,
        principal: Option<&Arc<str>>,
        what: Counted,
    ) -> Option<PrincipalPermit> {
        let mut permit = self.nothing(principal, what);
        permit.grow(1).then_some(permit)
    }
}

impl PrincipalPermit {
    /// Counts so many more. `false`, and nothing is counted, if that is too many.
    pub(crate) fn grow(&mut self, count: usize) -> bool {
        let Some(held) = self.0.as_mut().filter(|_| count > 0) else { return true };
        let what = held.what as usize;
        let limit = held.limits.limits[what].unwrap_or(usize::MAX);
        {
            let mut all = held.limits.held.lock();
            let own = all.entry(held.principal.clone()).or_default();
            if limit.saturating_sub(own[what]) >= count {
                own[what] += count;
                held.count += count;
                return true;
            }
            if *own == [0; KINDS] {
                all.remove(&held.principal);
            }
        }
        counter!("stentor.principals.refused", "of" => held.what.as_str()).increment(1);
        false
    }

    /// Gives back so many.
    pub(crate) fn shrink(&mut self, count: usize) {
        let Some(held) = &mut self.0 else { return };
        let count = count.min(held.count);
        held.count -= count;
        let mut all = held.limits.held.lock();
        if let Some(own) = all.get_mut(&held.principal) {
            own[held.what as usize] -= count;
            if *own == [0; KINDS] {
                all.remove(&held.principal);
            }
        }
    }
}

impl Drop for PrincipalPermit {
    fn drop(&mut self) {
        self.shrink(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_has_limits_of_its_own_and_strangers_have_none() {
        let config = RightsConfig { max_listens: Some(2), ..RightsConfig::default() };
        let limits = Arc::new(PrincipalLimits::new(&config));
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let one = |who: Option<&Arc<str>>| limits.one(who, Counted::Listens);
        let held = [one(Some(&ann)).unwrap(), one(Some(&ann)).unwrap()];
        assert!(one(Some(&ann)).is_none());
        assert!(limits.one(Some(&ann), Counted::Calls).is_some(), "there is no limit for them");
        let strangers: Vec<_> = (0..10).map(|_| one(None)).collect();
        assert!(strangers.iter().all(Option::is_some));
        assert!(one(Some(&bob)).is_some());
        drop(held);
        assert!(one(Some(&ann)).is_some());
        assert!(limits.held.lock().is_empty(), "nothing is kept of who has nothing");
    }

    #[test]
    fn a_permit_grows_within_the_limit_and_gives_back_what_it_counted() {
        let config = RightsConfig { max_subscriptions: Some(5), ..RightsConfig::default() };
        let limits = Arc::new(PrincipalLimits::new(&config));
        let ann: Arc<str> = "ann".into();
        let mut one = limits.nothing(Some(&ann), Counted::Subscriptions);
        let mut other = limits.nothing(Some(&ann), Counted::Subscriptions);
        assert!(one.grow(3) && !other.grow(3) && other.grow(2) && !one.grow(1));
        one.shrink(2);
        assert!(other.grow(2) && !other.grow(1));
        drop(other);
        assert!(one.grow(4) && !one.grow(1));
    }
}
