//! Tasks on other nodes, for the listens of this node.
//!
//! Only the node of a task knows its owner and its status. So this node listens there for the
//! client, and forwards the notifications.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_delivery::policy::Class;
use stentor_delivery::{FrameBody, SerializedFrame, StreamSender};
use stentor_wire::params::Member;
use stentor_wire::{EncodedNotice, Method, Notice, Params, Request, SubscriptionId, notification};

use super::{PeerEvent, PeerNodes, PeerRequest, PeerStream};
use crate::caller::{Caller, RemoteCaller};
use crate::ids::NodeId;
use crate::nodes::{Forward, Reach, RemoteTasks};

/// Removes the tasks that are on other nodes from `tasks`, and listens to them there.
pub(super) async fn listen(
    nodes: &PeerNodes,
    caller: &Caller,
    request: &Request,
    tasks: &mut Vec<String>,
) -> RemoteTasks {
    let (mut granted, mut by_node) = (RemoteTasks::default(), BTreeMap::<NodeId, Vec<_>>::new());
    let Some(peers) = nodes.peers() else { return granted };
    tasks.retain(|task| match nodes.reach_id(task) {
        Reach::Remote(node) => {
            by_node.entry(node).or_default().push(task.clone());
            false
        }
        Reach::Local | Reach::Unreachable | Reach::Dead => true,
    });
    for (node, tasks) in by_node {
        let peer_request = listen_request(caller, request, &tasks);
        let Ok(mut peer_stream) = peers.ask(&node, peer_request) else { continue };
        let acknowledged = loop {
            match peer_stream.next().await {
                Some(PeerEvent::Started { .. }) => {}
                Some(PeerEvent::Frames { frames, .. }) => break acknowledgment(frames),
                _ => break None,
            }
        };
        if let Some((tasks, first)) = acknowledged {
            granted.ids.extend(tasks);
            let forward: Forward = Box::new(move |sender, subscription| {
                Box::pin(forward(peer_stream, first, sender, subscription))
            });
            granted.forwards.push(forward);
        }
    }
    granted
}

fn listen_request(caller: &Caller, request: &Request, tasks: &[String]) -> PeerRequest {
    let tasks = serde_json::json!({"taskIds": tasks});
    // It was read without an error before.
    let meta = request.params.member(Member::Meta).ok().flatten().unwrap_or("{}");
    let params = Params::from_json(format!(r#"{{"notifications":{tasks},"_meta":{meta}}}"#));
    let (id, method, meta) = (request.id.clone(), Method::Listen, request.meta.clone());
    let request = Request { id, method, params, meta };
    let sender = Box::new(RemoteCaller::from(caller));
    PeerRequest::Request { sender, request: request.encode() }
}

/// The tasks that the first message grants, and the frames after it.
fn acknowledgment(mut frames: Vec<SerializedFrame>) -> Option<(Vec<String>, Vec<SerializedFrame>)> {
    #[derive(Deserialize)]
    struct Acknowledged {
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        notifications: Notifications,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Notifications {
        #[serde(default)]
        task_ids: Vec<String>,
    }
    if frames.is_empty() {
        return None;
    }
    let FrameBody::Message(message) = frames.remove(0).body else { return None };
    let Acknowledged { params } = serde_json::from_slice(&message).ok()?;
    Some((params.notifications.task_ids, frames))
}

async fn forward(
    mut peer_stream: PeerStream,
    first: Vec<SerializedFrame>,
    sender: StreamSender,
    subscription: SubscriptionId,
) {
    // Notifications arrive in order, so a counter shows which one is newer.
    let mut version = 0;
    let mut notify = |frame: SerializedFrame| {
        if let Some((id, task)) = parse_task(&frame) {
            version += 1;
            let notice = Arc::new(EncodedNotice::new(Notice::Task { id, version, task }));
            sender.notice(Class::Task, notice, Some(subscription.clone()));
        }
    };
    first.into_iter().for_each(&mut notify);
    while let Some(PeerEvent::Frames { frames, .. }) = peer_stream.next().await {
        frames.into_iter().for_each(&mut notify);
    }
}

fn parse_task(frame: &SerializedFrame) -> Option<(Arc<str>, bytes::Bytes)> {
    #[derive(Deserialize)]
    struct TaskNotification {
        method: String,
        params: Map<String, Value>,
    }
    let FrameBody::Message(message) = &frame.body else { return None };
    let TaskNotification { method, mut params } = serde_json::from_slice(message).ok()?;
    if method != notification::TASKS {
        return None;
    }
    // The notice gets the same `_meta` again.
    params.remove("_meta");
    let id = params.get("taskId")?.as_str()?.into();
    Some((id, serde_json::to_vec(&params).ok()?.into()))
}
