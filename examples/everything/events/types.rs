//! The event types. Each has open payloads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stentor::events::{EventType, Mode, Subscriber, event_type};

pub(super) type Payload = Map<String, Value>;

/// The arguments of a subscription.
#[derive(Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Filter {
    /// Only occurrences with this `tag` in their payload; empty for all.
    tag: String,
    /// Has no effect.
    n: f64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { tag: String::new(), n: 0.0 }
    }
}

pub(super) type Event = EventType<Filter, Payload>;

pub(super) const LIVE: &str = "conformance.live";
/// Takes this many webhooks of each principal.
pub(super) const CAPPED: (&str, usize) = ("conformance.capped", 3);

/// Principals, and names of types that they may not have. `None` is who has no principal, and `*`
/// is everybody.
type Refused = BTreeSet<(Option<String>, String)>;

/// The types, and who may not have them.
#[derive(Clone)]
pub(super) struct Types {
    all: Arc<Vec<Event>>,
    pub(super) refused: Arc<Mutex<Refused>>,
}

impl Default for Types {
    fn default() -> Self {
        let refused = Arc::<Mutex<Refused>>::default();
        let make = |name: &'static str, what: &'static str| {
            let refused = refused.clone();
            event_type::<Filter, Payload>(name)
                .description(what)
                .matches(|filter, payload| {
                    filter.tag.is_empty()
                        || payload.get("tag").and_then(Value::as_str) == Some(&filter.tag)
                })
                .allow(move |subscriber, _| may_have(&refused.lock(), subscriber, name))
        };
        let hour = Duration::from_secs(3600);
        let all = vec![
            make(LIVE, "Happens each second").replay(1_000, hour),
            make("conformance.doomed", "Can be ended for good")
                .replay(100, hour)
                .delivery([Mode::Push]),
            make("conformance.quiet", "Happens when it is told to").replay(10_000, hour).durable(),
            make("conformance.noreplay", "Has no cursors").delivery([
                Mode::Poll,
                Mode::Push,
                Mode::Webhook,
            ]),
            make("conformance.small", "Keeps little")
                .replay(16, hour)
                .delivery([Mode::Poll, Mode::Push]),
            make(CAPPED.0, "Takes few webhooks")
                .replay(100, hour)
                .delivery([Mode::Webhook])
                .max_webhooks(CAPPED.1),
            make("conformance.spare", "Comes, goes and changes").replay(100, hour),
        ];
        Self { all: Arc::new(all), refused }
    }
}

fn may_have(refused: &Refused, subscriber: &Subscriber, name: &str) -> bool {
    let principal = subscriber.identity().map(|it| it.principal().to_owned());
    !refused.contains(&(principal, name.to_owned()))
        && !refused.contains(&(Some("*".to_owned()), name.to_owned()))
}

impl Types {
    pub(super) fn all(&self) -> Vec<Event> {
        self.all.to_vec()
    }

    pub(super) fn find(&self, name: &str) -> Option<Event> {
        self.all.iter().find(|it| it.name() == name).cloned()
    }

    /// Emits an occurrence of the first type each second.
    pub(super) fn emit_now_and_then(&self) {
        let Some(live) = self.find(LIVE) else { return };
        tokio::spawn(async move {
            let mut started = false;
            for number in 0_u64.. {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let Value::Object(payload) = json!({"number": number}) else { return };
                match live.emit(payload).await {
                    Ok(_) => started = true,
                    // The engine has not started, or has ended.
                    Err(_) if started => return,
                    Err(_) => {}
                }
            }
        });
    }
}
