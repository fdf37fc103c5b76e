//! **Owns** the streams of one event type on this node, and the position up to which they were sent
//! its log.
//! **Receives** streams that open, close or have room again, and the news that the log has grown.
//! **Sends** occurrences, encoded once for equal arguments, into the streams; and wakes the webhooks
//! that they concern.
//! **Dies when** its type is removed or the engine stops, or a bug panics.
//! **Restarts as** an actor without streams: those of the last one have ended with their results, and
//! their clients come back with their cursors. Webhooks outlive it.

use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use stentor_engine::NoticeStream;
use stentor_wire::EncodedNotice;

use crate::cursor::Cursor;
use crate::error::{EventError, Numbers};
use crate::event_type::{Definition, WatchedArguments};
use crate::log::{Entry, Position, Step};
use crate::messages;
use crate::metrics::count_gaps;
use crate::report::EventsReport;
use crate::running::RunningType;
use crate::subscriber::{Mode, Subscriber};
use crate::webhook::Webhooks;

/// Streams that a task writes to in one go, before other tasks get their turn.
const PART: usize = 64;

/// Entries of the log that one stream is sent before others have their turn.
const AT_ONCE: usize = 256;

/// A stream that is open.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) key: u64,
    pub(crate) notices: NoticeStream,
    pub(crate) subscriber: Subscriber,
    pub(crate) numbers: Numbers,
}

/// A stream that has opened. Its `active` was sent.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Ending,
    pub(crate) watched: WatchedArguments,
    pub(crate) position: Position,
}

#[derive(Debug)]
pub(crate) enum TypeMsg {
    Open(Box<Opened>),
    Close(u64),
    /// A stream has room again.
    Room(u64),
    /// The log has grown.
    Flush,
    /// It is time for a heartbeat, and to look whether subscribers still may have what they get.
    Beat,
    /// As the second half of `Beat`, at once.
    Recheck,
    /// All subscriptions end.
    End(EventError),
    /// All streams are told that the source has failed.
    Failed(EventError),
    /// All streams are told that something may be missing.
    Gap,
    /// The type is removed.
    Stop,
}

#[cfg(feature = "cluster")]
impl ractor::Message for TypeMsg {}

#[derive(Debug)]
pub(crate) struct TypeActor;

pub(crate) struct TypeActorArgs {
    pub(crate) running: Arc<RunningType>,
    pub(crate) webhooks: Arc<Webhooks>,
}

/// Streams that hear the same.
type GroupKey = (Arc<str>, Option<u64>);

struct Group {
    watched: Arc<WatchedArguments>,
    /// One of them; the only one if the type changes payloads for each.
    subscriber: Subscriber,
    /// Those that keep up.
    live: IndexMap<u64, Arc<OpenStream>, RandomState>,
}

/// A stream of this actor.
struct Member {
    stream: Ending,
    /// Equal arguments are in memory once.
    watched: Arc<WatchedArguments>,
}

/// A stream that was not sent all that the actor has read.
struct Behind {
    position: Position,
    /// Whether it has no room.
    waits: bool,
    /// Whether it has to be told of a gap first.
    owes_gap: bool,
}

pub(crate) struct TypeState {
    running: Arc<RunningType>,
    webhooks: Arc<Webhooks>,
    /// The one by which the groups were made.
    definition: Arc<Definition>,
    position: Position,
    streams: HashMap<u64, Member>,
    groups: IndexMap<GroupKey, Group, RandomState>,
    behind: HashMap<u64, Behind>,
}

/// Ends its stream when it is dropped, also because the actor has crashed, or never gets it.
#[derive(Debug)]
pub(crate) struct Ending(pub(crate) Arc<OpenStream>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.notices.end();
    }
}

impl Actor for TypeActor {
    type Msg = TypeMsg;
    type State = TypeState;
    type Arguments = TypeActorArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<TypeMsg>,
        TypeActorArgs { running, webhooks }: TypeActorArgs,
    ) -> Result<TypeState, ActorProcessingErr> {
        // What the last actor has not read, this one does.
        let position = {
            let log = running.log.lock();
            let index = running.read_up_to().min(log.end_index());
            Position { index, seen: log.cursor_at(index) }
        };
        Ok(TypeState {
            definition: running.definition(),
            running,
            webhooks,
            position,
            streams: HashMap::default(),
            groups: IndexMap::default(),
            behind: HashMap::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<TypeMsg>,
        message: TypeMsg,
        state: &mut TypeState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TypeMsg::Open(open) => state.on_open(&myself, *open).await,
            TypeMsg::Close(key) => state.remove(key),
            TypeMsg::Room(key) => state.on_room(&myself, key).await,
            TypeMsg::Flush => state.on_flush(&myself).await,
            TypeMsg::Beat => state.on_beat(&myself).await,
            TypeMsg::Recheck => state.recheck(),
            TypeMsg::End(error) => state.on_end(&error),
            TypeMsg::Failed(error) => state.on_failed(&error),
            TypeMsg::Gap => state.on_gap(),
            TypeMsg::Stop => myself.stop(None),
        }
        Ok(())
    }
}

impl TypeState {
    /// Uses the definition of now: streams that heard the same may not do so any more.
    fn refresh(&mut self) {
        let definition = self.running.definition();
        if !Arc::ptr_eq(&self.definition, &definition) {
            self.definition = definition;
            let groups = std::mem::take(&mut self.groups);
            groups.into_values().flat_map(|it| it.live.into_keys()).for_each(|key| self.join(key));
        }
    }

    fn group_key(&self, key: u64, watched: &WatchedArguments) -> GroupKey {
        (watched.canonical.clone(), (!self.definition.is_shared()).then_some(key))
    }

    /// These arguments, as a stream with equal ones has them.
    fn share(&self, key: u64, watched: WatchedArguments) -> Arc<WatchedArguments> {
        match self.groups.get(&self.group_key(key, &watched)) {
            Some(group) if watched.is_read_like(&group.watched) => group.watched.clone(),
            _ => Arc::new(watched),
        }
    }

    /// The stream keeps up from here on.
    fn join(&mut self, key: u64) {
        let Some(Member { stream: Ending(open), watched }) = self.streams.get(&key) else { return };
        let group = self.groups.entry(self.group_key(key, watched)).or_insert_with(|| Group {
            watched: watched.clone(),
            subscriber: open.subscriber.clone(),
            live: IndexMap::default(),
        });
        group.live.insert(key, open.clone());
    }

    fn told_cursor<'a>(&self, cursor: &'a Cursor) -> Option<&'a Cursor> {
        self.running.replays().then_some(cursor)
    }

    async fn on_open(&mut self, myself: &ActorRef<TypeMsg>, opened: Opened) {
        // Before it is there: what the actor has missed is no gap of this stream.
        self.on_flush(myself).await;
        let Opened { stream, watched, position } = opened;
        let key = stream.0.key;
        let watched = self.share(key, watched);
        self.streams.insert(key, Member { stream, watched });
        self.behind.insert(key, Behind { position, waits: false, owes_gap: false });
        let definition = self.definition.clone();
        self.catch_up(myself, &definition, key);
    }

    fn remove(&mut self, key: u64) {
        self.behind.remove(&key);
        let Some(member) = self.streams.remove(&key) else { return };
        let group = self.group_key(key, &member.watched);
        if let Some(found) = self.groups.get_mut(&group) {
            found.live.swap_remove(&key);
            if found.live.is_empty() {
                self.groups.swap_remove(&group);
            }
        }
    }

    async fn on_room(&mut self, myself: &ActorRef<TypeMsg>, key: u64) {
        if let Some(behind) = self.behind.get_mut(&key) {
            behind.waits = false;
            self.on_flush(myself).await;
        }
    }

    /// Sends what is new in the log.
    async fn on_flush(&mut self, myself: &ActorRef<TypeMsg>) {
        self.running.looks();
        self.refresh();
        let definition = self.definition.clone();
        loop {
            let before = self.position.clone();
            let step = self.running.log.lock().step(&mut self.position);
            // Before the author's code: what crashes the actor once must not do so again.
            self.running.has_read(self.position.index);
            match step {
                Step::Entry(entry) => {
                    let after = self.position.index;
                    self.webhooks.occurred(&self.running, &definition, &entry, &before, after);
                    self.running.has_offered(self.position.index);
                    self.fan_out(myself, &definition, &entry, &before).await;
                }
                Step::Gap => {
                    self.webhooks.skipped(&self.running, &before, self.position.index);
                    self.tell_live_of_gap();
                }
                Step::End => break,
            }
        }
        let due: Vec<u64> =
            self.behind.iter().filter(|(_, it)| !it.waits).map(|(key, _)| *key).collect();
        for key in due {
            self.catch_up(myself, &definition, key);
        }
    }

    /// Sends an occurrence to all streams that keep up.
    async fn fan_out(
        &mut self,
        myself: &ActorRef<TypeMsg>,
        definition: &Definition,
        entry: &Entry,
        before: &Position,
    ) {
        let cursor = self.running.replays().then(|| self.position.seen.clone());
        let mut full = Vec::new();
        if let Some(only) = &entry.occurrence.only_for {
            let notice = messages::event(&entry.occurrence, cursor.as_ref());
            let live = self.groups.values().flat_map(|group| &group.live);
            let chosen = live.filter(|(_, it)| it.subscriber.id.as_ref() == Some(only));
            full = write_part(chosen.map(|(_, it)| it.clone()).collect(), &notice);
        } else {
            for group in self.groups.values() {
                let (subscriber, watched) = (&group.subscriber, &group.watched);
                let heard = definition.for_subscriber(subscriber, watched, &entry.occurrence);
                if let Some(occurrence) = heard {
                    let notice = messages::event(&occurrence, cursor.as_ref());
                    full.extend(write_to_all(group, notice).await);
                }
            }
        }
        for key in full {
            self.falls_behind(myself, key, before.clone());
        }
    }

    /// A stream has no room: from here on it is sent the rest when it has.
    fn falls_behind(&mut self, myself: &ActorRef<TypeMsg>, key: u64, position: Position) {
        let Some(member) = self.streams.get(&key) else { return };
        let group = self.group_key(key, &member.watched);
        if let Some(group) = self.groups.get_mut(&group) {
            group.live.swap_remove(&key);
        }
        self.behind.insert(key, Behind { position, waits: true, owes_gap: false });
        let (room, myself) = (member.stream.0.notices.wait_for_room(), myself.clone());
        tokio::spawn(async move {
            room.await;
            // The actor may have ended.
            let _ = myself.cast(TypeMsg::Room(key));
        });
    }

    /// Sends a stream what it lacks, as far as it has room.
    fn catch_up(&mut self, myself: &ActorRef<TypeMsg>, definition: &Definition, key: u64) {
        let Some(mut behind) = self.behind.remove(&key) else { return };
        let Some(Member { stream: Ending(open), watched }) = self.streams.get(&key) else { return };
        if std::mem::take(&mut behind.owes_gap) {
            count_gaps(Mode::Push, 1);
            let cursor = self.told_cursor(&behind.position.seen);
            open.notices.send(&messages::active(cursor, true));
        }
        let mut steps = 0;
        while behind.position.index < self.position.index {
            steps += 1;
            if steps > AT_ONCE {
                // Others have their turn.
                let _ = myself.cast(TypeMsg::Room(key));
                self.behind.insert(key, behind);
                return;
            }
            if !open.notices.has_room() {
                return self.falls_behind(myself, key, behind.position);
            }
            let step = self.running.log.lock().step(&mut behind.position);
            match step {
                Step::Entry(entry) => {
                    let heard =
                        definition.for_subscriber(&open.subscriber, watched, &entry.occurrence);
                    if let Some(occurrence) = heard {
                        let cursor = self.told_cursor(&behind.position.seen);
                        open.notices.send(&messages::event(&occurrence, cursor));
                    }
                }
                Step::Gap => {
                    count_gaps(Mode::Push, 1);
                    let cursor = self.told_cursor(&behind.position.seen);
                    open.notices.send(&messages::active(cursor, true));
                }
                Step::End => break,
            }
        }
        if behind.position.seen != self.position.seen {
            // Its cursor came from a node that knows more. It follows the log by itself until then.
            self.behind.insert(key, behind);
            return;
        }
        self.join(key);
    }

    async fn on_beat(&mut self, myself: &ActorRef<TypeMsg>) {
        // A message may have been lost with the last actor.
        self.on_flush(myself).await;
        self.recheck();
        let notice = messages::heartbeat(self.told_cursor(&self.position.seen));
        for group in self.groups.values() {
            write_to_all(group, notice.clone()).await;
        }
        // Those whose cursors name what is not here yet.
        for (key, behind) in self.behind.iter().filter(|(_, it)| !it.waits) {
            if let Some(Member { stream: Ending(open), .. }) = self.streams.get(key) {
                let cursor = self.told_cursor(&behind.position.seen);
                open.notices.send(&messages::heartbeat(cursor));
            }
        }
    }

    /// Ends the streams of those who may not have the type any longer.
    fn recheck(&mut self) {
        let definition = self.running.definition();
        let permits = |it: &Member| definition.permits(&it.stream.0.subscriber, &it.watched);
        let refused = self.streams.iter().filter_map(|(key, it)| Some((*key, permits(it).err()?)));
        let refused: Vec<_> = refused.collect();
        let mut counts: Vec<(EventError, usize)> = Vec::new();
        for (key, error) in refused {
            self.terminate(key, &error);
            match counts.iter_mut().find(|(it, _)| *it == error) {
                Some((_, count)) => *count += 1,
                None => counts.push((error, 1)),
            }
        }
        counts.into_iter().for_each(|(error, count)| self.report(count, error));
    }

    fn on_end(&mut self, error: &EventError) {
        let all: Vec<u64> = self.streams.keys().copied().collect();
        let count = all.len();
        for key in all {
            self.terminate(key, error);
        }
        if count > 0 {
            self.report(count, error.clone());
        }
        self.webhooks.end_type(&self.running.name(), error);
    }

    /// Streams were terminated.
    fn report(&self, count: usize, error: EventError) {
        let event_type = self.running.name();
        self.webhooks.report(|| EventsReport::StreamsTerminated { event_type, count, error });
    }

    fn terminate(&mut self, key: u64, error: &EventError) {
        if let Some(Member { stream: Ending(open), .. }) = self.streams.get(&key) {
            let error = match error {
                // To who has had it before it was hidden.
                EventError::UnknownType(_) if self.running.definition().hides(&open.subscriber) => {
                    &EventError::Forbidden("these events are not for you any longer".to_owned())
                }
                error => error,
            };
            open.notices.send(&messages::terminated(error, open.numbers));
        }
        self.remove(key);
    }

    fn on_failed(&self, error: &EventError) {
        let open = self.streams.values().map(|it| &it.stream.0);
        for open in open.filter(|open| open.notices.has_room()) {
            open.notices.send(&messages::failure(error, open.numbers));
        }
    }

    /// All streams are told that something may be missing, those without room when they have some.
    fn on_gap(&mut self) {
        self.tell_live_of_gap();
        self.behind.values_mut().for_each(|behind| behind.owes_gap = true);
    }

    fn tell_live_of_gap(&self) {
        let notice = messages::active(self.told_cursor(&self.position.seen), true);
        for group in self.groups.values() {
            count_gaps(Mode::Push, group.live.len());
            group.live.values().for_each(|stream| stream.notices.send(&notice));
        }
    }
}

/// Writes a notice to all streams of a group, in parts that run on all threads of the runtime.
/// Returns those that have no room. Returns when all parts are written, so that the order is kept.
async fn write_to_all(group: &Group, notice: Arc<EncodedNotice>) -> Vec<u64> {
    let mut streams = group.live.values().cloned();
    let mut parts = Vec::new();
    while streams.len() > PART {
        let (part, notice) = (streams.by_ref().take(PART).collect(), notice.clone());
        parts.push(tokio::spawn(async move { write_part(part, &notice) }));
    }
    let mut full = write_part(streams.collect(), &notice);
    for part in parts {
        full.extend(part.await.unwrap_or_default());
    }
    full
}

fn write_part(part: Vec<Arc<OpenStream>>, notice: &Arc<EncodedNotice>) -> Vec<u64> {
    let (room, full): (Vec<_>, Vec<_>) = part.into_iter().partition(|it| it.notices.has_room());
    room.iter().for_each(|stream| stream.notices.send(notice));
    full.into_iter().map(|stream| stream.key).collect()
}
