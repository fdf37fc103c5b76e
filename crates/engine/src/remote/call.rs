//! Calls whose code is on another node: to their client they are calls like any other. This implements
//! `OtherNodes`, by which lower modules ask for them.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use stentor_delivery::policy::Class;
use stentor_delivery::{Frame, FrameBody};
use stentor_wire::{ErrorObject, KeyKind, Message, Request, Response, params};

use super::{PeerEvent, PeerNodes, PeerRequest, PeerStream, Peers, listen, stream};
use crate::call::{Failure, Target};
use crate::caller::{Caller, RemoteCaller};
use crate::handler::Context;
use crate::ids::NodeId;
use crate::nodes::{OtherNodes, Reach, RemoteTopics};
use crate::notice_stream::Begin;
use crate::spans;

/// The response of a remote call, encoded for its client, and its error code if it is an error.
type Encoded = (Bytes, Option<i32>);

impl OtherNodes for PeerNodes {
    fn reach(&self, id: &str) -> Reach {
        self.reach_id(id)
    }

    fn call(
        &self,
        nodes: Vec<NodeId>,
        caller: &Caller,
        request: &Request,
        subject: &str,
    ) -> Target {
        let peers = self.peers();
        let mut sender = Box::new(RemoteCaller::from(caller));
        let request = request.encode();
        let name: Arc<str> = subject.into();
        Target::remote(subject, move |ctx| {
            Box::pin(async move {
                sender.forwarding_span = spans::of_this_call().map(Arc::new);
                let peer_request = PeerRequest::Request { sender, request };
                let begun = peers.and_then(|peers| begin(&**peers, &nodes, peer_request));
                let (node, peer_stream) = begun.ok_or_else(|| {
                    unavailable(format!("no node that has '{name}' can be reached"))
                })?;
                let lost = || unavailable(format!("node {node}, which ran '{name}', has gone"));
                let forwarded = Box::pin(forward(peer_stream, &ctx)).await;
                let (response, code) = forwarded.unwrap_or_else(|| Err(lost()))?;
                Err(Failure::Encoded(response, code))
            })
        })
    }

    fn open_stream(
        &self,
        nodes: Vec<NodeId>,
        caller: &Caller,
        request: &Request,
    ) -> BoxFuture<'static, Result<Begin, ErrorObject>> {
        let sender = Box::new(RemoteCaller::from(caller));
        let peer_request = PeerRequest::Request { sender, request: request.encode() };
        let begun = self.peers().and_then(|peers| begin(&**peers, &nodes, peer_request));
        async move {
            let (_, peer_stream) = begun.ok_or_else(stream::unreachable)?;
            stream::open(peer_stream).await
        }
        .boxed()
    }

    fn listen<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Request,
        kind: KeyKind,
        keys: &'a mut Vec<Arc<str>>,
    ) -> BoxFuture<'a, RemoteTopics> {
        listen::listen(self, caller, request, kind, keys).boxed()
    }
}

fn unavailable(message: String) -> Failure {
    ErrorObject::unavailable(message).into()
}

/// Asks the first one of these nodes that can be reached.
fn begin(
    peers: &dyn Peers,
    nodes: &[NodeId],
    peer_request: PeerRequest,
) -> Option<(NodeId, PeerStream)> {
    nodes.iter().find_map(|node| {
        let peer_stream = peers.ask(node, peer_request.clone()).ok()?;
        Some((node.clone(), peer_stream))
    })
}

/// Forwards frames to the client until the reply comes. `None` if it does not come.
async fn forward(mut peer_stream: PeerStream, ctx: &Context) -> Option<Result<Encoded, Failure>> {
    let mut questions = FuturesUnordered::new();
    loop {
        let event = tokio::select! {
            event = peer_stream.next() => event?,
            Some(answer) = questions.next() => {
                if let Some(response) = answer {
                    peer_stream.answer(response);
                }
                continue;
            }
        };
        match event {
            PeerEvent::Frames { frames, needs, .. } => {
                // Before anybody can read the frames.
                ctx.needs(needs);
                for frame in frames {
                    match frame.body {
                        FrameBody::Reply(reply, code) => return Some(Ok((reply, code))),
                        FrameBody::Message(message) if frame.class == Class::Question => {
                            // Waits, so that no more questions are asked than the client reads.
                            ctx.call().output().sender.wait_for_space_to_ask().await;
                            questions.extend(forward_question(ctx, message));
                        }
                        body => forward_frame(ctx, frame.class, body).await,
                    }
                }
            }
            PeerEvent::Detached => ctx.call().output.load().sender.detach(),
            PeerEvent::Refused(refused) => {
                return Some(Err(unavailable(refused.to_string())));
            }
            PeerEvent::Started { .. } => {}
            PeerEvent::Ended | PeerEvent::Moved(_) => return None,
        }
    }
}

/// Sends a frame of the call to its client, at the pace of the client.
async fn forward_frame(ctx: &Context, class: Class, body: FrameBody) {
    let output = ctx.call().output();
    match body {
        FrameBody::Progress(progress, total, message) => {
            ctx.report_progress_paced(progress, total, message).await;
        }
        FrameBody::Log(level, message) => {
            output.sender.send(&output.gate, class, Frame::Log(level, message));
        }
        FrameBody::Message(message) | FrameBody::Reply(message, _) => {
            output.sender.send(&output.gate, class, Frame::Message(message));
        }
    }
}

/// Asks the client a question of the call, or withdraws one. The answer comes under the id that the
/// call gave to the question.
fn forward_question(
    ctx: &Context,
    message: Bytes,
) -> Option<impl Future<Output = Option<Response>> + use<>> {
    let (questions, output) = (ctx.call().questions.as_ref()?, ctx.call().output());
    let open = match Message::decode(&message).ok()? {
        Message::Request(question) => Some(questions.expect(question.id)),
        Message::Notification(given_up) => {
            let params::Cancelled { request_id, .. } = given_up.params.parse().ok()?;
            questions.withdraw(&request_id);
            None
        }
        Message::Response(_) => return None,
    };
    output.sender.send(&output.gate, Class::Question, Frame::Message(message));
    open.map(|open| async move {
        let id = open.id().clone();
        Some(Response { id, outcome: open.answer().await? })
    })
}
