//! Tasks of other nodes that a listen of this one hears of.
//!
//! The node of a task knows whose it is and how it is; so it is listened to there, on the client's
//! behalf, and what it says is told here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_wire::params::Member;
use stentor_wire::{
    EncodedNotice, Id, Method, Notice, Params, Request, SubscriptionId, notification,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Conversation, Errand, Reach, Said, Sender, Spoken, What};
use crate::core::Core;
use crate::ids::NodeId;
use crate::outlet::Outlet;
use crate::outlet::policy::Class;
use crate::session::Caller;

/// What other nodes grant a listen.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// The tasks.
    pub(crate) tasks: Vec<String>,
    nodes: Vec<(Conversation, Vec<Spoken>)>,
}

/// Keeps a listen hearing of tasks elsewhere; dropping it ends that.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Watching(Vec<AbortOnDropHandle<()>>);

/// Takes the tasks out that are on other nodes, and listens to those there.
pub(crate) async fn watch(
    core: &Core,
    caller: &Caller,
    request: &Request,
    tasks: &mut Vec<String>,
) -> Granted {
    let (mut granted, mut nodes) = (Granted::default(), BTreeMap::<NodeId, Vec<String>>::new());
    let Some(peers) = core.peers() else { return granted };
    tasks.retain(|task| match core.reach(task) {
        Reach::There(node) => {
            nodes.entry(node).or_default().push(task.clone());
            false
        }
        Reach::Here | Reach::Away | Reach::Gone => true,
    });
    for (node, tasks) in nodes {
        let errand = listen(caller, request, &tasks);
        let Ok(mut conversation) = peers.ask(&node, errand) else { continue };
        let acknowledged = loop {
            match conversation.next().await {
                Some(Said::Began { .. }) => {}
                Some(Said::Frames { frames, .. }) => break acknowledgment(frames),
                _ => break None,
            }
        };
        if let Some((tasks, rest)) = acknowledged {
            granted.tasks.extend(tasks);
            granted.nodes.push((conversation, rest));
        }
    }
    granted
}

/// A listen to nothing but these tasks.
fn listen(caller: &Caller, request: &Request, tasks: &[String]) -> Errand {
    let tasks = serde_json::json!({"taskIds": tasks});
    // It was read before.
    let meta = request.params.member(Member::Meta).ok().flatten().unwrap_or("{}");
    let params = Params::from_json(format!(r#"{{"notifications":{tasks},"_meta":{meta}}}"#));
    let (id, method, meta) = (request.id.clone(), Method::Listen, request.meta.clone());
    let request = Request { id, method, params, meta };
    let sender = Box::new(Sender::from(caller));
    Errand::Request { sender, request: request.encode() }
}

/// What the first message says is granted, and what follows it.
fn acknowledgment(mut frames: Vec<Spoken>) -> Option<(Vec<String>, Vec<Spoken>)> {
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
    let What::Message(message) = frames.remove(0).what else { return None };
    let Acknowledged { params } = serde_json::from_slice(&message).ok()?;
    Some((params.notifications.task_ids, frames))
}

impl Granted {
    /// Tells from here on what is heard of the tasks.
    pub(crate) fn tell(self, outlet: &Outlet, request: &Id) -> Option<Arc<Watching>> {
        let pass_on = |(conversation, heard): (Conversation, Vec<Spoken>)| {
            let (outlet, subscription) = (outlet.clone(), SubscriptionId::of(request));
            AbortOnDropHandle::new(tokio::spawn(pass_on(conversation, heard, outlet, subscription)))
        };
        let watching: Vec<_> = self.nodes.into_iter().map(pass_on).collect();
        (!watching.is_empty()).then(|| Arc::new(Watching(watching)))
    }
}

async fn pass_on(
    mut conversation: Conversation,
    heard: Vec<Spoken>,
    outlet: Outlet,
    subscription: SubscriptionId,
) {
    // They come in their order: which is newer is clear.
    let mut version = 0;
    let mut tell = |spoken: Spoken| {
        if let Some((id, task)) = task(&spoken) {
            version += 1;
            let notice = Arc::new(EncodedNotice::new(Notice::Task { id, version, task }));
            outlet.notice(Class::Task, notice, Some(subscription.clone()));
        }
    };
    heard.into_iter().for_each(&mut tell);
    while let Some(Said::Frames { frames, .. }) = conversation.next().await {
        frames.into_iter().for_each(&mut tell);
    }
}

/// How a task is, as a notification says.
fn task(spoken: &Spoken) -> Option<(Arc<str>, bytes::Bytes)> {
    #[derive(Deserialize)]
    struct Told {
        method: String,
        params: Map<String, Value>,
    }
    let What::Message(message) = &spoken.what else { return None };
    let Told { method, mut params } = serde_json::from_slice(message).ok()?;
    if method != notification::TASKS {
        return None;
    }
    // It gets the same again.
    params.remove("_meta");
    let id = params.get("taskId")?.as_str()?.into();
    Some((id, serde_json::to_vec(&params).ok()?.into()))
}
