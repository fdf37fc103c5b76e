//! Writes one notice to many subscribers.

use std::panic::resume_unwind;
use std::sync::Arc;

use stentor_delivery::StreamSender;
use stentor_delivery::policy::Class;
use stentor_wire::{EncodedNotice, SubscriptionId};

use super::{Subscriber, SubscriberKey};

/// Subscribers that a task writes to in one go, before other tasks get their turn.
const PART: usize = 64;

#[derive(Debug)]
pub(super) struct Recipient {
    sender: StreamSender,
    subscription: Option<SubscriptionId>,
}

impl Recipient {
    pub(super) fn new(key: &SubscriberKey, subscriber: &Subscriber) -> Self {
        Self { sender: subscriber.sender.clone(), subscription: key.subscription.clone() }
    }
}

/// Writes a notice to all recipients, in parts that run on all threads of the runtime. Returns when
/// all parts are written, so that each subscriber receives notices in the order in which they were
/// published.
pub(super) async fn write_to_all(
    recipients: Vec<Recipient>,
    class: Class,
    notice: Arc<EncodedNotice>,
) {
    let mut parts = Vec::with_capacity(recipients.len() / PART);
    let mut recipients = recipients.into_iter();
    while recipients.len() > PART {
        let (part, notice) = (recipients.by_ref().take(PART).collect(), notice.clone());
        parts.push(tokio::spawn(async move { write_part(part, class, &notice) }));
    }
    write_part(recipients.collect(), class, &notice);
    // A part that has begun is written to its end, even if the hub ends before.
    for part in parts {
        if let Err(error) = part.await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

fn write_part(recipients: Vec<Recipient>, class: Class, notice: &Arc<EncodedNotice>) {
    for Recipient { sender, subscription } in recipients {
        sender.notice_directly(class, notice.clone(), subscription);
    }
}
