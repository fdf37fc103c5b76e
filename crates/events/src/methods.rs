//! `events/list` and `events/poll`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use stentor_engine::{CallError, Context, Json};
use stentor_wire::bounds::shortened;
use stentor_wire::{Era, ErrorObject};
use tokio::time::Instant;

use crate::branches::Branches;
use crate::check::{self, UpstreamCursor};
use crate::cursor::Cursor;
use crate::error::EventError;
use crate::event_type::{Modes, WatchedArguments};
use crate::log::{Entry, Position, Step};
use crate::metrics::count_gaps;
use crate::running::RunningType;
use crate::shared::Shared;
use crate::start::{oldest, oldest_time};
use crate::subscriber::{Mode, Subscriber};

/// Entries of a log that a poll looks at before it gives the log back.
const AT_ONCE: usize = 64;

/// Reads the parameters of a method.
pub(crate) fn read<T: DeserializeOwned>(params: Value) -> Result<T, CallError> {
    serde_json::from_value(params)
        .map_err(|error| CallError::protocol(ErrorObject::invalid_params(shortened(error))))
}

/// The methods do not exist for legacy clients, but for those that came before the extension.
pub(crate) fn exists(
    shared: &Shared,
    ctx: &Context,
    method: &str,
    for_early: bool,
) -> Result<(), CallError> {
    match ctx.era() {
        Era::Legacy if !(for_early && shared.config.early_clients) => {
            Err(CallError::protocol(ErrorObject::method_not_found(method)))
        }
        _ => Ok(()),
    }
}

#[derive(Debug, Deserialize)]
struct ListParams {
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListResult {
    events: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists the types that the sender may know of.
pub(crate) fn list(
    shared: &Shared,
    params: Value,
    ctx: &Context,
) -> Result<Json<ListResult>, CallError> {
    exists(shared, ctx, "events/list", true)?;
    let ListParams { cursor } = read(params)?;
    let requester = ctx.requester();
    let principal = shared.webhooks.principal_of(&requester);
    let subscriber = Subscriber::new(requester, Mode::Poll, None);
    let modes_of = |running: &RunningType| match principal {
        Some(_) => running.modes,
        // Nobody could be the owner of a webhook.
        None => running.modes.and(Modes::of([Mode::Poll, Mode::Push])),
    };
    let all = shared.all();
    let mut from = 0;
    if let Some(cursor) = cursor {
        let after = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|it| String::from_utf8(it).ok());
        let after = after.and_then(|after| all.iter().position(|it| *it.name() == *after));
        let invalid = || CallError::protocol(ErrorObject::invalid_params("invalid cursor"));
        from = after.ok_or_else(invalid)? + 1;
    }
    let mut events = Vec::new();
    let mut next_cursor = None;
    let mut last: Option<Arc<str>> = None;
    for running in &all[from..] {
        let definition = running.definition();
        let modes = modes_of(running);
        if definition.hides(&subscriber) || modes.iter().next().is_none() {
            continue;
        }
        if events.len() == shared.config.page_size.max(1) {
            next_cursor = last.map(|last| URL_SAFE_NO_PAD.encode(last.as_bytes()));
            break;
        }
        events.push(definition.descriptor(modes));
        last = Some(definition.name.clone());
    }
    Ok(Json(ListResult { events, next_cursor }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PollParams {
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    max_age_ms: Option<f64>,
    #[serde(default)]
    max_events: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PollResult {
    events: Vec<Box<RawValue>>,
    cursor: Option<String>,
    truncated: bool,
    has_more: bool,
    next_poll_ms: u64,
}

/// Answers a poll from the log, or from what the author's `check` says.
pub(crate) async fn poll(
    shared: &Shared,
    params: Value,
    ctx: &Context,
) -> Result<Json<PollResult>, CallError> {
    exists(shared, ctx, "events/poll", false)?;
    let params: PollParams = read(params)?;
    let requester = ctx.requester();
    let numbers = shared.config.numbering.of(&requester);
    let refused = |error: EventError| CallError::protocol(error.object(numbers));
    let subscriber = Subscriber::new(requester, Mode::Poll, None);
    let asked = shared.ask(&params.name, Mode::Poll, params.arguments, &subscriber);
    let (running, watched) = asked.map_err(refused)?;
    running.watches.lease(&watched, shared.config.poll_lease).map_err(refused)?;
    let asked = params.max_events.map_or(usize::MAX, |max| max.max(1.0) as usize);
    let max = asked.min(shared.config.max_events).max(1);
    if let Some(branches) = running.branches() {
        let (cursor, oldest) = (params.cursor.as_deref(), oldest_time(params.max_age_ms));
        let polled =
            poll_upstream(&running, branches, (&subscriber, &watched), cursor, oldest, max);
        return polled.await.map(Json).map_err(refused);
    }
    let next_poll_ms = millis(shared.config.poll_interval);
    if !running.replays() {
        let (events, cursor) = (Vec::new(), None);
        let result = PollResult { events, cursor, truncated: false, has_more: false, next_poll_ms };
        return Ok(Json(result));
    }
    let cursor = params.cursor.as_deref().map(Cursor::parse);
    shared.peers.know(&running, cursor.as_ref().and_then(Option::as_ref)).await;
    let (mut position, mut truncated) = {
        let mut log = running.log.lock();
        log.expire(Instant::now());
        match cursor {
            None => (log.end(), false),
            Some(None) => (log.end(), true),
            Some(Some(cursor)) => log.start(&cursor, oldest(params.max_age_ms)),
        }
    };
    let (mut events, mut bytes, mut has_more) = (Vec::new(), 0, false);
    let definition = running.definition();
    'pages: loop {
        let (page, gap, end) = page(&running, &position);
        truncated |= gap;
        for (entry, after) in page {
            let is_targeted = entry.occurrence.only_for.is_some();
            let heard = definition.for_subscriber(&subscriber, &watched, &entry.occurrence);
            if let Some(occurrence) = heard.filter(|_| !is_targeted) {
                if events.len() == max || bytes >= shared.config.max_poll_bytes {
                    has_more = true;
                    break 'pages;
                }
                bytes += occurrence.data.len();
                events.push(raw(format!("{{{}}}", occurrence.members())));
            }
            position = after;
        }
        if let Some(end) = end {
            position = end;
            break;
        }
        tokio::task::yield_now().await;
    }
    count_gaps(Mode::Poll, usize::from(truncated));
    let cursor = Some(position.seen.to_string());
    Ok(Json(PollResult { events, cursor, truncated, has_more, next_poll_ms }))
}

/// Asks the upstream once.
async fn poll_upstream(
    running: &RunningType,
    branches: &Branches,
    (subscriber, watched): (&Subscriber, &WatchedArguments),
    cursor: Option<&str>,
    oldest: Option<SystemTime>,
    max: usize,
) -> Result<PollResult, EventError> {
    let definition = running.definition();
    let from = cursor.and_then(UpstreamCursor::parse);
    let (limits, _) = branches.calls();
    let batch = check::call(&definition, subscriber, watched, from.as_ref(), limits).await?;
    let mut truncated = batch.truncated || (cursor.is_some() && from.is_none());
    let (mut events, mut at, mut has_more) = (Vec::new(), batch.cursor, batch.has_more);
    let mut before = cursor.map(Arc::from);
    for (occurrence, after) in batch.occurrences {
        if oldest.is_some_and(|oldest| occurrence.at < oldest) {
            truncated = true;
        } else if let Some(heard) = definition.for_subscriber(subscriber, watched, &occurrence) {
            if events.len() == max {
                // The next poll begins before this one.
                (at, has_more) = (before.unwrap_or(at), true);
                break;
            }
            events.push(raw(format!("{{{}}}", heard.members())));
        }
        before = Some(after);
    }
    count_gaps(Mode::Poll, usize::from(truncated));
    let next_poll_ms = millis(definition.every);
    Ok(PollResult { events, cursor: Some((*at).to_owned()), truncated, has_more, next_poll_ms })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The next entries after a position, each with the position after it; whether there was a gap before
/// them; the end of the log if they are the last ones.
fn page(
    running: &RunningType,
    position: &Position,
) -> (Vec<(Entry, Position)>, bool, Option<Position>) {
    let (mut position, mut page, mut gap) = (position.clone(), Vec::new(), false);
    let log = running.log.lock();
    while page.len() < AT_ONCE {
        match log.step(&mut position) {
            Step::Entry(entry) => page.push((entry, position.clone())),
            // Only before the first one: nothing is dropped meanwhile.
            Step::Gap => gap = true,
            Step::End => return (page, gap, Some(position)),
        }
    }
    (page, gap, None)
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
