//! **Owns** what is known of each other node, and the link to it.
//! **Receives** what gossip sees, new links, the ends of old ones, and what other relays send:
//! it is the one actor of a node whose messages travel.
//! **Sends** what happens to the handler, in its order, and to other relays what was handled.
//! **Dies when** the node leaves, the node server failed, or a bug panics.
//! **Restarts as** nothing: the mesh stops, and others see this node dead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent, pg};
use ractor_cluster::NodeServerMessage;
use stentor_engine::NodeId;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gossip::Member;
use super::hello::{End, PATIENCE};
use super::link::{Link, LinkStream, Proven, Receipt, until_proven};
use super::peer::{Early, Peer, Session, Stage};
use super::wire::Parcel;
use super::{MeshHandler, NodeState, PeerInfo, Shared, node_server};

/// How long the other node may not know that something was handled.
const TELL_AFTER: Duration = Duration::from_millis(10);
/// Links are looked at as often as a silent node is given up, and cut when they were silent so
/// often: a large frame may be long on its way.
const SILENT: u32 = 4;
/// How long cut links may take to end.
const PARTING: Duration = Duration::from_secs(1);

pub(crate) enum RelayMsg {
    /// From another relay.
    Parcel(Bytes),
    /// All nodes that gossip sees alive.
    Members(HashMap<NodeId, Member>),
    Proven(Box<Proven>),
    /// The node server has made this link ready: its session has this number there.
    Ready(u64, ractor_cluster::NodeId),
    Ended(u64),
    /// This link had time enough to become ready.
    Overdue(u64),
    /// Something was handled that another node does not know of.
    Handled,
    /// Others should know now what was handled.
    Tell,
    /// It is time to look at all links.
    Check,
    Cut(NodeId),
    Leave,
    /// Cut links had time enough to end.
    Left,
}

impl ractor::Message for RelayMsg {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        match self {
            Self::Parcel(bytes) => Ok(SerializedMessage::Cast {
                variant: String::new(),
                args: bytes.into(),
                metadata: None,
            }),
            _ => Err(BoxedDowncastErr),
        }
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self::Parcel(args.into())),
            _ => Err(BoxedDowncastErr),
        }
    }
}

/// Where relays are listed, so that the node servers show them to each other: each in a group
/// with the name of its node.
const SCOPE: &str = "stentor/";

fn scope(shared: &Shared) -> String {
    format!("{SCOPE}{}", shared.config.cluster)
}

/// Whether there is a relay in this process.
pub(crate) fn exists() -> bool {
    let ours = |scope: &str| scope.starts_with(SCOPE);
    pg::which_scopes_and_groups().into_iter().any(|key| {
        let (scope, group) = (key.get_scope(), key.get_group());
        ours(&scope) && !pg::get_scoped_local_members(&scope, &group).is_empty()
    })
}

pub(crate) struct RelayArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handler: Arc<dyn MeshHandler>,
}

pub(crate) struct RelayState {
    shared: Arc<Shared>,
    handler: Arc<dyn MeshHandler>,
    server: ActorRef<NodeServerMessage>,
    peers: HashMap<NodeId, Peer>,
    /// Whose link has which number here.
    links: HashMap<u64, NodeId>,
    /// Others will be told what was handled.
    to_tell: bool,
    leaving: bool,
    /// With the relay ends everything.
    _stop: DropGuard,
}

pub(crate) struct RelayActor;

impl Actor for RelayActor {
    type Msg = RelayMsg;
    type State = RelayState;
    type Arguments = RelayArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<RelayMsg>,
        RelayArgs { shared, handler }: RelayArgs,
    ) -> Result<RelayState, ActorProcessingErr> {
        // Before the node server begins: it shows a new node the groups that there are.
        pg::join_scoped(scope(&shared), shared.node.to_string(), vec![myself.get_cell()]);
        let server = node_server::start(&shared, &myself).await?;
        myself.send_interval(shared.config.give_up_after, || RelayMsg::Check);
        Ok(RelayState {
            _stop: shared.stop.clone().drop_guard(),
            shared,
            handler,
            server,
            peers: HashMap::new(),
            links: HashMap::new(),
            to_tell: false,
            leaving: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RelayMsg>,
        message: RelayMsg,
        state: &mut RelayState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RelayMsg::Parcel(bytes) => state.on_parcel(&myself, bytes),
            RelayMsg::Members(members) => state.on_members(&myself, members),
            RelayMsg::Proven(proven) => state.on_proven(&myself, *proven),
            RelayMsg::Ready(link, session) => state.on_ready(&myself, link, session),
            RelayMsg::Ended(link) => state.on_ended(&myself, link),
            RelayMsg::Overdue(link) => state.on_overdue(&myself, link),
            RelayMsg::Handled => state.on_handled(&myself),
            RelayMsg::Tell => state.on_tell(),
            RelayMsg::Check => state.on_check(),
            RelayMsg::Cut(node) => state.on_cut(&node),
            RelayMsg::Leave => state.on_leave(&myself),
            RelayMsg::Left => myself.stop(None),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<RelayMsg>,
        event: SupervisionEvent,
        state: &mut RelayState,
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

impl RelayState {
    fn on_parcel(&mut self, myself: &ActorRef<RelayMsg>, bytes: Bytes) {
        let Some(parcel) = Parcel::decode(bytes) else {
            stentor_engine::log!(warn, "ignored what another version of a node sent");
            return;
        };
        // Of a link that is no more, or of somebody who does not know its number.
        let Some(node) = self.links.get(&parcel.link).cloned() else { return };
        let session = self.peers.get_mut(&node).and_then(|peer| peer.session.as_mut());
        match session.map(|session| &mut session.stage) {
            Some(Stage::Early(early)) => {
                if !early.push(parcel, self.shared.config.max_in_flight) {
                    self.cut_off(&node);
                }
            }
            Some(Stage::Up(link)) => {
                let link = link.clone();
                self.take(myself, &node, link, parcel);
            }
            Some(Stage::Cut) | None => {}
        }
    }

    /// A node that sends more than it may is no node to talk to just now.
    fn cut_off(&mut self, node: &NodeId) {
        stentor_engine::log!(error, %node, "a node sends more than it was given room for");
        self.cut(node);
    }

    /// Takes what came over a link that is up.
    fn take(
        &mut self,
        myself: &ActorRef<RelayMsg>,
        node: &NodeId,
        link: Arc<Link>,
        parcel: Parcel,
    ) {
        if link.handled_there(parcel.handled) {
            self.handler.room(node);
        }
        let Some(frame) = parcel.frame else { return };
        if !link.came(frame.len()) {
            return self.cut_off(node);
        }
        let receipt = Receipt { link, bytes: frame.len(), relay: myself.clone() };
        self.handler.frame(node, frame, receipt);
    }

    /// All links that are up.
    fn up(&self) -> impl Iterator<Item = (&NodeId, &Link)> {
        self.peers.iter().filter_map(|(node, peer)| match &peer.session {
            Some(Session { stage: Stage::Up(link), .. }) => Some((node, &**link)),
            _ => None,
        })
    }

    fn on_members(&mut self, myself: &ActorRef<RelayMsg>, members: HashMap<NodeId, Member>) {
        let alive = |(_, peer): &(&NodeId, &Peer)| peer.state == NodeState::Alive;
        let lost: Vec<_> = self
            .peers
            .iter()
            .filter(alive)
            .filter_map(|(node, peer)| match members.get(node) {
                Some(member) if member.left => Some((node.clone(), NodeState::Left)),
                Some(member) if member.generation == peer.member.generation => None,
                // Not seen, or another run of the node, for which this one must be over first.
                _ => Some((node.clone(), NodeState::Dead)),
            })
            .collect();
        for (node, state) in lost {
            self.lose(&node, state);
        }
        for (node, member) in members {
            if !member.left {
                self.see(myself, node, member);
            }
        }
    }

    /// This node is no more.
    fn lose(&mut self, node: &NodeId, state: NodeState) {
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

    /// This node is there.
    fn see(&mut self, myself: &ActorRef<RelayMsg>, node: NodeId, member: Member) {
        if !self.peers.contains_key(&node) && !self.has_room() {
            stentor_engine::log!(warn, %node, "ignored a node: there are as many as may be");
            return;
        }
        let addr = member.addr;
        let news = match self.peers.entry(node.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Peer::new(member));
                true
            }
            Entry::Occupied(known) => {
                let peer = known.into_mut();
                let news = peer.state != NodeState::Alive || peer.member != member;
                peer.state = NodeState::Alive;
                peer.member = member;
                news
            }
        };
        if news {
            self.shared.nodes.lock().insert(node.clone(), (addr, NodeState::Alive));
            self.handler.alive(&node, &self.peers[&node].member.said);
        }
        self.dial(myself, &node);
    }

    /// Whether one more node can be known. Those that are gone make room.
    fn has_room(&mut self) -> bool {
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

    /// Makes a link to this node, if there is to be one and it is for this node to make it.
    fn dial(&mut self, myself: &ActorRef<RelayMsg>, node: &NodeId) {
        let ours = self.shared.node < *node && !self.leaving;
        let Some(peer) = self.peers.get_mut(node).filter(|peer| ours && peer.wants_link()) else {
            return;
        };
        let stop = CancellationToken::new();
        peer.dialling = Some(stop.clone().drop_guard());
        let (shared, relay) = (self.shared.clone(), myself.clone());
        let (node, addr, attempts) = (node.clone(), peer.member.addr, peer.attempts);
        peer.attempts = attempts.saturating_add(1);
        tokio::spawn(async move {
            let dialling = until_proven(&shared, node, addr, attempts);
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = stop.cancelled() => {}
                proven = dialling => drop(relay.cast(RelayMsg::Proven(Box::new(proven)))),
            }
        });
    }

    fn on_proven(&mut self, myself: &ActorRef<RelayMsg>, proven: Proven) {
        let node = proven.proof.theirs.node.clone();
        let dialled = matches!(proven.end, End::Dialled(_));
        if dialled && let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling = None;
        }
        // The other node dials again. It may see this one before it is seen here, or be
        // another run of the node that gossip tells of.
        let expected = self.peers.get(&node).is_some_and(|peer| {
            peer.state == NodeState::Alive
                && peer.member.generation == proven.proof.theirs.generation
        });
        let whose = dialled == (self.shared.node < node);
        if !expected || !whose || self.leaving {
            stentor_engine::log!(debug, %node, "a link that is not wanted now");
            self.dial(myself, &node);
            return;
        }
        // The other node has given up the link that there is, or it would not make a new one.
        self.cut(&node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match peer.session {
            Some(_) => peer.next = Some(proven),
            None => self.hand_over(myself, &node, proven),
        }
    }

    /// Gives a connection into the care of the node server.
    fn hand_over(&mut self, myself: &ActorRef<RelayMsg>, node: &NodeId, proven: Proven) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let number = proven.proof.mine.link;
        let cut = CancellationToken::new();
        let stream =
            LinkStream { stream: proven.stream, label: number.to_string(), cut: cut.clone() };
        let opened = NodeServerMessage::ConnectionOpenedExternal {
            stream: Box::new(stream),
            is_server: matches!(proven.end, End::Accepted),
        };
        let stage = Stage::Early(Early::default());
        peer.session = Some(Session { proof: proven.proof, cut, stage });
        self.links.insert(number, node.clone());
        let _ = self.server.cast(opened);
        myself.send_after(PATIENCE, move || RelayMsg::Overdue(number));
    }

    fn on_ready(&mut self, myself: &ActorRef<RelayMsg>, number: u64, id: ractor_cluster::NodeId) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(session) = &mut peer.session else { return };
        let Stage::Early(early) = &mut session.stage else { return };
        // Its relay was shown before the node server was ready.
        let of_session =
            |actor: ActorId| matches!(actor, ActorId::Remote { node_id, .. } if node_id == id);
        let relay = pg::get_scoped_members(&scope(&self.shared), &node.to_string())
            .into_iter()
            .find(|member| of_session(member.get_id()));
        let Some(relay) = relay else {
            stentor_engine::log!(warn, %node, "a node shows no relay of its own");
            session.cut.cancel();
            return;
        };
        let parcels = std::mem::take(early).parcels;
        let link = Arc::new(Link::new(relay, &session.proof, session.cut.clone()));
        session.stage = Stage::Up(link.clone());
        peer.attempts = 0;
        let info = PeerInfo { addr: peer.member.addr, generation: peer.member.generation };
        self.shared.links.write().insert(node.clone(), link.clone());
        stentor_engine::log!(info, %node, addr = %info.addr, "there is a link to a node");
        self.handler.up(&node, &info);
        for parcel in parcels {
            self.take(myself, &node, link.clone(), parcel);
        }
    }

    /// Cuts the link to this node, if there is one.
    fn cut(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let Some(session) = &mut peer.session else { return };
        session.cut.cancel();
        if let Stage::Up(_) = std::mem::replace(&mut session.stage, Stage::Cut) {
            self.shared.links.write().remove(node);
            stentor_engine::log!(info, %node, "the link to a node is gone");
            self.handler.down(node);
        }
    }

    fn on_ended(&mut self, myself: &ActorRef<RelayMsg>, number: u64) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        self.cut(&node);
        self.links.remove(&number);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.session = None;
        match peer.next.take() {
            Some(proven) if !self.leaving => self.hand_over(myself, &node, proven),
            _ => self.dial(myself, &node),
        }
        if self.leaving && self.links.is_empty() {
            myself.stop(None);
        }
    }

    fn on_overdue(&mut self, myself: &ActorRef<RelayMsg>, number: u64) {
        let Some(node) = self.links.get(&number).cloned() else { return };
        let session = self.peers.get(&node).and_then(|peer| peer.session.as_ref());
        match session.map(|session| &session.stage) {
            Some(Stage::Early(_)) => {
                self.cut(&node);
                myself.send_after(PARTING, move || RelayMsg::Overdue(number));
            }
            // The node server does not tell of a session that it could not even begin.
            Some(Stage::Cut) => self.on_ended(myself, number),
            Some(Stage::Up(_)) | None => {}
        }
    }

    fn on_handled(&mut self, myself: &ActorRef<RelayMsg>) {
        if !std::mem::replace(&mut self.to_tell, true) {
            myself.send_after(TELL_AFTER, || RelayMsg::Tell);
        }
    }

    fn on_tell(&mut self) {
        self.to_tell = false;
        self.up().for_each(|(_, link)| link.tell());
    }

    fn on_check(&mut self) {
        let silent: Vec<_> = self
            .up()
            .filter(|(_, link)| link.check() > SILENT)
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

    fn on_leave(&mut self, myself: &ActorRef<RelayMsg>) {
        self.leaving = true;
        let nodes: Vec<_> = self.peers.keys().cloned().collect();
        for node in nodes {
            self.cut(&node);
        }
        match self.links.is_empty() {
            true => myself.stop(None),
            false => drop(myself.send_after(PARTING, || RelayMsg::Left)),
        }
    }
}
