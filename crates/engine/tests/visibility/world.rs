//! The engines, their users, and their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stentor_engine::identity::{Identity, Labels};
use stentor_engine::transport_api::RequestSender;
use stentor_engine::{Engine, ListKind};

use crate::clients::{Client, Lists};
use crate::nodes::Nodes;
use crate::steps::{CLIENTS, SESSIONS, Step, USERS, identity};

/// The labels of each principal, as a database of all nodes has them.
type Table = Arc<Mutex<BTreeMap<&'static str, Vec<&'static str>>>>;

pub(crate) struct World {
    engines: Vec<Engine>,
    table: Table,
    clients: Vec<Arc<Client>>,
}

impl World {
    pub(crate) async fn start(count: usize) -> Self {
        let (nodes, table) = (Nodes::default(), Table::default());
        let mut engines = Vec::new();
        for index in 0..count {
            let table = table.clone();
            let builder = Engine::builder("test", "1")
                .labels(move |user: &Identity| {
                    let table = table.lock().unwrap();
                    let granted = table.get(user.principal()).cloned().unwrap_or_default();
                    granted.into_iter().collect::<Labels>()
                })
                .configure(|config| config.lists.page_size = 2);
            engines.push(match count {
                1 => builder.start().await.unwrap(),
                _ => nodes.start(&format!("n{index}"), builder).await,
            });
        }
        let mut clients = Vec::new();
        for index in 0..CLIENTS {
            let sender = sender(index, &[]);
            let engine = &engines[index % count];
            clients.push(if index < SESSIONS {
                let home = &engines[(index / 2) % count];
                Client::legacy(engine, home, sender).await
            } else {
                Client::modern(engine, sender).await
            });
        }
        Self { engines, table, clients }
    }

    pub(crate) fn clients(&self) -> &[Arc<Client>] {
        &self.clients
    }

    /// Returns when nothing is left to do. The time is that of the runtime, which goes on when all
    /// tasks wait.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Lets others go on: not at all, a little, or for a while.
    pub(crate) async fn pause(&self, pause: u8) {
        match pause {
            0 => {}
            1 => tokio::task::yield_now().await,
            2 => tokio::time::sleep(Duration::from_micros(100)).await,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }

    pub(crate) async fn perform(&self, step: &Step) {
        match step {
            Step::Change(node, changes) => {
                let mutations: Vec<_> = changes.iter().map(|it| it.mutation()).collect();
                // One that is refused changes nothing.
                let _ = self.engines[*node].catalog().apply(mutations).await;
            }
            Step::Labels(node, user, labels) => {
                self.table.lock().unwrap().insert(USERS[*user], labels.clone());
                self.engines[*node].refresh_visibility(USERS[*user]).await;
            }
            Step::AllLabels(node, labels) => {
                *self.table.lock().unwrap() = USERS.into_iter().zip(labels.clone()).collect();
                self.engines[*node].refresh_visibility_all().await;
            }
            Step::Scopes(client, scopes) => {
                self.clients[*client].comes_as(sender(*client, scopes)).await;
            }
            Step::Send(node, kind) => match kind {
                ListKind::Tools => self.engines[*node].send_tool_list_changed(),
                ListKind::Resources => self.engines[*node].send_resource_list_changed(),
                ListKind::Prompts => self.engines[*node].send_prompt_list_changed(),
            },
        }
    }

    pub(crate) fn heard(&self) -> Vec<BTreeSet<ListKind>> {
        self.clients.iter().map(|client| client.heard()).collect()
    }

    pub(crate) fn forget_heard(&self) {
        self.clients.iter().for_each(|client| client.forget_heard());
    }

    pub(crate) async fn begin_to_read_again(&self) {
        for client in &self.clients {
            client.begin_to_read_again().await;
        }
    }

    pub(crate) fn believed(&self) -> Vec<Lists> {
        self.clients.iter().map(|client| client.believed()).collect()
    }

    pub(crate) async fn read_all(&self) -> Vec<Lists> {
        let mut all = Vec::new();
        for client in &self.clients {
            all.push(client.all_lists().await);
        }
        all
    }

    pub(crate) async fn stop(&self) {
        for engine in &self.engines {
            engine.shutdown().await;
        }
    }
}

/// Who a client is: two sessions and a listen of one user, and so on; a stranger, and the local user.
fn sender(client: usize, scopes: &[&'static str]) -> RequestSender {
    match client {
        4 => RequestSender::default(),
        7 => RequestSender::local(),
        5 => RequestSender::known(identity(0, &["s"])),
        client => RequestSender::known(identity(client % USERS.len(), scopes)),
    }
}
