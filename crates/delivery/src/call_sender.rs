//! Writing to a stream through the gate of a running call.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::frame::Frame;
use crate::policy::Class;
use crate::progress_gate::ProgressGate;
use crate::queue::{Pushed, Report};
use crate::sender::StreamSender;

/// Messages up to this many bytes are formatted without an allocation.
const SHORT: usize = 256;

impl StreamSender {
    /// Queues a message of a call. Queues nothing and returns `false` once the call has ended.
    pub fn send(&self, gate: &ProgressGate, class: Class, frame: Frame) -> bool {
        let limits = self.limits_of(class);
        let mut passes = false;
        self.with_queue(class, |queue| {
            passes = !gate.is_closed();
            if !passes {
                return Pushed::Closed;
            }
            gate.mark_sent();
            queue.push(class, frame, &limits)
        });
        passes
    }

    /// Closes the gate: nothing of its call is queued any more.
    pub fn close_gate(&self, gate: &ProgressGate) {
        let _state = self.0.state.lock();
        gate.close();
    }

    /// Reports progress. If `gate` admits the value, it is queued, or replaces an older value when
    /// the client falls behind.
    pub fn progress(
        &self,
        gate: &Arc<ProgressGate>,
        progress: f64,
        total: Option<f64>,
        message: &dyn Display,
    ) {
        // Formatted before any lock is taken: `Display` is the author's code.
        let mut short = ArrayString::<SHORT>::new();
        let mut long = String::new();
        let message = match write!(short, "{message}") {
            Ok(()) => short.as_str(),
            Err(_) => {
                // Writing to memory does not fail. If the message's own code fails, the message
                // ends there.
                let _ = write!(long, "{message}");
                &long
            }
        };
        let total = total.filter(|total| total.is_finite());
        let report = Report { gate, progress, total, message };
        self.with_queue(Class::Progress, |queue| queue.push_progress(report, self.is_behind(gate)));
    }

    /// As [`progress`](Self::progress), but waits until the value can be queued without replacing
    /// another.
    pub async fn progress_paced(
        &self,
        gate: &Arc<ProgressGate>,
        progress: f64,
        total: Option<f64>,
        message: &(dyn Display + Sync),
    ) {
        loop {
            let space = self.0.space.notified();
            // Without a reader no space becomes free; then the latest wins.
            if !self.is_behind(gate) || !self.0.state.lock().is_read() {
                return self.progress(gate, progress, total, message);
            }
            space.await;
        }
    }

    /// Whether as many values of the call wait as the limits allow.
    fn is_behind(&self, gate: &ProgressGate) -> bool {
        let unread = gate.unread();
        // The budgets can only lower the limit, so the cheap comparison comes first.
        unread >= self.0.terms.limits.progress || unread >= self.limits().progress
    }
}
