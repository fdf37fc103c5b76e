//! Random items and changes.

use proptest::prelude::*;
use proptest::sample::subsequence;
use stentor_engine::identity::Identity;
use stentor_engine::{
    Item, ItemKind, ListKind, Mutation, TemplateVars, prompt, resource, resource_template, tool,
};

/// Names of each kind. Few, so that changes meet.
const NAMES: usize = 4;
const KINDS: [ItemKind; 4] =
    [ItemKind::Tools, ItemKind::Resources, ItemKind::Templates, ItemKind::Prompts];
pub(crate) const LABELS: [&str; 3] = ["a", "b", "c"];
pub(crate) const SCOPES: [&str; 2] = ["s", "t"];
/// Principals whose labels change. Some clients have the same one.
pub(crate) const USERS: [&str; 3] = ["ann", "bob", "cid"];
pub(crate) const CLIENTS: usize = 8;
/// Clients that begin as legacy sessions; the others listen.
pub(crate) const SESSIONS: usize = 5;

#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    only_for: Vec<&'static str>,
    require: Vec<&'static str>,
    hide: bool,
}

macro_rules! with_access {
    ($item:expr, $access:expr, $text:expr) => {{
        let Access { only_for, require, hide } = $access;
        let mut item = $item.description(format!("text {}", $text));
        if !only_for.is_empty() {
            item = item.only_for(only_for.iter().copied());
        }
        for scope in require {
            item = item.require_scope(*scope);
        }
        if *hide { item.hide_without_scope() } else { item }.into()
    }};
}

#[derive(Clone, Debug)]
pub(crate) struct NewItem {
    kind: ItemKind,
    name: usize,
    access: Access,
    text: u8,
}

impl NewItem {
    fn item(&self) -> Item {
        let (key, access) = (key(self.kind, self.name), &self.access);
        match self.kind {
            ItemKind::Tools => {
                with_access!(tool(key, || async { "" }), access, self.text)
            }
            ItemKind::Resources => {
                with_access!(resource(key, "r", || async { "" }), access, self.text)
            }
            ItemKind::Templates => {
                let read = |_: TemplateVars| async { "" };
                with_access!(resource_template(key, "t", read), access, self.text)
            }
            ItemKind::Prompts => {
                with_access!(prompt(key, || async { "" }), access, self.text)
            }
        }
    }
}

fn key(kind: ItemKind, name: usize) -> String {
    match kind {
        ItemKind::Tools => format!("tool-{name}"),
        ItemKind::Resources => format!("test://{name}"),
        ItemKind::Templates => format!("test://{name}/{{x}}"),
        ItemKind::Prompts => format!("prompt-{name}"),
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add(NewItem),
    Put(NewItem),
    Remove(ItemKind, usize),
}

impl Change {
    pub(crate) fn mutation(&self) -> Mutation {
        match self {
            Self::Add(new) => Mutation::Add(new.item()),
            Self::Put(new) => Mutation::Put(new.item()),
            Self::Remove(kind, name) => Mutation::remove(*kind, key(*kind, *name)),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A transaction on a node. It may be refused.
    Change(usize, Vec<Change>),
    /// A user has other labels. A node refreshes what the user sees.
    Labels(usize, usize, Vec<&'static str>),
    /// All users have other labels.
    AllLabels(usize, Vec<Vec<&'static str>>),
    /// A legacy session is used with a credential that has these scopes.
    Scopes(usize, Vec<&'static str>),
    /// The application says that a list changed.
    Send(usize, ListKind),
}

impl Step {
    /// The list of which everybody hears.
    pub(crate) fn tells_all(&self) -> Option<ListKind> {
        match self {
            Self::Send(_, kind) => Some(*kind),
            _ => None,
        }
    }
}

fn access() -> impl Strategy<Value = Access> {
    let labels = subsequence(&LABELS, 1..=2);
    let scopes = subsequence(&SCOPES, 1..=2);
    let of = |only_for, require, hide| Access { only_for, require, hide };
    prop_oneof![
        3 => Just(Access::default()),
        4 => labels.clone().prop_map(move |labels| of(labels, Vec::new(), false)),
        1 => scopes.clone().prop_map(move |scopes| of(Vec::new(), scopes, false)),
        2 => scopes.clone().prop_map(move |scopes| of(Vec::new(), scopes, true)),
        1 => (labels, scopes).prop_map(move |(labels, scopes)| of(labels, scopes, true)),
    ]
}

fn kind() -> impl Strategy<Value = ItemKind> {
    prop::sample::select(&KINDS[..])
}

fn change() -> impl Strategy<Value = Change> {
    let new = || {
        (kind(), 0..NAMES, access(), 0..2_u8).prop_map(|(kind, name, access, text)| NewItem {
            kind,
            name,
            access,
            text,
        })
    };
    prop_oneof![
        2 => new().prop_map(Change::Add),
        4 => new().prop_map(Change::Put),
        2 => (kind(), 0..NAMES).prop_map(|(kind, name)| Change::Remove(kind, name)),
    ]
}

/// Changes of which few are refused.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop_oneof![
        3 => change().prop_map(|change| vec![change]),
        2 => prop::collection::vec(change(), 2..5),
        // The item goes to the end of its list.
        2 => change().prop_map(|change| match change {
            Change::Add(new) | Change::Put(new) => {
                vec![Change::Remove(new.kind, new.name), Change::Add(new)]
            }
            remove => vec![remove],
        }),
    ]
}

pub(crate) fn step(nodes: usize) -> impl Strategy<Value = Step> {
    let labels = || subsequence(&LABELS, 0..=3);
    let all = prop::collection::vec(labels(), USERS.len());
    let list = prop::sample::select(&ListKind::ALL[..]);
    prop_oneof![
        10 => (0..nodes, changes()).prop_map(|(node, changes)| Step::Change(node, changes)),
        4 => (0..nodes, 0..USERS.len(), labels())
            .prop_map(|(node, user, labels)| Step::Labels(node, user, labels)),
        1 => (0..nodes, all).prop_map(|(node, labels)| Step::AllLabels(node, labels)),
        3 => (0..SESSIONS, subsequence(&SCOPES, 0..=2))
            .prop_map(|(client, scopes)| Step::Scopes(client, scopes)),
        1 => (0..nodes, list).prop_map(|(node, list)| Step::Send(node, list)),
    ]
}

/// A credential of a client. Each is another object, as a transport makes one for each request.
pub(crate) fn identity(user: usize, scopes: &[&'static str]) -> Identity {
    Identity::named(USERS[user]).scopes(scopes.iter().copied())
}
