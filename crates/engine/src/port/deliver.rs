//! The way of a client's message into its session: served at once, or by the session's actor after
//! the messages that wait for that.

use std::sync::Arc;

use stentor_wire::{Era, Method, Request, RequestMeta};
use tokio::sync::OwnedSemaphorePermit;

use super::Refused;
use crate::core::Core;
use crate::outlet::Outlet;
use crate::session::{Inbound, Session, SessionEntry, SessionMsg, Told};
use crate::task::Responder;

/// Serves a request of a session, or hands it to the session's actor if a message that came before
/// still waits there. Refuses it over the limit of running ones.
pub(super) async fn ask(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    request: Request,
    meta: RequestMeta,
    outlet: Outlet,
) -> Result<(), Refused> {
    if request.method != Method::Initialize {
        entry.used();
    }
    let permit = || {
        let permit = entry.permits().clone().try_acquire_owned();
        permit.map_err(|_| Refused::TooManyRequests)
    };
    let era = if meta.protocol_version.is_some() { Era::Modern } else { Era::Legacy };
    let responder =
        |request: &Request, permit| Responder::new(core.clone(), outlet, era, request, permit);
    // A listen may wait for the store of tasks.
    if request.method != Method::Listen
        && let Some(actor) = entry.free_actor()
    {
        let responder = responder(&request, permit()?);
        entry.touch();
        let session = Session::new(core.clone(), entry.clone());
        session.on_request(&actor.get_cell(), request, meta, responder).await;
        return Ok(());
    }
    let turn = turn(entry).await?;
    let responder = responder(&request, permit()?);
    let inbound = Inbound::Request(request, Box::new(meta), responder);
    hand_in(entry, inbound, turn).await
}

/// As [`ask`], for a message that wants no answer.
pub(super) async fn tell(
    core: &Arc<Core>,
    entry: &Arc<SessionEntry>,
    told: Told,
) -> Result<(), Refused> {
    if entry.free_actor().is_none() {
        let turn = turn(entry).await?;
        return hand_in(entry, Inbound::Told(told), turn).await;
    }
    entry.touch();
    Session::new(core.clone(), entry.clone()).on_told(told);
    Ok(())
}

/// Waits for a turn, so that a client cannot fill the mailbox.
async fn turn(entry: &SessionEntry) -> Result<OwnedSemaphorePermit, Refused> {
    entry.turns().clone().acquire_owned().await.map_err(|_| Refused::SessionEnded)
}

/// Hands a message to the session's actor.
async fn hand_in(
    entry: &SessionEntry,
    inbound: Inbound,
    turn: OwnedSemaphorePermit,
) -> Result<(), Refused> {
    let handed_in = entry.hand_in(SessionMsg::Inbound(Box::new(inbound), turn)).await;
    handed_in.then_some(()).ok_or(Refused::SessionEnded)
}
