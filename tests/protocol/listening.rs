//! Listens: what each is granted and hears, and how it ends.

use serde_json::json;
use stentor_tests::{Client, Lane, MARK, Notices, Server};

use crate::{Table, modern};

/// Announces a change of everything that can be subscribed to, then sends the mark.
async fn change_everything(server: &Server) {
    server.settle().await;
    server.engine.send_tool_list_changed();
    server.engine.send_prompt_list_changed();
    server.engine.send_resource_list_changed();
    server.engine.send_resource_updated("test://a");
    server.engine.send_resource_updated("test://b");
    server.mark().await;
}

async fn heard_sorted(notices: &mut Notices) -> Vec<String> {
    let mut heard = notices.until_mark().await;
    heard.sort();
    heard
}

#[tokio::test]
async fn a_listen_is_acknowledged_first_and_receives_only_the_requested_notices() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let marked = json!([MARK]);
        for (filter, expected) in [
            (json!({"resourceSubscriptions": marked}), vec![]),
            (
                json!({"toolsListChanged": true, "resourceSubscriptions": marked}),
                vec!["tools/list_changed"],
            ),
            (
                json!({"promptsListChanged": true, "resourceSubscriptions": marked}),
                vec!["prompts/list_changed"],
            ),
            (
                json!({"resourcesListChanged": true, "resourceSubscriptions": marked}),
                vec!["resources/list_changed"],
            ),
            (
                json!({"toolsListChanged": false, "promptsListChanged": true,
                    "resourceSubscriptions": [MARK, "test://b"]}),
                vec!["prompts/list_changed", "resources/updated test://b"],
            ),
        ] {
            let mut notices = client.listen(filter.clone()).await;
            let mut granted = filter;
            // What is not requested is not granted either.
            granted.as_object_mut().expect("an object").retain(|_, value| *value != false);
            assert_eq!(notices.granted, granted);
            change_everything(&server).await;
            assert_eq!(heard_sorted(&mut notices).await, expected);
            client.stop_listening(notices).await;
        }
    }
}

#[tokio::test]
async fn concurrent_listens_are_distinguished_by_their_ids() {
    let server = Server::start().await;
    for lane in [Lane::STDIO_MODERN, Lane::HTTP_MODERN] {
        let client = Client::connect(&server, lane).await;
        let tools = json!({"toolsListChanged": true, "resourceSubscriptions": [MARK]});
        let uris = json!({"resourceSubscriptions": ["test://a", MARK]});
        // `Notices` checks that each message carries the right id, with its type.
        let mut number = client.listen_as(json!(700), tools.clone()).await;
        let mut text = client.listen_as(json!("700"), uris).await;
        let mut all = client.hear(&["test://a"]).await;
        change_everything(&server).await;
        assert_eq!(heard_sorted(&mut number).await, ["tools/list_changed"]);
        assert_eq!(heard_sorted(&mut text).await, ["resources/updated test://a"]);
        let expected = [
            "prompts/list_changed",
            "resources/list_changed",
            "resources/updated test://a",
            "tools/list_changed",
        ];
        assert_eq!(heard_sorted(&mut all).await, expected);
        if lane == Lane::STDIO_MODERN {
            let params = json!({"notifications": tools});
            let again = client.request_as(json!("700"), "subscriptions/listen", params).await;
            assert_eq!(again.answer().await.error()["code"], -32600, "the id is in use");
            // The harness now routes "700" to the refused request; the two other listens continue.
            change_everything(&server).await;
            assert_eq!(heard_sorted(&mut number).await, ["tools/list_changed"]);
            assert_eq!(heard_sorted(&mut all).await, expected);
            continue;
        }
        // Ending one listen does not end the others.
        client.stop_listening(number).await;
        change_everything(&server).await;
        assert_eq!(heard_sorted(&mut text).await, ["resources/updated test://a"]);
        assert_eq!(heard_sorted(&mut all).await, expected);
    }
}

#[tokio::test]
async fn a_listen_for_nothing_in_particular_is_refused_and_one_for_nothing_ends_at_once() {
    let mut table = Table::start().await;
    for params in [
        json!({}),
        json!({"notifications": []}),
        json!({"notifications": {"toolsListChanged": "yes"}}),
        json!({"notifications": {"resourceSubscriptions": "test://a"}}),
        json!({"notifications": {"resourceSubscriptions": [7]}}),
    ] {
        let call = modern("subscriptions/listen", params.clone());
        table.error(&params.to_string(), call, 200, -32602, &json!(1)).await;
    }
    let client = Client::connect(&table.server, Lane::HTTP_MODERN).await;
    for nothing in [
        json!({}),
        json!({"toolsListChanged": false, "resourceSubscriptions": []}),
        json!({"toolsListChanged": null, "resourceSubscriptions": null, "taskIds": null}),
        json!({"moonPhasesChanged": true}),
    ] {
        for lane in [Lane::HTTP_MODERN, Lane::STDIO_MODERN] {
            let client = Client::connect(&table.server, lane).await;
            let listen = client.listen(nothing.clone()).await;
            assert_eq!(listen.granted, json!({}), "{nothing}");
            let ended = listen.end().await.expect("a result");
            assert_eq!(ended["result"]["resultType"], "complete", "{nothing}");
            assert_eq!(client.call("echo", json!({"text": "on"})).await.text(), "on");
        }
    }
    let resources = json!({"resourceSubscriptions": ["test://a", "test://a"]});
    let mut twice = client.listen(resources).await;
    assert_eq!(twice.granted, json!({"resourceSubscriptions": ["test://a"]}));
    change_everything(&table.server).await;
    table.server.begin_shutdown().await;
    assert_eq!(twice.heard().await, "resources/updated test://a");
    let last = twice.end().await.expect("a result");
    assert_eq!(last["result"]["resultType"], "complete", "it heard of each once");
    table.check();
}
