//! Who sends a request, as its credential proves.

use std::any::{Any, TypeId};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stentor_wire::model::JsonObject;

/// Separates the issuer of a principal from its subject. No issuer contains it (RFC 8414, section 2:
/// an issuer has no fragment), so two principals are never written in the same way.
const SEPARATOR: char = '#';

/// What the credential of one request proves about its sender.
///
/// An authenticator makes it: `StaticTokens`, `OAuth`, or one's own. It is cheap to clone.
///
/// ```
/// use stentor::identity::Identity;
///
/// let ann = Identity::named("ann").client("editor").scopes(["notes:read", "notes:write"]);
/// assert_eq!(ann.principal(), "ann");
/// assert!(ann.has_scope("notes:read"));
/// ```
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Clone, Serialize, Deserialize)]
struct Inner {
    principal: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Arc<str>>,
    subject: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Arc<str>>,
    #[serde(default)]
    scopes: BTreeSet<Arc<str>>,
    #[serde(default)]
    implied: BTreeSet<Arc<str>>,
    #[serde(default)]
    roles: BTreeSet<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<SystemTime>,
    #[serde(default)]
    leeway: Duration,
    #[serde(default)]
    claims: JsonObject,
    #[serde(skip)]
    extras: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// What another node has found, see [`Identity::carrying`].
    #[serde(default, rename = "labels", skip_serializing_if = "Option::is_none")]
    carried: Option<Labels>,
    #[serde(skip)]
    labels: Cached,
}

/// The labels of an identity, once they are known. Clones of the identity share them.
#[derive(Default)]
struct Cached(Mutex<Option<(Arc<Generation>, Labels)>>);

impl Clone for Cached {
    /// A changed identity has other labels.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Marks labels that were computed between two refreshes of one engine.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    // Not of size 0, so that each allocation has an address of its own.
    _unique: u8,
}

impl fmt::Debug for Identity {
    /// Without claims, because logs must not contain them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { principal, client, .. } = &*self.0;
        f.debug_struct("Identity")
            .field("principal", principal)
            .field("client", client)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a principal with this name, without an issuer.
    #[must_use]
    pub fn named(principal: impl Into<Arc<str>>) -> Self {
        let subject = principal.into();
        Self(Arc::new(Inner {
            principal: subject.clone(),
            issuer: None,
            subject,
            client: None,
            scopes: BTreeSet::new(),
            implied: BTreeSet::new(),
            roles: BTreeSet::new(),
            expires: None,
            leeway: Duration::ZERO,
            claims: JsonObject::new(),
            extras: HashMap::default(),
            carried: None,
            labels: Cached::default(),
        }))
    }

    /// The identity of a subject as one issuer knows it. The principal is `issuer#subject`.
    #[must_use]
    pub fn issued(issuer: impl Into<Arc<str>>, subject: impl Into<Arc<str>>) -> Self {
        let (issuer, subject) = (issuer.into(), subject.into());
        let principal: Arc<str> = format!("{issuer}{SEPARATOR}{subject}").into();
        Self::named(principal).with_inner(|inner| {
            inner.issuer = Some(issuer);
            inner.subject = subject;
        })
    }

    fn with_inner(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Sets the OAuth client that acts for the principal. Sessions belong to both.
    #[must_use]
    pub fn client(self, client: impl Into<Arc<str>>) -> Self {
        self.with_inner(|inner| inner.client = Some(client.into()))
    }

    /// Sets the scopes that the credential has.
    #[must_use]
    pub fn scopes<I>(self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Arc<str>>,
    {
        self.with_inner(|inner| inner.scopes = scopes.into_iter().map(Into::into).collect())
    }

    /// Sets scopes that those of the credential include, as a broader one includes a narrower one.
    #[must_use]
    pub fn implied_scopes<I>(self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Arc<str>>,
    {
        self.with_inner(|inner| inner.implied = scopes.into_iter().map(Into::into).collect())
    }

    /// Sets the roles of the principal.
    #[must_use]
    pub fn roles<I>(self, roles: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Arc<str>>,
    {
        self.with_inner(|inner| inner.roles = roles.into_iter().map(Into::into).collect())
    }

    /// Sets when the credential expires, and for how long after that it is still accepted, because
    /// clocks differ. Streams that wait for notices are closed soon after both.
    #[must_use]
    pub fn expires(self, at: SystemTime, leeway: Duration) -> Self {
        self.with_inner(|inner| (inner.expires, inner.leeway) = (Some(at), leeway))
    }

    /// Sets all claims of the credential.
    #[must_use]
    pub fn claims(self, claims: JsonObject) -> Self {
        self.with_inner(|inner| inner.claims = claims)
    }

    /// Adds a value of the author's own, such as a row of a database: one of each type. It stays on
    /// this node.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(self, extra: T) -> Self {
        self.with_inner(|inner| {
            inner.extras.insert(TypeId::of::<T>(), Arc::new(extra));
        })
    }

    /// Who it is: the issuer and the subject, or the name without an issuer. Tasks belong to it.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.0.principal
    }

    pub(crate) fn principal_arc(&self) -> &Arc<str> {
        &self.0.principal
    }

    /// Who vouches for it, if anybody does.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// The subject, as its issuer writes it.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The OAuth client that acts for the principal.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.0.client.as_deref()
    }

    /// The scopes of the credential, sorted; without those that they imply.
    pub fn granted_scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scopes.iter().map(|scope| &**scope)
    }

    /// Whether the credential has this scope, or one that implies it.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.0.scopes.contains(scope) || self.0.implied.contains(scope)
    }

    /// All scopes that it has, also those that are implied.
    pub(crate) fn all_scopes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.scopes.union(&self.0.implied)
    }

    /// The roles of the principal, sorted.
    pub fn granted_roles(&self) -> impl Iterator<Item = &str> {
        self.0.roles.iter().map(|role| &**role)
    }

    /// When the credential expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.expires
    }

    /// Until when the credential is accepted: the leeway after it expires.
    #[must_use]
    pub fn good_until(&self) -> Option<SystemTime> {
        self.0.expires.and_then(|expires| expires.checked_add(self.0.leeway))
    }

    /// All claims of the credential; empty if it has none.
    #[must_use]
    pub fn all_claims(&self) -> &JsonObject {
        &self.0.claims
    }

    /// The value of this type that the authenticator [put there](Self::with).
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.extras.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Whether the principal is blank, or has control characters: that is nobody.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let subject = &self.0.subject;
        subject.trim().is_empty() || subject.chars().any(char::is_control)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The same identity for another node, with the labels that this node has found.
    pub(crate) fn carrying(self, labels: Labels) -> Self {
        self.with_inner(|inner| inner.carried = Some(labels))
    }

    /// Forgets the labels that another node has found.
    pub(crate) fn without_carried(self) -> Self {
        match self.0.carried {
            Some(_) => self.with_inner(|inner| inner.carried = None),
            None => self,
        }
    }

    /// Whether it has values that [stay on this node](Self::with).
    pub(crate) fn has_extras(&self) -> bool {
        !self.0.extras.is_empty()
    }

    /// The labels that another node has found, or else those as of this generation; computed at most
    /// once for it.
    pub(crate) fn labels(
        &self,
        generation: &Arc<Generation>,
        compute: impl FnOnce(&Self) -> Labels,
    ) -> Labels {
        if let Some(carried) = &self.0.carried {
            return carried.clone();
        }
        if let Some((known, labels)) = &*self.0.labels.0.lock()
            && Arc::ptr_eq(known, generation)
        {
            return labels.clone();
        }
        // Without the lock, because this is the author's code.
        let labels = compute(self);
        *self.0.labels.0.lock() = Some((generation.clone(), labels.clone()));
        labels
    }
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Inner::deserialize(deserializer).map(|inner| Self(Arc::new(inner)))
    }
}

/// What decides which items a sender sees: groups, roles, scopes, or anything else that an author
/// names. Items are for those who have [a label](crate::Tool::only_for).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels(Arc<BTreeSet<Arc<str>>>);

impl Labels {
    /// The labels of an identity unless [`EngineBuilder::labels`](crate::EngineBuilder::labels) says
    /// otherwise: its scopes, its roles and its principal.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        let Inner { principal, scopes, implied, roles, .. } = &*identity.0;
        let all = scopes.iter().chain(implied).chain(roles).chain([principal]);
        Self(Arc::new(all.cloned().collect()))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, label: &str) -> bool {
        self.0.contains(label)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }
}

impl<L: Into<Arc<str>>> FromIterator<L> for Labels {
    fn from_iter<I: IntoIterator<Item = L>>(labels: I) -> Self {
        Self(Arc::new(labels.into_iter().map(Into::into).collect()))
    }
}

impl<L: Into<Arc<str>>> Extend<L> for Labels {
    fn extend<I: IntoIterator<Item = L>>(&mut self, labels: I) {
        Arc::make_mut(&mut self.0).extend(labels.into_iter().map(Into::into));
    }
}

/// The owner of sessions, streams and the states of questions: a principal, and the client that acts
/// for it. Two clients of one principal are two owners. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Owner {
    /// The principal.
    pub principal: Option<Arc<str>>,
    /// The OAuth client.
    pub oauth_client: Option<Arc<str>>,
}

impl Owner {
    /// The owner of what this identity opens.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        let Inner { principal, client, .. } = &*identity.0;
        Self { principal: Some(principal.clone()), oauth_client: client.clone() }
    }
}

/// Who sends a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// A stranger.
    #[default]
    Nobody,
    /// The user who started this process: sees everything, and may do everything.
    Local,
    /// Somebody whose credential was checked.
    Known(Identity),
}

impl Who {
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Known(identity) => Some(identity),
            Self::Nobody | Self::Local => None,
        }
    }

    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.identity().map(Identity::principal_arc)
    }

    /// The same sender with another identity of the same principal, if it has any.
    pub(crate) fn map(&self, change: impl FnOnce(Identity) -> Identity) -> Self {
        match self {
            Self::Known(identity) => Self::Known(change(identity.clone())),
            other => other.clone(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.identity().map(Owner::of).unwrap_or_default()
    }

    pub(crate) fn owns(&self, owner: &Owner) -> bool {
        let identity = self.identity();
        identity.map(Identity::principal) == owner.principal.as_deref()
            && identity.and_then(Identity::client_id) == owner.oauth_client.as_deref()
    }

    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Local => true,
            Self::Known(identity) => identity.has_scope(scope),
        }
    }

    /// Whether it is certainly the same as before, with the same rights.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => one.is_same(other),
            (Self::Nobody, Self::Nobody) | (Self::Local, Self::Local) => true,
            _ => false,
        }
    }
}

impl From<Option<Identity>> for Who {
    fn from(identity: Option<Identity>) -> Self {
        identity.map_or(Self::Nobody, Self::Known)
    }
}

#[cfg(test)]
mod tests;
