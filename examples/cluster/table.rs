//! Records which clients learned of which changes, and when.
//!
//! A change counts once for each client that was connected when it was made, even if that client
//! had just lost its node. A client has *heard* of a change when it has read the result: a list
//! that contains the new tool, or no longer contains the old one, or the new text of the resource.
//! The table also counts why it read: it was *told* by a notice on its stream, or it *looked*
//! because it had to start over. A client never reads for any other reason, so it cannot learn of a
//! change by luck. A change that a client has not learned of within `PATIENCE` is *lost*.
//!
//! The time runs from the command to make the change, or from the kill, until the client has read
//! the response.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How long a client may take to learn of a change.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The explanation of the columns.
pub(crate) const LEGEND: &str = "\
announced  to each client that was there, also if it had no stream just then
heard      came to hold the list or text that has the change:
told       a notice on its stream had it read that
looked     it lost its session or listen, began anew, and found it
lost       it had not learned of the change after 20 s
p50, p99   from the change (or kill) to the new list or text in the client's hands;
           a client behind a frozen node hears when that thaws, and of a killed node
           some seconds later, when the others have given it up";

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    clients: BTreeSet<usize>,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    title: String,
    sign: Sign,
    made: Instant,
    waited_for: BTreeSet<usize>,
    heard: BTreeMap<usize, (How, Duration)>,
}

/// How a client recognizes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Tool(String),
    NoTool(String),
    Text(String),
}

/// Why a client read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Told,
    Looked,
}

/// A change that a client has just learned of.
pub(crate) struct Learned {
    pub(crate) what: String,
    pub(crate) after: Duration,
}

impl Ledger {
    /// Adds a client. All later changes count for it.
    pub(crate) fn enters(&mut self, client: usize) {
        self.clients.insert(client);
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Records a change just before it is made.
    pub(crate) fn announce(&mut self, title: impl Into<String>, sign: Sign) {
        self.changes.push(Change {
            title: title.into(),
            sign,
            made: Instant::now(),
            waited_for: self.clients.clone(),
            heard: BTreeMap::new(),
        });
    }

    pub(crate) fn reads_tools(
        &mut self,
        client: usize,
        tools: &BTreeSet<String>,
        how: How,
    ) -> Vec<Learned> {
        self.reads(client, how, |sign| match sign {
            Sign::Tool(name) => tools.contains(name),
            Sign::NoTool(name) => !tools.contains(name),
            Sign::Text(_) => false,
        })
    }

    pub(crate) fn reads_text(&mut self, client: usize, text: &str, how: How) -> Vec<Learned> {
        self.reads(client, how, |sign| matches!(sign, Sign::Text(new) if new == text))
    }

    fn reads(&mut self, client: usize, how: How, shows: impl Fn(&Sign) -> bool) -> Vec<Learned> {
        let mut learned = Vec::new();
        for change in &mut self.changes {
            let news = change.waited_for.contains(&client) && !change.heard.contains_key(&client);
            if news && shows(&change.sign) {
                let after = change.made.elapsed();
                change.heard.insert(client, (how, after));
                learned.push(Learned { what: change.sign.to_string(), after });
            }
        }
        learned
    }

    /// The clients that have not learned of all changes yet.
    pub(crate) fn waiting(&self) -> BTreeSet<usize> {
        let missing = |change: &Change| {
            let heard = |client: &usize| !change.heard.contains_key(client);
            change.waited_for.iter().copied().filter(heard).collect::<Vec<_>>()
        };
        self.changes.iter().flat_map(missing).collect()
    }

    /// Whether a client may still learn of a change in time.
    pub(crate) fn expects_more(&self) -> bool {
        let in_time = |change: &&Change| change.made.elapsed() < PATIENCE;
        self.changes.iter().filter(in_time).any(|it| it.heard.len() < it.waited_for.len())
    }

    /// The table, and whether nothing was lost.
    pub(crate) fn table(&self) -> (String, bool) {
        let mut table = format!(
            "{:<44} | announced | heard | told | looked | lost | p50 ms | p99 ms\n\
             {:-<44}-+-----------+-------+------+--------+------+--------+-------",
            "change", ""
        );
        for change in &self.changes {
            row(&mut table, &change.title, std::slice::from_ref(change));
        }
        let lost = row(&mut table, "all", &self.changes);
        (table, lost == 0)
    }
}

/// Writes a line of the table, and returns the number of losses.
fn row(table: &mut String, title: &str, changes: &[Change]) -> usize {
    let announced: usize = changes.iter().map(|change| change.waited_for.len()).sum();
    // Too late counts as lost.
    let in_time = |(_, after): &&(How, Duration)| *after <= PATIENCE;
    let learned = || changes.iter().flat_map(|change| change.heard.values()).filter(in_time);
    let told = learned().filter(|(how, _)| *how == How::Told).count();
    let heard = learned().count();
    let (looked, lost) = (heard - told, announced - heard);
    let mut times: Vec<_> = learned().map(|(_, after)| after.as_millis()).collect();
    times.sort_unstable();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    let _ = write!(
        table,
        "\n{title:<44} | {announced:>9} | {heard:>5} | {told:>4} | {looked:>6} | {lost:>4} | {p50:>6} | {p99:>6}"
    );
    lost
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[u128], percent: usize) -> String {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or_else(|| "-".to_owned(), u128::to_string)
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tool(name) => write!(f, "there is a tool {name}"),
            Self::NoTool(name) => write!(f, "there is no tool {name} any more"),
            Self::Text(text) => write!(f, "the note has {text}"),
        }
    }
}
