//! The node server of `ractor_cluster`, as far as the relay uses it: it carries what goes from one
//! relay to another over connections that it is given, and makes and accepts none by itself.

use std::sync::Arc;

use hmac::Mac as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Shared;
use super::hello::keyed;
use super::relay::RelayMsg;

/// Starts it, as a child of the relay, which is told what becomes of links.
pub(super) async fn start(
    shared: &Shared,
    relay: &ActorRef<RelayMsg>,
) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
    // Another run of this node is another one, so that old and new do not compete.
    let run = format!("{}.{}", shared.node, shared.generation);
    let server = NodeServer::new(
        0,
        cookie(shared),
        run.clone(),
        run,
        Some(IncomingEncryptionMode::Tls(nobody()?)),
        Some(NodeConnectionMode::Isolated),
    )
    .with_listen_addr(std::net::Ipv4Addr::LOCALHOST.into())
    // What the node server wraps a frame in is far less.
    .with_max_inbound_frame_size(shared.config.max_frame as u64 + 4_096);
    let (server, _) = Actor::spawn_linked(None, server, (), relay.get_cell()).await?;
    server.cast(NodeServerMessage::SubscribeToEvents {
        id: "relay".to_owned(),
        subscription: Box::new(Sessions(relay.clone())),
    })?;
    Ok(server)
}

/// What the node servers prove to each other. Who holds a link has proven more already.
fn cookie(shared: &Shared) -> String {
    let secret = keyed(&shared.config.cookie, b"stentor node server").finalize();
    secret.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets nobody in. The node server insists on a port of its own, but its links come from here.
fn nobody() -> Result<tokio_rustls::TlsAcceptor, rustls::Error> {
    #[derive(Debug)]
    struct NoCertificate;
    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    Ok(Arc::new(config).into())
}

/// Tells the relay what becomes of links. Their label is their number.
struct Sessions(ActorRef<RelayMsg>);

impl Sessions {
    fn tell(&self, session: &NodeServerSessionInformation, message: impl FnOnce(u64) -> RelayMsg) {
        if let Ok(number) = session.peer_addr.parse() {
            let _ = self.0.cast(message(number));
        }
    }
}

impl NodeEventSubscription for Sessions {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.tell(&session, |number| RelayMsg::Ready(number, session.node_id));
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        self.tell(&session, RelayMsg::Ended);
    }
}
