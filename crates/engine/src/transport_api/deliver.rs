//! Delivers a client's message to its session. It is served at once, or by the session's actor
//! after the messages that wait there.

use std::sync::Arc;

use futures::future::Either;
use stentor_wire::{Era, Method, Request};

use super::Refused;
use crate::core::Core;
use crate::session::{Inbound, MailboxPermit, OneWay, Session, SessionEntry, SessionMsg};
use crate::task::Responder;
use stentor_delivery::StreamSender;

/// Serves a request of a session, or hands it to the session's actor if an earlier message still
/// waits there. Refuses it above the limit of running requests.
///
/// Work that takes no time is done before there is a future, so that the future does not contain
/// the request.
pub(super) fn ask<'a>(
    core: &'a Arc<Core>,
    entry: &'a Arc<SessionEntry>,
    request: Box<Request>,
    sender: StreamSender,
) -> impl Future<Output = Result<(), Refused>> + Send + use<'a> {
    if request.method != Method::Initialize {
        entry.presence().used();
    }
    let session = Session::new(core.clone(), entry.clone());
    // A listen may wait for the task store.
    if entry.is_free() && request.method != Method::Listen {
        entry.presence().touch();
        let next = responder(core, entry, &request, sender)
            .map(|responder| session.on_request(request, responder));
        Either::Left(async move {
            next?.done(&session).await;
            Ok(())
        })
    } else {
        Either::Right(Box::pin(queue_request(session, request, sender)))
    }
}

async fn queue_request(
    session: Session,
    request: Box<Request>,
    sender: StreamSender,
) -> Result<(), Refused> {
    let permit = mailbox_permit(&session.entry).await?;
    let responder = responder(&session.core, &session.entry, &request, sender)?;
    queue(&session, Inbound::Request(request, responder), permit).await
}

fn responder(
    core: &Arc<Core>,
    entry: &SessionEntry,
    request: &Request,
    sender: StreamSender,
) -> Result<Responder, Refused> {
    let permit = entry.permits().clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refused::TooManyRequests)?;
    let era = if request.meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
    let meter = entry.requests().clone();
    Ok(Responder::new(core.clone(), sender, era, request, permit, meter))
}

/// Like [`ask`], for a message that needs no answer.
pub(super) async fn tell(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    one_way: OneWay,
) -> Result<(), Refused> {
    let session = Session::new(core.clone(), entry.clone());
    if !entry.is_free() {
        let permit = mailbox_permit(entry).await?;
        return queue(&session, Inbound::OneWay(one_way), permit).await;
    }
    entry.presence().touch();
    session.on_one_way(one_way);
    Ok(())
}

async fn mailbox_permit(entry: &SessionEntry) -> Result<MailboxPermit, Refused> {
    MailboxPermit::of(entry).await.ok_or(Refused::SessionEnded)
}

async fn queue(session: &Session, inbound: Inbound, permit: MailboxPermit) -> Result<(), Refused> {
    let queued = session.hand_in(SessionMsg::Inbound(Box::new(inbound), permit)).await;
    queued.then_some(()).ok_or(Refused::SessionEnded)
}
