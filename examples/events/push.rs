//! A client that keeps a stream open.

use serde_json::{Value, json};

use crate::mcp::{Mcp, Messages};
use crate::server::NAME;
use crate::stage::{Failure, Stage, Way};

pub(crate) struct Push {
    stream: Messages,
    stage: Stage,
}

/// Opens a stream for incidents of this severity. Returns when the server has confirmed it.
pub(crate) async fn open(mcp: &Mcp, severity: &str, stage: &Stage) -> Result<Push, Failure> {
    let params = json!({"name": NAME, "arguments": {"severity": severity}});
    let mut stream = mcp.send("events/stream", params).await?;
    let first = stream.next().await?.ok_or("the stream has ended at once")?;
    if first["method"] != "notifications/events/active" {
        return Err(format!("the stream is refused: {first}").into());
    }
    let cursor = first["params"]["cursor"].as_str().unwrap_or("null");
    stage
        .say(Way::Push, format_args!("has a stream for {severity} ones, from the cursor {cursor}"));
    Ok(Push { stream, stage: stage.clone() })
}

impl Push {
    /// Reads the stream to its end.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        while let Some(message) = self.stream.next().await? {
            self.reads(&message);
        }
        Ok(())
    }

    fn reads(&self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str().and_then(|it| it.strip_prefix("notifications/events/")) {
            Some("event") => self.stage.hears(Way::Push, params, ""),
            // Something was skipped. The stream goes on.
            Some("active") => self.stage.say(Way::Push, format_args!("is told of a gap: {params}")),
            // The server is there, and has looked up to this cursor.
            Some("heartbeat") => {}
            // Of the source; or of the subscription, which is over then.
            Some(other) => self.stage.say(Way::Push, format_args!("{other}: {}", params["error"])),
            None => self.stage.say(Way::Push, "its stream has ended, with a result"),
        }
    }
}
