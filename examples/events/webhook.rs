//! A client whose events come to a server of its own.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::mcp::Mcp;
use crate::server::NAME;
use crate::stage::{Failure, Stage, Way};

/// Only the client and its receiver know it, and the server from then on. A real client makes a random
/// one for each subscription.
const SECRET: &str = "whsec_dGhpcyBpcyBhIHNlY3JldCBvZiAyNCBieXRlcw==";

pub(crate) struct Receiver {
    /// Where it is.
    pub(crate) origin: String,
    stage: Stage,
    /// Ends when it is dropped.
    _serving: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(stage: &Stage) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/hook", post(receive)).with_state(stage.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { drop(axum::serve(listener, app).await) });
        Ok(Self { origin, stage: stage.clone(), _serving: serving })
    }

    pub(crate) async fn subscribe(&self, mcp: &Mcp) -> Result<(), Failure> {
        let delivery = json!({"mode": "webhook", "url": self.url(), "secret": SECRET});
        let params = json!({"name": NAME, "delivery": delivery});
        let answer = mcp.ask("events/subscribe", params).await?;
        let id = answer["id"].as_str().unwrap_or("nothing");
        // Whoever wants it for longer subscribes again before then.
        let until = answer["refreshBefore"].as_str().unwrap_or("it ends");
        self.stage.say(Way::Webhook, format_args!("is subscribed as {id}, until {until}"));
        Ok(())
    }

    pub(crate) async fn unsubscribe(&self, mcp: &Mcp) -> Result<(), Failure> {
        let params = json!({"name": NAME, "delivery": {"url": self.url()}});
        mcp.ask("events/unsubscribe", params).await?;
        self.stage.say(Way::Webhook, "has unsubscribed");
        Ok(())
    }

    fn url(&self) -> String {
        format!("{}/hook", self.origin)
    }
}

/// What comes: a challenge, an occurrence, or news of the subscription. All are signed.
async fn receive(
    State(stage): State<Stage>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let signed = Webhook::new(SECRET).and_then(|secret| secret.verify(&body, &headers));
    if let Err(error) = signed {
        stage.say(Way::Webhook, format_args!("refuses a request: {error}"));
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, String::new());
    };
    match message["type"].as_str() {
        // Sent back, so that nobody gets events who did not ask for them.
        Some("verification") => {
            stage.say(Way::Webhook, "answers the challenge");
            let answer = json!({"challenge": message["challenge"]});
            return (StatusCode::OK, answer.to_string());
        }
        // `gap` or `terminated`.
        Some(news) => stage.say(Way::Webhook, format_args!("is told of: {news}")),
        None => stage.hears(Way::Webhook, &message, "  (signature is good)"),
    }
    (StatusCode::NO_CONTENT, String::new())
}
