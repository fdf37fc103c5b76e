//! Lists, their pages, and the notices of changes.

use serde_json::json;
use stentor_tests::{Client, Lane, Phase, Server, in_every_lane};

use crate::connected;

const KINDS: [&str; 3] = ["tools", "prompts", "resources"];

in_every_lane![
    a_changed_list_is_announced_no_matter_where_it_was_changed,
    an_announcement_is_sent_without_a_change,
    an_update_of_a_resource_reaches_its_subscribers,
    a_client_that_unsubscribes_gets_no_more_updates,
    pagination_works_while_the_list_changes,
    an_invalid_cursor_is_refused,
];

async fn a_changed_list_is_announced_no_matter_where_it_was_changed(lane: Lane) {
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

async fn an_announcement_is_sent_without_a_change(lane: Lane) {
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
        // A notice that is still queued is not queued again.
        assert!((1..=2).contains(&heard.len()), "{heard:?}");
        assert!(heard.iter().all(|it| *it == format!("{kind}/list_changed")), "{heard:?}");
    }
}

async fn an_update_of_a_resource_reaches_its_subscribers(lane: Lane) {
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

async fn a_client_that_unsubscribes_gets_no_more_updates(lane: Lane) {
    let (server, client) = connected(lane).await;
    let mut notices = client.hear(&["test://clock"]).await;
    server.engine.send_resource_updated("test://clock");
    server.mark().await;
    assert_eq!(notices.until_mark().await, ["resources/updated test://clock"]);
    if lane.is_legacy() {
        client.ask("resources/unsubscribe", json!({"uri": "test://clock"})).await;
    } else {
        // On a pipe this also checks that the listen sends no more messages.
        client.stop_listening(notices).await;
        notices = client.hear(&[]).await;
    }
    client.call("touch", json!({"uri": "test://clock"})).await;
    server.mark().await;
    assert_eq!(notices.until_mark().await, [""; 0]);
    client.expect_no_strays().await;
}

async fn pagination_works_while_the_list_changes(lane: Lane) {
    let server = Server::tuned(|config, _| config.lists.page_size = 4).await;
    let client = Client::connect(&server, lane).await;
    let all = client.list("tools").await;
    assert!(all.len() > 12);
    let distinct = std::collections::BTreeSet::from_iter(&all);
    assert_eq!(distinct.len(), all.len(), "each once");

    let first = client.ask("tools/list", json!({})).await;
    assert_eq!(first["tools"].as_array().map(Vec::len), Some(4));
    // A tool that was read, the last one that was read, and one that was not read yet.
    let catalog = server.engine.catalog();
    for gone in [&all[0], &all[3], &all[5]] {
        assert!(catalog.remove_tool(gone).await.expect("a running engine"));
    }
    catalog.put(Server::tool(&all[6])).await.expect("another tool of that name");
    catalog.add(Server::tool("last")).await.expect("a new tool");
    // Other nodes show the change a moment later.
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

async fn an_invalid_cursor_is_refused(lane: Lane) {
    let server = Server::tuned(|config, _| config.lists.page_size = 2).await;
    let client = Client::connect(&server, lane).await;
    let prompts = client.ask("prompts/list", json!({})).await;
    assert_eq!(prompts.get("nextCursor"), None, "two prompts are one page");
    let of_resources = &client.ask("resources/list", json!({})).await["nextCursor"];
    for cursor in [json!("nonsense"), json!(""), json!(7), of_resources.clone()] {
        let answer = client.request("tools/list", json!({"cursor": cursor})).await.answer().await;
        assert_eq!(answer.error()["code"], -32602, "{cursor}");
    }
}
