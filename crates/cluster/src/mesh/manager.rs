//! **Owns** what is known of each other node, and the link to it.
//! **Receives** gossip, new links, ended links, and messages from the mesh actors of other nodes:
//! it is the only actor of a node whose messages cross the network.
//! **Sends** the handler all events in order, and other mesh actors reports of handled bytes.
//! **Dies when** the node leaves, the node server failed, or a bug panics.
//! **Restarts as** nothing: the mesh stops, and other nodes see this node dead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent, pg};
use ractor_cluster::NodeServerMessage;
use stentor_engine::NodeId;
use stentor_engine::remote::NodeState;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::handler::{MeshHandler, PeerInfo};
use super::hello::{End, HELLO_TIMEOUT, Proven};
use super::link::{Link, LinkStream, Links, Receipt, until_proven};
use super::link_message::LinkMessage;
use super::member::Member;
use super::mesh_message::MeshMsg;
use super::node_server;
use super::peer::{EarlyMessages, LinkSession, Peer, Stage};
use super::shared::Shared;

/// How long a report of handled bytes may be delayed.
const REPORT_AFTER: Duration = Duration::from_millis(10);
/// A link that was silent for more checks than this is cut. Links are checked once per
/// `give_up_after`; a large frame may take several times that to arrive.
const MAX_SILENT_CHECKS: u32 = 4;
/// How long cut links may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The process group scope of mesh actors, through which node servers show them to each other. Each
/// actor is in a group with the name of its node.
const SCOPE: &str = "stentor/";

fn scope(shared: &Shared) -> String {
    format!("{SCOPE}{}", shared.config.cluster)
}

/// Whether this process has a mesh actor.
pub(crate) fn exists() -> bool {
    let ours = |scope: &str| scope.starts_with(SCOPE);
    pg::which_scopes_and_groups().into_iter().any(|key| {
        let (scope, group) = (key.get_scope(), key.get_group());
        ours(&scope) && !pg::get_scoped_local_members(&scope, &group).is_empty()
    })
}

pub(crate) struct MeshArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Arc<Links>,
    pub(crate) handler: Arc<dyn MeshHandler>,
}

pub(crate) struct MeshState {
    shared: Arc<Shared>,
    handler: Arc<dyn MeshHandler>,
    server: ActorRef<NodeServerMessage>,
    peers: HashMap<NodeId, Peer>,
    /// The links that are up.
    up_links: Arc<Links>,
    /// The node of each link, by this node's number for the link.
    links: HashMap<u64, NodeId>,
    /// A report of handled frames is scheduled.
    report_scheduled: bool,
    leaving: bool,
    /// Stops the whole mesh when this actor ends.
    _stop: DropGuard,
}

pub(crate) struct MeshActor;

impl Actor for MeshActor {
    type Msg = MeshMsg;
    type State = MeshState;
    type Arguments = MeshArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<MeshMsg>,
        MeshArgs { shared, links: up_links, handler }: MeshArgs,
    ) -> Result<MeshState, ActorProcessingErr> {
        // Before the node server starts: it shows a new node the groups that exist then.
        pg::join_scoped(scope(&shared), shared.node.to_string(), vec![myself.get_cell()]);
        let server = node_server::start(&shared, &myself).await?;
        myself.send_interval(shared.config.give_up_after, || MeshMsg::Check);
        Ok(MeshState {
            _stop: shared.stop.clone().drop_guard(),
            shared,
            handler,
            server,
            peers: HashMap::new(),
            up_links,
            links: HashMap::new(),
            report_scheduled: false,
            leaving: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<MeshMsg>,
        message: MeshMsg,
        state: &mut MeshState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MeshMsg::LinkMessage(message) => state.on_link_message(&myself, message),
            MeshMsg::Members(members) => state.on_members(&myself, members),
            MeshMsg::Proven(proven) => state.on_proven(&myself, *proven),
            MeshMsg::Ready(link, session) => state.on_ready(&myself, link, session),
            MeshMsg::Ended(link) => state.on_ended(&myself, link),
            MeshMsg::Overdue(link) => state.on_overdue(&myself, link),
            MeshMsg::Handled => state.on_handled(&myself),
            MeshMsg::ReportHandled => state.on_report_handled(),
            MeshMsg::Check => state.on_check(),
            MeshMsg::Cut(node) => state.on_cut(&node),
            MeshMsg::Leave => state.on_leave(&myself),
            MeshMsg::Left => myself.stop(None),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<MeshMsg>,
        event: SupervisionEvent,
        state: &mut MeshState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, _)
            | SupervisionEvent::ActorTerminated(child, ..)
                if child.get_id() == state.server.get_id() =>
            {
                Err("the node server ended".into())
            }
            _ => Ok(()),
        }
    }
}

impl MeshState {
    fn on_link_message(&mut self, myself: &ActorRef<MeshMsg>, message: Option<LinkMessage>) {
        let Some(message) = message else {
            stentor_engine::log!(warn, "ignored what another version of a node sent");
            return;
        };
        // Otherwise the link has ended, or the sender does not know its number.
        let Some(node) = self.links.get(&message.link).cloned() else { return };
        let session = self.peers.get_mut(&node).and_then(|peer| peer.session.as_mut());
        match session.map(|session| &mut session.stage) {
            Some(Stage::Connecting(early)) => {
                if !early.push(message, self.shared.config.max_in_flight) {
                    self.cut_flooding(&node);
                }
            }
            Some(Stage::Up(link)) => {
                let link = link.clone();
                self.on_message(myself, &node, link, message);
            }
            Some(Stage::Cut) | None => {}
        }
    }

    /// A node that sends more than its window allows is cut off.
    fn cut_flooding(&mut self, node: &NodeId) {
        stentor_engine::log!(error, %node, "a node sends more than it was given room for");
        self.cut(node);
    }

    /// Handles a message from a link that is up.
    fn on_message(
        &mut self,
        myself: &ActorRef<MeshMsg>,
        node: &NodeId,
        link: Arc<Link>,
        message: LinkMessage,
    ) {
        if link.remote_handled(message.handled) {
            self.handler.space_available(node);
        }
        let Some(frame) = message.frame else { return };
        if !link.received(frame.len()) {
            return self.cut_flooding(node);
        }
        let receipt = Receipt { link, bytes: frame.len(), mesh_actor: myself.clone() };
        self.handler.frame(node, frame, receipt);
    }

    fn up(&self) -> impl Iterator<Item = (&NodeId, &Link)> {
        self.peers.iter().filter_map(|(node, peer)| match &peer.session {
            Some(LinkSession { stage: Stage::Up(link), .. }) => Some((node, &**link)),
            _ => None,
        })
    }

    fn on_members(&mut self, myself: &ActorRef<MeshMsg>, members: HashMap<NodeId, Member>) {
        let alive = |(_, peer): &(&NodeId, &Peer)| peer.state == NodeState::Alive;
        let lost: Vec<_> = self
            .peers
            .iter()
            .filter(alive)
            .filter_map(|(node, peer)| match members.get(node) {
                Some(member) if member.left => Some((node.clone(), NodeState::Left)),
                Some(member) if member.generation == peer.member.generation => None,
                // The node is not visible, or it restarted: its earlier run must end first.
                _ => Some((node.clone(), NodeState::Dead)),
            })
            .collect();
        for (node, state) in lost {
            self.mark_gone(&node, state);
        }
        for (node, member) in members {
            if !member.left {
                self.mark_alive(myself, node, member);
            }
        }
    }

    /// Gossip shows that this node is dead or has left.
    fn mark_gone(&mut self, node: &NodeId, state: NodeState) {
        self.cut(node);
        if let Some(peer) = self.peers.get_mut(node) {
            peer.next = None;
            peer.dialling = None;
            peer.attempts = 0;
            peer.state = state;
            self.shared.nodes.lock().insert(node.clone(), (peer.member.addr, state));
            self.handler.dead(node);
        }
    }

    fn mark_alive(&mut self, myself: &ActorRef<MeshMsg>, node: NodeId, member: Member) {
        if !self.peers.contains_key(&node) && !self.has_space() {
            stentor_engine::log!(warn, %node, "ignored a node: there are as many as may be");
            return;
        }
        let addr = member.addr;
        let changed = match self.peers.entry(node.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Peer::new(member));
                true
            }
            Entry::Occupied(known) => {
                let peer = known.into_mut();
                let changed = peer.state != NodeState::Alive || peer.member != member;
                peer.state = NodeState::Alive;
                peer.member = member;
                changed
            }
        };
        if changed {
            self.shared.nodes.lock().insert(node.clone(), (addr, NodeState::Alive));
            self.handler.alive(&node, &self.peers[&node].member.values);
        }
        self.dial(myself, &node);
    }

    /// Whether one more node can be known. Dead nodes are forgotten to make space.
    fn has_space(&mut self) -> bool {
        let max = self.shared.config.max_nodes;
        if self.peers.len() >= max {
            let gone = |peer: &Peer| peer.state != NodeState::Alive && peer.session.is_none();
            let mut nodes = self.shared.nodes.lock();
            self.peers.retain(|node, peer| {
                let gone = gone(peer);
                if gone {
                    nodes.remove(node);
                }
                !gone
            });
        }
        self.peers.len() < max
    }

    /// Dials this node, if it needs a link and this end has to make it.
    fn dial(&mut self, myself: &ActorRef<MeshMsg>, node: &NodeId) {
        let ours = self.shared.node < *node && !self.leaving;
        let Some(peer) = self.peers.get_mut(node).filter(|peer| ours && peer.wants_link()) else {
            return;
        };
        let stop = CancellationToken::new();
        peer.dialling = Some(stop.clone().drop_guard());
        let (shared, mesh_actor) = (self.shared.clone(), myself.clone());
        let (node, addr, attempts) = (node.clone(), peer.member.addr, peer.attempts);
        peer.attempts = attempts.saturating_add(1);
        tokio::spawn(async move {
            let dialling = until_proven(&shared, node, addr, attempts);
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = stop.cancelled() => {}
                proven = dialling => drop(mesh_actor.cast(MeshMsg::Proven(Box::new(proven)))),
            }
        });
    }

    fn on_proven(&mut self, myself: &ActorRef<MeshMsg>, proven: Proven) {
        let node = proven.proof.theirs.node.clone();
        let dialled = matches!(proven.end, End::Dialled(_));
        if dialled && let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling = None;
        }
        // The other node dials again when it is refused. It may see this node before gossip shows
        // it here, or it may be another run than the one that gossip shows.
        let expected = self.peers.get(&node).is_some_and(|peer| {
            peer.state == NodeState::Alive
                && peer.member.generation == proven.proof.theirs.generation
        });
        let right_dialler = dialled == (self.shared.node < node);
        if !expected || !right_dialler || self.leaving {
            stentor_engine::log!(debug, %node, "a link that is not wanted now");
            self.dial(myself, &node);
            return;
        }
        // The other node makes a new link only after it has given up the old one.
        self.cut(&node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match peer.session {
            Some(_) => peer.next = Some(proven),
            None => self.hand_to_node_server(myself, &node, proven),
        }
    }

    fn hand_to_node_server(&mut self, myself: &ActorRef<MeshMsg>, node: &NodeId, proven: Proven) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let number = proven.proof.mine.link;
        let cut = CancellationToken::new();
        let stream =
            LinkStream { stream: proven.stream, label: number.to_string(), cut: cut.clone() };
        let opened = NodeServerMessage::ConnectionOpenedExternal {
            stream: Box::new(stream),
            is_server: matches!(proven.end, End::Accepted),
        };
        let stage = Stage::Connecting(EarlyMessages::default());
        peer.session = Some(LinkSession { proof: proven.proof, cut, stage });
        self.links.insert(number, node.clone());
        let _ = self.server.cast(opened);
        myself.send_after(HELLO_TIMEOUT, move || MeshMsg::Overdue(number));
    }

    fn on_ready(&mut self, myself: &ActorRef<MeshMsg>, number: u64, id: ractor_cluster::NodeId) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = &mut peer.session else { return };
        let Stage::Connecting(early) = &mut session.stage else { return };
        // The node server shows the other mesh actor before it reports the link ready.
        let of_session =
            |actor: ActorId| matches!(actor, ActorId::Remote { node_id, .. } if node_id == id);
        let remote_actor = pg::get_scoped_members(&scope(&self.shared), &node.to_string())
            .into_iter()
            .find(|member| of_session(member.get_id()));
        let Some(remote_actor) = remote_actor else {
            stentor_engine::log!(warn, %node, "a node shows no mesh actor of its own");
            session.cut.cancel();
            return;
        };
        let messages = std::mem::take(early).messages;
        let link = Arc::new(Link::new(remote_actor, &session.proof, session.cut.clone()));
        session.stage = Stage::Up(link.clone());
        peer.attempts = 0;
        let info = PeerInfo { addr: peer.member.addr, generation: peer.member.generation };
        self.up_links.write().insert(node.clone(), link.clone());
        stentor_engine::log!(info, %node, addr = %info.addr, "there is a link to a node");
        self.handler.up(&node, &info);
        for message in messages {
            self.on_message(myself, &node, link.clone(), message);
        }
    }

    fn cut(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let Some(session) = &mut peer.session else { return };
        session.cut.cancel();
        if let Stage::Up(_) = std::mem::replace(&mut session.stage, Stage::Cut) {
            self.up_links.write().remove(node);
            stentor_engine::log!(info, %node, "the link to a node is gone");
            self.handler.down(node);
        }
    }

    fn on_ended(&mut self, myself: &ActorRef<MeshMsg>, number: u64) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        self.cut(&node);
        self.links.remove(&number);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.session = None;
        match peer.next.take() {
            Some(proven) if !self.leaving => self.hand_to_node_server(myself, &node, proven),
            _ => self.dial(myself, &node),
        }
        if self.leaving && self.links.is_empty() {
            myself.stop(None);
        }
    }

    fn on_overdue(&mut self, myself: &ActorRef<MeshMsg>, number: u64) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        let session = self.peers.get(&node).and_then(|peer| peer.session.as_ref());
        match session.map(|session| &session.stage) {
            Some(Stage::Connecting(_)) => {
                self.cut(&node);
                myself.send_after(CLOSE_TIMEOUT, move || MeshMsg::Overdue(number));
            }
            // The node server does not report the end of a session that it could not start.
            Some(Stage::Cut) => self.on_ended(myself, number),
            Some(Stage::Up(_)) | None => {}
        }
    }

    fn on_handled(&mut self, myself: &ActorRef<MeshMsg>) {
        if !std::mem::replace(&mut self.report_scheduled, true) {
            myself.send_after(REPORT_AFTER, || MeshMsg::ReportHandled);
        }
    }

    fn on_report_handled(&mut self) {
        self.report_scheduled = false;
        self.up().for_each(|(_, link)| link.report_handled());
    }

    fn on_check(&mut self) {
        let silent: Vec<_> = self
            .up()
            .filter(|(_, link)| link.check() > MAX_SILENT_CHECKS)
            .map(|(node, _)| node.clone())
            .collect();
        for node in silent {
            stentor_engine::log!(warn, %node, "nothing comes over the link to a node that is alive");
            self.cut(&node);
        }
    }

    fn on_cut(&mut self, node: &NodeId) {
        self.cut(node);
    }

    fn on_leave(&mut self, myself: &ActorRef<MeshMsg>) {
        self.leaving = true;
        let nodes: Vec<_> = self.peers.keys().cloned().collect();
        for node in nodes {
            self.cut(&node);
        }
        match self.links.is_empty() {
            true => myself.stop(None),
            false => drop(myself.send_after(CLOSE_TIMEOUT, || MeshMsg::Left)),
        }
    }
}
