//! Gossip, by `chitchat`: which nodes exist, their addresses, their values, and which are silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
    spawn_chitchat,
};
use ractor::ActorRef;

use super::member::{LEFT, LINK, members};
use super::mesh_message::MeshMsg;
use super::seal::{Bound, SealedSocket};
use super::shared::Shared;
use crate::config::{ClusterConfig, ClusterError};

/// The settings of the failure detector. It gives a node up when the node is silent for
/// `phi_threshold` times the mean of the last five intervals and of five assumed ones. It remembers
/// no more than that, so that it gives up a new node as fast as an old one, and not too early in a
/// busy cluster.
fn detector(config: &ClusterConfig) -> FailureDetectorConfig {
    // Nodes receive gossip of each other about twice per interval: 8 * (5 * usual + 5 * assumed) /
    // 10.
    let usual = config.gossip_interval / 2;
    let assumed = (config.give_up_after / 4).saturating_sub(usual);
    FailureDetectorConfig {
        phi_threshold: 8.0,
        sampling_window_size: 5,
        max_interval: config.give_up_after,
        initial_interval: assumed,
        dead_node_grace_period: Duration::from_secs(60 * 60),
    }
}

pub(crate) struct Gossip {
    shared: Arc<Shared>,
    chitchat: Arc<ChitchatHandle>,
    address: SocketAddr,
}

impl Gossip {
    pub(crate) async fn start(
        shared: Arc<Shared>,
        socket: SealedSocket,
        link: SocketAddr,
        mesh_actor: ActorRef<MeshMsg>,
    ) -> Result<Self, ClusterError> {
        let config = &shared.config;
        let address = socket.address();
        let advertised = config.advertise.map_or(address, |ip| (ip, address.port()).into());
        let chitchat = ChitchatConfig {
            chitchat_id: ChitchatId::new(shared.node.as_str(), shared.generation, advertised),
            cluster_id: config.cluster.clone(),
            gossip_interval: config.gossip_interval,
            listen_addr: config.gossip,
            seed_nodes: config.seeds.clone(),
            failure_detector_config: detector(config),
            marked_for_deletion_grace_period: Duration::from_secs(60 * 60),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let transport = Bound::new(socket);
        let values = vec![(LINK.to_owned(), link.to_string())];
        let chitchat = spawn_chitchat(chitchat, values, &transport)
            .await
            .map_err(|error| ClusterError::Start(format!("{error:#}")))?;
        let mut alive = chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let ended = chitchat.termination_watcher();
        let chitchat = Arc::new(chitchat);
        let (watching, watched) = (shared.clone(), chitchat.clone());
        tokio::spawn(async move {
            let watch = async {
                while alive.changed().await.is_ok() {
                    let members = members(&watching.node, &alive.borrow_and_update());
                    if mesh_actor.cast(MeshMsg::Members(members)).is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                // A node without its mesh actor has stopped, so other nodes must not see it alive.
                () = watching.stop.cancelled() => drop(watched.initiate_shutdown()),
                () = watch => {}
                ended = ended => {
                    match ended {
                        Ok(()) => stentor_engine::log!(debug, "gossip has ended"),
                        Err(error) => stentor_engine::log!(error, %error, "gossip failed: this is no node any more"),
                    }
                    mesh_actor.stop(None);
                }
            }
        });
        Ok(Self { shared, chitchat, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn set(&self, key: &str, value: &str) {
        let key = format!("+{key}");
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(&key, value)).await;
    }

    /// Announces that this node leaves, and waits until the others should know.
    pub(crate) async fn leave(&self) {
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(LEFT, "")).await;
        if self.chitchat.with_chitchat(|chitchat| chitchat.live_nodes().count()).await > 1 {
            tokio::time::sleep(4 * self.shared.config.gossip_interval).await;
        }
        let _ = self.chitchat.initiate_shutdown();
    }
}
