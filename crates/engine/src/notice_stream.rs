//! A stream of notices to one client, for who sends them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use stentor_delivery::policy::Class;
use stentor_delivery::{Frame, StreamSender};
use stentor_wire::{EncodedNotice, SubscriptionId};

/// Begins a stream: sends its first notices, and returns what is held while the stream is open. It
/// is dropped when the stream has ended, whoever ends it.
pub type Begin = Box<dyn FnOnce(NoticeStream) -> Held + Send>;

/// What is held while a stream is open.
pub type Held = Box<dyn Any + Send + Sync>;

/// An open stream of notices to one client.
pub struct NoticeStream {
    sender: StreamSender,
    subscription: SubscriptionId,
    end: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for NoticeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoticeStream")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl NoticeStream {
    pub(crate) fn new(
        sender: StreamSender,
        subscription: SubscriptionId,
        end: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { sender, subscription, end: Box::new(end) }
    }

    /// Sends a notice. It goes out before the notices that are sent later.
    pub fn send(&self, notice: &Arc<EncodedNotice>) {
        self.sender.notice_directly(Class::Event, notice.clone(), Some(self.subscription.clone()));
    }

    /// Sends a notice that another node has encoded for this stream.
    pub(crate) fn forward(&self, message: Bytes) {
        self.sender.push(Class::Event, Frame::Message(message));
    }

    /// Whether the client keeps up. If it does not, send nothing until there is
    /// [room](Self::wait_for_room).
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sender.has_room()
    }

    /// Waits until the client has read enough, or has gone. Cancel safe.
    pub fn wait_for_room(&self) -> impl Future<Output = ()> + Send + 'static {
        let sender = self.sender.clone();
        async move { sender.wait_for_room().await }
    }

    /// Ends the stream with its result, after what was sent. Does nothing if it has ended.
    pub fn end(&self) {
        (self.end)();
    }
}
