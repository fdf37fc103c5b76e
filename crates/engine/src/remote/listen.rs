//! Tasks on other nodes, for the listens of this node.
//!
//! Only the node of a task knows its owner and its status. So this node listens there for the
//! client, and forwards the notifications.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_wire::params::Member;
use stentor_wire::{
    EncodedNotice, Id, Method, Notice, Params, Request, SubscriptionId, notification,
};
use tokio_util::task::AbortOnDropHandle;

use super::{PeerEvent, PeerRequest, PeerStream, Reach, RemoteCaller};
use crate::core::Core;
use crate::ids::NodeId;
use crate::session::Caller;
use stentor_delivery::StreamSender;
use stentor_delivery::policy::Class;
use stentor_delivery::{FrameBody, SerializedFrame};

/// What other nodes grant a listen.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) tasks: Vec<String>,
    nodes: Vec<(PeerStream, Vec<SerializedFrame>)>,
}

/// Keeps a listen subscribed to tasks on other nodes. Dropping it ends that.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Watching(Vec<AbortOnDropHandle<()>>);

/// Removes the tasks that are on other nodes from `tasks`, and listens to them there.
pub(crate) async fn watch(
    core: &Core,
    caller: &Caller,
    request: &Request,
    tasks: &mut Vec<String>,
) -> Granted {
    let (mut granted, mut nodes) = (Granted::default(), BTreeMap::<NodeId, Vec<String>>::new());
    let Some(peers) = core.peers() else { return granted };
    tasks.retain(|task| match core.reach(task) {
        Reach::Remote(node) => {
            nodes.entry(node).or_default().push(task.clone());
            false
        }
        Reach::Local | Reach::Unreachable | Reach::Dead => true,
    });
    for (node, tasks) in nodes {
        let peer_request = listen_request(caller, request, &tasks);
        let Ok(mut peer_stream) = peers.ask(&node, peer_request) else { continue };
        let acknowledged = loop {
            match peer_stream.next().await {
                Some(PeerEvent::Started { .. }) => {}
                Some(PeerEvent::Frames { frames, .. }) => break acknowledgment(frames),
                _ => break None,
            }
        };
        if let Some((tasks, rest)) = acknowledged {
            granted.tasks.extend(tasks);
            granted.nodes.push((peer_stream, rest));
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

impl Granted {
    /// From here on forwards notifications of the tasks to the client.
    pub(crate) fn tell(self, sender: &StreamSender, request: &Id) -> Option<Arc<Watching>> {
        let forward = |(peer_stream, first): (PeerStream, Vec<SerializedFrame>)| {
            let (sender, subscription) = (sender.clone(), SubscriptionId::of(request));
            AbortOnDropHandle::new(tokio::spawn(forward(peer_stream, first, sender, subscription)))
        };
        let watching: Vec<_> = self.nodes.into_iter().map(forward).collect();
        (!watching.is_empty()).then(|| Arc::new(Watching(watching)))
    }
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
