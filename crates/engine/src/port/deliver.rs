//! The way of a client's message into its session: served at once, or by the session's actor after
//! the messages that wait for that.

use std::sync::Arc;

use futures::future::Either;
use stentor_wire::{Era, Method, Request};

use super::Refused;
use crate::core::Core;
use crate::outlet::Outlet;
use crate::session::{Inbound, Session, SessionEntry, SessionMsg, Told, Turn};
use crate::task::Responder;

/// Serves a request of a session, or hands it to the session's actor if a message that came before
/// still waits there. Refuses it over the limit of running ones.
///
/// What takes no time is done before there is a future, which so needs no room for the request.
pub(super) fn ask<'a>(
    core: &'a Arc<Core>,
    entry: &'a Arc<SessionEntry>,
    request: Box<Request>,
    outlet: Outlet,
) -> impl Future<Output = Result<(), Refused>> + Send + use<'a> {
    if request.method != Method::Initialize {
        entry.presence().used();
    }
    let session = Session::new(core.clone(), entry.clone());
    // A listen may wait for the store of tasks.
    if entry.is_free() && request.method != Method::Listen {
        entry.presence().touch();
        let next = responder(core, entry, &request, outlet)
            .map(|responder| session.on_request(request, responder));
        Either::Left(async move {
            next?.done(&session).await;
            Ok(())
        })
    } else {
        Either::Right(Box::pin(in_turn(session, request, outlet)))
    }
}

/// Hands a request to the session's actor.
async fn in_turn(session: Session, request: Box<Request>, outlet: Outlet) -> Result<(), Refused> {
    let turn = turn(&session.entry).await?;
    let responder = responder(&session.core, &session.entry, &request, outlet)?;
    hand_in(&session, Inbound::Request(request, responder), turn).await
}

fn responder(
    core: &Arc<Core>,
    entry: &SessionEntry,
    request: &Request,
    outlet: Outlet,
) -> Result<Responder, Refused> {
    let permit = entry.permits().clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refused::TooManyRequests)?;
    let era = if request.meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
    let meter = entry.requests().clone();
    Ok(Responder::new(core.clone(), outlet, era, request, permit, meter))
}

/// As [`ask`], for a message that wants no answer.
pub(super) async fn tell(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    told: Told,
) -> Result<(), Refused> {
    let session = Session::new(core.clone(), entry.clone());
    if !entry.is_free() {
        let turn = turn(entry).await?;
        return hand_in(&session, Inbound::Told(told), turn).await;
    }
    entry.presence().touch();
    session.on_told(told);
    Ok(())
}

async fn turn(entry: &SessionEntry) -> Result<Turn, Refused> {
    Turn::of(entry).await.ok_or(Refused::SessionEnded)
}

/// Hands a message to the session's actor.
async fn hand_in(session: &Session, inbound: Inbound, turn: Turn) -> Result<(), Refused> {
    let handed_in = session.hand_in(SessionMsg::Inbound(Box::new(inbound), turn)).await;
    handed_in.then_some(()).ok_or(Refused::SessionEnded)
}
