//! What a running call finds around itself: its engine, its catalog and its session.

use std::sync::Arc;

use ractor::ActorRef;
use serde::Serialize;
use serde_json::Value;

use super::{Engine, SessionRef};
use crate::audience::Audience;
use crate::core::Core;
use crate::handler::Context;
use crate::ids::SessionId;
use crate::reasons::Stopped;
use crate::registry::CatalogHandle;

impl Context {
    /// The engine that runs the call.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "an engine has both before its first call")]
    pub fn engine(&self) -> Engine {
        let core = self.core();
        let supervisor = core.supervisor.get().expect("the supervisor of an engine");
        Engine::new(core.clone(), ActorRef::from(supervisor.clone()))
    }

    fn core(&self) -> Arc<Core> {
        let engine = self.call().engine.clone().expect("the engine of a call");
        engine.downcast().expect("the parts of an engine")
    }

    /// The tools, resources and prompts, to read and to change.
    #[must_use]
    pub fn catalog(&self) -> CatalogHandle {
        CatalogHandle::new(self.core().registry.clone())
    }

    /// The caller's own session. `None` for modern requests over HTTP, which have no session: they
    /// hear what [`notify`](Self::notify) sends, on the stream of the call.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use serde_json::json;
    /// use stentor::{Context, observe::Stopped};
    ///
    /// #[derive(Default)]
    /// struct Calls(AtomicU32);
    ///
    /// async fn count(ctx: Context) -> Result<String, Stopped> {
    ///     let Some(session) = ctx.session() else { return Ok("you have no session".to_owned()) };
    ///     // On the node that has the session; see `CallerSession::state`.
    ///     let calls = session.state::<Calls>().map_or(0, |calls| calls.0.fetch_add(1, Ordering::Relaxed));
    ///     session.notify("notifications/counted", json!({"calls": calls})).await?;
    ///     Ok(format!("{calls} calls before this one"))
    /// }
    /// # let _ = count;
    /// ```
    #[must_use]
    pub fn session(&self) -> Option<CallerSession> {
        let id = self.session_id()?.clone();
        Some(CallerSession { core: self.core(), id })
    }
}

/// The session of a running call, which may be on another node; from [`Context::session`].
#[derive(Clone, Debug)]
pub struct CallerSession {
    core: Arc<Core>,
    id: SessionId,
}

impl CallerSession {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Sends the client a notification of the application's own, outside of the call. See
    /// [`Engine::notify_all`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn notify(&self, method: &str, params: impl Serialize) -> Result<(), Stopped> {
        let params = serde_json::to_value(params).ok().filter(Value::is_object);
        let audience = Audience::session(self.id.clone());
        self.core.registry.notify(&audience, method, params).await
    }

    /// What the author keeps of this type for the session, made with `Default` when it is first asked
    /// for; see [`SessionRef::state`]. `None` if the session is on another node or has ended.
    #[must_use]
    pub fn state<T: Default + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Some(self.local()?.state())
    }

    /// The session, if it is on this node.
    #[must_use]
    pub fn local(&self) -> Option<SessionRef> {
        SessionRef::find(&self.core, &self.id)
    }
}
