//! What goes on in a node, for tests that wait until something has happened or nothing is left.

use serde::{Deserialize, Serialize};
use stentor::cluster::Cluster;
use stentor::outlet::policy::Class;
use stentor::{Engine, SessionKind, Stopped};

/// What goes on in a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Activity {
    /// The sessions of its clients.
    pub sessions: Vec<SessionActivity>,
    /// Who hears of changes.
    pub subscribers: usize,
    /// Calls that run.
    pub calls: usize,
    /// Log messages that were dropped.
    pub lost_logs: u64,
    untold: usize,
    /// Other nodes that it is connected to.
    pub(crate) links: usize,
    /// All that it offers.
    pub(crate) names: Vec<String>,
}

/// What goes on in a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionActivity {
    /// Its id.
    pub id: String,
    /// Whether its client reads what belongs to no request.
    pub attached: bool,
    /// Messages that wait for it.
    pub unread: usize,
}

impl Activity {
    pub(crate) async fn of(engine: &Engine, cluster: Option<&Cluster>) -> Result<Self, Stopped> {
        let sessions = engine.sessions().into_iter();
        let sessions = sessions.filter(|it| it.kind != SessionKind::Stateless);
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
            lost_logs: engine.tally().dropped(Class::Log),
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

    /// Whether all clients were told of everything.
    pub(crate) fn is_settled(&self) -> bool {
        self.untold == 0
    }
}

/// How many changes the clients of a node are still to be told of.
///
/// # Errors
///
/// The engine has stopped, or an actor of it is being replaced.
pub async fn untold(engine: &Engine, cluster: Option<&Cluster>) -> Result<usize, Stopped> {
    // What other nodes offer that its registry has not seen yet.
    engine.observe().await?;
    let unsettled = cluster.map_or(0, Cluster::unsettled);
    // What is settled is in its registry.
    Ok(unsettled + engine.observe().await?.registry.open_windows)
}
