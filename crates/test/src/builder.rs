//! How a client connects.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use stentor_engine::Engine;
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::RequestSender;
use stentor_wire::{Era, Method, ProtocolVersion};

use crate::Client;
use crate::ask::{Answer, Answers, ElicitRequest, SampleRequest};
use crate::link::{ClientMeta, Link};
use crate::raw::Raw;

/// What a client is before it connects. [`Client::builder`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    engine: Engine,
    version: ProtocolVersion,
    info: Value,
    capabilities: Map<String, Value>,
    answers: Answers,
    sender: RequestSender,
}

impl Builder {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            version: ProtocolVersion::ALL[0],
            info: json!({"name": "stentor-test", "version": env!("CARGO_PKG_VERSION")}),
            capabilities: Map::new(),
            answers: Answers::default(),
            sender: RequestSender::default(),
        }
    }

    /// Speaks the newest version of an era. Default: the modern one.
    pub fn era(self, era: Era) -> Self {
        let newest = ProtocolVersion::ALL.into_iter().find(|version| version.era() == era);
        self.version(newest.unwrap_or(ProtocolVersion::NEWEST_LEGACY))
    }

    /// Speaks this version, of either era.
    pub fn version(mut self, version: ProtocolVersion) -> Self {
        self.version = version;
        self
    }

    /// The name and version of the client.
    pub fn client_info(mut self, name: &str, version: &str) -> Self {
        self.info = json!({"name": name, "version": version});
        self
    }

    /// Adds capabilities. Those that follow from the answers below need not be named.
    ///
    /// # Panics
    ///
    /// If `capabilities` does not serialize to a JSON object.
    #[track_caller]
    pub fn capabilities(mut self, capabilities: impl Serialize) -> Self {
        match serde_json::to_value(capabilities) {
            Ok(Value::Object(members)) => self.capabilities.extend(members),
            other => panic!("capabilities are an object: {other:?}"),
        }
        self
    }

    /// Adds an extension of the protocol to the capabilities.
    pub fn extension(mut self, id: &str, settings: Value) -> Self {
        let extensions = self.capabilities.entry("extensions").or_insert_with(|| json!({}));
        extensions[id] = settings;
        self
    }

    /// Accepts tasks as results of calls.
    pub fn tasks(self) -> Self {
        self.extension(stentor_wire::TASKS_EXTENSION, json!({}))
    }

    /// The client is this principal, as if a transport had authenticated it. Default: a stranger.
    pub fn principal(self, principal: impl Into<Arc<str>>) -> Self {
        self.identity(Identity::named(principal))
    }

    /// The client is this one, as if a transport had authenticated it.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.sender = RequestSender::known(identity);
        self
    }

    /// Answers questions to the user.
    pub fn on_elicit(
        mut self,
        answer: impl Fn(ElicitRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.answers.elicit = Some(Arc::new(answer));
        self
    }

    /// Answers questions to the client's model.
    pub fn on_sample(
        mut self,
        answer: impl Fn(SampleRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.answers.sample = Some(Arc::new(answer));
        self
    }

    /// The roots of the client: URIs of folders.
    pub fn roots<S: Into<String>>(mut self, uris: impl IntoIterator<Item = S>) -> Self {
        let roots = uris.into_iter().map(|uri| json!({"uri": uri.into()}));
        self.answers.roots = Some(roots.collect());
        self
    }

    fn client_meta(&self) -> ClientMeta {
        let mut capabilities = self.answers.capabilities();
        // A version before 2025-11-25 has no members in it.
        if self.version < ProtocolVersion::V2025_11_25
            && let Some(elicitation) = capabilities.get_mut("elicitation")
        {
            *elicitation = json!({});
        }
        capabilities.extend(self.capabilities.clone());
        ClientMeta {
            version: self.version,
            info: self.info.clone(),
            capabilities: capabilities.into(),
        }
    }

    /// Connects the client. A legacy client has completed the handshake then.
    ///
    /// # Panics
    ///
    /// If the engine opens no session, or refuses the handshake.
    pub async fn connect(self) -> Client {
        let (raw, hello) = self.handshake().await;
        let meta = self.client_meta();
        Client::new(Link::new(self.engine, raw, meta, self.answers), hello)
    }

    /// Connects, and leaves everything else to the test: nothing is read, routed or answered.
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    pub async fn raw(self) -> Raw {
        self.handshake().await.0
    }

    /// A connection after the handshake, and the result of `initialize`.
    async fn handshake(&self) -> (Raw, Option<Value>) {
        let mut raw = Raw::open_for(&self.engine, self.sender.clone()).await;
        if self.version.era() == Era::Modern {
            return (raw, None);
        }
        let ClientMeta { version, info, capabilities } = self.client_meta();
        let params = json!({
            "protocolVersion": version.as_str(), "capabilities": capabilities, "clientInfo": info,
        });
        raw.request("initialize", Method::Initialize.as_str(), params).await;
        let (mut answer, mut before) = raw.answer("initialize").await;
        let negotiated = answer["result"]["protocolVersion"].as_str();
        assert_eq!(negotiated, Some(version.as_str()), "the handshake failed: {answer}");
        let initialized = Method::Initialized;
        raw.send(json!({"jsonrpc": "2.0", "method": initialized.as_str()})).await;
        // Once the next request is answered, everything that the handshake causes has happened.
        raw.request("ping", Method::Ping.as_str(), json!({})).await;
        before.extend(raw.answer("ping").await.1);
        raw.unread(before);
        (raw, Some(answer["result"].take()))
    }
}
