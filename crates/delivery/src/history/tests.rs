use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stentor_wire::{EncodedNotice, Id, ListKind, LogLevel};

use super::*;
use crate::policy::{Budget, Limits};
use crate::{Counters, ProgressGate, StreamReceiver, StreamSender, Terms, WhenGone};

const LONG: Duration = Duration::from_secs(3_600);

fn stream() -> (StreamSender, StreamReceiver) {
    let limits = Limits { frames: 3, bytes: 100_000, progress: 2, answers: 1_000 };
    let terms = Terms { limits, one_reply: false, heartbeats: false };
    let counters = Arc::new(Counters::total(Budget::default().total));
    let sender = StreamSender::new(StreamId::STANDALONE, terms, counters, WhenGone::Wait, None);
    let receiver = sender.attach();
    (sender, receiver)
}

fn follow(sender: &StreamSender, capacity: usize) {
    sender.counters().follow(History::new(capacity, LONG));
}

fn entries(sender: &StreamSender) -> Vec<HistoryEntry> {
    sender.counters().history().expect("followed").entries
}

fn log(sender: &StreamSender) {
    sender.push(Class::Log, Frame::Log(LogLevel::Info, Bytes::from_static(b"{}")));
}

fn changed(sender: &StreamSender, topic: Topic) {
    let notice = Notice::Changed(topic);
    sender.notice(Class::of(&notice), Arc::new(EncodedNotice::new(notice)), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_noted_of_a_session_that_nobody_follows() {
    let (sender, _receiver) = stream();
    log(&sender);
    assert_eq!(sender.counters().history(), None);
    follow(&sender, 4);
    assert_eq!(entries(&sender), [], "what was sent before is not known");
    sender.counters().unfollow();
    log(&sender);
    assert_eq!(sender.counters().history(), None);
}

#[tokio::test(start_paused = true)]
async fn a_history_ends_by_itself() {
    let (sender, _receiver) = stream();
    sender.counters().follow(History::new(4, LONG));
    log(&sender);
    assert_eq!(entries(&sender).len(), 1);
    tokio::time::advance(LONG).await;
    log(&sender);
    assert_eq!(sender.counters().history(), None);
    // Not even this is too long.
    sender.counters().follow(History::new(4, Duration::MAX));
    log(&sender);
    assert_eq!(entries(&sender).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_frame_says_what_became_of_it_and_why() {
    let (sender, mut receiver) = stream();
    follow(&sender, 64);
    let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
    changed(&sender, Topic::List(ListKind::Tools));
    changed(&sender, Topic::List(ListKind::Tools));
    changed(&sender, Topic::Resource("file:///a".into()));
    for value in [1.0, 2.0, 3.0, 3.0] {
        sender.progress(&gate, value, Some(4.0), &"");
    }
    for _ in 0..4 {
        log(&sender);
    }
    sender.counters().filtered(
        Class::ListChanged,
        &Notice::Changed(Topic::List(ListKind::Prompts)),
        "it did not ask for this list",
    );
    receiver.try_next(&mut Vec::new());
    drop(receiver);
    sender.finish();
    log(&sender);
    let all: Vec<_> = entries(&sender).into_iter().map(|it| (it.what, it.became)).collect();
    let expected = [
        ("notifications/tools/list_changed", Outcome::Delivered),
        ("notifications/tools/list_changed", Outcome::Coalesced),
        ("notifications/resources/updated file:///a", Outcome::Delivered),
        ("notifications/progress 1 of 4", Outcome::Delivered),
        ("notifications/progress 2 of 4", Outcome::Conflated),
        ("notifications/progress 3 of 4", Outcome::Delivered),
        ("notifications/progress 3 of 4", Outcome::Refused),
        ("notifications/message info", Outcome::Dropped),
        ("notifications/message info", Outcome::Delivered),
        ("notifications/message info", Outcome::Delivered),
        ("notifications/message info", Outcome::Delivered),
        ("notifications/prompts/list_changed", Outcome::Filtered),
        ("notifications/message info", Outcome::Closed),
    ];
    let expected = expected.map(|(what, became)| (what.to_owned(), became));
    assert_eq!(all, expected);
    for entry in entries(&sender) {
        let is_plain = matches!(entry.became, Outcome::Delivered | Outcome::Waits);
        assert_eq!(entry.why.is_none(), is_plain, "{entry:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_is_bounded_in_entries_and_in_bytes() {
    let (sender, _receiver) = stream();
    follow(&sender, 2);
    for number in 0..5 {
        changed(&sender, Topic::Resource(format!("{number}{}", "ä".repeat(1_000)).into()));
    }
    let view = sender.counters().history().expect("followed");
    assert_eq!((view.entries.len(), view.missed), (2, 3));
    assert!(view.entries.iter().all(|it| it.what.len() <= MAX_NAME));
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Log,
    Tools,
    Resource(u8),
    Progress(u8),
    Read,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        Just(Op::Log),
        Just(Op::Tools),
        (0..3u8).prop_map(Op::Resource),
        (0..20u8).prop_map(Op::Progress),
        Just(Op::Read),
    ];
    proptest::collection::vec(op, 0..60)
}

proptest! {
    #[test]
    fn the_history_agrees_with_the_counters(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let (sender, mut receiver) = stream();
            follow(&sender, 1_000);
            let gate = Arc::new(ProgressGate::new(Some(Id::Number(1))));
            let (mut sent, mut read, mut reports) = (0, Vec::new(), 0);
            for op in ops {
                sent += 1;
                match op {
                    Op::Log => log(&sender),
                    Op::Tools => changed(&sender, Topic::List(ListKind::Tools)),
                    Op::Resource(key) => changed(&sender, Topic::Resource(key.to_string().into())),
                    Op::Progress(value) => sender.progress(&gate, value.into(), None, &""),
                    Op::Read => {
                        sent -= 1;
                        receiver.try_next(&mut read);
                    }
                }
            }
            receiver.try_next(&mut read);
            reports += read.iter().filter(|it| matches!(it.frame, Frame::Dropped(..))).count();
            let mut outcomes = BTreeMap::<String, usize>::new();
            for entry in entries(&sender) {
                *outcomes.entry(format!("{:?}", entry.became)).or_default() += 1;
            }
            let of = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
            let counters = sender.counters().view();
            let sum = |counts: &[u64]| usize::try_from(counts.iter().sum::<u64>()).unwrap_or(0);
            prop_assert_eq!(outcomes.values().sum::<usize>(), sent);
            prop_assert_eq!(of("Delivered"), read.len() - reports);
            prop_assert_eq!(of("Dropped"), sum(&counters.dropped));
            prop_assert_eq!(of("Coalesced"), sum(&counters.coalesced));
            prop_assert_eq!(of("Conflated"), sum(&[counters.conflated]));
            prop_assert_eq!(of("Refused"), sum(&[counters.refused]));
            prop_assert_eq!(of("Waits"), 0);
            Ok(())
        })?;
    }
}
