use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use stentor_wire::{EncodedNotice, Id, ListKind, LogLevel};

use super::*;

const LIMITS: Limits = Limits { frames: 4, bytes: 100_000, progress: 3, answers: 1_000 };

fn message(text: &str) -> Frame {
    Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
}

fn text(frame: &Frame) -> String {
    let mut out = BytesMut::new();
    frame.write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn notice(notice: Notice) -> Frame {
    Frame::Notice(Arc::new(EncodedNotice::new(notice)), None)
}

fn tools_changed() -> Frame {
    notice(Notice::Changed(Topic::List(ListKind::Tools)))
}

fn updated(uri: &str) -> Frame {
    notice(Notice::Changed(Topic::Resource(uri.into())))
}

fn read(queue: &mut Queue) -> Vec<String> {
    let mut batch = Vec::new();
    queue.take(&mut batch, usize::MAX, usize::MAX);
    batch.iter().map(|event| text(&event.frame)).collect()
}

fn log(queue: &mut Queue, text: &str, limits: &Limits) -> Pushed {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    queue.push(Class::Log, Frame::Log(LogLevel::Info, bytes), limits)
}

fn dropped(text: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(text).ok()?["params"]["data"]["dropped"].as_u64()
}

struct Reporter {
    gate: Arc<ProgressGate>,
}

impl Reporter {
    fn new() -> Self {
        Self { gate: Arc::new(ProgressGate::new(Some(Id::Number(1)))) }
    }

    fn report(&mut self, queue: &mut Queue, progress: f64) -> Pushed {
        let value = Report { gate: &self.gate, progress, total: None, message: "" };
        let behind = self.gate.unread() >= LIMITS.progress;
        queue.push_progress(value, behind)
    }
}

fn values(read: &[String]) -> Vec<f64> {
    let value = |text: &String| serde_json::from_str::<serde_json::Value>(text).ok();
    read.iter().filter_map(|text| value(text)?["params"]["progress"].as_f64()).collect()
}

#[test]
fn frames_are_read_in_the_order_in_which_they_were_queued() {
    let mut queue = Queue::default();
    queue.push(Class::Reply, message("a"), &LIMITS);
    queue.push(Class::Log, message("b"), &LIMITS);
    assert_eq!(read(&mut queue), ["a", "b"]);
    assert!(read(&mut queue).is_empty());
}

#[test]
fn the_same_notice_waits_only_once_and_can_be_queued_again_after_it_was_read() {
    let mut queue = Queue::default();
    assert_eq!(queue.push(Class::ListChanged, tools_changed(), &LIMITS), Pushed::Queued);
    assert_eq!(queue.push(Class::ListChanged, tools_changed(), &LIMITS), Pushed::Coalesced);
    assert_eq!(queue.push(Class::ResourceUpdated, updated("a"), &LIMITS), Pushed::Queued);
    assert_eq!(queue.push(Class::ResourceUpdated, updated("b"), &LIMITS), Pushed::Queued);
    assert_eq!(queue.push(Class::ResourceUpdated, updated("a"), &LIMITS), Pushed::Coalesced);
    assert_eq!(read(&mut queue).len(), 3);
    assert_eq!(queue.push(Class::ListChanged, tools_changed(), &LIMITS), Pushed::Queued);
}

#[test]
fn two_subscriptions_on_one_pipe_each_receive_the_same_notice() {
    let mut queue = Queue::default();
    let shared = Arc::new(EncodedNotice::new(Notice::Changed(Topic::List(ListKind::Tools))));
    for id in [1, 2] {
        let subscription = Some(SubscriptionId::of(&Id::Number(id)));
        let frame = Frame::Notice(shared.clone(), subscription);
        assert_eq!(queue.push(Class::ListChanged, frame, &LIMITS), Pushed::Queued);
    }
    assert_eq!(read(&mut queue).len(), 2);
}

#[test]
fn a_client_that_falls_behind_loses_its_oldest_log_messages_but_no_reply() {
    let mut queue = Queue::default();
    log(&mut queue, "0", &LIMITS);
    queue.push(Class::Reply, message("reply"), &LIMITS);
    for n in 1..4 {
        assert_eq!(log(&mut queue, &n.to_string(), &LIMITS), Pushed::Queued);
    }
    assert_eq!(log(&mut queue, "4", &LIMITS), Pushed::QueuedAfterDrop(1));
    let read = read(&mut queue);
    assert_eq!(dropped(&read[0]), Some(1), "{read:?}");
    assert_eq!(read[1..], ["reply", "1", "2", "3", "4"]);
}

#[test]
fn dropped_frames_leave_no_holes_whatever_is_queued_before_them() {
    let mut queue = Queue::default();
    queue.push(Class::ListChanged, tools_changed(), &LIMITS);
    for n in 0..100_000 {
        log(&mut queue, &n.to_string(), &LIMITS);
    }
    assert!(queue.entries.len() <= 2 * (LIMITS.frames + 2) + FEW_HOLES);
    assert!(queue.droppable.len() <= LIMITS.frames);
    let read = read(&mut queue);
    assert_eq!(read.len(), LIMITS.frames + 2);
    assert_eq!(dropped(&read[1]), Some(100_000 - LIMITS.frames as u64), "{read:?}");
    assert_eq!(queue.weight(), 0);
}

#[test]
fn log_messages_are_bounded_in_bytes_too() {
    let limits = Limits { bytes: 1_000, ..LIMITS };
    let mut queue = Queue::default();
    let long = "x".repeat(600);
    log(&mut queue, "first", &limits);
    log(&mut queue, &long, &limits);
    assert_eq!(log(&mut queue, &long, &limits), Pushed::QueuedAfterDrop(2));
    assert_eq!(read(&mut queue)[1..], [long]);
}

#[test]
fn progress_is_lossless_until_the_client_falls_behind_and_then_the_latest_wins() {
    let mut queue = Queue::default();
    let mut call = Reporter::new();
    let pushed: Vec<_> = (1..=6).map(|n| call.report(&mut queue, f64::from(n))).collect();
    assert_eq!(pushed[..3], [Pushed::Queued; 3]);
    assert_eq!(pushed[3..], [Pushed::Conflated; 3]);
    assert_eq!(values(&read(&mut queue)), [1.0, 2.0, 6.0]);
    assert_eq!(call.report(&mut queue, 7.0), Pushed::Queued);
    assert_eq!(values(&read(&mut queue)), [7.0]);
}

#[test]
fn no_frame_follows_the_end() {
    let mut queue = Queue::default();
    queue.push(Class::Reply, message("last"), &LIMITS);
    queue.finish();
    assert_eq!(queue.push(Class::Log, message("late"), &LIMITS), Pushed::Closed);
    assert_eq!(Reporter::new().report(&mut queue, 1.0), Pushed::Closed);
    assert_eq!(read(&mut queue), ["last"]);
}

#[test]
fn closing_drops_all_frames() {
    let mut queue = Queue::default();
    queue.push(Class::Reply, message("a"), &LIMITS);
    queue.close();
    assert!(queue.is_closed());
    assert!(!queue.has_unread());
    assert!(read(&mut queue).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Log(u8),
    Reply(u8),
    Tools,
    Updated(u8),
    Progress,
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u8>().prop_map(Step::Log),
        any::<u8>().prop_map(Step::Reply),
        Just(Step::Tools),
        (0u8..3).prop_map(Step::Updated),
        Just(Step::Progress),
        (0usize..6).prop_map(Step::Read),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// For any sequence of frames and reads: the limits bound the queue, all replies arrive in
    /// order, log messages arrive in order and the newest is never lost, progress increases and
    /// ends with the last value, and each change is announced at least once.
    #[test]
    fn the_policy_holds_for_any_client(steps in steps()) {
        let mut queue = Queue::default();
        let mut call = Reporter::new();
        let (mut progress, mut seen) = (0.0, Vec::new());
        let (mut replies, mut logs) = (Vec::new(), Vec::new());
        let mut changed_since_seen = false;
        let mut unread_replies = 0usize;
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Log(tag) => {
                    let text = format!("log {n} {tag}");
                    log(&mut queue, &text, &LIMITS);
                    logs.push(text);
                }
                Step::Reply(tag) => {
                    let text = format!("reply {n} {tag}");
                    queue.push(Class::Reply, message(&text), &LIMITS);
                    replies.push(text);
                    unread_replies += 1;
                }
                Step::Tools => {
                    queue.push(Class::ListChanged, tools_changed(), &LIMITS);
                    changed_since_seen = true;
                }
                Step::Updated(n) => {
                    queue.push(Class::ResourceUpdated, updated(&n.to_string()), &LIMITS);
                }
                Step::Progress => {
                    progress += 1.0;
                    call.report(&mut queue, progress);
                }
                Step::Read(max) => {
                    let mut batch = Vec::new();
                    queue.take(&mut batch, max, usize::MAX);
                    seen.extend(batch.iter().map(|event| text(&event.frame)));
                }
            }
            let bound = LIMITS.frames + LIMITS.progress as usize + 1 + 1 + 3 + unread_replies;
            prop_assert!(queue.unread() <= bound);
            prop_assert!(queue.entries.len() <= 2 * bound + FEW_HOLES);
            let held = queue.entries.iter().filter_map(|entry| entry.held.as_ref());
            prop_assert_eq!(queue.weight(), held.map(|held| held.frame.weight()).sum::<usize>());
            prop_assert_eq!(queue.holes, queue.entries.iter().filter(|e| e.held.is_none()).count());
        }
        seen.extend(read(&mut queue));
        prop_assert_eq!((queue.weight(), queue.kept_bytes(), queue.droppable_bytes), (0, 0, 0));
        let of = |start: &str| -> Vec<_> { seen.iter().filter(|t| t.starts_with(start)).cloned().collect() };
        prop_assert_eq!(of("reply "), replies);
        let seen_logs = of("log ");
        let mut rest = logs.iter();
        prop_assert!(seen_logs.iter().all(|log| rest.any(|sent| sent == log)), "log messages out of order");
        prop_assert_eq!(seen_logs.last(), logs.last());
        let lost: u64 = seen.iter().filter_map(|text| dropped(text)).sum();
        prop_assert_eq!(seen_logs.len() as u64 + lost, logs.len() as u64, "the count is told");
        let seen_progress = values(&seen);
        prop_assert!(seen_progress.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(seen_progress.last().copied().unwrap_or(0.0), progress);
        let announced = seen.iter().any(|t| t.contains("tools/list_changed"));
        prop_assert_eq!(announced, changed_since_seen);
        prop_assert_eq!(call.gate.unread(), 0);
    }
}
