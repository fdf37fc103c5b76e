//! The other nodes of a cluster, for what this node serves with their help. The module `remote`
//! implements this, above the code that uses it.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use stentor_delivery::StreamSender;
use stentor_wire::{ErrorObject, Id, KeyKind, Request, SubscriptionId};
use tokio_util::task::AbortOnDropHandle;

use crate::call::Target;
use crate::caller::Caller;
use crate::ids::NodeId;
use crate::notice_stream::Begin;

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

    /// Opens a stream of an extension on one of these nodes.
    fn open_stream(
        &self,
        nodes: Vec<NodeId>,
        caller: &Caller,
        request: &Request,
    ) -> BoxFuture<'static, Result<Begin, ErrorObject>>;

    /// Removes the keys that other nodes gave out from `keys`, and listens to their topics there.
    fn listen<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Request,
        kind: KeyKind,
        keys: &'a mut Vec<Arc<str>>,
    ) -> BoxFuture<'a, RemoteTopics>;
}

/// Forwards notices of topics on another node to the stream of a listen.
pub(crate) type Forward =
    Box<dyn FnOnce(StreamSender, SubscriptionId) -> BoxFuture<'static, ()> + Send>;

/// The topics of one kind that other nodes grant a listen.
#[derive(Default)]
pub(crate) struct RemoteTopics {
    pub(crate) keys: Vec<Arc<str>>,
    pub(crate) forwards: Vec<Forward>,
}

/// Keeps a listen subscribed to topics on other nodes. Dropping it ends that.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
pub(crate) struct Forwarding(Vec<AbortOnDropHandle<()>>);

impl Forwarding {
    /// From here on forwards notices to the client of the listen.
    pub(crate) fn begin(
        forwards: Vec<Forward>,
        sender: &StreamSender,
        request: &Id,
    ) -> Option<Arc<Self>> {
        let begin = |forward: Forward| {
            let forwarding = forward(sender.clone(), SubscriptionId::of(request));
            AbortOnDropHandle::new(tokio::spawn(forwarding))
        };
        let forwarding: Vec<_> = forwards.into_iter().map(begin).collect();
        (!forwarding.is_empty()).then(|| Arc::new(Self(forwarding)))
    }
}
