//! What clients subscribe to: each kind of notice of the protocol is one row of a table here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bounds::{MAX_NAME, MAX_URI};
use crate::{ErrorObject, uri};

macro_rules! lists {
    ($($(#[$doc:meta])* $kind:ident = $method:literal, $member:literal;)*) => {
        /// A list whose changes are announced to clients.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum ListKind {
            $($(#[$doc])* $kind,)*
        }

        impl ListKind {
            /// All lists.
            pub const ALL: [Self; [$($method),*].len()] = [$(Self::$kind),*];

            /// The method of the notification that announces a change.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self {
                    $(Self::$kind => $method,)*
                }
            }

            /// The member of a listen that asks for the notification, with `true`.
            #[must_use]
            pub const fn member(self) -> &'static str {
                match self {
                    $(Self::$kind => $member,)*
                }
            }
        }
    };
}

// Each list: the method of its notification, and its member of a listen.
lists! {
    /// The tools.
    Tools = "notifications/tools/list_changed", "toolsListChanged";
    /// The resources and the resource templates.
    Resources = "notifications/resources/list_changed", "resourcesListChanged";
    /// The prompts.
    Prompts = "notifications/prompts/list_changed", "promptsListChanged";
}

/// What is particular to a kind of topics with keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyRules {
    /// The method of the notification.
    pub method: &'static str,
    /// The member of a listen that asks for the notification, with a list of keys.
    pub member: &'static str,
    /// The member of the notification's parameters that contains the key.
    pub param: &'static str,
    /// What errors call a key.
    pub key: &'static str,
    /// What errors call several topics.
    pub topics: &'static str,
    /// The most bytes of a key.
    pub max_len: usize,
    /// Makes the normal form of a key. Keys with the same normal form are the same topic. Without
    /// it, a key is its own normal form.
    pub normal: Option<fn(&str) -> String>,
    /// Whether an extension owns the topics: it decides who receives them, and each notice
    /// contains the whole state. Otherwise everybody may subscribe, and a notice says only that
    /// the topic changed.
    pub is_owned: bool,
}

macro_rules! keyed {
    ($($(#[$doc:meta])* $kind:ident { $($field:ident: $value:expr,)* })*) => {
        /// A kind of topics that clients subscribe to one by one, by their keys.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum KeyKind {
            $($(#[$doc])* $kind,)*
        }

        /// What a notice can be sent for: one list, or one thing with a key.
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Topic {
            /// A list.
            List(ListKind),
            $($(#[$doc])* $kind(Arc<str>),)*
        }

        impl KeyKind {
            /// All kinds, in the order of the table.
            pub const ALL: [Self; [$(stringify!($kind)),*].len()] = [$(Self::$kind),*];

            /// The row of this kind.
            #[must_use]
            pub const fn rules(self) -> &'static KeyRules {
                match self {
                    $(Self::$kind => const { &KeyRules { $($field: $value,)* } },)*
                }
            }

            /// The topic with this key.
            #[must_use]
            pub const fn topic(self, key: Arc<str>) -> Topic {
                match self {
                    $(Self::$kind => Topic::$kind(key),)*
                }
            }
        }

        impl Topic {
            /// The kind and the key; `None` for a list.
            #[must_use]
            pub const fn keyed(&self) -> Option<(KeyKind, &Arc<str>)> {
                match self {
                    Self::List(_) => None,
                    $(Self::$kind(key) => Some((KeyKind::$kind, key)),)*
                }
            }
        }
    };
}

keyed! {
    /// The resource with this URI.
    Resource {
        method: "notifications/resources/updated",
        member: "resourceSubscriptions",
        param: "uri",
        key: "URI",
        topics: "resources",
        max_len: MAX_URI,
        normal: Some(uri::normal),
        is_owned: false,
    }
    /// The task with this id (extension `io.modelcontextprotocol/tasks`).
    Task {
        method: "notifications/tasks",
        member: "taskIds",
        param: "taskId",
        key: "task id",
        topics: "tasks",
        max_len: MAX_NAME,
        normal: None,
        is_owned: true,
    }
}

impl KeyKind {
    /// Whether an extension owns the topics; see [`KeyRules::is_owned`].
    #[must_use]
    pub const fn is_owned(self) -> bool {
        self.rules().is_owned
    }

    /// -32602: a listen asks for more topics than it may.
    #[must_use]
    pub fn too_many(self, max: usize) -> ErrorObject {
        let topics = self.rules().topics;
        ErrorObject::invalid_params(format!("more than {max} {topics} in one subscription"))
    }

    /// The normal form of a key. Usually both share one allocation.
    #[must_use]
    pub fn normal(self, key: &Arc<str>) -> Arc<str> {
        let normal = self.rules().normal.map(|normal| normal(key));
        normal.filter(|normal| **normal != **key).map_or_else(|| key.clone(), Into::into)
    }
}

impl Topic {
    /// The method of the notification.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::List(kind) => kind.method(),
            keyed => keyed.keyed().map_or("", |(kind, _)| kind.rules().method),
        }
    }

    /// The topic with the normal form of its key. Two topics are the same if these are equal.
    #[must_use]
    pub fn normal(&self) -> Self {
        self.keyed().map_or_else(|| self.clone(), |(kind, key)| kind.topic(kind.normal(key)))
    }
}
