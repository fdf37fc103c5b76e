//! Topics on other nodes, for the listens of this node.
//!
//! Only the node that gave a topic's key out knows who may receive it, and its state. So this node
//! listens there for the client, and forwards the notifications.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_delivery::policy::Class;
use stentor_delivery::{FrameBody, SerializedFrame, StreamSender};
use stentor_wire::params::{Member, NoticeFilter};
use stentor_wire::{
    EncodedNotice, KeyKind, Method, Notice, Params, Request, SubscriptionId, Topic,
};
use tokio::time::sleep;

use super::{PeerEvent, PeerNodes, PeerRequest, PeerStream, Peers};
use crate::caller::{Caller, RemoteCaller};
use crate::ids::NodeId;
use crate::nodes::{Forward, Reach, RemoteTopics};

/// The pause before a listen on a node that was lost begins again.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Removes the keys that other nodes gave out from `keys`, and listens to their topics there.
pub(super) async fn listen(
    nodes: &PeerNodes,
    caller: &Caller,
    request: &Request,
    kind: KeyKind,
    keys: &mut Vec<Arc<str>>,
) -> RemoteTopics {
    let (mut granted, mut by_node) = (RemoteTopics::default(), BTreeMap::<NodeId, Vec<_>>::new());
    let Some(peers) = nodes.peers() else { return granted };
    keys.retain(|key| match nodes.reach_id(key) {
        Reach::Remote(node) => {
            by_node.entry(node).or_default().push(key.clone());
            false
        }
        Reach::Local | Reach::Unreachable | Reach::Dead => true,
    });
    for (node, keys) in by_node {
        let peer_request = listen_request(caller, request, kind, &keys);
        let listen = RemoteListen { peers: Arc::clone(&*peers), node, peer_request, kind };
        if let Begun::Granted(granting) = listen.begin().await {
            granted.keys.extend(granting.keys.iter().cloned());
            let forward: Forward = Box::new(move |sender, subscription| {
                Box::pin(listen.forward(granting, sender, subscription))
            });
            granted.forwards.push(forward);
        }
    }
    granted
}

/// A listen of this node on another one.
struct RemoteListen {
    peers: Arc<dyn Peers>,
    node: NodeId,
    peer_request: PeerRequest,
    kind: KeyKind,
}

/// How the other node answers.
enum Begun {
    Granted(Granting),
    Refused,
    /// The node cannot be reached, or was lost before it answered.
    Lost,
}

/// What the other node grants.
struct Granting {
    keys: Vec<Arc<str>>,
    /// The frames that came with the acknowledgment.
    first: Vec<SerializedFrame>,
    peer_stream: PeerStream,
}

impl RemoteListen {
    async fn begin(&self) -> Begun {
        let Ok(mut peer_stream) = self.peers.ask(&self.node, self.peer_request.clone()) else {
            return Begun::Lost;
        };
        loop {
            match peer_stream.next().await {
                Some(PeerEvent::Started { .. }) => {}
                Some(PeerEvent::Frames { frames, .. }) => {
                    return match acknowledgment(frames, self.kind) {
                        Some((keys, first)) if !keys.is_empty() => {
                            Begun::Granted(Granting { keys, first, peer_stream })
                        }
                        _ => Begun::Refused,
                    };
                }
                Some(_) => return Begun::Refused,
                None => return Begun::Lost,
            }
        }
    }

    /// Forwards notifications of the topics to the client. When the link to the node is lost, listens
    /// again as soon as the node can be reached; it begins with the states as they are then. Ends
    /// with the other node's listen, or when the node does not exist any more.
    async fn forward(self, granting: Granting, sender: StreamSender, id: SubscriptionId) {
        // Notifications arrive in order, so a counter shows which one is newer.
        let (mut version, mut next) = (0, Begun::Granted(granting));
        loop {
            match next {
                Begun::Granted(Granting { first, mut peer_stream, .. }) => {
                    let (mut frames, mut last) = (first, false);
                    loop {
                        for (topic, state) in
                            frames.iter().filter_map(|it| parse_state(it, self.kind))
                        {
                            version += 1;
                            let notice = Notice::State { topic, version, state };
                            let class = Class::of(&notice);
                            let notice = Arc::new(EncodedNotice::new(notice));
                            sender.notice(class, notice, Some(id.clone()));
                        }
                        if last {
                            return;
                        }
                        match peer_stream.next().await {
                            Some(PeerEvent::Frames { frames: more, last: ends, .. }) => {
                                (frames, last) = (more, ends);
                            }
                            Some(_) => return,
                            None => break,
                        }
                    }
                }
                Begun::Refused => return,
                Begun::Lost => {}
            }
            if self.peers.reach(&self.node) == Reach::Dead {
                return;
            }
            sleep(LISTEN_AGAIN_AFTER).await;
            next = self.begin().await;
        }
    }
}

fn listen_request(
    caller: &Caller,
    request: &Request,
    kind: KeyKind,
    keys: &[Arc<str>],
) -> PeerRequest {
    let asked = serde_json::json!({ (kind.rules().member): keys });
    // It was read without an error before.
    let meta = request.params.member(Member::Meta).ok().flatten().unwrap_or("{}");
    let params = Params::from_json(format!(r#"{{"notifications":{asked},"_meta":{meta}}}"#));
    let (id, method, meta) = (request.id.clone(), Method::Listen, request.meta.clone());
    let request = Request { id, method, params, meta };
    let sender = Box::new(RemoteCaller::from(caller));
    PeerRequest::Request { sender, request: request.encode() }
}

/// The keys that the first message grants, and the frames after it.
fn acknowledgment(
    mut frames: Vec<SerializedFrame>,
    kind: KeyKind,
) -> Option<(Vec<Arc<str>>, Vec<SerializedFrame>)> {
    #[derive(Deserialize)]
    struct Acknowledged {
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        notifications: NoticeFilter,
    }
    if frames.is_empty() {
        return None;
    }
    let FrameBody::Message(message) = frames.remove(0).body else { return None };
    let Acknowledged { params } = serde_json::from_slice(&message).ok()?;
    Some((params.notifications.keys(kind).to_vec(), frames))
}

fn parse_state(frame: &SerializedFrame, kind: KeyKind) -> Option<(Topic, bytes::Bytes)> {
    #[derive(Deserialize)]
    struct Notification {
        method: String,
        params: Map<String, Value>,
    }
    let FrameBody::Message(message) = &frame.body else { return None };
    let Notification { method, mut params } = serde_json::from_slice(message).ok()?;
    if method != kind.rules().method {
        return None;
    }
    // The notice gets the same `_meta` again.
    params.remove("_meta");
    let key = params.get(kind.rules().param)?.as_str()?.into();
    Some((kind.topic(key), serde_json::to_vec(&params).ok()?.into()))
}
