//! What the extension reports to the observers of the engine.

use std::sync::Arc;

use stentor_engine::NodeId;

use crate::error::EventError;

/// What observers of the engine hear of the extension, in
/// [`EngineEvent::Extension`](stentor_engine::EngineEvent::Extension): never of each occurrence, and
/// nothing that is secret. Metrics count the rest.
///
/// ```
/// use stentor_engine::EngineEvent;
/// use stentor_events::EventsReport;
///
/// fn watch(event: &EngineEvent) {
///     let EngineEvent::Extension { event, .. } = event else { return };
///     match event.get::<EventsReport>() {
///         Some(EventsReport::WebhookPaused { id }) => eprintln!("the endpoint of {id} fails"),
///         Some(EventsReport::DeliveriesAbandoned { id, count, .. }) => {
///             eprintln!("{count} deliveries of {id} were given up");
///         }
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventsReport {
    /// A webhook was added. A refresh adds none.
    WebhookAdded {
        /// Its id.
        id: Arc<str>,
        /// The name of its type.
        event_type: Arc<str>,
        /// The origin of its endpoint.
        origin: String,
    },
    /// A webhook of this node has ended.
    WebhookEnded {
        /// Its id.
        id: Arc<str>,
        /// Why it has ended.
        reason: WebhookEnd,
    },
    /// A webhook gets nothing more until it is refreshed, because its endpoint fails.
    WebhookPaused {
        /// Its id.
        id: Arc<str>,
    },
    /// A paused webhook was refreshed, and gets what has happened meanwhile.
    WebhookRevived {
        /// Its id.
        id: Arc<str>,
    },
    /// This node continues a webhook of another one, which is gone or was restarted.
    WebhookTakenOver {
        /// Its id.
        id: Arc<str>,
        /// The node that had it.
        from: NodeId,
    },
    /// Deliveries to a webhook were given up. Said at most once a second for each webhook.
    DeliveriesAbandoned {
        /// Its id.
        id: Arc<str>,
        /// How many since the last report.
        count: u64,
        /// Why the last one of them was, in one word: as
        /// [`WebhookView::last_error`](crate::WebhookView::last_error), or `too_large`.
        reason: &'static str,
    },
    /// Streams of this node were ended, all for one reason. Not said of those that end because their
    /// clients or the engine do.
    StreamsTerminated {
        /// The name of their type.
        event_type: Arc<str>,
        /// How many.
        count: usize,
        /// Why.
        error: EventError,
    },
}

/// Why a webhook has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookEnd {
    /// Its client has unsubscribed.
    Unsubscribed,
    /// Its client has not refreshed it in time.
    Expired,
    /// Its client has refreshed it with another credential, for which it goes on under the same id.
    Replaced,
    /// It was ended here, and its endpoint is told this.
    Terminated(EventError),
    /// It could not be kept, and its client was answered this.
    Refused(EventError),
    /// This other node delivers it, as after a split.
    HandedOver(NodeId),
}
