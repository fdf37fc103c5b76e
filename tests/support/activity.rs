//! Snapshots of a node's activity, for tests that wait until something has happened or everything
//! has ended.

use serde::{Deserialize, Serialize};
use stentor::cluster::Cluster;
use stentor::delivery::policy::Class;
use stentor::{Engine, observe::Stopped};

/// A snapshot of one node's activity, or of several nodes added together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Activity {
    /// The sessions of its clients.
    pub sessions: Vec<SessionActivity>,
    /// Subscribers of the hub.
    pub subscribers: usize,
    /// Running calls.
    pub calls: usize,
    /// Log messages that were dropped.
    pub lost_logs: u64,
    untold: usize,
    /// Other nodes with a connected link.
    pub(crate) links: usize,
    /// Names and URIs of all items in the catalog.
    pub(crate) names: Vec<String>,
}

/// A snapshot of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionActivity {
    /// Its id.
    pub id: String,
    /// Whether its client reads the stream of notices.
    pub attached: bool,
    /// Frames in its queue.
    pub unread: usize,
}

impl Activity {
    pub(crate) async fn of(engine: &Engine, cluster: Option<&Cluster>) -> Result<Self, Stopped> {
        let sessions = engine.sessions().into_iter();
        let sessions = sessions.map(|it| SessionActivity {
            id: it.id.to_string(),
            attached: it.attached,
            unread: it.unread,
        });
        let (sessions, view) = (sessions.collect(), engine.observe().await?);
        let links = cluster.map(Cluster::nodes).unwrap_or_default();
        let catalog = engine.catalog().snapshot();
        let resources = catalog.resource_uris().chain(catalog.uri_templates());
        let names = catalog.tool_names().chain(resources).chain(catalog.prompt_names());
        Ok(Self {
            sessions,
            subscribers: view.hub.subscribers,
            calls: view.running_calls,
            lost_logs: engine.counters().dropped(Class::Log),
            untold: untold(engine, cluster).await?,
            links: links.iter().filter(|it| it.connected).count(),
            names: names.map(str::to_owned).collect(),
        })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.subscribers += other.subscribers;
        self.calls += other.calls;
        self.lost_logs += other.lost_logs;
        self.untold += other.untold;
    }

    /// Whether all changes were announced to all clients.
    pub(crate) fn is_settled(&self) -> bool {
        self.untold == 0
    }
}

/// The number of changes that the clients of a node were not notified of yet.
///
/// # Errors
///
/// The engine has stopped, or an actor of it is being replaced.
pub async fn untold(engine: &Engine, cluster: Option<&Cluster>) -> Result<usize, Stopped> {
    // The registry receives pending items of other nodes before it answers this.
    engine.observe().await?;
    let unsettled = cluster.map_or(0, Cluster::unsettled);
    // Items that are settled are in the registry, so only open windows remain to count.
    Ok(unsettled + engine.observe().await?.registry.open_windows)
}
