//! One webhook: what outlives its deliverer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use ractor::{ActorId, ActorRef};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::callback_url::CallbackUrl;
use super::client::Category;
use super::deliverer::DelivererMsg;
use super::health::Health;
use super::key::SubscriptionKey;
use super::secret::{Secret, Secrets};
use crate::cursor::Cursor;
use crate::error::{EventError, Numbers};
use crate::event_type::WatchedArguments;
use crate::log::Position;
use crate::occurrence::timestamp;
use crate::running::RunningType;
use crate::start::Listening;
use crate::store::StoredWebhook;
use crate::subscriber::Subscriber;
use crate::watches::Watching;

/// A deliverer that crashes more often in a row gives up what is open.
const MAX_CRASHES: u32 = 5;

/// A webhook. A server may have very many that rest, so none has what another one has, too, and what
/// is seldom there has a place of its own.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: Arc<str>,
    pub(crate) principal: Arc<str>,
    /// Where events go, as a [`CallbackUrl`] is written.
    pub(crate) url: Box<str>,
    pub(crate) running: Listening,
    pub(crate) watched: Arc<WatchedArguments>,
    state: Mutex<SubscriptionState>,
    _watching: Watching,
}

/// What of a webhook changes.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) secrets: Secrets,
    pub(crate) numbers: Numbers,
    pub(crate) expires: Option<(Instant, SystemTime)>,
    pub(crate) life: Life,
    pub(crate) status: Status,
    pub(crate) health: Health,
    /// Something was abandoned: the endpoint is told of a gap when it takes something again.
    pub(crate) owes_gap: bool,
    /// The client is told of that at its next refresh.
    pub(crate) truncated: bool,
    /// A gap that somebody reports.
    pub(crate) gap_asked: bool,
    reading: Reading,
    deliverer: Option<ActorRef<DelivererMsg>>,
    crashes: u32,
    /// Whether it has changed since it was stored.
    pub(crate) is_dirty: bool,
}

/// How a webhook is on its way to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Life {
    Live,
    /// Nothing is delivered until it is refreshed.
    Paused,
    /// The endpoint is told of the end, then nothing follows.
    Ending(Arc<EventError>),
    Over,
}

/// Where a webhook reads the log of its type.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// Everything before this index is delivered, abandoned, or not for it. It has no deliverer.
    Idle { upto: u64 },
    /// A deliverer begins here, or has begun.
    From(Position),
}

/// How deliveries go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Status {
    pub(crate) last_delivery: Option<SystemTime>,
    pub(crate) last_error: Option<Category>,
    pub(crate) failed_since: Option<(Instant, SystemTime)>,
}

/// A webhook, for the application.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WebhookView {
    /// Its id, as the client knows it.
    pub id: Arc<str>,
    /// The name of its type.
    pub event_type: Arc<str>,
    /// Its principal.
    pub principal: Arc<str>,
    /// The origin of its endpoint. The whole URL may contain a secret of the receiver.
    pub origin: String,
    /// Whether it gets nothing until it is refreshed.
    pub is_paused: bool,
    /// Until when it lives; `None` without expiry.
    pub expires: Option<SystemTime>,
    /// When its endpoint last took something.
    pub last_delivery: Option<SystemTime>,
    /// Why the last attempt failed, in one word, if it did.
    pub last_error: Option<&'static str>,
}

impl Subscription {
    pub(crate) fn new(
        id: Arc<str>,
        key: SubscriptionKey,
        (running, start): (Listening, Reading),
        watched: Arc<WatchedArguments>,
        (subscriber, numbers): (Arc<Subscriber>, Numbers),
        secrets: Secrets,
        expires: Option<(Instant, SystemTime)>,
    ) -> Self {
        let watching = running.watches.watch(&watched);
        // What nobody had to be told of until now.
        running.tell();
        let state = SubscriptionState {
            subscriber,
            secrets,
            numbers,
            expires,
            life: Life::Live,
            status: Status::default(),
            health: Health::default(),
            owes_gap: false,
            truncated: false,
            gap_asked: false,
            reading: start,
            deliverer: None,
            crashes: 0,
            is_dirty: true,
        };
        let (principal, url, state) = (key.principal, key.url.into(), Mutex::new(state));
        Self { id, principal, url, running, watched, state, _watching: watching }
    }

    fn key(&self) -> SubscriptionKey {
        SubscriptionKey {
            principal: self.principal.clone(),
            url: (*self.url).to_owned(),
            name: self.running.name(),
            arguments: (*self.watched.canonical).to_owned(),
        }
    }

    /// What of it changes. To be held shortly.
    pub(crate) fn state(&self) -> MutexGuard<'_, SubscriptionState> {
        self.state.lock()
    }

    /// Something has happened that concerns it, if it reads this log, between `before` and the index
    /// `after`. `true` if it needs a deliverer.
    pub(crate) fn offer(&self, log: &Arc<RunningType>, before: &Position, after: u64) -> bool {
        if !Arc::ptr_eq(&self.running, log) {
            return false;
        }
        let mut state = self.state();
        match state.reading {
            Reading::Idle { upto } if state.life == Life::Live && after > upto => {
                state.reading = Reading::From(before.clone());
                state.deliverer.is_none()
            }
            _ => false,
        }
    }

    /// It can be found now. `true` if it needs a deliverer: the type's actor may have looked at something
    /// since this position, before that.
    pub(crate) fn is_found(&self, start: &Position) -> bool {
        let mut state = self.state();
        if let Reading::Idle { upto } = state.reading
            && upto < self.running.read_up_to()
        {
            state.reading = Reading::From(start.clone());
        }
        matches!(state.reading, Reading::From(_)) && state.deliverer.is_none()
    }

    /// Tells the deliverer to look; `false` if it needs one.
    pub(crate) fn wake(&self) -> bool {
        let mut state = self.state();
        match &state.deliverer {
            Some(deliverer) => {
                // One that has ended is replaced by the keeper.
                let _ = deliverer.cast(DelivererMsg::Look);
                true
            }
            None => {
                if let Reading::Idle { upto } = state.reading {
                    let log = self.running.log.lock();
                    let seen = log.cursor_at(upto);
                    state.reading = Reading::From(Position { index: upto, seen });
                }
                false
            }
        }
    }

    /// Tells the deliverer to look; `false` if there is none.
    pub(crate) fn look(&self) -> bool {
        let state = self.state();
        // One that has ended is replaced by the keeper.
        state.deliverer.as_ref().is_some_and(|it| it.cast(DelivererMsg::Look).is_ok())
    }

    /// There is no deliverer any more, because the keeper of before has ended.
    pub(crate) fn has_no_deliverer(&self) {
        self.state().deliverer = None;
    }

    /// Whether it waits for a deliverer: something of before this process is to be delivered.
    pub(crate) fn needs_deliverer(&self) -> bool {
        let state = self.state();
        matches!(state.reading, Reading::From(_)) && state.deliverer.is_none()
    }

    /// Where a deliverer begins.
    pub(crate) fn begin(&self) -> Position {
        let state = self.state();
        match &state.reading {
            Reading::From(position) => position.clone(),
            Reading::Idle { upto } => {
                let seen = self.running.log.lock().cursor_at(*upto);
                Position { index: *upto, seen }
            }
        }
    }

    pub(crate) fn has_deliverer(&self, deliverer: ActorRef<DelivererMsg>) {
        let _ = deliverer.cast(DelivererMsg::Look);
        self.state().deliverer = Some(deliverer);
    }

    /// The deliverer has read up to this position, and nothing before it is open.
    pub(crate) fn keeps(&self, watermark: Position) {
        let mut state = self.state();
        state.reading = Reading::From(watermark);
        state.is_dirty = true;
    }

    /// The deliverer wants to rest: nothing is open. `false` if there is more to read.
    pub(crate) fn rest(&self, position: &Position) -> bool {
        let mut state = self.state();
        // What the type's actor looks at is offered only to who rests.
        let has_more = position.index < self.running.read_up_to() || state.gap_asked;
        if has_more || state.life != Life::Live {
            return false;
        }
        state.reading = Reading::Idle { upto: position.index };
        (state.deliverer, state.crashes, state.is_dirty) = (None, 0, true);
        true
    }

    /// The deliverer stops although there is more: the webhook is over or paused. `false` if it was
    /// refreshed meanwhile.
    pub(crate) fn stops(&self, watermark: Position) -> bool {
        let mut state = self.state();
        if state.life == Life::Live {
            return false;
        }
        (state.reading, state.deliverer, state.is_dirty) = (Reading::From(watermark), None, true);
        true
    }

    /// A deliverer has ended. `true` if it needs another one.
    pub(crate) fn deliverer_ended(&self, id: ActorId, failed: bool) -> bool {
        let mut state = self.state();
        let was_last = state.deliverer.as_ref().is_some_and(|it| it.get_id() == id);
        if was_last {
            state.deliverer = None;
        }
        if state.deliverer.is_some() || state.life == Life::Over {
            return false;
        }
        if failed {
            state.crashes += 1;
            if state.crashes > MAX_CRASHES {
                tracing::error!(id = %self.id, "a webhook's deliverer crashes: its backlog is dropped");
                state.reading = Reading::Idle { upto: self.running.log.lock().end_index() };
                (state.owes_gap, state.truncated, state.crashes) = (true, true, 0);
                return false;
            }
            return true;
        }
        // It rested, or was told to look just when it did.
        matches!(state.reading, Reading::From(_)) && state.life != Life::Paused && was_last
    }

    /// The cursor of which all at or before it was delivered, abandoned, or not for it.
    pub(crate) fn watermark(&self) -> Cursor {
        let state = self.state();
        match &state.reading {
            Reading::From(position) => position.seen.clone(),
            Reading::Idle { upto } => {
                let upto = (*upto).max(self.running.offered_up_to());
                self.running.log.lock().cursor_at(upto)
            }
        }
    }

    /// Ends it. Returns whether it was alive.
    pub(crate) fn end(&self, life: Life) -> bool {
        let mut state = self.state();
        if matches!(state.life, Life::Over | Life::Ending(_)) {
            return false;
        }
        state.life = life;
        if let Some(deliverer) = &state.deliverer {
            let _ = deliverer.cast(DelivererMsg::Look);
        }
        true
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.state().expires.is_some_and(|(at, _)| at <= now)
    }

    pub(crate) fn stored(&self) -> StoredWebhook {
        let watermark = self.watermark().to_string();
        let state = self.state();
        StoredWebhook {
            key: self.key(),
            identity: state.subscriber.identity().cloned(),
            numbers: state.numbers,
            secret: state.secrets.current.encoded(),
            previous: state
                .secrets
                .previous
                .as_deref()
                .map(|(secret, until)| (secret.encoded(), *until)),
            expires: state.expires.map(|(_, at)| at),
            watermark,
            paused: state.life == Life::Paused,
        }
    }

    pub(crate) fn view(&self) -> WebhookView {
        let state = self.state();
        WebhookView {
            id: self.id.clone(),
            event_type: self.running.name(),
            principal: self.principal.clone(),
            origin: CallbackUrl::stored(&self.url)
                .map(|url| url.origin().to_owned())
                .unwrap_or_default(),
            is_paused: state.life == Life::Paused,
            expires: state.expires.map(|(_, at)| at),
            last_delivery: state.status.last_delivery,
            last_error: state.status.last_error.map(Category::as_str),
        }
    }
}

impl SubscriptionState {
    /// As clients see it; `was_active` as of before this refresh.
    pub(crate) fn delivery_status(&self, was_active: bool) -> Value {
        let Status { last_delivery, last_error, failed_since } = self.status;
        let mut status = json!({
            "active": was_active,
            "lastDeliveryAt": last_delivery.map(timestamp),
            "lastError": last_error.map(Category::as_str),
        });
        if let Some((_, since)) = failed_since {
            status["failedSince"] = timestamp(since).into();
        }
        status
    }
}

/// The secrets of a stored webhook.
pub(crate) fn secrets_of(stored: &StoredWebhook) -> Option<Secrets> {
    let mut secrets = Secrets::new(Secret::parse(&stored.secret).ok()?);
    secrets.previous = stored
        .previous
        .as_ref()
        .and_then(|(secret, until)| Some(Box::new((Secret::parse(secret).ok()?, *until))));
    Some(secrets)
}

/// A moment of the wall clock, for timers.
pub(crate) fn deadline(at: SystemTime) -> (Instant, SystemTime) {
    let left = at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
    (Instant::now() + left, at)
}
