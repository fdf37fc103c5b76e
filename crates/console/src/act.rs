//! What a console may do on its node. Each action is logged.

use std::time::Duration;

use stentor_engine::{CallId, SessionRef};

use crate::answer::Node;
use crate::query::{Acted, Action};
use crate::sessions;

/// For how long a session is followed. The page asks again.
const FOLLOWED_FOR: Duration = Duration::from_secs(30 * 60);

pub(crate) async fn act(node: &Node, action: Action, operator: Option<&str>) -> Acted {
    if !node.config.actions {
        return Acted::Forbidden("the console of this node may not do anything".to_owned());
    }
    let done = perform(node, &action).await;
    tracing::info!(
        target: "stentor::console",
        node = %node.engine.node(), operator = operator.unwrap_or("somebody"), ?action, ?done,
        "an operator acted",
    );
    done
}

async fn perform(node: &Node, action: &Action) -> Acted {
    let engine = &node.engine;
    let found = |id: &str, act: &dyn Fn(&SessionRef) -> String| match sessions::find(engine, id) {
        Some(session) => Acted::Done(act(&session)),
        None => Acted::NotFound("there is no such session on this node".to_owned()),
    };
    match action {
        Action::EndSession { session } => found(session, &|it| {
            it.end();
            "the session was ended".to_owned()
        }),
        Action::RestartSession { session } => found(session, &|it| {
            it.restart();
            "the session was restarted: its calls ended, and it goes on".to_owned()
        }),
        Action::Follow { session } => found(session, &|it| {
            it.follow(FOLLOWED_FOR);
            "from now on it is noted what becomes of each message".to_owned()
        }),
        Action::Unfollow { session } => found(session, &|it| {
            it.unfollow();
            "what was noted is forgotten".to_owned()
        }),
        Action::CancelCall { call } => match engine.cancel_call(CallId(*call)) {
            true => Acted::Done("the call was cancelled".to_owned()),
            false => Acted::NotFound("this call does not run on this node any more".to_owned()),
        },
        Action::Revoke { principal } => {
            engine.revoke(principal).await;
            Acted::Done("the principal is locked out on all nodes".to_owned())
        }
        Action::Drain => {
            let engine = engine.clone();
            match &node.config.drain {
                Some(drain) => drop(tokio::spawn(drain())),
                None => drop(tokio::spawn(async move { engine.shutdown().await })),
            }
            Acted::Done("the node drains, and ends when what runs is done".to_owned())
        }
    }
}
