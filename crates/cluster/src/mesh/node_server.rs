//! The node server of `ractor_cluster`, as the mesh actor uses it: it carries messages between mesh
//! actors over the connections that it is given. It makes and accepts none itself.

use std::sync::Arc;

use hmac::Mac as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage,
};
use rustls::server::ResolvesServerCertUsingSni;

use super::hello::keyed;
use super::mesh_message::MeshMsg;
use super::shared::Shared;

/// Starts the node server as a child of the mesh actor, and subscribes the actor to its link
/// events.
pub(super) async fn start(
    shared: &Shared,
    mesh_actor: &ActorRef<MeshMsg>,
) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
    // The name contains the generation, so that a restarted node does not compete with its earlier
    // run.
    let run = format!("{}.{}", shared.node, shared.generation);
    let server = NodeServer::new(
        0,
        cookie(shared),
        run.clone(),
        run,
        Some(IncomingEncryptionMode::Tls(rejecting_acceptor()?)),
        Some(NodeConnectionMode::Isolated),
    )
    .with_listen_addr(std::net::Ipv4Addr::LOCALHOST.into())
    // The node server adds far less than 4 KiB to a frame.
    .with_max_inbound_frame_size(shared.config.max_frame as u64 + 4_096);
    let (server, _) = Actor::spawn_linked(None, server, (), mesh_actor.get_cell()).await?;
    server.cast(NodeServerMessage::SubscribeToEvents {
        id: "mesh".to_owned(),
        subscription: Box::new(Sessions(mesh_actor.clone())),
    })?;
    Ok(server)
}

/// The secret between node servers. The ends of a link have proven more already.
fn cookie(shared: &Shared) -> String {
    let secret = keyed(&shared.config.cookie, b"stentor node server").finalize();
    secret.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Accepts no connection, because it has no certificate for any name. The node server requires a
/// port of its own, but its links come from the listener of the mesh.
fn rejecting_acceptor() -> Result<tokio_rustls::TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    Ok(Arc::new(config).into())
}

/// Sends the mesh actor the events of links. The label of a link is its number.
struct Sessions(ActorRef<MeshMsg>);

impl Sessions {
    fn send(&self, session: &NodeServerSessionInformation, message: impl FnOnce(u64) -> MeshMsg) {
        if let Ok(number) = session.peer_addr.parse() {
            let _ = self.0.cast(message(number));
        }
    }
}

impl NodeEventSubscription for Sessions {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.send(&session, |number| MeshMsg::Ready(number, session.node_id));
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        self.send(&session, MeshMsg::Ended);
    }
}
