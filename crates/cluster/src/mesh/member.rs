//! The other nodes, as gossip shows them. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use chitchat::{ChitchatId, NodeState as GossipState};
use stentor_engine::NodeId;

/// The keys of a node's address and of its leaving. All other keys begin with a plus sign.
pub(super) const LINK: &str = "link";
pub(super) const LEFT: &str = "left";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) generation: u64,
    /// Where the node accepts links.
    pub(crate) addr: SocketAddr,
    /// The node has announced that it leaves.
    pub(crate) left: bool,
    pub(crate) values: BTreeMap<String, String>,
}

impl Member {
    /// `None` if this is not a node of Stentor.
    fn from_gossip(id: &ChitchatId, state: &GossipState) -> Option<(NodeId, Self)> {
        let node = NodeId::new(&*id.node_id).ok()?;
        let values = state
            .key_values()
            .filter_map(|(key, value)| Some((key.strip_prefix('+')?.to_owned(), value.to_owned())));
        let member = Self {
            generation: id.generation_id,
            addr: state.get(LINK)?.parse().ok()?,
            left: state.contains_key(LEFT),
            values: values.collect(),
        };
        Some((node, member))
    }
}

/// All other nodes that gossip shows alive. For a while, gossip shows both runs of a restarted
/// node: the newer one counts.
pub(super) fn members(
    node: &NodeId,
    alive: &BTreeMap<ChitchatId, GossipState>,
) -> HashMap<NodeId, Member> {
    let mut members: HashMap<NodeId, Member> = HashMap::new();
    for (other, member) in alive.iter().filter_map(|(id, state)| Member::from_gossip(id, state)) {
        let newer = members.get(&other).is_none_or(|known| known.generation < member.generation);
        if newer && other != *node {
            members.insert(other, member);
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: &str, generation: u64, values: &[(&str, &str)]) -> (ChitchatId, GossipState) {
        let mut state = GossipState::for_test();
        for (key, value) in values {
            state.set(key, value);
        }
        (ChitchatId::new(node, generation, ([127, 0, 0, 1], 1).into()), state)
    }

    #[test]
    fn the_newer_run_of_a_restarted_node_counts() {
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
            values: BTreeMap::from([("mood".to_owned(), "fine".to_owned())]),
        };
        assert_eq!(members, HashMap::from([(NodeId::new("b").unwrap(), b)]));
    }
}
