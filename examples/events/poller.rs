//! A client that asks again and again. All that it keeps is its cursor.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::mcp::Mcp;
use crate::server::NAME;
use crate::stage::{Failure, Stage, Way};

pub(crate) struct Poller {
    mcp: Mcp,
    cursor: Value,
    stage: Stage,
}

impl Poller {
    /// Begins without a cursor: with what happens from now on.
    pub(crate) async fn start(mcp: &Mcp, stage: &Stage) -> Result<Self, Failure> {
        let (mcp, stage) = (mcp.clone(), stage.clone());
        let mut poller = Self { mcp, cursor: Value::Null, stage };
        poller.poll().await?;
        poller.stage.say(Way::Poll, format_args!("begins at the cursor {}", poller.cursor()));
        Ok(poller)
    }

    pub(crate) fn cursor(&self) -> &str {
        self.cursor.as_str().unwrap_or("null")
    }

    /// Polls once. Returns how long to wait before the next time, as the server asks.
    async fn poll(&mut self) -> Result<Duration, Failure> {
        loop {
            let params = json!({"name": NAME, "cursor": self.cursor});
            let mut answer = self.mcp.ask("events/poll", params).await?;
            if answer["truncated"] == true {
                self.stage.say(Way::Poll, "is told that something was skipped");
            }
            for occurrence in answer["events"].as_array().into_iter().flatten() {
                self.stage.hears(Way::Poll, occurrence, "");
            }
            // Kept only now: what was not processed is asked for again.
            self.cursor = answer["cursor"].take();
            if answer["hasMore"] != true {
                let wait = answer["nextPollMs"].as_u64().unwrap_or(1_000);
                return Ok(Duration::from_millis(wait));
            }
        }
    }

    pub(crate) async fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        loop {
            let wait = self.poll().await?;
            if Instant::now() + wait > end {
                sleep_until(end).await;
                return Ok(());
            }
            sleep(wait).await;
        }
    }
}
