//! Topics on other nodes, for the listens of this node.
//!
//! Only the node that gave a topic's key out knows who may receive it, and its state. So this node
//! listens there for the client, and forwards the notifications.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_delivery::policy::Class;
use stentor_delivery::{FrameBody, SerializedFrame, StreamSender};
use stentor_wire::params::{Member, NoticeFilter};
use stentor_wire::{
    EncodedNotice, KeyKind, Method, Notice, Params, Request, SubscriptionId, Topic,
};

use super::{PeerEvent, PeerNodes, PeerRequest, PeerStream};
use crate::caller::{Caller, RemoteCaller};
use crate::ids::NodeId;
use crate::nodes::{Forward, Reach, RemoteTopics};

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
        let Ok(mut peer_stream) = peers.ask(&node, peer_request) else { continue };
        let acknowledged = loop {
            match peer_stream.next().await {
                Some(PeerEvent::Started { .. }) => {}
                Some(PeerEvent::Frames { frames, .. }) => break acknowledgment(frames, kind),
                _ => break None,
            }
        };
        if let Some((keys, first)) = acknowledged {
            granted.keys.extend(keys);
            let forward: Forward = Box::new(move |sender, subscription| {
                Box::pin(forward(peer_stream, first, kind, sender, subscription))
            });
            granted.forwards.push(forward);
        }
    }
    granted
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

async fn forward(
    mut peer_stream: PeerStream,
    first: Vec<SerializedFrame>,
    kind: KeyKind,
    sender: StreamSender,
    subscription: SubscriptionId,
) {
    // Notifications arrive in order, so a counter shows which one is newer.
    let mut version = 0;
    let mut notify = |frame: SerializedFrame| {
        if let Some((topic, state)) = parse_state(&frame, kind) {
            version += 1;
            let notice = Notice::State { topic, version, state };
            let class = Class::of(&notice);
            let notice = Arc::new(EncodedNotice::new(notice));
            sender.notice(class, notice, Some(subscription.clone()));
        }
    };
    first.into_iter().for_each(&mut notify);
    while let Some(PeerEvent::Frames { frames, .. }) = peer_stream.next().await {
        frames.into_iter().for_each(&mut notify);
    }
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
