//! `events/stream`: occurrences on a stream that the client keeps open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value};
use stentor_engine::{Begin, NoticeStream, StreamMethod, StreamRequest};
use stentor_wire::ErrorObject;

use crate::error::EventError;
use crate::messages;
use crate::metrics::count_gaps;
use crate::shared::Shared;
use crate::start::{Listening, Start};
use crate::subscriber::{Mode, Subscriber};
use crate::type_actor::{Ending, OpenStream, Opened, TypeMsg};
use crate::watches::Watching;

/// The parameters of `events/stream`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StreamParams {
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    max_age_ms: Option<f64>,
}

/// The method.
#[derive(Debug)]
pub(crate) struct Push(pub(crate) Arc<Shared>);

/// Numbers the streams of this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What is held while a stream is open.
struct OpenPush {
    running: Listening,
    stream: Arc<OpenStream>,
    _watching: Watching,
}

impl Drop for OpenPush {
    fn drop(&mut self) {
        let OpenStream { key, notices, subscriber, numbers } = &*self.stream;
        if subscriber.requester.is_revoked() {
            let error = EventError::Forbidden("the principal was locked out".to_owned());
            notices.send(&messages::terminated(&error, *numbers));
        }
        self.running.send(TypeMsg::Close(*key));
    }
}

impl StreamMethod for Push {
    fn open(&self, request: StreamRequest) -> BoxFuture<'static, Result<Begin, ErrorObject>> {
        let shared = self.0.clone();
        async move { open(&shared, request).await }.boxed()
    }
}

async fn open(shared: &Shared, request: StreamRequest) -> Result<Begin, ErrorObject> {
    let params: StreamParams = request.params.parse()?;
    let numbers = shared.config.numbering.of(&request.requester);
    let refused = |error: EventError| error.object(numbers);
    let key = NEXT.fetch_add(1, Ordering::Relaxed);
    // Nobody else ever has it, on no node and after no restart.
    let id: Arc<str> = format!("push_{}", crate::token()).into();
    let subscriber = Subscriber::new(request.requester.for_later(), Mode::Push, Some(id));
    let asked = shared.ask(&params.name, Mode::Push, params.arguments, &subscriber);
    let (running, watched) = asked.map_err(refused)?;
    let who = (&subscriber, &watched);
    let start = shared.start(&running, who, params.cursor.as_deref(), params.max_age_ms).await;
    let Start { listening: running, position, truncated, .. } = start.map_err(refused)?;
    Ok(Box::new(move |notices: NoticeStream| {
        let told = running.replays().then_some(&position.seen);
        count_gaps(Mode::Push, usize::from(truncated));
        notices.send(&messages::active(told, truncated));
        let watching = running.watches.watch(&watched);
        let stream = Arc::new(OpenStream { key, notices, subscriber, numbers });
        let opened = Opened { stream: Ending(stream.clone()), watched, position };
        running.send(TypeMsg::Open(Box::new(opened)));
        Box::new(OpenPush { running, stream, _watching: watching })
    }))
}
