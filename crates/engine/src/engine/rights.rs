//! What an application does when the rights of somebody change.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use crate::engine::Engine;
use crate::extension::Requester;
use crate::identity::Identity;
use crate::registry::{Fact, Revocation};
use crate::viewers::ForgetRights;

impl Engine {
    /// Works out anew what a principal sees, on all nodes: its labels are computed again, and what is
    /// cached of its credentials is dropped. Those of its clients whose lists differ are notified.
    /// Returns how many sessions and listens of this node see other lists. Running calls go on.
    ///
    /// To be called after that has changed from which
    /// [`EngineBuilder::labels`](crate::EngineBuilder::labels) or the authenticator finds its rights.
    ///
    /// A principal from a token of OAuth is the issuer, `#` and the subject.
    ///
    /// ```
    /// # async fn f(engine: stentor::Engine) {
    /// // After a group of Ann has changed in the database that the function for the labels reads.
    /// let changed = engine.refresh_visibility("https://login.example.com#ann").await;
    /// # let _ = changed;
    /// # }
    /// ```
    ///
    /// When dropped early, some sessions may still see what they saw.
    pub async fn refresh_visibility(&self, principal: &str) -> usize {
        let fact = || Fact::Refresh(Some(principal.into()));
        self.core().registry.tell_peers(fact);
        self.refresh_here(Some(principal)).await
    }

    /// As [`refresh_visibility`](Self::refresh_visibility), for everybody.
    pub async fn refresh_visibility_all(&self) -> usize {
        self.core().registry.tell_peers(|| Fact::Refresh(None));
        self.refresh_here(None).await
    }

    /// The part of a refresh that each node does for itself.
    pub(crate) async fn refresh_here(&self, principal: Option<&str>) -> usize {
        let since = self.core().registry.announced();
        self.core().registry.viewers.forget(principal);
        self.core().sessions.refresh(principal, since).await
    }

    /// Locks a principal out, on all nodes: its sessions and listens end, and its credentials are
    /// refused for [`RightsConfig::revoked_for`](crate::RightsConfig::revoked_for). The listens
    /// get their result, which tells their clients not to come back. Running calls go on and cannot
    /// be read by anybody else; [`cancel_calls`](Revoke::cancel_calls) cancels them. To be awaited.
    ///
    /// ```
    /// # async fn f(engine: stentor::Engine) {
    /// engine.revoke("ann").cancel_calls(true).await;
    /// # }
    /// ```
    pub fn revoke<'a>(&'a self, principal: &'a str) -> Revoke<'a> {
        Revoke { engine: self, principal, cancel_calls: false }
    }

    /// Somebody whose identity was kept, with the rights as of now; a stranger without an identity.
    #[must_use]
    pub fn requester(&self, identity: Option<Identity>) -> Requester {
        Requester::kept(identity, self.core().registry.viewers.clone())
    }

    /// Whether a principal is [locked out](Self::revoke).
    #[must_use]
    pub fn is_revoked(&self, principal: &str) -> bool {
        self.core().registry.viewers.revoked().has(principal)
    }

    /// Whether some items are not for everybody, so that requests of strangers and of users have
    /// different answers.
    #[must_use]
    pub fn has_access_rules(&self) -> bool {
        self.core().registry.catalog().has_access_rules()
    }

    /// Remembers scopes that clients are told to ask for. A legacy client that lacks a scope is told
    /// also those of its scopes that this engine knows, because it replaces them.
    pub fn learn_scopes<S: AsRef<str>>(&self, scopes: impl IntoIterator<Item = S>) {
        let scopes: Vec<Arc<str>> = scopes.into_iter().map(|it| it.as_ref().into()).collect();
        self.core().registry.viewers.learn_scopes(&scopes);
    }

    /// Tells `cache` from now on when the rights of principals change. For transports.
    pub fn forget_rights_in(&self, cache: Weak<dyn ForgetRights>) {
        self.core().registry.viewers.add_cache(cache);
    }

    /// The part of a revocation that each node does for itself. Ends nothing if the revocation is not
    /// new: nodes tell it again.
    pub(crate) fn revoke_here(&self, principal: &Arc<str>, revocation: Revocation) {
        if self.lock_out(principal, revocation) {
            self.core().sessions.revoke(principal, revocation.cancel_calls);
        }
    }

    fn lock_out(&self, principal: &Arc<str>, revocation: Revocation) -> bool {
        let registry = &self.core().registry;
        let Revocation { until, cancel_calls } = revocation;
        let added = registry.viewers.revoked().add(principal.clone(), until, cancel_calls);
        let Some(removed) = added else { return false };
        for expired in removed {
            registry.tell_peers(|| Fact::Revoked(expired, None));
        }
        // Each node tells it: one that comes later must hear of it also when the first one is gone.
        registry.tell_peers(|| Fact::Revoked(principal.clone(), Some(revocation)));
        registry.viewers.forget(Some(principal));
        true
    }
}

/// The shortest and the longest time of a revocation. The latter can be added to any clock's time.
const MIN_REVOKED: Duration = Duration::from_millis(100);
const MAX_REVOKED: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Locks a principal out when it is awaited.
#[derive(Debug)]
#[must_use = "nothing is revoked before this is awaited"]
pub struct Revoke<'a> {
    engine: &'a Engine,
    principal: &'a str,
    cancel_calls: bool,
}

impl Revoke<'_> {
    /// Sets whether running calls and tasks of the principal are cancelled. Default `false`.
    pub fn cancel_calls(mut self, cancel_calls: bool) -> Self {
        self.cancel_calls = cancel_calls;
        self
    }
}

impl<'a> IntoFuture for Revoke<'a> {
    /// How many sessions and listens of this node end. None, if nobody with this name is connected
    /// here: a principal of an issuer is `issuer#subject`, as
    /// [`Identity::principal`](crate::identity::Identity::principal) says.
    type Output = usize;
    type IntoFuture = Pin<Box<dyn Future<Output = usize> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { engine, principal, cancel_calls } = self;
            let principal: Arc<str> = principal.into();
            let revoked_for = engine.core().config.rights.revoked_for;
            let until = SystemTime::now() + revoked_for.clamp(MIN_REVOKED, MAX_REVOKED);
            let revocation = Revocation { until, cancel_calls };
            engine.lock_out(&principal, revocation);
            engine.core().sessions.revoke(&principal, cancel_calls)
        })
    }
}
