//! Notices: what the server says without being asked.

use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use serde_json::{Value, json};
use stentor_wire::{KeyKind, ListKind, meta_key};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::link::Link;

/// How long [`assert_notified`] waits, in the time of the runtime: with paused time, no time at all
/// unless the test lets something happen later.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A notification that belongs to no request. It is the same value in both eras.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The list of tools has changed.
    ToolsChanged,
    /// The list of resources, or of resource templates, has changed.
    ResourcesChanged,
    /// The list of prompts has changed.
    PromptsChanged,
    /// A resource that the client watches has changed.
    ResourceUpdated {
        /// The URI of the resource.
        uri: String,
    },
    /// A task that the client listens to has changed.
    TaskStatus {
        /// The id of the task.
        task_id: String,
        /// The whole task, as the server shows it.
        task: Value,
    },
    /// Any other notification.
    Custom {
        /// The method.
        method: String,
        /// The parameters, without the id of a subscription.
        params: Value,
    },
}

impl Notice {
    /// The update of a resource.
    #[must_use]
    pub fn updated(uri: impl Into<String>) -> Self {
        Self::ResourceUpdated { uri: uri.into() }
    }

    /// A notification of an extension, or of the application.
    #[must_use]
    pub fn custom(method: impl Into<String>, params: Value) -> Self {
        // A notification without parameters is one without members in them.
        let params = if params.is_null() { json!({}) } else { params };
        Self::Custom { method: method.into(), params }
    }

    pub(crate) fn read(method: &str, mut params: Value) -> Self {
        // The subscription is how a notice came, and not what it says.
        if let Some(members) = params.as_object_mut()
            && let Some(meta) = members.get_mut("_meta").and_then(Value::as_object_mut)
        {
            meta.shift_remove(meta_key::SUBSCRIPTION_ID);
            if meta.is_empty() {
                members.shift_remove("_meta");
            }
        }
        if let Some(list) = ListKind::ALL.into_iter().find(|list| list.method() == method) {
            return match list {
                ListKind::Tools => Self::ToolsChanged,
                ListKind::Resources => Self::ResourcesChanged,
                ListKind::Prompts => Self::PromptsChanged,
            };
        }
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.rules().method == method);
        let keyed = kind.and_then(|kind| Some((kind, params[kind.rules().param].as_str()?)));
        match keyed {
            Some((KeyKind::Resource, uri)) => Self::updated(uri),
            Some((KeyKind::Task, id)) => Self::TaskStatus { task_id: id.to_owned(), task: params },
            None => Self::custom(method, params),
        }
    }
}

/// The notices of a client, in the order in which they come.
///
/// They begin when [`Client::notices`](crate::Client::notices) returns, and are kept until they are
/// read or this is dropped. As a [`Stream`], they end with the session.
#[derive(Debug)]
pub struct Notices {
    link: Arc<Link>,
    received: UnboundedReceiver<Notice>,
    /// Notices that an assertion read and did not look for.
    passed: VecDeque<Notice>,
}

impl Notices {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let received = link.notices();
        Self { link, received, passed: VecDeque::new() }
    }

    /// The next notice. Waits for it without a limit. Cancel safe.
    ///
    /// # Panics
    ///
    /// If the session has ended.
    #[track_caller]
    #[expect(clippy::should_implement_trait, reason = "it is async, as `StreamExt::next` is")]
    pub fn next(&mut self) -> impl Future<Output = Notice> + Send + '_ {
        let at = Location::caller();
        async move {
            let next = std::future::poll_fn(|cx| self.poll_notice(cx)).await;
            next.unwrap_or_else(|| panic!("no notice will come: the session has ended ({at})"))
        }
    }

    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        match self.passed.pop_front() {
            Some(notice) => Poll::Ready(Some(notice)),
            None => self.received.poll_recv(cx),
        }
    }

    /// Waits until `expected` came. Other notices are kept.
    async fn find(&mut self, expected: &Notice) -> bool {
        if let Some(at) = self.passed.iter().position(|notice| notice == expected) {
            self.passed.remove(at);
            return true;
        }
        loop {
            match self.received.recv().await {
                Some(notice) if notice == *expected => return true,
                Some(other) => self.passed.push_back(other),
                None => return false,
            }
        }
    }

    /// All notices of the changes up to now that were not read.
    pub async fn settled(&mut self) -> Vec<Notice> {
        self.link.settle().await;
        while let Ok(notice) = self.received.try_recv() {
            self.passed.push_back(notice);
        }
        self.passed.drain(..).collect()
    }
}

impl Stream for Notices {
    type Item = Notice;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        self.get_mut().poll_notice(cx)
    }
}

/// Checks that a notice comes, before or after others, and takes it. The others are kept for the
/// next assertion.
///
/// Waits for [`PATIENCE`].
///
/// # Panics
///
/// If the notice does not come, with the notices that came instead.
#[track_caller]
pub fn assert_notified(
    notices: &mut Notices,
    expected: Notice,
) -> impl Future<Output = ()> + Send + '_ {
    let at = Location::caller();
    async move {
        let why = match timeout(PATIENCE, notices.find(&expected)).await {
            Ok(true) => return,
            Ok(false) => "before the session ended",
            Err(_) => "in time",
        };
        let instead = Instead(&notices.passed);
        panic!("{at}: {expected:?} did not come {why}; {instead}");
    }
}

/// Checks that no notice has come that was not read, and that none is on its way.
///
/// Waits for no time to pass: it asks the engine until no change waits for its announcement, and
/// then sends a request, whose response comes after all notices.
///
/// # Panics
///
/// If there are notices, with all of them.
#[track_caller]
pub fn assert_silent(notices: &mut Notices) -> impl Future<Output = ()> + Send + '_ {
    let at = Location::caller();
    async move {
        let came = VecDeque::from(notices.settled().await);
        assert!(came.is_empty(), "{at}: no notice should come; {}", Instead(&came));
    }
}

/// What came instead.
struct Instead<'a>(&'a VecDeque<Notice>);

impl fmt::Display for Instead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("nothing came"),
            _ => write!(f, "came: {:?}", self.0),
        }
    }
}
