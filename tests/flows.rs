//! What a client does on an ordinary day, in every lane.

use futures::future::join_all;
use serde_json::{Value, json};
use stentor_tests::{Answer, Client, Lane, META_LOG_LEVEL, Phase, Server, in_every_lane, soon};

const KINDS: [&str; 3] = ["tools", "prompts", "resources"];
const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

async fn connected(lane: Lane) -> (Server, Client) {
    let server = Server::start().await;
    let client = Client::connect(&server, lane).await;
    (server, client)
}

in_every_lane![
    progress_comes_with_its_token_and_whole_before_the_answer,
    progress_at_the_pace_of_the_client_loses_nothing,
    progress_that_does_not_increase_is_not_sent,
    a_call_without_a_token_sends_no_progress,
    nothing_that_a_call_says_follows_its_answer,
    log_messages_come_from_the_level_that_was_asked_for,
    an_unknown_log_level_is_refused,
    a_cancelled_call_stops_and_is_not_answered,
    cancelling_another_request_changes_nothing,
    a_notification_of_the_tool_itself_comes_with_its_call,
    answers_carry_the_id_of_their_request_with_its_type,
    many_calls_at_once_each_get_their_own_answer,
    a_large_message_passes_whole_both_ways,
    a_call_goes_on_when_its_tool_is_removed,
    a_tool_knows_who_calls,
    an_integer_is_one_however_it_is_written,
    a_resource_is_found_however_its_uri_is_spelled,
];

async fn an_integer_is_one_however_it_is_written(lane: Lane) {
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

async fn a_resource_is_found_however_its_uri_is_spelled(lane: Lane) {
    let (server, client) = connected(lane).await;
    let listed = "test://place/my file {1}";
    client.call("add", json!({"kind": "resources", "name": listed})).await;
    assert!(client.list("resources").await.contains(&listed.to_owned()), "to the letter");
    let escaped = "TEST://place/my%20fil%65%20%7b1%7d";
    for uri in [listed, escaped] {
        let read = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(read["contents"][0]["text"], "small", "{uri}");
        assert_eq!(read["contents"][0]["uri"], uri);
    }
    for uri in ["test://users/a b", "test://users/%61%20b", "TEST://users/a%20b"] {
        let read = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(read["contents"][0]["text"], "user a b", "{uri}");
    }
    // Each is told the URI that it wrote.
    let mut notices = client.hear(&[escaped]).await;
    client.call("touch", json!({"uri": listed})).await;
    client.call("touch", json!({"uri": "test://place/other"})).await;
    server.mark().await;
    let mut heard = notices.until_mark().await;
    // Of the new resource: a legacy client hears of it when it begins to listen.
    heard.retain(|notice| notice != "resources/list_changed");
    assert_eq!(heard, [format!("resources/updated {escaped}")]);
}

async fn progress_comes_with_its_token_and_whole_before_the_answer(lane: Lane) {
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

async fn progress_at_the_pace_of_the_client_loses_nothing(lane: Lane) {
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

async fn nothing_that_a_call_says_follows_its_answer(lane: Lane) {
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

async fn log_messages_come_from_the_level_that_was_asked_for(lane: Lane) {
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

/// What was logged: level, logger and data.
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
    // One that has said something, and one that has not.
    for (name, meta) in [("loud", json!({"progressToken": 1})), ("quiet", json!({}))] {
        let mut call = client.start_with("hold", json!({"name": name}), meta).await;
        server.stage.reached(name, Phase::Waiting).await;
        if name == "loud" {
            let said = call.next().await.expect("progress");
            assert_eq!(said["method"], "notifications/progress");
        }
        // Checks that nothing more is said.
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
    // One that has been answered already.
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

in_every_lane![
    a_changed_list_is_told_wherever_it_was_changed,
    an_announcement_is_told_without_a_change,
    an_update_of_a_resource_is_told_to_those_who_asked,
    who_unsubscribes_hears_no_more,
    pages_lead_through_a_list_that_changes_meanwhile,
    a_made_up_cursor_is_refused,
];

async fn a_changed_list_is_told_wherever_it_was_changed(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&[]).await;
    let mut expect = async |kind: &str| {
        server.mark().await;
        assert_eq!(notices.until_mark().await, [format!("{kind}/list_changed")]);
    };
    for kind in KINDS {
        let name = format!("test://from-a-call/{kind}");
        let change = json!({"kind": kind, "name": name});
        assert_eq!(client.call("add", change.clone()).await.text(), format!("added {name}"));
        expect(kind).await;
        assert!(client.list(kind).await.contains(&name));
        client.call("remove", change).await;
        expect(kind).await;
        assert!(!client.list(kind).await.contains(&name));
    }
    let catalog = server.engine.catalog();
    catalog.add(Server::tool("from-the-handle")).await.expect("a new tool");
    expect("tools").await;
    catalog.add(Server::prompt("from-the-handle")).await.expect("a new prompt");
    expect("prompts").await;
    catalog.add(Server::resource("test://from-the-handle")).await.expect("a new resource");
    expect("resources").await;
    catalog.remove_resource_template("test://users/{id}").await.expect("a running engine");
    expect("resources").await;
    assert_eq!(client.list("resources/templates").await, [""; 0]);

    let answer = client.call("background", json!({"name": "from-the-background"})).await;
    assert_eq!(answer.text(), "later");
    server.stage.reached("from-the-background", Phase::Waiting).await;
    server.stage.release("from-the-background");
    server.stage.reached("from-the-background", Phase::Finished).await;
    expect("tools").await;
    let tools = client.list("tools").await;
    assert_eq!(tools[tools.len() - 2..], ["from-the-handle", "from-the-background"]);
    assert_eq!(client.call("from-the-background", json!({})).await.text(), "small");
    client.expect_no_strays().await;
}

async fn an_announcement_is_told_without_a_change(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&[]).await;
    for kind in KINDS {
        client.call("announce", json!({"kind": kind, "name": ""})).await;
        server.settle().await;
        match kind {
            "tools" => server.engine.send_tool_list_changed(),
            "prompts" => server.engine.send_prompt_list_changed(),
            _ => server.engine.send_resource_list_changed(),
        }
        server.mark().await;
        let heard = notices.until_mark().await;
        // A notice that waits unread is not repeated.
        assert!((1..=2).contains(&heard.len()), "{heard:?}");
        assert!(heard.iter().all(|it| *it == format!("{kind}/list_changed")), "{heard:?}");
    }
}

async fn an_update_of_a_resource_is_told_to_those_who_asked(lane: Lane) {
    let (server, client) = connected(lane).await;
    let other = Client::connect(&server, lane).await;
    let mut notices = client.hear(&["test://clock", "test://users/7"]).await;
    let mut others = other.hear(&["test://static"]).await;
    let mut expect = async |uri: &str, hears: bool, other_hears: bool| {
        server.mark().await;
        let told = |hears: bool| hears.then(|| format!("resources/updated {uri}"));
        assert_eq!(notices.until_mark().await, Vec::from_iter(told(hears)), "{uri}");
        assert_eq!(others.until_mark().await, Vec::from_iter(told(other_hears)), "{uri}");
    };
    client.call("touch", json!({"uri": "test://clock"})).await;
    expect("test://clock", true, false).await;
    client.call("touch", json!({"uri": "test://static"})).await;
    expect("test://static", false, true).await;
    client.call("touch", json!({"uri": "test://bytes"})).await;
    expect("test://bytes", false, false).await;
    server.engine.send_resource_updated("test://users/7");
    expect("test://users/7", true, false).await;
    server.engine.send_resource_updated("test://users/8");
    expect("test://users/8", false, false).await;
}

async fn who_unsubscribes_hears_no_more(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&["test://clock"]).await;
    server.engine.send_resource_updated("test://clock");
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["resources/updated test://clock"]);
    if lane.is_legacy() {
        client.ask("resources/unsubscribe", json!({"uri": "test://clock"})).await;
    } else {
        // On a pipe this also checks that the listen says no more.
        client.stop_listening(notices).await;
        notices = client.hear(&[]).await;
    }
    client.call("touch", json!({"uri": "test://clock"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0]);
    client.expect_no_strays().await;
}

async fn pages_lead_through_a_list_that_changes_meanwhile(lane: Lane) {
    let server = Server::tuned(|config, _| config.page_size = 4).await;
    let client = Client::connect(&server, lane).await;
    let all = client.list("tools").await;
    assert!(all.len() > 12);
    let distinct = std::collections::BTreeSet::from_iter(&all);
    assert_eq!(distinct.len(), all.len(), "each once");

    let first = client.ask("tools/list", json!({})).await;
    assert_eq!(first["tools"].as_array().map(Vec::len), Some(4));
    // One that was read, the last one that was read, and one that was not.
    let catalog = server.engine.catalog();
    for gone in [&all[0], &all[3], &all[5]] {
        assert!(catalog.remove_tool(gone).await.expect("a running engine"));
    }
    catalog.put(Server::tool(&all[6])).await.expect("another tool of that name");
    catalog.add(Server::tool("last")).await.expect("a new tool");
    // Other nodes show it a moment later.
    server.settle().await;
    let (mut rest, mut page) = (Vec::new(), first);
    while let Some(cursor) = page.get("nextCursor").cloned() {
        page = client.ask("tools/list", json!({"cursor": cursor})).await;
        let tools = page["tools"].as_array().expect("tools");
        rest.extend(tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()));
    }
    let mut expected = vec![all[4].clone()];
    expected.extend_from_slice(&all[6..]);
    expected.push("last".to_owned());
    assert_eq!(rest, expected);
}

async fn a_made_up_cursor_is_refused(lane: Lane) {
    let server = Server::tuned(|config, _| config.page_size = 2).await;
    let client = Client::connect(&server, lane).await;
    let prompts = client.ask("prompts/list", json!({})).await;
    assert_eq!(prompts.get("nextCursor"), None, "two prompts are one page");
    let of_resources = &client.ask("resources/list", json!({})).await["nextCursor"];
    for cursor in [json!("nonsense"), json!(""), json!(7), of_resources.clone()] {
        let answer = client.request("tools/list", json!({"cursor": cursor})).await.answer().await;
        assert_eq!(answer.error()["code"], -32602, "{cursor}");
    }
}

in_every_lane![
    resources_are_read_static_dynamic_and_by_template,
    a_resource_that_cannot_be_read_is_an_error,
    prompts_are_filled_in,
    a_prompt_says_which_argument_is_missing,
    arguments_are_completed,
    a_failing_tool_is_a_result_and_a_wrong_call_is_an_error,
    wrong_arguments_are_explained_to_the_model,
    a_structured_result_has_a_schema_and_a_text,
];

async fn resources_are_read_static_dynamic_and_by_template(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let read = async |uri: &str| {
        let mut result = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(result["contents"].as_array().map(Vec::len), Some(1), "{result}");
        result["contents"][0].take()
    };
    let expected = json!({
        "uri": "test://static", "mimeType": "text/plain", "text": "It never changes.",
    });
    assert_eq!(read("test://static").await, expected);
    assert_eq!(read("test://clock").await["text"], "test://clock tick 0");
    assert_eq!(read("test://clock").await["text"], "test://clock tick 1");
    let expected = json!({
        "uri": "test://bytes", "mimeType": "application/octet-stream", "blob": "AP8=",
    });
    assert_eq!(read("test://bytes").await, expected);
    assert_eq!(read("test://users/7").await, json!({"uri": "test://users/7", "text": "user 7"}));
    assert_eq!(read("test://users/a%20b").await["text"], "user a b");
    assert_eq!(client.list("resources/templates").await, ["test://users/{id}"]);
}

async fn a_resource_that_cannot_be_read_is_an_error(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let error = async |params: Value| {
        client.request("resources/read", params).await.answer().await.error().clone()
    };
    for uri in ["test://nowhere", "test://users/1/2", "nonsense"] {
        let unknown = error(json!({"uri": uri})).await;
        assert_eq!(unknown["code"], if lane.is_legacy() { -32002 } else { -32602 });
        assert_eq!(unknown["data"]["uri"], uri);
    }
    let broken = error(json!({"uri": "test://broken"})).await;
    assert_eq!((&broken["code"], &broken["message"]), (&json!(-32603), &json!("the disk is gone")));
    if lane.is_legacy() {
        let params = json!({"uri": "test://nowhere"});
        let answer = client.request("resources/subscribe", params).await.answer().await;
        assert_eq!(answer.error()["code"], -32002);
    }
}

async fn prompts_are_filled_in(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let arguments = json!({"name": "Ann", "style": "formal"});
    let result = client.ask("prompts/get", json!({"name": "greet", "arguments": arguments})).await;
    let text = json!({"type": "text", "text": "Greet Ann in a formal way."});
    assert_eq!(result["messages"], json!([{"role": "user", "content": text}]));
    let listed = client.ask("prompts/list", json!({})).await;
    let expected = json!({"name": "greet", "description": "Greets somebody", "arguments": [
        {"name": "name", "description": "Who is greeted", "required": true},
        {"name": "style", "description": "How", "required": false},
    ]});
    assert_eq!(listed["prompts"][0], expected);
}

async fn a_prompt_says_which_argument_is_missing(lane: Lane) {
    let (_server, client) = connected(lane).await;
    for (params, said) in [
        (json!({"name": "greet"}), "name"),
        (json!({"name": "greet", "arguments": {"style": "formal"}}), "name"),
        (json!({"name": "insult"}), "insult"),
        (json!({"name": "greet", "arguments": {"name": 7}}), ""),
        (json!({}), "name"),
    ] {
        let answer = client.request("prompts/get", params.clone()).await.answer().await;
        let error = answer.error();
        assert_eq!(error["code"], -32602, "{params}");
        assert!(error["message"].as_str().is_some_and(|it| it.contains(said)), "{error}");
    }
}

async fn arguments_are_completed(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let prompt = json!({"type": "ref/prompt", "name": "greet"});
    let template = json!({"type": "ref/resource", "uri": "test://users/{id}"});
    let known = json!({"arguments": {"name": "Ann"}});
    for (reference, argument, value, context, values) in [
        (&prompt, "style", "f", json!({}), json!(["formal", "friendly", "frank"])),
        (&prompt, "style", "fr", json!({}), json!(["friendly", "frank"])),
        (&prompt, "style", "for", known, json!(["formal", "for Ann"])),
        (&prompt, "name", "", json!({}), json!([])),
        (&template, "id", "1", json!({}), json!(["10", "11"])),
    ] {
        let argument = json!({"name": argument, "value": value});
        let params = json!({"ref": reference, "argument": argument, "context": context});
        let result = client.ask("completion/complete", params).await;
        let total = values.as_array().map(Vec::len);
        let expected = json!({"values": values, "total": total, "hasMore": false});
        assert_eq!(result["completion"], expected, "{argument}");
    }
    for reference in [json!({"type": "ref/prompt", "name": "x"}), json!({"type": "ref/what"})] {
        let params = json!({"ref": reference, "argument": {"name": "a", "value": ""}});
        let answer = client.request("completion/complete", params).await.answer().await;
        assert_eq!(answer.error()["code"], -32602);
    }
}

async fn a_failing_tool_is_a_result_and_a_wrong_call_is_an_error(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let failed = client.call("fail", json!({})).await;
    assert_eq!(failed.result()["isError"], true);
    assert_eq!(failed.text(), "the printer is out of paper");
    let failed = client.call("fail_by_question_mark", json!({})).await;
    assert_eq!(failed.result()["isError"], true);
    assert!(failed.text().contains("utf-8"), "{}", failed.text());
    let refused = client.call("refuse", json!({})).await;
    let expected = json!({"code": 1234, "message": "not today", "data": {"day": "Monday"}});
    assert_eq!(*refused.error(), expected);
    for params in [
        json!({"name": "no such tool"}),
        json!({"arguments": {}}),
        json!({"name": "echo", "arguments": ["hello"]}),
        json!({"name": "echo", "arguments": "hello"}),
        json!({"name": 7}),
    ] {
        let answer = client.request("tools/call", params.clone()).await.answer().await;
        assert_eq!(answer.error()["code"], -32602, "{params}");
    }
    let succeeded = client.call("echo", json!({"text": "fine"})).await;
    assert_ne!(succeeded.result()["isError"], true);
    let params = json!({"name": "tell", "arguments": null});
    let answer = client.request("tools/call", params).await.answer().await;
    assert_eq!(answer.text(), "told", "null is no arguments");
}

async fn wrong_arguments_are_explained_to_the_model(lane: Lane) {
    let (_server, client) = connected(lane).await;
    for (arguments, path, rule) in [
        (json!({"items": [{"quantity": 1}, {"quantity": "two"}]}), "/items/1/quantity", "/type"),
        (json!({"items": [{"quantity": 0}]}), "/items/0/quantity", "/minimum"),
        (json!({"items": [{}]}), "/items/0", "/required"),
        (json!({}), "at /:", "/required"),
    ] {
        let answer = client.call("order", arguments.clone()).await;
        assert_eq!(answer.result()["isError"], true, "{arguments}");
        let text = answer.text();
        let explained = ["'order'", path, rule].iter().all(|part| text.contains(part));
        assert!(explained, "{arguments}: {text}");
    }
    let answer = client.call("order", json!({"items": [{"quantity": 2}, {"quantity": 3}]})).await;
    assert_eq!(answer.text(), "ordered 5");
}

async fn a_structured_result_has_a_schema_and_a_text(lane: Lane) {
    let (_server, client) = connected(lane).await;
    let answer = client.call("sum", json!({"a": 2, "b": 3})).await;
    assert_eq!(answer.result()["structuredContent"], json!({"sum": 5}));
    let text: Value = serde_json::from_str(answer.text()).expect("the text is the same as JSON");
    assert_eq!(text, json!({"sum": 5}));
    let tools = client.ask("tools/list", json!({})).await;
    let tools = tools["tools"].as_array().expect("tools");
    let sum = tools.iter().find(|tool| tool["name"] == "sum").expect("the tool");
    assert_eq!(sum["outputSchema"]["properties"]["sum"]["type"], "integer");
    let input = &sum["inputSchema"];
    assert_eq!((&input["type"], &input["required"]), (&json!("object"), &json!(["a", "b"])));
}

#[tokio::test]
async fn a_legacy_client_that_goes_away_over_http_has_not_cancelled() {
    let (server, client) = connected(Lane::HTTP_LEGACY).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "a"}), meta).await;
    assert_eq!(call.next().await.expect("progress")["method"], "notifications/progress");
    drop(call);
    // Others come and go meanwhile, also on this session.
    client.nudge().await;
    drop(client.start("hold", json!({"name": "b"})).await);
    for name in ["a", "b"] {
        server.stage.reached(name, Phase::Waiting).await;
        server.stage.release(name);
        server.stage.reached(name, Phase::Finished).await;
    }
}

#[tokio::test]
async fn a_modern_client_that_goes_away_before_it_gets_a_head_has_cancelled() {
    let (server, client) = connected(Lane::HTTP_MODERN).await;
    tokio::select! {
        call = client.start_with("hold", json!({"name": "a"}), json!({})) => {
            // It took long to get here, but it must stop all the same.
            drop(call);
        }
        () = server.stage.reached("a", Phase::Waiting) => {}
    }
    server.stage.reached("a", Phase::Stopped).await;
}

#[tokio::test]
async fn a_legacy_http_session_hears_each_message_on_one_stream() {
    let (server, client) = connected(Lane::HTTP_LEGACY).await;
    let mut notices = client.hear(&[]).await;
    let meta = json!({"progressToken": 1});
    let mut call = client.start_with("hold", json!({"name": "a"}), meta).await;
    assert_eq!(call.next().await.expect("progress")["method"], "notifications/progress");
    client.call("add", json!({"kind": "tools", "name": "new"})).await;
    server.engine.notify_all("notifications/example/all", json!({"n": 1})).await.expect("running");
    server.mark().await;
    let mut heard = notices.until_mark().await;
    // A list is announced when all nodes show it, which may be after the other one.
    heard.sort();
    assert_eq!(heard, ["example/all", "tools/list_changed"]);
    server.stage.release("a");
    let answer = call.answer().await;
    assert_eq!((answer.text(), answer.said.len()), ("held", 0));
}
