//! What is printed, and who has heard of what.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Who prints a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Server,
    Poll,
    Push,
    Webhook,
}

const CLIENTS: [Way; 3] = [Way::Poll, Way::Push, Way::Webhook];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Poll => "poll",
            Self::Push => "push",
            Self::Webhook => "webhook",
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Inner>);

struct Inner {
    began: Instant,
    incidents: Mutex<Vec<Incident>>,
    titles: Mutex<u32>,
}

/// One incident, and how often each client has heard of it.
struct Incident {
    id: String,
    severity: &'static str,
    heard: BTreeMap<Way, u32>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (incidents, titles) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { began: Instant::now(), incidents, titles }))
    }

    pub(crate) fn title(&self, title: &str) {
        let mut titles = self.0.titles.lock();
        *titles += 1;
        print(format_args!("\n{}. {title}\n", *titles));
    }

    pub(crate) fn say(&self, who: Way, what: impl Display) {
        let at = self.0.began.elapsed().as_secs_f64();
        print(format_args!("{at:>8.3}  {:<8} {what}", who.name()));
    }

    /// How many incidents there were.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.incidents.lock().len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn happens(&self, id: &str, severity: &'static str) {
        let incident = Incident { id: id.to_owned(), severity, heard: BTreeMap::new() };
        self.0.incidents.lock().push(incident);
        self.say(Way::Server, format_args!("eventId {id}  {severity}"));
    }

    /// A client hears of an occurrence. It knows by the `eventId` whether it has heard of it before:
    /// each may come more than once.
    pub(crate) fn hears(&self, who: Way, occurrence: &Value, note: &str) {
        let id = occurrence["eventId"].as_str().unwrap_or("nothing");
        let mut incidents = self.0.incidents.lock();
        let found = incidents.iter_mut().find(|incident| incident.id == id);
        let count = found.map(|incident| incident.heard.entry(who).or_default());
        let is_new = count.is_none_or(|count| {
            *count += 1;
            *count == 1
        });
        drop(incidents);
        let again = if is_new { "" } else { "  (once more: ignored)" };
        self.say(who, format_args!("eventId {id}  {}{note}{again}", occurrence["data"]));
    }

    /// Prints who has heard of what. Returns whether nobody missed anything.
    pub(crate) fn table(&self) -> bool {
        print(format_args!("\n{:<8} {:<9} poll  push  webhook", "eventId", "severity"));
        let mut nothing_missed = true;
        for incident in &*self.0.incidents.lock() {
            let cells = CLIENTS.map(|who| {
                let wants = who != Way::Push || incident.severity == "high";
                match (incident.heard.contains_key(&who), wants) {
                    (true, true) => "yes",
                    (false, false) => "-",
                    _ => {
                        nothing_missed = false;
                        "WRONG"
                    }
                }
            });
            let (id, severity) = (&incident.id, incident.severity);
            let [poll, push, webhook] = cells;
            print(format_args!("{id:<8} {severity:<9} {poll:<5} {push:<5} {webhook}"));
        }
        print("\n-: the stream asked for high ones only");
        print(if nothing_missed {
            "Nobody missed anything."
        } else {
            "Somebody missed something."
        });
        nothing_missed
    }
}

/// `println!` would panic when the reader of a pipe has disconnected.
fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
