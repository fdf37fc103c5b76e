//! Resources, prompts, completion, and what tools are called with and return.

use serde_json::{Value, json};
use stentor_tests::{Lane, in_every_lane};

use crate::connected;

in_every_lane![
    resources_are_read_static_dynamic_and_by_template,
    a_resource_that_cannot_be_read_is_an_error,
    prompts_are_filled_in,
    a_prompt_says_which_argument_is_missing,
    arguments_are_completed,
    a_failing_tool_is_a_result_and_a_wrong_call_is_an_error,
    wrong_arguments_are_explained_to_the_model,
    a_structured_result_has_a_schema_and_a_text,
    a_resource_is_found_by_every_spelling_of_its_uri,
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
    assert_eq!(failed.text(), "the tool failed", "what the library says is for the log");
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

async fn a_resource_is_found_by_every_spelling_of_its_uri(lane: Lane) {
    let (server, client) = connected(lane).await;
    let listed = "test://place/my file {1}";
    client.call("add", json!({"kind": "resources", "name": listed})).await;
    // Another node may answer, and shows the resource a moment later.
    server.settle().await;
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
    // Each client is notified under the URI that it wrote.
    let mut notices = client.hear(&[escaped]).await;
    client.call("touch", json!({"uri": listed})).await;
    client.call("touch", json!({"uri": "test://place/other"})).await;
    server.mark().await;
    let mut heard = notices.until_mark().await;
    // A legacy client is notified of the new resource when it opens its stream.
    heard.retain(|notice| notice != "resources/list_changed");
    assert_eq!(heard, [format!("resources/updated {escaped}")]);
}
