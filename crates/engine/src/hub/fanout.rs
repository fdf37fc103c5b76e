//! One notice to many.

use std::panic::resume_unwind;
use std::sync::Arc;

use stentor_wire::{EncodedNotice, SubscriptionId};

use super::{Subscriber, SubscriberKey};
use crate::outlet::Outlet;
use crate::outlet::policy::Class;

/// How many are told in one go, between which other tasks have their turn.
const AT_ONCE: usize = 64;

/// Somebody who is to be told.
#[derive(Debug)]
pub(super) struct Told {
    outlet: Outlet,
    subscription: Option<SubscriptionId>,
}

impl Told {
    pub(super) fn new(key: &SubscriberKey, subscriber: &Subscriber) -> Self {
        Self { outlet: subscriber.outlet.clone(), subscription: key.subscription.clone() }
    }
}

/// Tells all of them, many at a time on as many threads as there are, and is done when all have been told:
/// so what one hears is in the order in which it was said.
pub(super) async fn tell(told: Vec<Told>, class: Class, notice: Arc<EncodedNotice>) {
    let mut parts = Vec::with_capacity(told.len() / AT_ONCE);
    let mut told = told.into_iter();
    while told.len() > AT_ONCE {
        let (part, notice) = (told.by_ref().take(AT_ONCE).collect(), notice.clone());
        parts.push(tokio::spawn(async move { tell_some(part, class, &notice) }));
    }
    tell_some(told.collect(), class, &notice);
    // What was begun is told to its end, also if the hub ends before.
    for part in parts {
        if let Err(error) = part.await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

fn tell_some(told: Vec<Told>, class: Class, notice: &Arc<EncodedNotice>) {
    for Told { outlet, subscription } in told {
        outlet.notice_now(class, notice.clone(), subscription);
    }
}
