use std::fmt;

use crate::params::Member;

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A method that a client may send. Only this crate writes the names out.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Method {
            $($(#[$doc])* $variant,)*
            /// Any other method.
            Other(Box<str>),
        }

        impl serde::Serialize for Method {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl Method {
            /// Every method with a variant of its own.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// The method with this name.
            #[must_use]
            pub fn parse(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }

            /// The name on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }
    };
}

methods! {
    /// Opens a legacy session.
    Initialize = "initialize",
    /// Asks whether the other side is reachable; legacy only.
    Ping = "ping",
    /// Asks a modern server for its identity.
    Discover = "server/discover",
    /// Lists the tools.
    ToolsList = "tools/list",
    /// Calls a tool.
    ToolsCall = "tools/call",
    /// Lists the resources.
    ResourcesList = "resources/list",
    /// Lists the resource templates.
    TemplatesList = "resources/templates/list",
    /// Reads a resource.
    ResourcesRead = "resources/read",
    /// Asks for updates of a resource; legacy only.
    ResourcesSubscribe = "resources/subscribe",
    /// Ends the updates of a resource; legacy only.
    ResourcesUnsubscribe = "resources/unsubscribe",
    /// Lists the prompts.
    PromptsList = "prompts/list",
    /// Fills in a prompt.
    PromptsGet = "prompts/get",
    /// Completes an argument of a prompt or of a resource template.
    Complete = "completion/complete",
    /// Sets the log level of the session; legacy only.
    SetLevel = "logging/setLevel",
    /// Opens a modern stream of notices.
    Listen = "subscriptions/listen",
    /// Reads the state of a task; modern only, as the other two (extension
    /// `io.modelcontextprotocol/tasks`).
    TasksGet = "tasks/get",
    /// Answers the questions of a task.
    TasksUpdate = "tasks/update",
    /// Asks a task to end early.
    TasksCancel = "tasks/cancel",
    /// The client has read the response to `initialize`.
    Initialized = "notifications/initialized",
    /// The client cancels a request.
    Cancelled = "notifications/cancelled",
    /// The client's roots changed; legacy only.
    RootsListChanged = "notifications/roots/list_changed",
}

impl Method {
    /// Whether the method exists in an era.
    #[must_use]
    pub fn exists_in(&self, era: crate::Era) -> bool {
        match self {
            Self::Initialize
            | Self::Ping
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::SetLevel
            | Self::Initialized
            | Self::RootsListChanged => era == crate::Era::Legacy,
            Self::Discover | Self::Listen => era == crate::Era::Modern,
            other if other.is_of_tasks() => era == crate::Era::Modern,
            Self::Other(_) => false,
            _ => true,
        }
    }

    /// Whether its response may ask for input first (2026-07-28, basic/patterns/mrtr, "Supported
    /// Requests"). A method of an extension may: the protocol leaves that to the extension.
    #[must_use]
    pub fn may_ask(&self) -> bool {
        matches!(self, Self::ToolsCall | Self::PromptsGet | Self::ResourcesRead | Self::Other(_))
    }

    /// Whether the method belongs to the tasks extension, which a client has to declare.
    #[must_use]
    pub fn is_of_tasks(&self) -> bool {
        matches!(self, Self::TasksGet | Self::TasksUpdate | Self::TasksCancel)
    }

    /// The member of `params` with an id that the server gave out, for methods that are only about
    /// that.
    #[must_use]
    pub fn signed_member(&self) -> Option<Member> {
        self.is_of_tasks().then_some(Member::TaskId)
    }

    /// The member of `params` that the `Mcp-Name` header mirrors, for the methods that have
    /// one (2026-07-28, basic/transports/streamable-http, "Standard Request Headers").
    #[must_use]
    pub fn name_member(&self) -> Option<Member> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some(Member::Name),
            Self::ResourcesRead => Some(Member::Uri),
            other => other.signed_member(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Requests of a server to its client; in the modern era they are sent inside of results.
pub mod request {
    /// Asks the user for input.
    pub const ELICIT: &str = "elicitation/create";
    /// Asks the client's model.
    pub const SAMPLE: &str = "sampling/createMessage";
    /// Asks for the client roots.
    pub const LIST_ROOTS: &str = "roots/list";
}

/// Notifications that a server sends, but for those that clients subscribe to: they are
/// [`Topic`](crate::Topic)s.
pub mod notification {
    /// A call has made progress.
    pub const PROGRESS: &str = "notifications/progress";
    /// A log message.
    pub const MESSAGE: &str = "notifications/message";
    /// The server no longer waits for the response to its own request; legacy only.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// The user has finished on a web page; in 2025-11-25 only.
    pub const ELICITATION_COMPLETE: &str = "notifications/elicitation/complete";
    /// A `subscriptions/listen` is open.
    pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
}
