//! **Owns** the open deliveries of one webhook.
//! **Receives** that there may be something to do, and how attempts have ended.
//! **Sends** requests to the endpoint of the webhook, each from a task of its own.
//! **Dies when** nothing is left to deliver; the next occurrence begins another one. Also when its
//! webhook has ended, or is paused.
//! **Restarts as** a deliverer that reads the log again from the watermark: what was open is delivered
//! once more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Webhooks;
use super::callback_url::CallbackUrl;
use super::client::{AttemptError, Signed, unix_seconds};
use super::schedule::Schedule;
use super::subscription::{Life, Subscription};
use super::window::{Content, Outcome, Window};
use crate::error::EventError;
use crate::log::{Position, Step};
use crate::messages;
use crate::metrics::{count_abandoned, count_attempt, count_gaps};
use crate::report::EventsReport;
use crate::subscriber::Mode;
use crate::token;

/// Requests of one webhook that are in flight at once.
const AT_ONCE: usize = 4;
/// The pause after which a place is looked for again.
const BUSY: Duration = Duration::from_secs(1);
/// As [`AT_ONCE`], while its endpoint fails.
const AT_ONCE_WHILE_FAILING: usize = 1;

#[derive(Debug)]
pub(crate) enum DelivererMsg {
    /// There may be something to do.
    Look,
    /// An attempt has ended.
    Done(u64, Result<(), Failure>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for DelivererMsg {}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Attempt(AttemptError),
    /// Nothing was sent: the body is too large.
    TooLarge,
    /// Nothing was sent: the webhook has ended meanwhile, or may not be delivered to any longer.
    Over,
    /// Nothing was sent: many endpoints fail.
    Busy,
}

#[derive(Debug)]
pub(crate) struct Deliverer;

pub(crate) struct DelivererArgs {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) webhooks: Arc<Webhooks>,
}

pub(crate) struct DelivererState {
    subscription: Arc<Subscription>,
    webhooks: Arc<Webhooks>,
    url: Arc<CallbackUrl>,
    position: Position,
    window: Window,
    /// When the deliverer is woken by its timer.
    woken: Option<Instant>,
    /// Whether the end of the webhook is among the open deliveries.
    ending: bool,
    is_failing: bool,
}

impl Actor for Deliverer {
    type Msg = DelivererMsg;
    type State = DelivererState;
    type Arguments = DelivererArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<DelivererMsg>,
        DelivererArgs { subscription, webhooks }: DelivererArgs,
    ) -> Result<DelivererState, ActorProcessingErr> {
        let settings = &webhooks.config;
        let schedule =
            Schedule { max_attempts: settings.max_attempts.max(1), ..Schedule::default() };
        Ok(DelivererState {
            url: Arc::new(CallbackUrl::stored(&subscription.url)?),
            position: subscription.begin(),
            window: Window::new(settings.max_open, schedule),
            woken: None,
            ending: false,
            is_failing: false,
            subscription,
            webhooks,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<DelivererMsg>,
        message: DelivererMsg,
        state: &mut DelivererState,
    ) -> Result<(), ActorProcessingErr> {
        if let DelivererMsg::Done(number, result) = message {
            state.on_done(number, result);
        }
        if state.look(&myself) {
            myself.stop(None);
        }
        Ok(())
    }
}

impl DelivererState {
    /// Does what there is to do. `true` if that is nothing, and will be.
    fn look(&mut self, myself: &ActorRef<DelivererMsg>) -> bool {
        let life = self.subscription.state().life.clone();
        match life {
            Life::Live => match self.permits() {
                Ok(()) => self.fill(),
                Err(error) => self.webhooks.refuse(&self.subscription, error),
            },
            Life::Ending(error) => self.end(&error),
            Life::Paused | Life::Over => {
                if self.subscription.stops(self.watermark()) {
                    return true;
                }
                let _ = myself.cast(DelivererMsg::Look);
                return false;
            }
        }
        self.begin_attempts(myself);
        if !self.window.is_empty() {
            if life_is_live(&self.subscription) {
                self.subscription.keeps(self.watermark());
            }
            self.wake_when_due(myself);
            return false;
        }
        if self.ending {
            self.subscription.state().life = Life::Over;
            return true;
        }
        self.subscription.rest(&self.position) || {
            // There is more, and the next message looks at it.
            let _ = myself.cast(DelivererMsg::Look);
            false
        }
    }

    /// Whether the principal still may have the occurrences.
    fn permits(&self) -> Result<(), EventError> {
        let subscription = &self.subscription;
        let subscriber = subscription.state().subscriber.clone();
        let definition = subscription.running.definition();
        definition.permits(&subscriber, &subscription.watched)
    }

    /// The position before everything that is open.
    fn watermark(&self) -> Position {
        self.window.watermark().unwrap_or(&self.position).clone()
    }

    /// Takes from the log what there is room for.
    fn fill(&mut self) {
        let now = Instant::now();
        let subscription = self.subscription.clone();
        let gap_asked = std::mem::take(&mut subscription.state().gap_asked);
        if gap_asked {
            self.add_gap(now);
        }
        let definition = subscription.running.definition();
        while self.window.has_room() {
            let before = self.position.clone();
            let step = subscription.running.log.lock().step(&mut self.position);
            let entry = match step {
                Step::Entry(entry) => entry,
                Step::Gap => {
                    subscription.state().truncated = true;
                    self.add_gap(now);
                    continue;
                }
                Step::End => break,
            };
            let subscriber = subscription.state().subscriber.clone();
            let watched = &subscription.watched;
            let heard = definition.for_subscriber(&subscriber, watched, &entry.occurrence);
            let Some(occurrence) = heard else { continue };
            // All at or before the cursor were delivered or abandoned, so this one is after it.
            let first_open = self.window.watermark().unwrap_or(&before);
            let told = subscription.running.replays().then(|| first_open.seen.clone());
            let id = occurrence.id.clone();
            self.window.add(Content::Occurrence(occurrence, told), id, Some(before), now);
        }
    }

    fn add_gap(&mut self, now: Instant) {
        count_gaps(Mode::Webhook, 1);
        let watermark = self.watermark().seen;
        let cursor = self.subscription.running.replays().then_some(&watermark);
        let body = format!(r#"{{"type":"gap","cursor":{}}}"#, messages::cursor_json(cursor));
        self.add_control("gap", body, now);
    }

    fn add_control(&mut self, kind: &'static str, body: String, now: Instant) {
        let id = format!("msg_{kind}_{}", token());
        self.window.add(Content::Control(body), id.into(), None, now);
    }

    /// The endpoint is told of the end, and of nothing else any more.
    fn end(&mut self, error: &EventError) {
        if self.ending {
            return;
        }
        self.ending = true;
        self.window.clear();
        let numbers = self.subscription.state().numbers;
        let body = json!({"type": "terminated", "error": error.json(numbers)});
        self.add_control("terminated", body.to_string(), Instant::now());
    }

    fn begin_attempts(&mut self, myself: &ActorRef<DelivererMsg>) {
        let at_once = if self.is_failing { AT_ONCE_WHILE_FAILING } else { AT_ONCE };
        while self.window.in_flight() < at_once
            && let Some((number, content, id)) = self.window.begin(Instant::now())
        {
            let (subscription, webhooks) = (self.subscription.clone(), self.webhooks.clone());
            let (myself, url, is_failing) = (myself.clone(), self.url.clone(), self.is_failing);
            tokio::spawn(async move {
                let what = (&content, &*id);
                let result = attempt(&webhooks, &subscription, &url, what, is_failing).await;
                // The deliverer may have ended.
                let _ = myself.cast(DelivererMsg::Done(number, result));
            });
        }
    }

    fn wake_when_due(&mut self, myself: &ActorRef<DelivererMsg>) {
        let Some(due) = self.window.next_due() else { return };
        let now = Instant::now();
        // What is due already waits for an attempt that is in flight.
        if due <= now || self.woken.is_some_and(|woken| woken > now && woken <= due) {
            return;
        }
        self.woken = Some(due);
        let myself = myself.clone();
        tokio::spawn(async move {
            sleep_until(due).await;
            let _ = myself.cast(DelivererMsg::Look);
        });
    }

    fn on_done(&mut self, number: u64, result: Result<(), Failure>) {
        let now = Instant::now();
        let (outcome, failed) = match &result {
            Ok(()) => (Outcome::Over, false),
            Err(Failure::Busy) => {
                self.window.put_off(number, now + BUSY);
                return;
            }
            Err(Failure::TooLarge | Failure::Over) => (Outcome::Over, false),
            Err(Failure::Attempt(error)) => match error.status {
                // This one is refused for good, and the endpoint is well.
                Some(410 | 413) => (Outcome::Over, false),
                _ => (Outcome::Retry(error.retry_after), true),
            },
        };
        count_attempt(&result);
        self.is_failing = failed;
        let jitter = || f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        let abandoned = self.window.end(number, outcome, now, jitter);
        let (mut owes_gap, mut paused) = (false, false);
        {
            let mut state = self.subscription.state();
            match &result {
                Ok(()) => {
                    state.status.last_delivery = Some(SystemTime::now());
                    (state.status.last_error, state.status.failed_since) = (None, None);
                    owes_gap = std::mem::take(&mut state.owes_gap);
                }
                Err(Failure::Attempt(error)) => {
                    state.status.last_error = Some(error.category);
                    if failed {
                        state.status.failed_since.get_or_insert((now, SystemTime::now()));
                    }
                }
                Err(_) => {}
            }
            if abandoned || matches!(result, Err(Failure::TooLarge)) {
                (state.owes_gap, state.truncated) = (true, true);
            }
            let pauses = !matches!(result, Err(Failure::Over | Failure::TooLarge))
                && state.health.note(failed, now)
                && failed;
            if pauses && state.life == Life::Live {
                tracing::warn!(id = %self.subscription.id, "a webhook is paused: its endpoint fails");
                (state.life, paused) = (Life::Paused, true);
            }
        }
        let id = &self.subscription.id;
        match &result {
            Err(Failure::Attempt(error)) if abandoned => {
                count_abandoned();
                self.webhooks.note_abandoned(id, error.category.as_str());
            }
            Err(Failure::TooLarge) => self.webhooks.note_abandoned(id, "too_large"),
            _ => {}
        }
        if paused {
            self.webhooks.report(|| EventsReport::WebhookPaused { id: id.clone() });
        }
        if owes_gap && !self.ending {
            self.add_gap(now);
        }
        if let Err(Failure::Attempt(error)) = &result
            && failed
        {
            self.webhooks.failed(&self.subscription, error.category, now);
        }
    }
}

fn life_is_live(subscription: &Subscription) -> bool {
    subscription.state().life == Life::Live
}

/// One attempt at a delivery.
async fn attempt(
    webhooks: &Webhooks,
    subscription: &Subscription,
    url: &CallbackUrl,
    (content, id): (&Content, &str),
    is_failing: bool,
) -> Result<(), Failure> {
    let body = match content {
        Content::Occurrence(occurrence, cursor) => messages::object(occurrence, cursor.as_ref()),
        Content::Control(body) => body.clone(),
    };
    if body.len() > webhooks.config.max_body {
        return Err(Failure::TooLarge);
    }
    // Endpoints that fail must not take the place of those that do not, and wait for nothing.
    let _turn = match is_failing {
        true => Some(webhooks.failing.try_acquire().map_err(|_| Failure::Busy)?),
        false => None,
    };
    let slot = webhooks.client.slot(url).await;
    let body = Bytes::from(body);
    let timestamp = unix_seconds(SystemTime::now());
    let signatures = {
        let state = subscription.state();
        // The wait for a place may have been long.
        let is_control = matches!(content, Content::Control(_));
        let may_send = match state.life {
            Life::Live => is_control || !state.subscriber.requester.is_revoked(),
            Life::Ending(_) => is_control,
            Life::Paused => return Err(Failure::Busy),
            Life::Over => false,
        };
        let is_expired = state.expires.is_some_and(|(at, _)| at <= Instant::now());
        if !may_send || is_expired || webhooks.is_closed() {
            return Err(Failure::Over);
        }
        state.secrets.signatures(SystemTime::now(), id, timestamp, &body)
    };
    let message = Signed { id, timestamp, signatures, subscription: &subscription.id, body };
    slot.post(message).await.map_err(Failure::Attempt)
}
