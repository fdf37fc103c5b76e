//! What an author says of the access to an item.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use stentor_wire::ErrorObject;

use super::{Access, Clause, Rule, Term};
use crate::log::quietly;

/// A request whose scopes depend on its arguments.
#[derive(Clone, Copy, Debug)]
pub struct ScopeRequest<'a> {
    subject: &'a str,
    arguments: &'a Value,
}

impl<'a> ScopeRequest<'a> {
    pub(crate) fn new(subject: &'a str, arguments: &'a Value) -> Self {
        Self { subject, arguments }
    }

    /// The name of the tool or prompt, or the URI that is read.
    #[must_use]
    pub fn subject(&self) -> &'a str {
        self.subject
    }

    /// An argument of the tool, which is not checked yet; or, as text, an argument of the prompt or a
    /// variable of the template.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&'a Value> {
        self.arguments.get(name)
    }

    /// An argument that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.argument(name)?.as_str()
    }
}

type Require = dyn Fn(&ScopeRequest<'_>) -> BTreeSet<Arc<str>> + Send + Sync;

/// Who may see and use an item, as its author says. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ItemAccess(Arc<Said>);

#[derive(Clone, Default)]
struct Said {
    only_for: Option<Clause>,
    /// What the toolboxes say in which the item is.
    within: BTreeSet<Clause>,
    scopes: BTreeSet<Arc<str>>,
    hide: bool,
    require: Option<Arc<Require>>,
}

impl fmt::Debug for ItemAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemAccess").field(&self.access()).finish()
    }
}

impl ItemAccess {
    fn said(&mut self) -> &mut Said {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn only_for(&mut self, labels: impl IntoIterator<Item = Arc<str>>) {
        self.said().only_for.get_or_insert_default().extend(labels.into_iter().map(Term::Label));
    }

    pub(crate) fn within(&mut self, labels: impl IntoIterator<Item = Arc<str>>) {
        self.said().within.insert(labels.into_iter().map(Term::Label).collect());
    }

    pub(crate) fn require_scope(&mut self, scope: Arc<str>) {
        self.said().scopes.insert(scope);
    }

    pub(crate) fn hide_without_scope(&mut self) {
        self.said().hide = true;
    }

    pub(crate) fn require(
        &mut self,
        scopes: impl Fn(&ScopeRequest<'_>) -> BTreeSet<Arc<str>> + Send + Sync + 'static,
    ) {
        self.said().require = Some(Arc::new(scopes));
    }

    /// The access as data.
    pub(crate) fn access(&self) -> Access {
        let mut clauses: BTreeSet<Clause> =
            self.0.within.iter().chain(&self.0.only_for).cloned().collect();
        if self.0.hide {
            let scopes = self.0.scopes.iter().cloned();
            clauses.extend(scopes.map(|scope| Clause::from([Term::Scope(scope)])));
        }
        Access { rule: Rule::of(clauses), scopes: self.0.scopes.clone() }
    }

    /// Whether the scopes of a request depend on its arguments.
    pub(crate) fn asks_arguments(&self) -> bool {
        self.0.require.is_some()
    }

    /// The scopes of a request that depend on its arguments.
    ///
    /// # Errors
    ///
    /// If the author's function panics.
    pub(crate) fn scopes_of(
        &self,
        request: &ScopeRequest<'_>,
    ) -> Result<BTreeSet<Arc<str>>, ErrorObject> {
        let Some(require) = &self.0.require else { return Ok(BTreeSet::new()) };
        let panicked = || ErrorObject::internal("the scopes of the request cannot be found out");
        quietly(|| require(request)).ok_or_else(panicked)
    }
}

impl ItemAccess {
    /// As [`scopes_of`](Self::scopes_of), for arguments that are texts.
    pub(crate) fn scopes_of_texts(
        &self,
        subject: &str,
        texts: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<Arc<str>>, ErrorObject> {
        if !self.asks_arguments() {
            return Ok(BTreeSet::new());
        }
        let texts = texts.iter().map(|(name, text)| (name.clone(), Value::from(&**text)));
        self.scopes_of(&ScopeRequest::new(subject, &Value::Object(texts.collect())))
    }
}

/// The methods of an item that say who may see and use it. The item has a field `access`.
macro_rules! access_methods {
    () => {
        /// Shows this only to senders who have one of these
        /// [labels](crate::identity::Labels). For anybody else it does not exist: it is in no list,
        /// and a request for it is answered as for an unknown one. Further labels are added to those
        /// that are there.
        ///
        /// ```
        /// use stentor::prelude::*;
        ///
        /// let users = tool("users", || async { "ann, bob" }).only_for(["admin", "support"]);
        /// # let _ = users;
        /// ```
        #[must_use]
        pub fn only_for<I>(mut self, labels: I) -> Self
        where
            I: IntoIterator,
            I::Item: Into<std::sync::Arc<str>>,
        {
            self.access.only_for(labels.into_iter().map(Into::into));
            self
        }

        /// Lets only senders use this whose credential has this scope. Others see it, and are
        /// answered with error 403, over HTTP with the status 403 and a challenge, so that a client
        /// can get a token with the scope. Nothing of such a request runs.
        #[must_use]
        pub fn require_scope(mut self, scope: impl Into<std::sync::Arc<str>>) -> Self {
            self.access.require_scope(scope.into());
            self
        }

        /// As [`require_scope`](Self::require_scope), for scopes that depend on the arguments. The
        /// function runs before the arguments are checked, and must be quick. Clients are told the
        /// scopes.
        ///
        /// ```
        /// use stentor::{handler::ScopeRequest, prelude::*};
        ///
        /// # #[derive(Deserialize, JsonSchema)]
        /// # struct Area { area: String }
        /// async fn enter(it: Area) -> String {
        ///     format!("you may enter {}", it.area)
        /// }
        ///
        /// let enter = tool("enter", enter).require(|request: &ScopeRequest<'_>| {
        ///     request.text("area").map(|area| format!("area:{area}"))
        /// });
        /// # let _ = enter;
        /// ```
        #[must_use]
        pub fn require<F, I>(mut self, scopes: F) -> Self
        where
            F: Fn(&crate::ScopeRequest<'_>) -> I + Send + Sync + 'static,
            I: IntoIterator,
            I::Item: Into<std::sync::Arc<str>>,
        {
            self.access.require(move |it| scopes(it).into_iter().map(Into::into).collect());
            self
        }

        /// Hides this from senders whose credential lacks a
        /// [required scope](Self::require_scope), too. Then clients do not know what to ask for.
        #[must_use]
        pub fn hide_without_scope(mut self) -> Self {
            self.access.hide_without_scope();
            self
        }
    };
}

pub(crate) use access_methods;
