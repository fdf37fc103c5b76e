//! Calls: their progress, log messages and answers, and how they are cancelled.

use futures::future::join_all;
use serde_json::{Value, json};
use stentor_tests::{Answer, Lane, META_LOG_LEVEL, Phase, in_every_lane, soon};

use crate::connected;

const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

in_every_lane![
    progress_carries_its_token_and_is_complete_before_the_answer,
    paced_progress_loses_no_value,
    progress_that_does_not_increase_is_not_sent,
    a_call_without_a_token_sends_no_progress,
    no_message_of_a_call_follows_its_answer,
    log_messages_start_at_the_requested_level,
    an_unknown_log_level_is_refused,
    a_cancelled_call_stops_and_is_not_answered,
    cancelling_another_request_changes_nothing,
    a_notification_of_the_tool_itself_comes_with_its_call,
    answers_carry_the_id_of_their_request_with_its_type,
    many_calls_at_once_each_get_their_own_answer,
    a_large_message_passes_whole_both_ways,
    a_call_goes_on_when_its_tool_is_removed,
    a_tool_knows_who_calls,
    an_integer_is_accepted_in_every_notation,
];

async fn an_integer_is_accepted_in_every_notation(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let sum = client.call("sum", json!({"a": 1.0, "b": -1e3})).await;
    assert_eq!(sum.result()["structuredContent"], json!({"sum": -999}));
    let items = json!([{"quantity": 2.0}, {"quantity": 3}]);
    assert_eq!(client.call("order", json!({"items": items})).await.text(), "ordered 5");
    for token in [json!(1.5), json!(18_446_744_073_709_551_615_u64)] {
        let meta = json!({"progressToken": token});
        let answer = client.start_with("count", json!({"n": 2.0}), meta).await.answer().await;
        assert_eq!(answer.progress(), [1.0, 2.0], "{token}");
        assert_eq!(answer.heard("notifications/progress")[1]["progressToken"], token);
    }
    let refused = client.call("sum", json!({"a": 1.5, "b": 1})).await;
    assert_eq!(refused.result()["isError"], true, "that is no integer");
    client.expect_no_strays().await;
}

async fn progress_carries_its_token_and_is_complete_before_the_answer(lane: Lane) {
    let (_server, client) = connected(lane).await;
    for token in [json!("a token"), json!("7"), json!(7), json!(0), json!(-3)] {
        let meta = json!({"progressToken": token});
        // `answer` checks that the response is last.
        let answer = client.start_with("count", json!({"n": 100}), meta).await.answer().await;
        assert_eq!(answer.text(), "counted");
        assert_eq!(answer.progress(), (1..=100).map(f64::from).collect::<Vec<_>>());
        assert_eq!(answer.said.len(), 100);
        let last = answer.heard("notifications/progress")[99];
        let expected = json!({
            "progressToken": token, "progress": 100.0, "total": 100.0, "message": "step 100",
        });
        assert_eq!(*last, expected);
    }
    client.expect_no_strays().await;
}

async fn paced_progress_loses_no_value(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let meta = json!({"progressToken": 1});
    let answer = client.start_with("count_paced", json!({"n": 2_000}), meta).await.answer().await;
    assert_eq!(answer.progress(), (1..=2_000).map(f64::from).collect::<Vec<_>>());
}

async fn progress_that_does_not_increase_is_not_sent(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let meta = json!({"progressToken": 1});
    let answer = client.start_with("zigzag", json!({}), meta).await.answer().await;
    assert_eq!(answer.progress(), [1.0, 2.5, 3.0]);
}

async fn a_call_without_a_token_sends_no_progress(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let answer = client.call("count", json!({"n": 100})).await;
    assert_eq!((answer.text(), answer.said.len()), ("counted", 0));
    client.expect_no_strays().await;
}

async fn no_message_of_a_call_follows_its_answer(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&[]).await;
    let meta = json!({"progressToken": 1, META_LOG_LEVEL: "debug"});
    let call = client.start_with("linger", json!({"name": "late"}), meta).await;
    let answer = call.answer().await;
    assert_eq!((answer.text(), answer.progress()), ("answered", vec![1.0]));
    server.stage.reached("late", Phase::Waiting).await;
    server.stage.release("late");
    server.stage.reached("late", Phase::Finished).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0]);
    client.expect_no_strays().await;
}

async fn log_messages_start_at_the_requested_level(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let logged = async |level: Option<&str>| {
        let meta = match level {
            Some(level) if lane.is_legacy() => {
                client.ask("logging/setLevel", json!({"level": level})).await;
                json!({})
            }
            Some(level) => json!({META_LOG_LEVEL: level}),
            None => json!({}),
        };
        let answer = client.start_with("log", json!({}), meta).await.answer().await;
        assert_eq!(answer.said.len(), answer.heard("notifications/message").len());
        levels(&answer)
    };
    let expected = |level: &str| {
        let first = LEVELS.iter().position(|it| *it == level).expect("a level");
        let mut all: Vec<_> = LEVELS[first..].iter().map(|it| json!([it, null, it])).collect();
        all.extend((first <= 4).then(|| json!(["error", "disk", {"free": 0}])));
        all
    };
    let unasked = if lane.is_legacy() { expected("info") } else { Vec::new() };
    assert_eq!(logged(None).await, unasked);
    for level in LEVELS {
        assert_eq!(logged(Some(level)).await, expected(level), "{level}");
    }
    client.expect_no_strays().await;
}

/// The log messages: level, logger and data.
fn levels(answer: &Answer) -> Vec<Value> {
    let logged = answer.heard("notifications/message").into_iter();
    logged.map(|log| json!([log["level"], log["logger"], log["data"]])).collect()
}

async fn an_unknown_log_level_is_refused(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let request = if lane.is_legacy() {
        client.request("logging/setLevel", json!({"level": "loud"})).await
    } else {
        client.start_with("log", json!({}), json!({META_LOG_LEVEL: "loud"})).await
    };
    let answer = request.answer().await;
    assert_eq!((&answer.error()["code"], answer.said.len()), (&json!(-32602), 0));
}

async fn a_cancelled_call_stops_and_is_not_answered(lane: Lane) {
    let (server, client) = connected(lane).await;
    // One call has sent a message, the other has not.
    for (name, meta) in [("loud", json!({"progressToken": 1})), ("quiet", json!({}))] {
        let mut call = client.start_with("hold", json!({"name": name}), meta).await;
        server.stage.reached(name, Phase::Waiting).await;
        if name == "loud" {
            let said = call.next().await.expect("progress");
            assert_eq!(said["method"], "notifications/progress");
        }
        // Checks that no further message arrives.
        client.cancel(call).await;
        server.stage.reached(name, Phase::Stopped).await;
    }
    assert_eq!(client.call("echo", json!({"text": "still here"})).await.text(), "still here");
    client.expect_no_strays().await;
}

async fn cancelling_another_request_changes_nothing(lane: Lane) {
    let (server, client) = connected(lane).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    let same_digits = json!({"requestId": call.id().to_string()});
    for params in [same_digits, json!({"requestId": 999}), json!({"reason": "no id"}), json!({})] {
        client.notify("notifications/cancelled", params).await;
    }
    client.nudge().await;
    server.stage.release("a");
    assert_eq!(call.answer().await.text(), "held");
    // A request that was already answered.
    client.notify("notifications/cancelled", json!({"requestId": 1})).await;
    client.expect_no_strays().await;
}

async fn a_notification_of_the_tool_itself_comes_with_its_call(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&[]).await;
    let answer = client.call("tell", json!({})).await;
    assert_eq!(answer.heard("notifications/example/told"), [&json!({"n": 1})]);
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0], "it was said once");
}

async fn answers_carry_the_id_of_their_request_with_its_type(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let ids = [json!("1"), json!(1001), json!("1001"), json!(-1), json!("ü \"\n"), json!("")];
    let params = json!({"name": "echo", "arguments": {"text": "hello"}});
    for id in ids.iter().chain([&json!(i64::MAX)]) {
        for method in ["tools/call", "tools/list", "no/such/method"] {
            let request = client.request_as(id.clone(), method, params.clone()).await;
            let response = request.answer().await.response.expect("a response");
            assert_eq!(response["id"], *id, "{method}");
        }
    }
}

async fn many_calls_at_once_each_get_their_own_answer(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let texts: Vec<_> = (0..60).map(|n| format!("text {n}")).collect();
    let answers = join_all(texts.iter().map(|text| client.call("echo", json!({"text": text}))));
    for (text, answer) in texts.iter().zip(soon("sixty answers", answers).await) {
        assert_eq!(answer.text(), text);
    }
}

async fn a_large_message_passes_whole_both_ways(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let text = "Grüße,\r\n\n\u{2028}\"\\ und mehr\n".repeat(40_000);
    assert!(text.len() > 1_000_000);
    assert!(client.call("echo", json!({"text": text})).await.text() == text);
}

async fn a_call_goes_on_when_its_tool_is_removed(lane: Lane) {
    let (server, client) = connected(lane).await;
    let call = client.start("hold", json!({"name": "a"})).await;
    server.stage.reached("a", Phase::Waiting).await;
    client.call("remove", json!({"kind": "tools", "name": "hold"})).await;
    assert_eq!(client.call("hold", json!({"name": "b"})).await.error()["code"], -32602);
    server.stage.release("a");
    assert_eq!(call.answer().await.text(), "held");
}

async fn a_tool_knows_who_calls(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let expected = if lane.is_legacy() { "raw legacy 2025-11-25" } else { "raw modern 2026-07-28" };
    assert_eq!(client.call("who", json!({})).await.text(), expected);
}

#[tokio::test]
async fn a_legacy_http_client_that_disconnects_does_not_cancel_its_call() {
    let (server, client) = connected(Lane::HTTP_LEGACY).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "a"}), meta).await;
    assert_eq!(call.next().await.expect("progress")["method"], "notifications/progress");
    drop(call);
    // Other requests come and go meanwhile, also on this session.
    client.nudge().await;
    drop(client.start("hold", json!({"name": "b"})).await);
    for name in ["a", "b"] {
        server.stage.reached(name, Phase::Waiting).await;
        server.stage.release(name);
        server.stage.reached(name, Phase::Finished).await;
    }
}

#[tokio::test]
async fn a_modern_client_that_disconnects_before_it_gets_a_head_cancels_its_call() {
    let (server, client) = connected(Lane::HTTP_MODERN).await;
    tokio::select! {
        call = client.start_with("hold", json!({"name": "a"}), json!({})) => {
            // The head may arrive first; the call must be cancelled all the same.
            drop(call);
        }
        () = server.stage.reached("a", Phase::Waiting) => {}
    }
    server.stage.reached("a", Phase::Stopped).await;
}

#[tokio::test]
async fn a_legacy_http_session_receives_each_message_on_one_stream() {
    let (server, client) = connected(Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "a"}), meta).await;
    assert_eq!(call.next().await.expect("progress")["method"], "notifications/progress");
    client.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.engine.notify_all("notifications/example/all", json!({"n": 1})).await.expect("running");
    server.mark().await;
    let mut heard = notices.until_mark().await;
    // A list is announced only when all nodes show it, so it may follow the other notice.
    heard.sort();
    assert_eq!(heard, ["example/all", "tools/list_changed"]);
    server.stage.release("a");
    let answer = call.answer().await;
    assert_eq!((answer.text(), answer.said.len()), ("held", 0));
}
