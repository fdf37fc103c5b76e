//! Who sends a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::{Era, LogLevel, ProtocolVersion, RequestMeta, params};

use crate::ids::SessionId;
use crate::peers::Sender;
use crate::shares::{Connection, Share};

/// What is known of the sender of a request: from `initialize` in the legacy era, from the
/// request itself in the modern one.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
    pub(crate) session: Option<SessionId>,
    /// Who has been authenticated, as far as the transport knows.
    pub(crate) principal: Option<Arc<str>>,
    /// What it came on, where it belongs to no session.
    pub(crate) connection: Option<Connection>,
    /// Whether it can come back to a stream that was closed.
    pub(crate) resumes: bool,
    /// Of a legacy session, also one on another node.
    level: Option<SessionLevel>,
}

/// The least severe log message that a legacy session wants; running calls see it change.
#[derive(Clone, Debug)]
pub(crate) struct SessionLevel(Arc<AtomicU8>);

impl Default for SessionLevel {
    /// A client that never said gets what people usually want to see.
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(LogLevel::Info as u8)))
    }
}

impl SessionLevel {
    pub(crate) fn set(&self, level: LogLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

impl Caller {
    /// The sender of a modern request, whose `_meta` has been checked.
    pub(crate) fn modern(
        version: ProtocolVersion,
        meta: &RequestMeta,
        session: Option<SessionId>,
    ) -> Self {
        Self {
            version,
            client: meta.client_info.clone(),
            capabilities: meta.client_capabilities.clone().unwrap_or_default(),
            session,
            principal: None,
            connection: None,
            resumes: false,
            level: None,
        }
    }

    /// Somebody on a legacy session who has not said yet who it is.
    pub(crate) fn unknown(session: SessionId) -> Self {
        Self {
            version: ProtocolVersion::NEWEST_LEGACY,
            client: None,
            capabilities: Arc::default(),
            session: Some(session),
            principal: None,
            connection: None,
            resumes: false,
            level: None,
        }
    }

    /// The sender of everything on a legacy session.
    pub(crate) fn legacy(
        version: ProtocolVersion,
        initialize: params::Initialize,
        session: SessionId,
        level: SessionLevel,
    ) -> Self {
        Self {
            version,
            client: Some(Arc::new(initialize.client_info)),
            capabilities: Arc::new(initialize.capabilities),
            session: Some(session),
            principal: None,
            connection: None,
            resumes: false,
            level: Some(level),
        }
    }

    /// Who called before the server restarted.
    pub(crate) fn of_task(capabilities: ClientCapabilities, principal: Option<Arc<str>>) -> Self {
        Self {
            version: ProtocolVersion::V2026_07_28,
            client: None,
            capabilities: Arc::new(capabilities),
            session: None,
            principal,
            connection: None,
            resumes: false,
            level: None,
        }
    }

    /// The sender of a request that another node passes on.
    pub(crate) fn of_peer(sender: Sender) -> Self {
        let own = SessionLevel::default();
        own.set(sender.level);
        Self {
            version: sender.version,
            client: sender.client,
            capabilities: sender.capabilities,
            session: sender.session,
            principal: sender.principal,
            connection: sender.connection,
            resumes: sender.resumes,
            level: Some(own),
        }
    }

    /// Where a session changes how severe log messages are to be.
    pub(super) fn session_level(&self) -> SessionLevel {
        self.level.clone().unwrap_or_default()
    }

    /// The least severe log message that a legacy client wants.
    pub(crate) fn level(&self) -> LogLevel {
        let level = self.level.as_ref().map(|level| level.0.load(Ordering::Relaxed));
        let known = LogLevel::ALL.into_iter().find(|known| Some(*known as u8) == level);
        known.unwrap_or(LogLevel::Info)
    }

    /// The same, known to be this principal.
    pub(crate) fn of(mut self, principal: Option<Arc<str>>) -> Self {
        self.principal = principal;
        self
    }

    /// The same, on this connection.
    pub(crate) fn on(mut self, connection: Option<Connection>) -> Self {
        self.connection = connection;
        self
    }

    /// Whose share it takes of what all callers share.
    pub(crate) fn share(&self) -> Share {
        Share::of(self.principal.as_ref(), self.session.as_ref(), self.connection)
    }

    /// The same, over a transport where a client can come back to a stream.
    pub(crate) fn resuming(mut self, resumes: bool) -> Self {
        self.resumes = resumes;
        self
    }

    pub(crate) fn era(&self) -> Era {
        self.version.era()
    }

    /// Whether a log message of this severity reaches the sender.
    pub(crate) fn wants_log(&self, level: LogLevel, asked: Option<LogLevel>) -> bool {
        match self.era() {
            Era::Legacy => level >= self.level(),
            Era::Modern => asked.is_some_and(|least| level >= least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modern_request_hears_nothing_it_did_not_ask_for() {
        let caller = Caller::modern(ProtocolVersion::V2026_07_28, &RequestMeta::default(), None);
        assert!(!caller.wants_log(LogLevel::Emergency, None));
        assert!(caller.wants_log(LogLevel::Error, Some(LogLevel::Warning)));
        assert!(!caller.wants_log(LogLevel::Info, Some(LogLevel::Warning)));
    }

    #[test]
    fn a_legacy_session_hears_from_its_level_on_and_calls_see_it_change() {
        let level = SessionLevel::default();
        let initialize = serde_json::from_value(serde_json::json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        }));
        let caller = Caller::legacy(
            ProtocolVersion::V2025_11_25,
            initialize.unwrap(),
            SessionId::random(&crate::NodeId::random()),
            level.clone(),
        );
        assert!(caller.wants_log(LogLevel::Info, None));
        assert!(!caller.wants_log(LogLevel::Debug, None));
        level.set(LogLevel::Error);
        assert!(!caller.wants_log(LogLevel::Warning, None));
    }
}
