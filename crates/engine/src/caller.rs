//! The sender of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};
use stentor_wire::model::{ClientCapabilities, Implementation};
use stentor_wire::{Era, LogLevel, ProtocolVersion, RequestMeta, TraceContext, params};

use crate::identity::Who;
use crate::ids::SessionId;
use crate::request_sender::{Header, RequestSender};
use crate::shares::{Connection, Share};

/// What is known of the sender of a request: from `initialize` in the legacy era, from the request
/// itself in the modern one.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
    pub(crate) session: Option<SessionId>,
    pub(crate) who: Who,
    /// Headers of the request that handlers may read.
    pub(crate) headers: Option<Arc<[Header]>>,
    /// The address of the client.
    pub(crate) address: Option<IpAddr>,
    /// The connection of a request that belongs to no session.
    pub(crate) connection: Option<Connection>,
    /// Whether the sender can come back to a stream that was closed.
    pub(crate) resumes: bool,
    /// The span of the node that forwards the request, if it has one.
    pub(crate) forwarding_span: Option<Arc<TraceContext>>,
    /// Set on a legacy session, also if that is on another node.
    level: Option<SessionLevel>,
}

/// The least severe log message that a legacy session wants. Running calls see it change.
#[derive(Clone, Debug)]
pub(crate) struct SessionLevel(Arc<AtomicU8>);

impl Default for SessionLevel {
    /// The level for a client that never set one: what people usually want to see.
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
            who: Who::Nobody,
            headers: None,
            address: None,
            connection: None,
            resumes: false,
            forwarding_span: None,
            level: None,
        }
    }

    /// The sender on a legacy session before `initialize`.
    pub(crate) fn unknown(session: SessionId) -> Self {
        Self {
            version: ProtocolVersion::NEWEST_LEGACY,
            client: None,
            capabilities: Arc::default(),
            session: Some(session),
            who: Who::Nobody,
            headers: None,
            address: None,
            connection: None,
            resumes: false,
            forwarding_span: None,
            level: None,
        }
    }

    /// The sender of all messages on a legacy session.
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
            who: Who::Nobody,
            headers: None,
            address: None,
            connection: None,
            resumes: false,
            forwarding_span: None,
            level: Some(level),
        }
    }

    /// The caller of a task from before the server restarted.
    pub(crate) fn of_task(capabilities: ClientCapabilities, who: Who) -> Self {
        Self {
            version: ProtocolVersion::V2026_07_28,
            client: None,
            capabilities: Arc::new(capabilities),
            session: None,
            who,
            headers: None,
            address: None,
            connection: None,
            resumes: false,
            forwarding_span: None,
            level: None,
        }
    }

    /// The level that a session shares with its calls.
    pub(crate) fn session_level(&self) -> SessionLevel {
        self.level.clone().unwrap_or_default()
    }

    pub(crate) fn level(&self) -> LogLevel {
        let level = self.level.as_ref().map(|level| level.0.load(Ordering::Relaxed));
        let known = LogLevel::ALL.into_iter().find(|known| Some(*known as u8) == level);
        known.unwrap_or(LogLevel::Info)
    }

    /// Sets who sends.
    pub(crate) fn with_who(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.who.principal()
    }

    /// Sets what the transport knows.
    pub(crate) fn sent_by(mut self, sender: &RequestSender) -> Self {
        let RequestSender { who, connection, headers, address } = sender.clone();
        (self.who, self.connection, self.headers, self.address) =
            (who, connection, headers, address);
        self
    }

    /// The share to which the caller's use of common resources counts.
    pub(crate) fn share(&self) -> Share {
        Share::of(self.principal(), self.session.as_ref(), self.connection)
    }

    /// Sets whether the transport lets a client come back to a stream.
    pub(crate) fn resuming(mut self, resumes: bool) -> Self {
        self.resumes = resumes;
        self
    }

    pub(crate) fn era(&self) -> Era {
        self.version.era()
    }

    pub(crate) fn wants_log(&self, level: LogLevel, asked: Option<LogLevel>) -> bool {
        match self.era() {
            Era::Legacy => level >= self.level(),
            Era::Modern => asked.is_some_and(|least| level >= least),
        }
    }
}

/// The sender of a request, as far as its own node knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct RemoteCaller {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: Option<Arc<Implementation>>,
    pub(crate) capabilities: Arc<ClientCapabilities>,
    pub(crate) session: Option<SessionId>,
    #[serde(default)]
    pub(crate) who: Who,
    #[serde(default)]
    pub(crate) headers: Option<Arc<[Header]>>,
    #[serde(default)]
    pub(crate) address: Option<IpAddr>,
    /// Older nodes do not send it.
    #[serde(default)]
    pub(crate) connection: Option<Connection>,
    pub(crate) resumes: bool,
    pub(crate) level: LogLevel,
    /// Set where a call is forwarded. Older nodes do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forwarding_span: Option<Arc<TraceContext>>,
}

/// What another node must know of a caller.
impl From<&Caller> for RemoteCaller {
    fn from(caller: &Caller) -> Self {
        Self {
            version: caller.version,
            client: caller.client.clone(),
            capabilities: caller.capabilities.clone(),
            session: caller.session.clone(),
            who: caller.who.clone(),
            headers: caller.headers.clone(),
            address: caller.address,
            connection: caller.connection,
            resumes: caller.resumes,
            level: caller.level(),
            forwarding_span: None,
        }
    }
}

/// The sender of a request that another node forwards.
impl From<RemoteCaller> for Caller {
    fn from(sender: RemoteCaller) -> Self {
        let level = SessionLevel::default();
        level.set(sender.level);
        Self {
            version: sender.version,
            client: sender.client,
            capabilities: sender.capabilities,
            session: sender.session,
            who: sender.who,
            headers: sender.headers,
            address: sender.address,
            connection: sender.connection,
            resumes: sender.resumes,
            forwarding_span: sender.forwarding_span,
            level: Some(level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modern_request_receives_no_log_it_did_not_ask_for() {
        let caller = Caller::modern(ProtocolVersion::V2026_07_28, &RequestMeta::default(), None);
        assert!(!caller.wants_log(LogLevel::Emergency, None));
        assert!(caller.wants_log(LogLevel::Error, Some(LogLevel::Warning)));
        assert!(!caller.wants_log(LogLevel::Info, Some(LogLevel::Warning)));
    }

    #[test]
    fn a_legacy_session_receives_logs_from_its_level_and_calls_see_it_change() {
        let level = SessionLevel::default();
        let initialize = serde_json::from_value(serde_json::json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        }));
        let caller = Caller::legacy(
            ProtocolVersion::V2025_11_25,
            initialize.unwrap(),
            crate::ids::new_session_id(&crate::NodeId::random()),
            level.clone(),
        );
        assert!(caller.wants_log(LogLevel::Info, None));
        assert!(!caller.wants_log(LogLevel::Debug, None));
        level.set(LogLevel::Error);
        assert!(!caller.wants_log(LogLevel::Warning, None));
    }
}
