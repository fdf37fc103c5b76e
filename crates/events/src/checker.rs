//! **Owns** the loop of one branch: the call of `check` that runs, and when the next one is due.
//! **Receives** that somebody waits for a check, that it is time for one, and how one has ended.
//! **Sends** what was found into the log of the branch, each call from a task of its own.
//! **Dies when** nobody reads the branch any more, or its type is removed.
//! **Restarts as** a checker that goes on at the end of the log, with a check at once.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::branches::{Branch, Branches};
use crate::check::{self, Batch, UpstreamCursor};
use crate::error::EventError;
use crate::metrics::count_checked;
use crate::running::RunningType;
use crate::webhook::Webhooks;

/// How often it is stored how far the upstream was read, if there are no occurrences: an upstream may
/// forget old cursors.
const REMEMBER: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(crate) enum CheckerMsg {
    /// There may be something to do.
    Look,
    /// The check with this number has ended.
    Done(u64, Box<Result<Batch, EventError>>),
    /// The branch has ended.
    Stop,
}

#[cfg(feature = "cluster")]
impl ractor::Message for CheckerMsg {}

#[derive(Debug)]
pub(crate) struct Checker;

pub(crate) struct CheckerArgs {
    pub(crate) running: Arc<RunningType>,
    pub(crate) webhooks: Arc<Webhooks>,
}

/// A task that ends with its owner.
struct Call(AbortHandle);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) struct CheckerState {
    running: Arc<RunningType>,
    webhooks: Arc<Webhooks>,
    call: Option<Call>,
    due: Instant,
    timer: Option<Call>,
    /// In a row.
    failures: u32,
    remembered: Instant,
}

impl Actor for Checker {
    type Msg = CheckerMsg;
    type State = CheckerState;
    type Arguments = CheckerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<CheckerMsg>,
        CheckerArgs { running, webhooks }: CheckerArgs,
    ) -> Result<CheckerState, ActorProcessingErr> {
        let now = Instant::now();
        Ok(CheckerState {
            running,
            webhooks,
            call: None,
            due: now,
            timer: None,
            failures: 0,
            remembered: now,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<CheckerMsg>,
        message: CheckerMsg,
        state: &mut CheckerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CheckerMsg::Look => {}
            CheckerMsg::Done(number, result) => state.on_done(number, *result).await,
            CheckerMsg::Stop => {
                myself.stop(None);
                return Ok(());
            }
        }
        state.look(&myself);
        Ok(())
    }
}

impl CheckerState {
    /// Begins a check if it is time, or somebody waits for one.
    fn look(&mut self, myself: &ActorRef<CheckerMsg>) {
        let running = self.running.clone();
        let Some(branch) = running.branch() else { return };
        // Who waits while one runs gets the next one.
        if self.call.is_some() || running.is_closed() {
            return;
        }
        let is_wanted = branch.takes_wish();
        if is_wanted || self.due <= Instant::now() {
            self.begin(myself, branch);
        }
        if self.call.is_none() {
            let (due, myself) = (self.due, myself.clone());
            let waiting = tokio::spawn(async move {
                sleep_until(due).await;
                // The branch may have ended.
                let _ = myself.cast(CheckerMsg::Look);
            });
            self.timer = Some(Call(waiting.abort_handle()));
        }
    }

    fn begin(&mut self, myself: &ActorRef<CheckerMsg>, branch: &Branch) {
        let number = branch.begins();
        let (definition, subscriber) = (self.running.definition(), branch.subscriber());
        let watched = branch.watched.clone();
        self.due = Instant::now() + definition.every;
        if definition.shares_checks() != Some(true)
            && let Err(error) = definition.permits(&subscriber, &watched)
        {
            // Its streams and webhooks are about to end.
            branch.failed(number, error);
            return;
        }
        let Some(home) = branch.home() else { return };
        let Some((limits, turns)) = home.branches().map(Branches::calls) else { return };
        let from = self.running.log.lock().upstream_end();
        let from = from.as_deref().and_then(UpstreamCursor::parse);
        let call = tokio::spawn(async move {
            let _turn = turns.acquire().await;
            check::call(&definition, &subscriber, &watched, from.as_ref(), limits).await
        });
        self.call = Some(Call(call.abort_handle()));
        finish(call, number, myself.clone());
    }

    async fn on_done(&mut self, number: u64, result: Result<Batch, EventError>) {
        self.call = None;
        let (running, now) = (self.running.clone(), Instant::now());
        let Some(branch) = running.branch() else { return };
        let definition = running.definition();
        let mut batch = match result {
            Ok(batch) => batch,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
                self.due = now + check::pause(definition.every, self.failures, jitter);
                running.report_failure(&error);
                branch.failed(number, error);
                return;
            }
        };
        self.failures = 0;
        let found = batch.occurrences.len();
        if let Some(oldest) = branch.oldest() {
            batch.occurrences.retain(|(occurrence, _)| occurrence.at >= oldest);
        }
        count_checked(&definition.name, batch.occurrences.len());
        let truncated = batch.truncated || batch.occurrences.len() < found;
        let has_moved = running.log.lock().upstream_end().as_deref() != Some(&*batch.cursor);
        let has_more = batch.has_more;
        running.take(batch).await;
        if truncated {
            running.report_gap();
            self.webhooks.branch_gap(&running);
        }
        if has_moved && now - self.remembered >= REMEMBER {
            self.remembered = now;
            self.webhooks.of_branch(&running).iter().for_each(|it| it.state().is_dirty = true);
        }
        if has_more {
            self.due = now;
        } else {
            self.due = now + definition.every;
            branch.is_current(number);
        }
    }
}

/// Tells the checker how a call has ended.
fn finish(call: JoinHandle<Result<Batch, EventError>>, number: u64, checker: ActorRef<CheckerMsg>) {
    tokio::spawn(async move {
        // A destructor of the author's code may panic, too.
        let result = call.await.unwrap_or_else(|_| Err(check::failed()));
        // The branch may have ended.
        let _ = checker.cast(CheckerMsg::Done(number, Box::new(result)));
    });
}
