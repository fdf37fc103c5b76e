//! The emitter of a type, which begins when somebody asks for it.

use std::future::Future;
use std::time::Duration;

use ractor::{ACTIVE_STATES, ActorCell, SpawnErr};
use tokio::time::sleep;

use super::RunningType;

/// How often a keeper is looked for that could have an emitter, and the pause before each next time:
/// one that has crashed is replaced.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

impl RunningType {
    /// The actor that emits what it is sent; `start` begins one below the keeper. `None` if the type or
    /// the engine ends.
    pub(crate) async fn emitter<R>(&self, start: impl Fn(ActorCell) -> R) -> Option<ActorCell>
    where
        R: Future<Output = Result<ActorCell, SpawnErr>>,
    {
        for _ in 0..TRIES {
            let emitter = self.emitter.lock().clone();
            if let Some(emitter) = emitter.filter(lives) {
                return Some(emitter);
            }
            let keeper = self.keeper.load_full()?;
            if let Ok(started) = start((*keeper).clone()).await {
                return self.choose_emitter(started);
            }
            sleep(PAUSE).await;
        }
        None
    }

    /// Two may have been started at once: one of them is the emitter.
    fn choose_emitter(&self, started: ActorCell) -> Option<ActorCell> {
        let mut emitter = self.emitter.lock();
        let other = emitter.clone().filter(lives);
        if self.is_closed() || other.is_some() {
            started.stop(None);
            return other;
        }
        *emitter = Some(started.clone());
        Some(started)
    }
}

fn lives(actor: &ActorCell) -> bool {
    ACTIVE_STATES.contains(&actor.get_status())
}
