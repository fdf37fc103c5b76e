//! Who called, and what they may do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Context;
use crate::access::{Need, need_of_scope};
use crate::handler::CallError;
use crate::identity::Identity;

impl Context {
    /// Who calls, as the transport found out; `None` for a stranger, and for the user who started
    /// this process and calls over a pipe.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.call().caller.principal().map(|principal| &**principal)
    }

    /// What the credential of the request proves; `None` where [`principal`](Self::principal) is.
    ///
    /// ```
    /// use stentor::{Context, tool};
    ///
    /// async fn whoami(ctx: Context) -> String {
    ///     let Some(identity) = ctx.identity() else { return "a stranger".to_owned() };
    ///     let scopes: Vec<_> = identity.granted_scopes().collect();
    ///     format!("{} with {}", identity.subject(), scopes.join(" "))
    /// }
    /// # let _ = tool("whoami", whoami);
    /// ```
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.call().caller.who.identity()
    }

    /// Whether the credential of the request has this scope. The user who started this process and
    /// calls over a pipe has all.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.call().caller.who.has_scope(scope)
    }

    /// Ends the call unless the credential of the request has this scope: the client is told to get
    /// one that has it, over HTTP with the status 403 if the call asks within
    /// `HttpConfig::json_grace` (100 ms) and has sent nothing. To be called before anything is done.
    /// Where the scope is known before the code runs, use
    /// [`Tool::require_scope`](crate::Tool::require_scope).
    ///
    /// ```
    /// use stentor::{Context, ToolError};
    ///
    /// async fn delete(ctx: Context) -> Result<&'static str, ToolError> {
    ///     ctx.require_scope("files:write")?;
    ///     Ok("deleted")
    /// }
    /// # let _ = stentor::tool("delete", delete);
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the protocol with code 403, to be returned from the call.
    pub fn require_scope(&self, scope: impl Into<Arc<str>>) -> Result<(), CallError> {
        self.require_scopes(BTreeSet::from([scope.into()]))
    }

    /// As [`require_scope`](Self::require_scope), for several scopes at once.
    pub(crate) fn require_scopes(&self, scopes: BTreeSet<Arc<str>>) -> Result<(), CallError> {
        let call = self.call();
        let checked = call.host.viewers().check_scopes(&call.caller.who, self.era(), &scopes);
        checked.map_err(CallError::protocol)?;
        self.needs(scopes.into_iter().map(need_of_scope));
        Ok(())
    }

    /// Notes what somebody has to have who reads what the call answers, or goes on with it.
    pub(crate) fn needs(&self, needs: impl IntoIterator<Item = Need>) {
        let output = self.call().output.load();
        // The stream of a pipe has one reader, whose rights stay the same.
        if output.sender.is_shared() {
            return;
        }
        let before = output.sender.needs();
        let mut new = needs.into_iter().filter(|need| !before.contains(need)).peekable();
        if new.peek().is_none() {
            return;
        }
        new.for_each(|need| output.sender.need(need));
        if let Some(session) = self.session_id() {
            self.call().host.needs_changed(session);
        }
    }

    /// A header of the request, if its name, in lower case, is one of those that
    /// `HttpConfig::expose_headers` lists.
    ///
    /// ```
    /// use stentor::{Context, tool};
    ///
    /// async fn tenant(ctx: Context) -> String {
    ///     ctx.header("x-tenant").unwrap_or("none").to_owned()
    /// }
    /// # let _ = tool("tenant", tenant);
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.call().caller.headers.as_deref().unwrap_or_default();
        headers.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// The address of the client: the other end of its connection, or what proxies that
    /// `HttpConfig::trusted_proxies` names say.
    #[must_use]
    pub fn client_addr(&self) -> Option<IpAddr> {
        self.call().caller.address
    }
}
