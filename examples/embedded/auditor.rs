//! An actor of the host that receives the engine's events and prints them in plain words.

use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use stentor::observe::{CallOutcome, EngineEvent as Event, EventBatch};

pub(crate) enum AuditMsg {
    Events(EventBatch),
}

impl Message for AuditMsg {}

pub(crate) struct Auditor;

impl Actor for Auditor {
    type Msg = AuditMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<AuditMsg>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<AuditMsg>,
        AuditMsg::Events(batch): AuditMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        for event in batch {
            stentor_examples::say(format!("auditor: {}", in_words(&event)));
        }
        Ok(())
    }
}

/// Prints sessions with `Debug`, which shortens their ids: a full session id is a secret.
fn in_words(event: &Event) -> String {
    match event {
        Event::SessionOpened { session, kind, .. } => format!("{session:?} opens ({kind:?})"),
        Event::SessionInitialized { session, version, client } => {
            let client = client.as_ref().map_or("a client", |client| &client.name);
            format!("{session:?} is {client}, which speaks {version}")
        }
        Event::SessionClosed { session, reason } => format!("{session:?} closes ({reason:?})"),
        Event::SessionCrashed { session } => format!("{session:?} crashed"),
        Event::SessionRestarted { session } => format!("{session:?} goes on"),
        Event::CallStarted { call, method } => {
            format!("call {} begins: {method} {}", call.id, call.subject)
        }
        Event::CallProgressed { call, progress, total: Some(total) } => {
            format!("call {} has done {progress} of {total}", call.id)
        }
        Event::CallProgressed { call, progress, .. } => {
            format!("call {} is at {progress}", call.id)
        }
        Event::CallFinished { call, outcome: CallOutcome::Ok, took } => {
            format!("call {} is answered after {took:.1?}", call.id)
        }
        Event::CallFinished { call, outcome: CallOutcome::Error(code), took } => {
            format!("call {} failed with {code} after {took:.1?}", call.id)
        }
        Event::CallFinished { call, took, .. } => {
            format!("call {} says after {took:.1?} that it failed", call.id)
        }
        Event::CallCancelled { call, reason, took } => {
            format!("call {} is cancelled after {took:.1?}: {reason}", call.id)
        }
        Event::CatalogChanged { revision, lists } => {
            format!("revision {revision} of the catalog changed {lists:?}")
        }
        Event::Stopped => "the engine has stopped".to_owned(),
        Event::ActorRestarted { actor } => format!("the {actor} crashed, and a new one goes on"),
        Event::FramesDropped { class, count, .. } => {
            format!("{count} frames ({class:?}) were dropped")
        }
        Event::StreamsClosed { count, .. } => {
            format!("{count} streams were closed, as nobody reads them")
        }
        Event::Missed(count) => format!("missed {count} events"),
        other => format!("{other:?}"),
    }
}
