//! Types whose upstream is asked.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Check, EventType, Filter};
use crate::check::{Checked, Found};
use crate::error::EventError;
use crate::subscriber::Subscriber;

impl<F, P> EventType<F, P>
where
    F: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    P: Serialize + JsonSchema + Send + Sync + 'static,
{
    /// Asks an upstream that has cursors of its own, and keeps what happened: there is nothing to emit.
    ///
    /// The function gets a cursor that it gave before, and returns what happened since, with the next
    /// cursor. With `None` it returns the cursor of now; events are ignored then. A client can send any
    /// text as a cursor: what the upstream does not know it answers as `None`, and says
    /// [`truncated`](Checked::truncated). The same cursor may come again, also after a restart.
    ///
    /// A poll calls it once. For streams and webhooks a loop calls it [`every`](Self::every) so often, as
    /// long as there is one: once for equal arguments and subscribers of the same principal, client,
    /// scopes and roles. Ask nothing else of the subscriber, such as claims of its token: it is one of
    /// those. Its [id](Subscriber::id) is absent.
    ///
    /// An error is answered to polls and told to open streams. After it the loop waits longer, up to five
    /// minutes. What clients read is the text of the [`EventError`], so `?` works for nothing else:
    /// choose what they may know. A panic or a call that takes [too long](Self::check_limit) is an error
    /// that says nothing.
    ///
    /// [`replay`](Self::replay) bounds the log of each loop; the default is 1,000 occurrences and 15
    /// minutes. [`durable`](Self::durable) does nothing: the upstream keeps what happened.
    ///
    /// ```
    /// # use schemars::JsonSchema;
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::{Duration, SystemTime};
    /// use stentor_events::{Checked, EventError, event_type};
    ///
    /// # #[derive(Deserialize, JsonSchema)]
    /// # struct Filter {}
    /// # #[derive(Serialize, JsonSchema)]
    /// # struct Incident { severity: String }
    /// # struct Page { next: String, new: Vec<(String, SystemTime, Incident)> }
    /// # #[derive(Clone)]
    /// # struct Tracker;
    /// # impl Tracker {
    /// #     async fn since(&self, _: &str) -> std::io::Result<Page> { unimplemented!() }
    /// #     async fn now(&self) -> std::io::Result<String> { unimplemented!() }
    /// # }
    /// # let tracker = Tracker;
    /// let incidents = event_type::<Filter, Incident>("incident.created")
    ///     .check(move |_subscriber, _filter, cursor| {
    ///         let tracker = tracker.clone();
    ///         async move {
    ///             let away = |_| EventError::Failed("the tracker does not answer".to_owned());
    ///             let Some(cursor) = cursor else {
    ///                 return Ok(Checked::new(tracker.now().await.map_err(away)?));
    ///             };
    ///             let page = tracker.since(&cursor).await.map_err(away)?;
    ///             Ok(Checked::new(page.next).events(page.new))
    ///         }
    ///     })
    ///     .every(Duration::from_secs(10));
    /// # let _ = incidents;
    /// ```
    #[must_use]
    pub fn check<R>(
        mut self,
        check: impl Fn(Subscriber, Arc<F>, Option<String>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Result<Checked<P>, EventError>> + Send + 'static,
    {
        let check = Arc::new(move |subscriber, filter: &Filter, cursor| {
            let asked = filter.share::<F>().map(|filter| check(subscriber, filter, cursor));
            found(asked).boxed()
        });
        self.definition.check = Some(Check::Own(check));
        self
    }

    /// As [`check`](Self::check), for an upstream that answers everybody the same: one loop for equal
    /// arguments, whoever has them. So the function is not told who asks; [`allow`](Self::allow) and
    /// [`transform`](Self::transform) still are.
    #[must_use]
    pub fn check_shared<R>(
        mut self,
        check: impl Fn(Arc<F>, Option<String>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Result<Checked<P>, EventError>> + Send + 'static,
    {
        let check = Arc::new(move |filter: &Filter, cursor| {
            found(filter.share::<F>().map(|filter| check(filter, cursor))).boxed()
        });
        self.definition.check = Some(Check::Shared(check));
        self
    }

    /// Sets how often [`check`](Self::check) is called for streams and webhooks, at least 100 ms; clients
    /// that poll are asked to wait as long. Default 30 s.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.definition.every = every.max(Duration::from_millis(100));
        self
    }

    /// Sets how long a call of [`check`](Self::check) may take. Default 30 s.
    #[must_use]
    pub fn check_limit(mut self, limit: Duration) -> Self {
        self.definition.check_limit = limit;
        self
    }
}

/// What the author's code has found, without its types.
async fn found<P, R>(asked: Option<R>) -> Result<Found, EventError>
where
    P: Serialize + Send + Sync + 'static,
    R: Future<Output = Result<Checked<P>, EventError>> + Send + 'static,
{
    match asked {
        Some(asked) => asked.await.map(Found::from),
        None => Err(EventError::Failed("the arguments cannot be read any more".to_owned())),
    }
}
