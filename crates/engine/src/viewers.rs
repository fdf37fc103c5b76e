//! Who sees what, and may do what: the labels of identities, and the scopes that are asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use foldhash::HashMap;
use parking_lot::Mutex;
use stentor_macros::Setters;
use stentor_wire::{Era, ErrorObject};

use crate::access::Viewer;
use crate::identity::{Generation, Identity, Labels, Who};
use crate::log::quietly;

/// The most scopes that are remembered as asked for, and the longest of them, in bytes.
const MAX_KNOWN: usize = 1_024;
const MAX_SCOPE: usize = 256;

/// How rights are kept and bounded.
#[derive(Clone, Copy, Debug, Setters)]
#[non_exhaustive]
pub struct RightsConfig {
    /// For how long the credentials of a [revoked](crate::Engine::revoke) principal are refused. Not
    /// less than the life of a token; above 100 years counts as 100 years. Default 1 hour.
    pub revoked_for: Duration,
    /// How many principals may be revoked at once. Above that, the one whose time ends first is
    /// forgotten. Default 10,000.
    pub max_revoked: usize,
    /// Sessions that one principal may have at once, pipes and legacy HTTP sessions together. With
    /// HTTP, one more is refused with 503. Default: no limit beside
    /// [`SessionConfig::max_sessions`](crate::SessionConfig::max_sessions).
    pub max_sessions: Option<usize>,
    /// Modern listens over HTTP that one principal may have open at once. One more is refused with
    /// 503. Default: no limit beside that of sessions.
    pub max_listens: Option<usize>,
    /// Calls and tasks of one principal that may run at once, or await input. One more is refused:
    /// modern over HTTP with 429, else with error 503. Default: no limit beside those of
    /// [`CallConfig`](crate::CallConfig).
    pub max_calls: Option<usize>,
    /// Resources that one principal may watch at once, in all sessions and listens together. One more
    /// is refused with error 503. Default: no limit beside
    /// [`SessionConfig::max_subscriptions`](crate::SessionConfig::max_subscriptions).
    pub max_subscriptions: Option<usize>,
}

impl Default for RightsConfig {
    fn default() -> Self {
        Self {
            revoked_for: Duration::from_secs(60 * 60),
            max_revoked: 10_000,
            max_sessions: None,
            max_listens: None,
            max_calls: None,
            max_subscriptions: None,
        }
    }
}

/// The author's function that finds the labels of an identity.
pub(crate) type LabelsOf = Arc<dyn Fn(&Identity) -> Labels + Send + Sync>;

/// What an engine knows of the rights of its senders.
pub(crate) struct Viewers {
    labels: LabelsOf,
    generation: ArcSwap<Generation>,
    /// The scopes that this server has asked for.
    known: Mutex<BTreeSet<Arc<str>>>,
    /// What keeps verdicts about credentials.
    caches: Mutex<Vec<Weak<dyn ForgetRights>>>,
    revoked: Revoked,
}

/// Keeps what it has found out about the credentials of principals.
pub trait ForgetRights: Send + Sync {
    /// Drops what is kept about a principal, or about all.
    fn forget(&self, principal: Option<&str>);
}

/// Principals that are locked out.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    any: AtomicBool,
    all: Mutex<HashMap<Arc<str>, LockedOut>>,
    max: usize,
}

/// Until when a principal is locked out, and whether its calls are cancelled.
#[derive(Clone, Copy, Debug)]
struct LockedOut {
    until: SystemTime,
    cancel_calls: bool,
}

impl Revoked {
    pub(crate) fn has(&self, principal: &str) -> bool {
        self.get(principal).is_some()
    }

    /// Whether a principal is locked out, with its calls.
    pub(crate) fn cancels(&self, principal: &str) -> bool {
        self.get(principal).is_some_and(|it| it.cancel_calls)
    }

    fn get(&self, principal: &str) -> Option<LockedOut> {
        // Asked for each request, and nearly always empty.
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let found = self.all.lock().get(principal).copied();
        found.filter(|it| it.until > SystemTime::now())
    }

    /// Adds a principal. Returns those that were removed: their time is over, or there are too many.
    /// `None` if nothing is new: its time is over, or it is locked out in the same way already.
    pub(crate) fn add(
        &self,
        principal: Arc<str>,
        until: SystemTime,
        cancel_calls: bool,
    ) -> Option<Vec<Arc<str>>> {
        let mut all = self.all.lock();
        let now = SystemTime::now();
        let mut new = LockedOut { until, cancel_calls };
        if until <= now {
            return None;
        }
        if let Some(known) = all.get(&principal) {
            if known.until >= until && (known.cancel_calls || !cancel_calls) {
                return None;
            }
            new.until = until.max(known.until);
            new.cancel_calls |= known.cancel_calls;
        }
        let mut removed: Vec<_> =
            all.extract_if(|_, it| it.until <= now).map(|(it, _)| it).collect();
        if all.len() >= self.max && !all.contains_key(&principal) {
            let first = all.iter().min_by_key(|(_, it)| it.until).map(|(it, _)| it.clone());
            if let Some(first) = &first {
                all.remove(first);
            }
            removed.extend(first);
        }
        all.insert(principal, new);
        self.any.store(true, Ordering::Release);
        Some(removed)
    }
}

impl fmt::Debug for Viewers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewers").finish_non_exhaustive()
    }
}

impl Default for Viewers {
    fn default() -> Self {
        Self::new(Arc::new(Labels::of), &RightsConfig::default())
    }
}

impl Viewers {
    pub(crate) fn new(labels: LabelsOf, config: &RightsConfig) -> Self {
        Self {
            labels,
            generation: ArcSwap::default(),
            known: Mutex::default(),
            caches: Mutex::default(),
            revoked: Revoked { max: config.max_revoked.max(1), ..Revoked::default() },
        }
    }

    /// Whether a sender is locked out.
    pub(crate) fn is_revoked(&self, who: &Who) -> bool {
        who.identity().is_some_and(|identity| self.revoked.has(identity.principal()))
    }

    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    pub(crate) fn add_cache(&self, cache: Weak<dyn ForgetRights>) {
        let mut caches = self.caches.lock();
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    /// Marks what is computed from now on.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Whether nothing was refreshed since then.
    pub(crate) fn generation_is(&self, then: &Arc<Generation>) -> bool {
        Arc::ptr_eq(&self.generation.load(), then)
    }

    /// What this sender sees, with its labels as of now.
    pub(crate) fn viewer(&self, who: &Who) -> Viewer {
        Viewer::of(who, |identity| self.labels(identity))
    }

    fn labels(&self, identity: &Identity) -> Labels {
        identity.labels(&self.generation.load(), |identity| {
            // The author's function may panic. Then the sender sees what everybody sees.
            quietly(|| (self.labels)(identity)).unwrap_or_default()
        })
    }

    /// The sender of a request that another node answers, with its labels: both nodes decide alike.
    pub(crate) fn for_call(&self, who: &Who) -> Who {
        who.map(|identity| {
            let labels = self.labels(&identity);
            identity.carrying(labels)
        })
    }

    /// The sender of a message for a session on another node, which outlives the message. Each node
    /// hears of a refresh at another time, so that node finds the labels by itself, unless it
    /// cannot: what the authenticator has put into the identity stays here.
    pub(crate) fn for_session(&self, who: &Who) -> Who {
        match who.identity() {
            Some(identity) if identity.has_extras() => self.for_call(who),
            _ => who.clone(),
        }
    }

    /// From here on labels are computed anew, and what is kept about the credentials of a principal,
    /// or of all, is dropped.
    pub(crate) fn forget(&self, principal: Option<&str>) {
        self.generation.store(Arc::default());
        let caches = self.caches.lock().clone();
        for cache in caches.iter().filter_map(Weak::upgrade) {
            cache.forget(principal);
        }
    }

    /// Remembers scopes that clients are told to ask for.
    pub(crate) fn learn_scopes<'a>(&self, scopes: impl IntoIterator<Item = &'a Arc<str>>) {
        let mut known = self.known.lock();
        for scope in scopes {
            if known.len() < MAX_KNOWN && scope.len() <= MAX_SCOPE && !known.contains(scope) {
                known.insert(scope.clone());
            }
        }
    }

    /// Checks that a sender has all of these scopes.
    ///
    /// # Errors
    ///
    /// The error for its client. It names all of these scopes, also those that the sender has
    /// (2026-07-28, basic/authorization, "Runtime Insufficient Scope Errors"). A legacy client
    /// replaces its scopes by them, so for such a client it names those that the sender has already.
    pub(crate) fn check_scopes<'a>(
        &self,
        who: &Who,
        era: Era,
        wanted: impl IntoIterator<Item = &'a Arc<str>> + Clone,
    ) -> Result<(), ErrorObject> {
        if wanted.clone().into_iter().all(|scope| who.has_scope(scope)) {
            return Ok(());
        }
        let mut asked: BTreeSet<&str> = wanted.into_iter().map(|scope| &**scope).collect();
        let known = self.known.lock();
        if let (Era::Legacy, Some(identity)) = (era, who.identity()) {
            // An issuer may also grant scopes of other servers.
            let is_known = |it: &&str| identity.issuer().is_none() || known.contains(*it);
            asked.extend(identity.granted_scopes().filter(is_known));
        }
        Err(ErrorObject::insufficient_scope(&asked.into_iter().collect::<Vec<_>>().join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().copied().map(Into::into).collect()
    }

    #[test]
    fn a_legacy_client_is_told_the_scopes_it_has_and_this_server_knows() {
        let viewers = Viewers::default();
        let ann = Identity::issued("https://i", "ann").scopes(["read", "other:api"]);
        let ann = Who::Known(ann);
        assert_eq!(viewers.check_scopes(&ann, Era::Legacy, &scopes(&["read"])), Ok(()));
        viewers.learn_scopes(&scopes(&["read"]));
        let told = |era| {
            let error = viewers.check_scopes(&ann, era, &scopes(&["write"])).unwrap_err();
            assert_eq!(error.code, 403);
            error.data.unwrap()["scope"].as_str().unwrap().to_owned()
        };
        assert_eq!(told(Era::Legacy), "read write");
        assert_eq!(told(Era::Modern), "write");
    }

    #[test]
    fn the_local_user_may_do_everything_and_a_stranger_nothing_that_needs_a_scope() {
        let viewers = Viewers::default();
        assert!(viewers.check_scopes(&Who::Local, Era::Modern, &scopes(&["x"])).is_ok());
        assert!(viewers.check_scopes(&Who::Nobody, Era::Modern, &scopes(&["x"])).is_err());
        assert!(viewers.check_scopes(&Who::Nobody, Era::Modern, &scopes(&[])).is_ok());
    }

    #[test]
    fn a_function_for_labels_that_panics_gives_none() {
        let viewers = Viewers::new(Arc::new(|_| panic!("a bug")), &RightsConfig::default());
        let viewer = viewers.viewer(&Who::Known(Identity::named("ann").scopes(["admin"])));
        assert!(!viewer.has_label("admin"));
    }
}
