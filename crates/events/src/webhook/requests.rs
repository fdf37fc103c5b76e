//! `events/subscribe` and `events/unsubscribe`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use stentor_engine::identity::Identity;
use stentor_engine::{CallError, Context, Json, Requester};
use tokio::time::Instant;

use super::Webhooks;
use super::callback_url::{CallbackUrl, CallbackUrlError};
use super::health::Health;
use super::key::SubscriptionKey;
use super::secret::{Secret, Secrets};
use super::subscription::{Life, Reading, Subscription};
use super::table::Begun;
use crate::IDENTIFIER;
use crate::error::{EventError, Numbers};
use crate::methods::{exists, read};
use crate::occurrence::timestamp;
use crate::report::{EventsReport, WebhookEnd};
use crate::shared::Shared;
use crate::start::Start;
use crate::subscriber::{Mode, Subscriber};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscribeParams {
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    delivery: Delivery,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    max_age_ms: Option<f64>,
    /// `None` if it is absent, `Some(None)` if it is null.
    #[serde(default, deserialize_with = "given")]
    ttl_ms: Option<Option<f64>>,
}

#[derive(Deserialize)]
struct Delivery {
    #[serde(default)]
    mode: Option<String>,
    url: String,
    secret: String,
}

#[derive(Debug, Deserialize)]
struct UnsubscribeParams {
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    delivery: UnsubscribeDelivery,
}

#[derive(Debug, Deserialize)]
struct UnsubscribeDelivery {
    #[serde(default)]
    mode: Option<String>,
    url: String,
}

fn given<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(input).map(Some)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubscribeResult {
    id: Arc<str>,
    refresh_before: Option<String>,
    cursor: Option<String>,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_status: Option<Value>,
}

/// What a webhook is to be.
struct Wanted {
    name: String,
    arguments: Option<Map<String, Value>>,
    url: String,
    cursor: Option<String>,
    max_age_ms: Option<f64>,
    ttl: Option<Option<f64>>,
    secret: Secret,
    numbers: Numbers,
    /// Whether the endpoint gets no challenge.
    unchallenged: bool,
}

fn nobody() -> EventError {
    EventError::Forbidden("a webhook needs an authenticated principal".to_owned())
}

fn principal_of(webhooks: &Webhooks, requester: &Requester) -> Result<Arc<str>, EventError> {
    webhooks.principal_of(requester).ok_or_else(nobody)
}

fn webhooks_only(mode: Option<&str>) -> Result<(), EventError> {
    match mode {
        None | Some("webhook") => Ok(()),
        Some(other) => Err(EventError::UnsupportedMode(other.to_owned())),
    }
}

/// Adds a webhook, or refreshes it.
pub(crate) async fn subscribe(
    shared: Arc<Shared>,
    params: Value,
    ctx: Context,
) -> Result<Json<SubscribeResult>, CallError> {
    exists(&shared, &ctx, "events/subscribe", true)?;
    let requester = ctx.requester();
    let numbers = shared.config.numbering.of(&requester);
    let refused = |error: EventError| CallError::protocol(error.object(numbers));
    let principal = principal_of(&shared.webhooks, &requester).map_err(refused)?;
    let params: SubscribeParams = read(params)?;
    webhooks_only(params.delivery.mode.as_deref()).map_err(refused)?;
    let secret = Secret::parse(&params.delivery.secret);
    let invalid = |why: String| refused(EventError::InvalidParams(why));
    let wanted = Wanted {
        name: params.name,
        arguments: params.arguments,
        url: params.delivery.url,
        cursor: params.cursor,
        max_age_ms: params.max_age_ms,
        ttl: params.ttl_ms,
        secret: secret.map_err(|error| invalid(error.to_string()))?,
        numbers,
        unchallenged: false,
    };
    shared.webhooks.add(&shared, principal, requester, wanted).await.map(Json).map_err(refused)
}

/// Adds a webhook for somebody, whose endpoint gets no challenge. Returns its id.
pub(crate) async fn subscribe_as(
    shared: Arc<Shared>,
    identity: Identity,
    name: String,
    arguments: Map<String, Value>,
    url: String,
    secret: &str,
) -> Result<Arc<str>, EventError> {
    let engine = shared.engine.load_full();
    let engine = engine.ok_or_else(|| EventError::Failed("no engine runs".to_owned()))?;
    let secret =
        Secret::parse(secret).map_err(|error| EventError::InvalidParams(error.to_string()))?;
    let wanted = Wanted {
        name,
        arguments: Some(arguments),
        url,
        cursor: None,
        max_age_ms: None,
        ttl: None,
        secret,
        numbers: Numbers::Draft,
        unchallenged: true,
    };
    let requester = engine.requester(Some(identity));
    let principal = requester.principal().cloned().ok_or_else(nobody)?;
    Ok(shared.webhooks.add(&shared, principal, requester, wanted).await?.id)
}

/// The id of the webhook with this key.
pub(crate) fn id_of(
    principal: &str,
    name: &str,
    arguments: &Map<String, Value>,
    url: &str,
) -> Result<String, EventError> {
    let invalid = |error: &dyn std::fmt::Display| EventError::InvalidParams(error.to_string());
    let url = CallbackUrl::stored(url).map_err(|error| invalid(&error))?;
    let key = SubscriptionKey::new(principal.into(), url.as_str(), name.into(), Some(arguments));
    key.map(|key| key.id()).map_err(|error| invalid(&error))
}

/// Ends a webhook by its key.
pub(crate) async fn unsubscribe(
    shared: Arc<Shared>,
    params: Value,
    ctx: Context,
) -> Result<Json<Value>, CallError> {
    exists(&shared, &ctx, "events/unsubscribe", true)?;
    let requester = ctx.requester();
    let numbers = shared.config.numbering.of(&requester);
    let refused = |error: EventError| CallError::protocol(error.object(numbers));
    let webhooks = &shared.webhooks;
    let principal = principal_of(webhooks, &requester).map_err(refused)?;
    let params: UnsubscribeParams = read(params)?;
    webhooks_only(params.delivery.mode.as_deref()).map_err(refused)?;
    let unknown = || EventError::UnknownSubscription;
    let url = CallbackUrl::stored(&params.delivery.url);
    let url = url.map_err(|error| refused(EventError::InvalidParams(error.to_string())))?;
    let arguments = params.arguments.as_ref();
    let key = SubscriptionKey::new(principal, url.as_str(), params.name.into(), arguments);
    let key = key.map_err(|error| refused(EventError::InvalidParams(error.to_string())))?;
    let id = key.id();
    let (found, was_begun, had_ended) = {
        let mut table = webhooks.table.lock();
        let found = table.find(&id).filter(|it| !it.is_expired(Instant::now()));
        (found, table.cancel(&id), table.has_ended(&id))
    };
    if let Some(found) = &found {
        webhooks.end(found, WebhookEnd::Unsubscribed);
        // The next process must not deliver to it.
        if let Err(error) = webhooks.save().await {
            tracing::error!(%error, "a webhook that has ended is still stored");
        }
    }
    let is_early = !requester.declares(IDENTIFIER);
    match found.is_some()
        || was_begun
        || webhooks.config.lenient_unsubscribe
        || (is_early && had_ended)
    {
        true => Ok(Json(Value::Object(Map::new()))),
        false => Err(refused(unknown())),
    }
}

/// A subscribe that has begun. Dropping it gives it up.
struct Reserved<'a> {
    webhooks: &'a Webhooks,
    id: Arc<str>,
    key: &'a SubscriptionKey,
    number: Option<u64>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut table = self.webhooks.table.lock();
            table.give_up(&self.id, number, &self.key.principal, &self.key.name);
        }
    }
}

impl Webhooks {
    async fn add(
        self: &Arc<Self>,
        shared: &Shared,
        principal: Arc<str>,
        requester: Requester,
        wanted: Wanted,
    ) -> Result<SubscribeResult, EventError> {
        let invalid = |error: CallbackUrlError| EventError::InvalidParams(error.to_string());
        let mut subscriber = Subscriber::new(requester.for_later(), Mode::Webhook, None);
        subscriber.principal = Some(principal.clone());
        let asked =
            shared.ask(&wanted.name, Mode::Webhook, wanted.arguments.clone(), &subscriber)?;
        let (running, watched) = asked;
        let url = CallbackUrl::parse(&wanted.url, self.client.allowed()).map_err(invalid)?;
        let key = SubscriptionKey {
            principal,
            url: url.as_str().to_owned(),
            name: running.name(),
            arguments: (*watched.canonical).to_owned(),
        };
        let id: Arc<str> = key.id().into();
        subscriber.id = Some(id.clone());
        let subscriber = Arc::new(subscriber);
        let expires = self.granted(wanted.ttl);
        let max_of_type = running.definition().max_webhooks;
        if let Some(old) = self.find(&id).filter(|it| it.is_expired(Instant::now())) {
            self.end(&old, WebhookEnd::Expired);
        }
        let begin = || {
            let (principal, name) = (&key.principal, &key.name);
            self.table.lock().begin(&id, principal, name, max_of_type, Instant::now())
        };
        let (mut cursor, mut max_age_ms) = (wanted.cursor.clone(), wanted.max_age_ms);
        let begun = begin()?;
        let number = match begun {
            Begun::Exists(found) => {
                self.challenge(&key, &url, &wanted, &id).await?;
                if found.running.branch().is_none_or(|branch| branch.serves(&subscriber)) {
                    return self.refresh(&found, subscriber, &wanted, expires).await;
                }
                // What the upstream told for another credential is not for this one, which goes on
                // from the same place.
                (cursor, max_age_ms) = (Some(found.watermark().to_string()), None);
                self.end(&found, WebhookEnd::Replaced);
                let begun = begin()?;
                let Begun::New(number) = begun else {
                    // Another request was faster.
                    return Err(EventError::UnknownSubscription);
                };
                number
            }
            Begun::New(number) => number,
        };
        let mut reserved =
            Reserved { webhooks: self, id: id.clone(), key: &key, number: Some(number) };
        self.challenge(&key, &url, &wanted, &id).await?;
        // From here on nothing is missed: the position is of before the webhook is found.
        let who = (&*subscriber, &watched);
        let start = shared.start(&running, who, cursor.as_deref(), max_age_ms).await?;
        let Start { listening, position, replays, truncated } = start;
        let reading = match replays {
            true => Reading::From(position.clone()),
            false => Reading::Idle { upto: position.index },
        };
        let watched = self.table.lock().share(&key.name, watched);
        let subscription = Arc::new(Subscription::new(
            id.clone(),
            key.clone(),
            (listening, reading),
            watched,
            (subscriber.clone(), wanted.numbers),
            Secrets::new(wanted.secret.clone()),
            expires,
        ));
        reserved.number = None;
        let added = self.table.lock().add(number, &subscription, Instant::now());
        let added = added.ok_or(EventError::UnknownSubscription)?;
        if !Arc::ptr_eq(&added, &subscription) {
            return self.refresh(&added, subscriber, &wanted, expires).await;
        }
        self.report(|| EventsReport::WebhookAdded {
            id: id.clone(),
            event_type: key.name.clone(),
            origin: url.origin().to_owned(),
        });
        if running.is_closed() {
            let error = EventError::UnknownType((*key.name).to_owned());
            self.end(&added, WebhookEnd::Refused(error.clone()));
            return Err(error);
        }
        if let Err(error) = self.store(&added).await {
            // Its client does not know that it exists.
            self.end(&added, WebhookEnd::Refused(error.clone()));
            return Err(error);
        }
        if added.is_found(&position) {
            self.deliver(&added);
        }
        let cursor = running.replays().then(|| added.watermark().to_string());
        let refresh_before = expires.map(|(_, at)| timestamp(at));
        Ok(SubscribeResult { id, refresh_before, cursor, truncated, delivery_status: None })
    }

    /// Keeps a webhook in the store before its client hears of it.
    async fn store(self: &Arc<Self>, subscription: &Arc<Subscription>) -> Result<(), EventError> {
        self.keep(subscription).await.map_err(|error| {
            tracing::error!(%error, "a webhook is not stored");
            EventError::Failed("the webhook could not be stored".to_owned())
        })
    }

    async fn refresh(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        subscriber: Arc<Subscriber>,
        wanted: &Wanted,
        expires: Option<(Instant, SystemTime)>,
    ) -> Result<SubscribeResult, EventError> {
        let (truncated, was_active, status) = {
            let mut state = subscription.state();
            if matches!(state.life, Life::Ending(_) | Life::Over) {
                return Err(EventError::UnknownSubscription);
            }
            let was_active = state.life == Life::Live;
            state.life = Life::Live;
            if !was_active {
                state.health = Health::default();
            }
            (state.subscriber, state.numbers, state.expires) =
                (subscriber, wanted.numbers, expires);
            let (secret, grace) = (wanted.secret.clone(), self.config.rotation_grace);
            state.secrets.rotate(secret, SystemTime::now(), grace);
            let status = state.delivery_status(was_active);
            (std::mem::take(&mut state.truncated), was_active, status)
        };
        if !was_active {
            self.report(|| EventsReport::WebhookRevived { id: subscription.id.clone() });
        }
        self.store(subscription).await?;
        if subscription.needs_deliverer() {
            self.deliver(subscription);
        }
        let replays = subscription.running.replays();
        Ok(SubscribeResult {
            id: subscription.id.clone(),
            refresh_before: expires.map(|(_, at)| timestamp(at)),
            cursor: replays.then(|| subscription.watermark().to_string()),
            truncated: truncated && replays,
            delivery_status: Some(status),
        })
    }

    /// Asks the endpoint for its consent, unless that is known.
    async fn challenge(
        &self,
        key: &SubscriptionKey,
        url: &CallbackUrl,
        wanted: &Wanted,
        id: &str,
    ) -> Result<(), EventError> {
        let (principal, now) = (&key.principal, Instant::now());
        let is_known = wanted.unchallenged
            || self.has_agreed(url)
            || self.table.lock().is_verified(principal, &key.url, now);
        if is_known {
            return Ok(());
        }
        if !self.table.lock().may_challenge(principal, now) {
            let (limit, max) = ("challenges".to_owned(), self.config.max_challenges);
            return Err(EventError::Exhausted { limit, max });
        }
        let secrets = Secrets::new(wanted.secret.clone());
        match self.challenger.verify(url, &secrets, id).await {
            Ok(()) => {
                self.table.lock().note_verified(principal, &key.url, Instant::now());
                Ok(())
            }
            // A name with a forbidden address is answered as an unknown one: which names there are inside
            // is nobody's business.
            Err(error) => Err(EventError::Callback(error.category.as_str().to_owned())),
        }
    }

    /// How long a webhook lives whose client asks for this many milliseconds; `None` without end.
    fn granted(&self, ttl: Option<Option<f64>>) -> Option<(Instant, SystemTime)> {
        let config = &self.config;
        let asked = match ttl {
            None => config.default_ttl,
            Some(None) if config.allow_no_expiry && self.is_durable() => return None,
            Some(None) => config.max_ttl,
            Some(Some(asked)) => {
                let seconds = if asked.is_nan() { 0.0 } else { asked.max(0.0) / 1_000.0 };
                Duration::try_from_secs_f64(seconds).unwrap_or(config.max_ttl)
            }
        };
        let granted = asked.max(config.min_ttl).min(config.max_ttl);
        Some((Instant::now() + granted, SystemTime::now() + granted))
    }
}
