//! One session for a host that supervises it: what it hears, sends and monitors.

mod support;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use stentor_engine::{EndReason, EngineEvent, EventBatch};
use support::{Client, methods};
use tokio::sync::mpsc;
use tokio::time::sleep;

enum KeeperMsg {
    Session(EventBatch),
}

#[cfg(feature = "cluster")]
impl ractor::Message for KeeperMsg {}

/// An actor of the host that reports the events of a session.
struct Keeper(mpsc::UnboundedSender<String>);

impl Actor for Keeper {
    type Msg = KeeperMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<KeeperMsg>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<KeeperMsg>,
        KeeperMsg::Session(events): KeeperMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        events.into_iter().try_for_each(|event| self.0.send(format!("{event:?}")))?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_follows_one_session_from_its_opening_to_its_end() {
    let (sender, mut reports) = mpsc::unbounded_channel();
    let (keeper, _) = Actor::spawn(None, Keeper(sender), ()).await.unwrap();
    let keep = Some(Duration::from_secs(5));
    let engine = support::engine().configure(|config| config.sessions.passivate_after = keep);
    let engine = engine.start().await.unwrap();
    let mut client = Client::legacy(&engine).await;
    let id = engine.sessions().remove(0).id;
    let mut other = Client::legacy(&engine).await;
    let session = engine.session(&id).expect("it is open");
    let mut events = session.events(16);
    session.subscribe(&keeper, 16, KeeperMsg::Session);

    other.call(1, "echo").await;
    other.answer(1).await;
    client.call(1, "echo").await;
    client.answer(1).await;
    let mut next = async || format!("{:?}", events.next().await);
    let (started, finished) = (next().await, next().await);
    assert!(started.starts_with("Some(CallStarted") && finished.starts_with("Some(CallFinished"));

    session.notify("notifications/for_you", json!({"n": 1})).await.unwrap();
    assert_eq!(client.next().await.unwrap()["method"], "notifications/for_you");
    assert_eq!(methods(&other.ping().await), [""; 0]);

    assert!(session.actor().is_some(), "it has just had a message");
    assert!(session.restart());
    assert!(next().await.starts_with("Some(SessionCrashed"));
    assert!(next().await.starts_with("Some(SessionRestarted"));
    assert_eq!((session.view().recent_restarts, session.ended()), (1, None));

    assert!(session.end() && !session.end());
    assert_eq!(session.ended(), Some(EndReason::Ended));
    assert!(session.actor().is_none());
    assert!(next().await.starts_with("Some(SessionClosed"));
    assert_eq!(events.next().await.map(|_| ()), None, "nothing follows");
    let late = session.events(16).next().await;
    assert!(matches!(late, Some(EngineEvent::SessionClosed { .. })), "{late:?}");
    assert!(engine.session(&id).is_none());
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|it: &String| it.starts_with("SessionClosed")) {
        heard.push(reports.recv().await.expect("the actor hears of the end, too"));
    }
    assert_eq!(heard.len(), 5, "and of the call and the crash: {heard:?}");
    other.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_never_passive_has_an_actor_to_monitor_from_its_opening() {
    let engine = support::engine().configure(|config| config.sessions.passivate_after = None);
    let engine = engine.start().await.unwrap();
    let _client = Client::connect(&engine).await;
    let session = engine.session(&engine.sessions().remove(0).id).expect("it is open");
    let first = session.actor().expect("an actor");
    sleep(Duration::from_secs(600)).await;
    assert_eq!(session.actor().map(|it| it.get_id()), Some(first.get_id()));
    first.kill();
    first.wait(None).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_ne!(session.actor().map(|it| it.get_id()), Some(first.get_id()), "a new one");
    assert!(session.end());
    assert_eq!(session.actor().map(|it| it.get_id()), None);
}
