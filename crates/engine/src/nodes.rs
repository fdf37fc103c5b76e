//! The other nodes of a cluster, for what this node serves with their help. The module `remote`
//! implements this, above the code that uses it.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use stentor_delivery::StreamSender;
use stentor_wire::{Id, Request, SubscriptionId};
use tokio_util::task::AbortOnDropHandle;

use crate::call::Target;
use crate::caller::Caller;
use crate::ids::NodeId;

/// Where to ask for something that a node gave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On this node, which gave it out, or has taken the place of the node that did.
    Local,
    /// On this other node.
    Remote(NodeId),
    /// The node exists, but cannot be reached now.
    Unreachable,
    /// The node does not exist any more.
    Dead,
}

/// The other nodes. Without a cluster there are none: everything is local.
pub(crate) trait OtherNodes: fmt::Debug + Send + Sync {
    /// Where to ask for something whose id begins with the name of its node.
    fn reach(&self, id: &str) -> Reach;

    /// The call of an item that only these nodes have.
    fn call(&self, nodes: Vec<NodeId>, caller: &Caller, request: &Request, subject: &str)
    -> Target;

    /// Removes the tasks that are on other nodes from `tasks`, and listens to them there.
    fn listen<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Request,
        tasks: &'a mut Vec<String>,
    ) -> BoxFuture<'a, RemoteTasks>;
}

/// Forwards notices of tasks on another node to the stream of a listen.
pub(crate) type Forward =
    Box<dyn FnOnce(StreamSender, SubscriptionId) -> BoxFuture<'static, ()> + Send>;

/// The tasks that other nodes grant a listen.
#[derive(Default)]
pub(crate) struct RemoteTasks {
    pub(crate) ids: Vec<String>,
    pub(crate) forwards: Vec<Forward>,
}

/// Keeps a listen subscribed to tasks on other nodes. Dropping it ends that.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Forwarding(Vec<AbortOnDropHandle<()>>);

impl RemoteTasks {
    /// From here on forwards notices of the tasks to the client.
    pub(crate) fn forward(self, sender: &StreamSender, request: &Id) -> Option<Arc<Forwarding>> {
        let begin = |forward: Forward| {
            let forwarding = forward(sender.clone(), SubscriptionId::of(request));
            AbortOnDropHandle::new(tokio::spawn(forwarding))
        };
        let forwarding: Vec<_> = self.forwards.into_iter().map(begin).collect();
        (!forwarding.is_empty()).then(|| Arc::new(Forwarding(forwarding)))
    }
}
