//! What a session sees: the rights of its latest request, and what follows when they change.

use std::sync::Arc;

use stentor_delivery::policy::Class;
use stentor_wire::{EncodedNotice, ListKind, Notice, Topic};

use super::{Session, SessionEntry, Sessions};
use crate::access::ListChanges;
use crate::hub::HubMsg;
use crate::identity::{Identity, Who};
use crate::reasons::{CancelReason, EndReason, SessionKind};
use crate::registry::Announced;

/// Sessions whose rights are looked at before the loop yields to other work.
const AT_ONCE: usize = 64;

impl Session {
    /// The session has the rights of its latest request from here on. Only those of a legacy HTTP
    /// session can change.
    pub(super) fn follow_sender(&self) {
        if self.entry.kind() != SessionKind::Http
            || self.entry.state().who.is_same(&self.sender.who)
        {
            return;
        }
        let since = self.sessions.registry.announced();
        self.sessions.set_rights(&self.entry, Some(self.sender.who.clone()), &since);
    }
}

impl Sessions {
    /// Works out what a session sees that was just opened: its rights may have changed meanwhile.
    pub(super) fn look_again(&self, entry: &Arc<SessionEntry>) {
        self.set_rights(entry, None, &self.registry.announced());
    }

    /// Works out anew what a session sees, with the rights of `who` or those that it has. Its clients
    /// are told which lists differ. `true` if any does.
    ///
    /// The client may have the new rights since then. A change of the catalog that was not announced
    /// then may have concerned the old rights only, so such a list counts as one that differs.
    fn set_rights(&self, entry: &Arc<SessionEntry>, who: Option<Who>, since: &Announced) -> bool {
        let registry = &self.registry;
        // Looked at before and after the hub is told: what changes in between is in one of the two.
        let before = registry.catalog();
        let (mut state, now, viewer) = loop {
            let (seen, generation) = (entry.who(), registry.viewers.generation());
            let now = match &who {
                Some(who) => who.clone(),
                // What another node has found may be outdated.
                None => seen.map(Identity::without_carried),
            };
            // Without the lock, because the labels come from the author's code.
            let viewer = registry.viewers.viewer(&now);
            let state = entry.state();
            // Labels of before a refresh must not replace those of after it.
            let is_latest = registry.viewers.generation_is(&generation);
            if is_latest && (who.is_some() || state.who.is_same(&seen)) {
                break (state, now, viewer);
            }
        };
        state.who = now;
        if viewer.is_same(&state.viewer) || entry.is_closed() {
            return false;
        }
        let old = std::mem::replace(&mut state.viewer, viewer.clone());
        let subscriptions = state.subscriptions();
        for subscription in &subscriptions {
            let (key, viewer) = (entry.key(subscription.id.clone()), viewer.clone());
            self.hub.subscribe(|epoch| HubMsg::Reclass(key, viewer, epoch));
        }
        drop(state);
        let after = registry.catalog();
        let mut changes = before.differences(&old, &viewer);
        changes.join(after.differences(&old, &viewer));
        if before.is_restricted() || after.is_restricted() {
            changes.join(ListChanges::all(registry.unannounced(since)));
        }
        let kinds: Vec<ListKind> = changes.kinds().collect();
        for subscription in subscriptions {
            for kind in &kinds {
                let notice = Notice::Changed(Topic::List(*kind));
                if subscription.filter.passes(&notice) {
                    let (class, notice) =
                        (Class::of(&notice), Arc::new(EncodedNotice::new(notice)));
                    entry.notices().notice(class, notice, subscription.id.clone());
                }
            }
        }
        if entry.kind() == SessionKind::Http {
            self.session_changed(entry);
        }
        !kinds.is_empty()
    }

    /// Works out anew what the sessions of a principal see, or all sessions. Requests have had the
    /// new rights since then. Returns how many see other lists.
    pub(crate) async fn refresh(&self, principal: Option<&str>, since: Announced) -> usize {
        let mut changed = 0;
        for some in self.directory.all().chunks(AT_ONCE) {
            let own = some.iter().filter(|entry| {
                principal.is_none() || entry.principal().map(|it| &**it) == principal
            });
            changed += own.filter(|entry| self.set_rights(entry, None, &since)).count();
            tokio::task::yield_now().await;
        }
        changed
    }

    /// Ends all sessions of a principal. Listens get their results. Running calls go on, unless they
    /// are to be cancelled, and the session of such a call ends after it.
    /// Returns how many sessions there are.
    pub(crate) fn revoke(self: &Arc<Self>, principal: &str, cancel_calls: bool) -> usize {
        if cancel_calls {
            self.calls.running.cancel_of(principal, &CancelReason::Application);
        }
        let is_own =
            |entry: &Arc<SessionEntry>| entry.principal().is_some_and(|it| **it == *principal);
        let own: Vec<_> = self.directory.all().into_iter().filter(is_own).collect();
        let count = own.len();
        for entry in own {
            let session = Session::new(self.clone(), entry.clone());
            let limit = self.calls.config.timeout.unwrap_or(self.config.idle_timeout);
            tokio::spawn(async move {
                if session.entry.kind() == SessionKind::Http {
                    // Nobody may read its notices any more.
                    session.entry.notices().detach();
                }
                // Calls that do not end are cancelled with the session.
                let _ = session.finish(EndReason::Revoked, limit).await;
            });
        }
        count
    }
}
