//! How a listen begins: the acknowledgment of what it is granted, then the current states.

use std::sync::Arc;

use stentor_wire::params::NoticeFilter;
use stentor_wire::{ErrorObject, Id, Request, SubscriptionId};

use super::{LeaveWhenClosed, Session, SessionEntry, Sessions};
use crate::call::Responder;
use crate::caller::Caller;
use crate::dispatch::Scope;
use crate::extension::ProtocolExtension;
use crate::hub::SubscriberKey;
use crate::hub::filter::Filter;
use crate::nodes::{Forward, Forwarding};

/// Topics of one kind, by their keys.
type Keys = Vec<Arc<str>>;

/// Topics whose states a subscriber receives, and the extensions that own them.
pub(super) struct States(Vec<(Arc<dyn ProtocolExtension>, Keys)>);

impl States {
    /// The extensions send the states. The subscriber has joined the hub.
    pub(super) fn send(self, to: &SubscriberKey) {
        for (owner, keys) in self.0 {
            owner.send_states(to.clone(), keys);
        }
    }
}

/// What extensions have granted a listen.
pub(super) struct Grants {
    local: States,
    forwards: Vec<Forward>,
}

impl Grants {
    pub(super) fn nothing() -> Self {
        Self { local: States(Vec::new()), forwards: Vec::new() }
    }

    /// From here on the listen receives the states of what it was granted: now, and each change.
    pub(super) fn begin(self, entry: &SessionEntry, request: &Id) {
        if self.local.0.is_empty() && self.forwards.is_empty() {
            return;
        }
        let forwarding = Forwarding::begin(self.forwards, entry.notices(), request);
        if let Some(forwarding) = forwarding {
            let ended = entry.state().hold(request, Box::new(forwarding));
            drop(ended);
        }
        self.local.send(&entry.key(Some(SubscriptionId::of(request))));
    }
}

impl Sessions {
    /// What a subscriber receives of the topics that extensions own.
    pub(super) fn states(&self, filter: &Filter) -> States {
        let found = self.owners.iter().filter_map(|(kind, owner)| {
            let keys: Keys = filter.keys(*kind).cloned().collect();
            (!keys.is_empty()).then(|| (owner.clone(), keys))
        });
        States(found.collect())
    }

    /// Asks the extensions for the topics that they own. What they grant is added to `granted`.
    pub(super) async fn grant_owned(
        &self,
        caller: &Caller,
        request: &Request,
        mut asked: NoticeFilter,
        granted: &mut NoticeFilter,
    ) -> Result<Grants, ErrorObject> {
        let mut grants = Grants::nothing();
        for (kind, owner) in &self.owners {
            let keys = std::mem::take(asked.keys_mut(*kind));
            if keys.is_empty() {
                continue;
            }
            let grant = owner.grant(caller, request, keys).await?;
            *granted.keys_mut(*kind) = [&grant.local[..], &grant.remote.keys].concat();
            if !grant.local.is_empty() {
                grants.local.0.push((owner.clone(), grant.local));
            }
            grants.forwards.extend(grant.remote.forwards);
        }
        Ok(grants)
    }
}

impl Session {
    /// Begins a listen, unless it has ended. `asked` are topics that extensions own. The client
    /// receives the acknowledgment now, and the result when the listen ends.
    pub(super) async fn begin_listen(
        &self,
        request: Box<Request>,
        caller: Caller,
        mut granted: NoticeFilter,
        asked: NoticeFilter,
        responder: Responder,
    ) {
        let mut grants = Grants::nothing();
        if !asked.is_empty() {
            let caller = caller.sent_by(&self.sender);
            grants = match self.sessions.grant_owned(&caller, &request, asked, &mut granted).await {
                Ok(grants) => grants,
                Err(error) => return self.refuse(&request, responder, error),
            };
            self.entry.state().set_granted(&request.id, &granted);
        }
        responder.withhold();
        if self.acknowledge(&request.id) {
            grants.begin(&self.entry, &request.id);
        }
    }

    /// Acknowledges a listen, which receives notices from here on. `false` if it has ended, also
    /// because it was granted nothing.
    pub(super) fn acknowledge(&self, request: &Id) -> bool {
        let mut state = self.entry.state();
        let Some(subscription) = state.begin(request) else { return false };
        let grants_nothing = subscription.filter.is_empty_filter();
        self.join(&state, subscription);
        if !grants_nothing {
            return true;
        }
        // A listen that was granted nothing can receive nothing, so it ends at once.
        drop(state);
        self.entry.end_listen(&self.sessions, request);
        false
    }

    /// Opens a stream of an extension, unless it has ended meanwhile.
    pub(super) async fn open_stream(
        &self,
        request: Box<Request>,
        caller: Caller,
        responder: Responder,
    ) {
        let caller = caller.sent_by(&self.sender);
        let dispatcher = &self.sessions.dispatcher;
        match dispatcher.open_stream(&caller, &request, Scope::All).await {
            Ok(begin) => {
                responder.withhold();
                self.entry.begin_stream(&self.sessions, &request.id, begin);
            }
            Err(error) => self.refuse(&request, responder, error),
        }
    }

    /// Ends all listens, in a turn of its own.
    pub(super) async fn end_listens(&self) {
        let _leaving = LeaveWhenClosed(self);
        if let Some(_turn) = self.entry.turn().await {
            self.entry.end_listens(&self.sessions);
        }
    }

    /// Refuses a listen. If it has ended meanwhile, it has its answer already.
    pub(super) fn refuse(&self, request: &Request, responder: Responder, error: ErrorObject) {
        let ended = self.entry.forget_listen(&self.sessions, &request.id);
        match ended {
            Some(_) => responder.answer(Err(error)),
            None => responder.withhold(),
        }
    }
}
