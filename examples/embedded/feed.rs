//! An actor of the host that informs the engine of new files, with plain messages.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, call};
use serde_json::json;
use stentor::{Audience, EngineMsg, Resource, catalog::Mutation, protocol::Topic};

pub(crate) const NEWEST: &str = "inbox://newest";

pub(crate) enum FeedMsg {
    Arrived,
}

impl Message for FeedMsg {}

pub(crate) struct ReplicationLog;

impl Actor for ReplicationLog {
    type Msg = FeedMsg;
    /// The engine, and the number of files so far.
    type State = (ActorRef<EngineMsg>, u32);
    type Arguments = ActorRef<EngineMsg>;

    async fn pre_start(
        &self,
        myself: ActorRef<FeedMsg>,
        engine: ActorRef<EngineMsg>,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.send_interval(Duration::from_secs(5), || FeedMsg::Arrived);
        Ok((engine, 0))
    }

    async fn handle(
        &self,
        _myself: ActorRef<FeedMsg>,
        FeedMsg::Arrived: FeedMsg,
        (engine, arrived): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        *arrived += 1;
        if let Err(error) = tell(engine, &format!("photo-{arrived}.png")).await {
            stentor_examples::say(format!("feed: {error}"));
        }
        Ok(())
    }
}

async fn tell(engine: &ActorRef<EngineMsg>, name: &str) -> Result<(), ActorProcessingErr> {
    let changes = vec![
        Mutation::put(Resource::text(NEWEST, "newest", name)),
        Mutation::put(Resource::text(format!("inbox://{name}"), name, "a photo")),
    ];
    // `call!` waits for the reply, because a notice may overtake a change that was only cast.
    call!(engine, |reply| EngineMsg::Apply(changes, Some(reply)))??;
    engine.cast(EngineMsg::Changed(Topic::Resource(NEWEST.into())))?;
    let (method, params) = ("notifications/example/arrived".to_owned(), json!({"name": name}));
    engine.cast(EngineMsg::Notify(Audience::all(), method, Some(params)))?;
    Ok(())
}
