//! Gossip: who is there, where, what it says of itself, and who fell silent. `chitchat` does it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState as Said,
    ProtocolVersion, spawn_chitchat,
};
use ractor::ActorRef;
use stentor_engine::NodeId;

use super::Shared;
use super::relay::RelayMsg;
use super::seal::{Bound, SealedSocket};
use crate::config::{ClusterConfig, ClusterError};

/// Keys under which a node says where it is and that it leaves. Others begin with a plus.
const LINK: &str = "link";
const LEFT: &str = "left";

/// A node that gossip sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) generation: u64,
    /// Where it listens for links.
    pub(crate) addr: SocketAddr,
    /// It said that it leaves.
    pub(crate) left: bool,
    pub(crate) said: BTreeMap<String, String>,
}

impl Member {
    /// Nothing, if it is no node of ours.
    fn read(id: &ChitchatId, state: &Said) -> Option<(NodeId, Self)> {
        let node = NodeId::new(&*id.node_id).ok()?;
        let said = state
            .key_values()
            .filter_map(|(key, value)| Some((key.strip_prefix('+')?.to_owned(), value.to_owned())));
        let member = Self {
            generation: id.generation_id,
            addr: state.get(LINK)?.parse().ok()?,
            left: state.contains_key(LEFT),
            said: said.collect(),
        };
        Some((node, member))
    }
}

/// All nodes that gossip sees alive but this one. Of one that was started again, both are seen
/// for a while: the newer counts.
fn members(node: &NodeId, alive: &BTreeMap<ChitchatId, Said>) -> HashMap<NodeId, Member> {
    let mut members: HashMap<NodeId, Member> = HashMap::new();
    for (other, member) in alive.iter().filter_map(|(id, state)| Member::read(id, state)) {
        let newer = members.get(&other).is_none_or(|known| known.generation < member.generation);
        if newer && other != *node {
            members.insert(other, member);
        }
    }
    members
}

/// The detector's settings. It gives a node up when it is silent for `phi_threshold` times the
/// mean of the last intervals and of five that are assumed. No more are remembered than that,
/// so that a new node is given up as fast, and in a busy cluster none too early.
fn detector(config: &ClusterConfig) -> FailureDetectorConfig {
    // Nodes hear of each other about twice in an interval: 8 * (5 * usual + 5 * assumed) / 10.
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

/// The gossip of this node.
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
        relay: ActorRef<RelayMsg>,
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
        let said = vec![(LINK.to_owned(), link.to_string())];
        let chitchat = spawn_chitchat(chitchat, said, &transport)
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
                    if relay.cast(RelayMsg::Members(members)).is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                // A node that has no relay any more is none, and must not look like one.
                () = watching.stop.cancelled() => drop(watched.initiate_shutdown()),
                () = watch => {}
                ended = ended => {
                    match ended {
                        Ok(()) => stentor_engine::log!(debug, "gossip has ended"),
                        Err(error) => stentor_engine::log!(error, %error, "gossip failed: this is no node any more"),
                    }
                    relay.stop(None);
                }
            }
        });
        Ok(Self { shared, chitchat, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn say(&self, key: &str, value: &str) {
        let key = format!("+{key}");
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(&key, value)).await;
    }

    /// Says that this node leaves, and waits until others should know.
    pub(crate) async fn leave(&self) {
        self.chitchat.with_chitchat(|chitchat| chitchat.self_node_state().set(LEFT, "")).await;
        if self.chitchat.with_chitchat(|chitchat| chitchat.live_nodes().count()).await > 1 {
            tokio::time::sleep(4 * self.shared.config.gossip_interval).await;
        }
        let _ = self.chitchat.initiate_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: &str, generation: u64, said: &[(&str, &str)]) -> (ChitchatId, Said) {
        let mut state = Said::for_test();
        for (key, value) in said {
            state.set(key, value);
        }
        (ChitchatId::new(node, generation, ([127, 0, 0, 1], 1).into()), state)
    }

    #[test]
    fn of_a_node_that_was_started_again_the_newer_run_counts() {
        let link = (LINK, "127.0.0.1:7");
        let alive = BTreeMap::from([
            run("b", 1, &[link, (LEFT, "")]),
            run("b", 2, &[link, ("+mood", "fine"), ("mood", "bad")]),
            run("c", 1, &[("+no", "address")]),
            run("me", 1, &[link]),
            run("no name of a node", 1, &[link]),
        ]);
        let members = members(&NodeId::new("me").unwrap(), &alive);
        let b = Member {
            generation: 2,
            addr: ([127, 0, 0, 1], 7).into(),
            left: false,
            said: BTreeMap::from([("mood".to_owned(), "fine".to_owned())]),
        };
        assert_eq!(members, HashMap::from([(NodeId::new("b").unwrap(), b)]));
    }
}
