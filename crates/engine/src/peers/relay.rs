//! A call whose code is on another node: to its client it is a call like any other.

use std::fmt;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use stentor_wire::{ErrorObject, Message, Request, Response, params};

use super::{Conversation, Errand, Said, Sender, What};
use crate::core::Core;
use crate::dispatch::Failure;
use crate::ids::NodeId;
use crate::outlet::Frame;
use crate::outlet::policy::Class;
use crate::session::Caller;
use crate::task::Context;

/// A request that one of these nodes is to answer.
pub(crate) struct Elsewhere {
    nodes: Vec<NodeId>,
    errand: Errand,
    subject: String,
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elsewhere").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// What a call came to on its node: the response, as its client is to read it.
pub(crate) type Encoded = (Bytes, Option<i32>);

impl Elsewhere {
    pub(crate) fn new(
        nodes: impl IntoIterator<Item = NodeId>,
        caller: &Caller,
        request: &Request,
        subject: &str,
    ) -> Self {
        let sender = Box::new(Sender::from(caller));
        let errand = Errand::Request { sender, request: request.encode() };
        Self { nodes: nodes.into_iter().collect(), errand, subject: subject.to_owned() }
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Has the first of the nodes that can be reached answer.
    pub(crate) async fn run(self, ctx: &Context) -> Result<Encoded, Failure> {
        let Self { nodes, errand, subject } = self;
        let (node, conversation) = begin(&ctx.call().core, &nodes, errand)
            .ok_or_else(|| unavailable(format!("no node that has '{subject}' can be reached")))?;
        let gone = || unavailable(format!("node {node}, which ran '{subject}', has gone"));
        listen(conversation, ctx).await.unwrap_or_else(|| Err(gone()))
    }
}

fn unavailable(message: String) -> Failure {
    ErrorObject::unavailable(message).into()
}

fn begin(core: &Core, nodes: &[NodeId], errand: Errand) -> Option<(NodeId, Conversation)> {
    let peers = core.peers()?;
    nodes.iter().find_map(|node| {
        let conversation = peers.ask(node, errand.clone()).ok()?;
        Some((node.clone(), conversation))
    })
}

/// Passes on what is said until the answer comes; `None` if it does not.
async fn listen(mut conversation: Conversation, ctx: &Context) -> Option<Result<Encoded, Failure>> {
    let mut questions = FuturesUnordered::new();
    loop {
        let said = tokio::select! {
            said = conversation.next() => said?,
            Some(answer) = questions.next() => {
                if let Some(response) = answer {
                    conversation.answer(response);
                }
                continue;
            }
        };
        match said {
            Said::Frames { frames, .. } => {
                for spoken in frames {
                    match spoken.what {
                        What::Reply(reply, code) => return Some(Ok((reply, code))),
                        What::Message(message) if spoken.class == Class::Question => {
                            // As many are asked as the client reads.
                            ctx.call().lane().outlet.room_to_ask().await;
                            questions.extend(pass_question(ctx, message));
                        }
                        what => pass(ctx, spoken.class, what).await,
                    }
                }
            }
            Said::Detached => ctx.call().lane.load().outlet.detach(),
            Said::Refused(refused) => {
                return Some(Err(unavailable(refused.to_string())));
            }
            Said::Began { .. } => {}
            Said::Over | Said::Moved(_) => return None,
        }
    }
}

/// Says what the call says, at the pace of its client.
async fn pass(ctx: &Context, class: Class, what: What) {
    let lane = ctx.call().lane();
    match what {
        What::Progress(progress, total, message) => {
            ctx.report_progress_paced(progress, total, message).await;
        }
        What::Log(level, message) => {
            lane.outlet.say(&lane.gate, class, Frame::Log(level, message));
        }
        What::Message(message) | What::Reply(message, _) => {
            lane.outlet.say(&lane.gate, class, Frame::Message(message));
        }
    }
}

/// Puts a question of the call to its client, or takes one back. The answer comes under the id that the
/// call gave it.
fn pass_question(
    ctx: &Context,
    message: Bytes,
) -> Option<impl Future<Output = Option<Response>> + use<>> {
    let (questions, lane) = (ctx.call().questions.as_ref()?, ctx.call().lane());
    let open = match Message::decode(&message).ok()? {
        Message::Request(question) => Some(questions.expect(question.id)),
        Message::Notification(given_up) => {
            let params::Cancelled { request_id, .. } = given_up.params.parse().ok()?;
            questions.withdraw(&request_id);
            None
        }
        Message::Response(_) => return None,
    };
    lane.outlet.say(&lane.gate, Class::Question, Frame::Message(message));
    open.map(|open| async move {
        let id = open.id().clone();
        Some(Response { id, outcome: open.answer().await? })
    })
}
