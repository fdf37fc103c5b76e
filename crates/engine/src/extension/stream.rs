//! Methods whose answer is a stream of notices, which both sides may end.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use stentor_wire::model::ClientCapabilities;
use stentor_wire::{Era, ErrorObject, Id, Params};

use crate::access::{ItemAccess, ScopeRequest, access_methods};
use crate::caller::Caller;
use crate::handler::Context;
use crate::identity::{Identity, Who};
use crate::notice_stream::Begin;
use crate::viewers::Viewers;

/// A method of an extension whose answer is a stream of notices.
///
/// Such a request is no call: it has no task actor and no time limit, and counts as a listen.
/// Its stream ends when the client ends it, when the engine or its session ends, or with
/// [`NoticeStream::end`](crate::NoticeStream::end).
pub trait StreamMethod: fmt::Debug + Send + Sync + 'static {
    /// Checks a request. On a pipe no other message of the client is handled meanwhile.
    ///
    /// # Errors
    ///
    /// The answer to the client. No stream is opened then.
    fn open(&self, request: StreamRequest) -> BoxFuture<'static, Result<Begin, ErrorObject>>;
}

/// A request that wants to open a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamRequest {
    /// The id of the request.
    pub id: Id,
    /// Its parameters.
    pub params: Params,
    /// Who sends it.
    pub requester: Requester,
}

impl StreamRequest {
    pub(crate) fn new(id: Id, params: Params, requester: Requester) -> Self {
        Self { id, params, requester }
    }
}

/// Who sends a request, for an extension that decides what it may have.
#[derive(Clone)]
pub struct Requester {
    who: Who,
    era: Era,
    /// `None` of somebody who was kept.
    capabilities: Option<Arc<ClientCapabilities>>,
    viewers: Arc<Viewers>,
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester").field("principal", &self.principal()).finish_non_exhaustive()
    }
}

impl Requester {
    pub(crate) fn new(caller: &Caller, viewers: Arc<Viewers>) -> Self {
        Self {
            who: caller.who.clone(),
            era: caller.era(),
            capabilities: Some(caller.capabilities.clone()),
            viewers,
        }
    }

    /// Somebody whose identity was kept, with the rights as of now.
    pub(crate) fn kept(identity: Option<Identity>, viewers: Arc<Viewers>) -> Self {
        let who = Who::from(identity).map(Identity::without_carried);
        Self { who, era: Era::Modern, capabilities: None, viewers }
    }

    /// The same, to be kept and asked again later: with the labels that this node finds then, and not
    /// with those that another node has found. What the client declared is forgotten.
    #[must_use]
    pub fn for_later(mut self) -> Self {
        self.capabilities = None;
        if self.identity().is_some_and(|identity| !identity.has_extras()) {
            self.who = self.who.map(Identity::without_carried);
        }
        self
    }

    /// The identity, if the transport has found one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.who.identity()
    }

    /// The principal of the identity.
    #[must_use]
    pub fn principal(&self) -> Option<&Arc<str>> {
        self.who.principal()
    }

    /// Whether it is the user who started this process, at the other end of a pipe.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.who, Who::Local)
    }

    /// The era of the request.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// Whether the client declares this extension.
    #[must_use]
    pub fn declares(&self, identifier: &str) -> bool {
        let declared = self.capabilities.as_ref().and_then(|it| it.extensions.as_ref());
        declared.is_some_and(|declared| declared.contains_key(identifier))
    }

    /// Whether the principal was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.viewers.is_revoked(&self.who)
    }

    /// Whether it may know of what these rules guard, with its labels as of now.
    #[must_use]
    pub fn sees(&self, rules: &AccessRules) -> bool {
        let rule = rules.access.access().rule;
        rule.is_empty() || rule.admits(&self.viewers.viewer(&self.who))
    }

    /// The scopes that it lacks for a request with these arguments, separated by spaces; `None` if
    /// it lacks none.
    ///
    /// # Errors
    ///
    /// If the author's function panics.
    pub fn lacks(
        &self,
        rules: &AccessRules,
        subject: &str,
        arguments: &serde_json::Value,
    ) -> Result<Option<String>, ErrorObject> {
        let mut scopes = rules.access.access().scopes;
        if rules.access.asks_arguments() {
            scopes.extend(rules.access.scopes_of(&ScopeRequest::new(subject, arguments))?);
        }
        if scopes.iter().all(|scope| self.who.has_scope(scope)) {
            return Ok(None);
        }
        Ok(Some(scopes.iter().map(|it| &**it).collect::<Vec<_>>().join(" ")))
    }
}

impl Context {
    /// Who calls, for an extension that decides what it may have.
    #[must_use]
    pub fn requester(&self) -> Requester {
        Requester::new(&self.call().caller, self.host().viewers().clone())
    }
}

/// Who may know of something that an extension offers, and use it: as for tools.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    access: ItemAccess,
}

impl AccessRules {
    access_methods!();

    /// Whether everybody may use what they guard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.access.access().is_open() && !self.access.asks_arguments()
    }
}
