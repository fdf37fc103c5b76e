//! One change, many clients: each client is notified once, and finds the change in the list.

use std::time::Duration;

use serde_json::json;
use stentor::catalog::Mutation;
use stentor_tests::{Client, Lane, Notices, Phase, Server};

/// Five clients of mixed eras and transports, each with its stream of notices.
async fn audience(server: &Server) -> Vec<(Client, Notices)> {
    let mut audience = Vec::new();
    for lane in Lane::ALL.into_iter().chain([Lane::HTTP_LEGACY]) {
        // The fifth client uses the oldest version.
        let version = if audience.len() == 4 { "2024-11-05" } else { "2025-11-25" };
        let client = Client::speaking(server, lane, version).await;
        let notices = client.hear(&[]).await;
        audience.push((client, notices));
    }
    audience
}

/// Checks that all clients received these notices, and no others.
async fn all_received(server: &Server, audience: &mut [(Client, Notices)], expected: &[&str]) {
    server.mark().await;
    for (client, notices) in audience {
        assert_eq!(notices.until_mark().await, expected, "{:?}", client.lane());
    }
}

const TOOLS: &str = "tools/list_changed";
const PROMPTS: &str = "prompts/list_changed";
const RESOURCES: &str = "resources/list_changed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_are_notified_once_of_an_added_tool_and_find_it_in_the_list() {
    let server = Server::start().await;
    let mut audience = audience(&server).await;
    for (n, lane) in Lane::ALL.into_iter().enumerate() {
        let sixth = Client::connect(&server, lane).await;
        let name = format!("by-a-client-{n}");
        let call = sixth.start("add", json!({"kind": "tools", "name": name})).await;
        for (client, notices) in &mut audience {
            assert_eq!(notices.heard().await, TOOLS, "{:?}", client.lane());
            // No mark in between: a client that was notified must find the tool at once.
            assert_eq!(client.list("tools").await.last(), Some(&name));
            assert_eq!(client.call(&name, json!({})).await.text(), "small");
        }
        call.answer().await;
        all_received(&server, &mut audience, &[]).await;
    }

    let sixth = Client::connect(&server, Lane::HTTP_MODERN).await;
    sixth.call("background", json!({"name": "by-a-job"})).await;
    server.stage.reached("by-a-job", Phase::Waiting).await;
    server.stage.release("by-a-job");
    for (client, notices) in &mut audience {
        assert_eq!(notices.heard().await, TOOLS, "{:?}", client.lane());
        assert_eq!(client.list("tools").await.last().map(String::as_str), Some("by-a-job"));
    }
    server.stage.reached("by-a-job", Phase::Finished).await;
    all_received(&server, &mut audience, &[]).await;

    server.engine.catalog().add(Server::tool("by-the-handle")).await.expect("a new tool");
    for (client, notices) in &mut audience {
        assert_eq!(notices.heard().await, TOOLS, "{:?}", client.lane());
        assert_eq!(client.list("tools").await.last().map(String::as_str), Some("by-the-handle"));
    }
    all_received(&server, &mut audience, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_changes_makes_few_notices_and_the_list_is_complete_after_the_last() {
    // Longer than usual, so that even a slow machine makes the changes within one burst.
    let window = Duration::from_millis(250);
    let server = Server::tuned(|config, _| config.registry.coalesce_window = window).await;
    let mut audience = audience(&server).await;
    let names: Vec<_> = (0..200).map(|n| format!("burst-{n:03}")).collect();
    // Built before the burst, for the same reason.
    let tools: Vec<_> = names.iter().map(|name| Server::tool(name)).collect();
    let catalog = server.engine.catalog();
    let added = futures::future::join_all(tools.into_iter().map(|tool| catalog.add(tool))).await;
    assert!(added.iter().all(Result::is_ok));
    server.mark().await;
    for (client, notices) in &mut audience {
        let heard = notices.until_mark().await;
        // A change after a pause is announced at once, and a busy machine makes pauses.
        let few = 1..=names.len() / 4;
        assert!(few.contains(&heard.len()), "{:?}: {} notices", client.lane(), heard.len());
        assert!(heard.iter().all(|notice| notice == TOOLS), "{heard:?}");
        assert!(client.list("tools").await.ends_with(&names));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_one_notice_for_each_list_and_none_if_it_is_refused() {
    let server = Server::start().await;
    let mut audience = audience(&server).await;
    let catalog = server.engine.catalog();
    let change = catalog
        .apply([
            Mutation::Add(Server::tool("a").into()),
            Mutation::Add(Server::tool("b").into()),
            Mutation::Add(Server::prompt("p").into()),
            Mutation::remove(stentor::catalog::ItemKind::Tools, "echo".to_owned()),
            Mutation::Add(Server::resource("test://r").into()),
            Mutation::remove(stentor::catalog::ItemKind::Templates, "test://users/{id}".to_owned()),
        ])
        .await;
    assert_eq!(change.expect("a valid change").lists.len(), 3);
    server.mark().await;
    for (client, notices) in &mut audience {
        let mut heard = notices.until_mark().await;
        heard.sort();
        assert_eq!(heard, [PROMPTS, RESOURCES, TOOLS], "{:?}", client.lane());
        let tools = client.list("tools").await;
        assert!(tools.ends_with(&["a", "b"].map(String::from)) && !tools.contains(&"echo".into()));
    }
    let before = catalog.snapshot().revision();
    let refused = catalog
        .apply([
            Mutation::Add(Server::tool("c").into()),
            Mutation::Add(Server::prompt("greet").into()),
        ])
        .await;
    assert!(refused.expect_err("the prompt is there").to_string().contains("greet"));
    assert_eq!(catalog.snapshot().revision(), before);
    all_received(&server, &mut audience, &[]).await;
    assert!(!audience[0].0.list("tools").await.contains(&"c".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_effect_is_not_announced() {
    let server = Server::start().await;
    let catalog = server.engine.catalog();
    catalog.add(Server::tool("same")).await.expect("a new tool");
    server.settle().await;
    let before = catalog.snapshot().revision();
    let mut audience = audience(&server).await;
    catalog.put(Server::tool("same")).await.expect("the same tool again");
    assert!(!catalog.remove_tool("nothing").await.expect("a running engine"));
    catalog.add(Server::tool("same")).await.expect_err("the name is taken");
    catalog.apply([]).await.expect("no change");
    catalog
        .apply([
            Mutation::Add(Server::prompt("brief").into()),
            Mutation::remove(stentor::catalog::ItemKind::Prompts, "brief".to_owned()),
        ])
        .await
        .expect("a change and its reverse");
    assert_eq!(catalog.snapshot().revision(), before);
    all_received(&server, &mut audience, &[]).await;
    // The same name with another description is a change.
    catalog.put(Server::tool("same").description("another")).await.expect("a new description");
    all_received(&server, &mut audience, &[TOOLS]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_before_a_legacy_client_reads_its_notices_are_not_lost() {
    let server = Server::start().await;
    let client = Client::connect(&server, Lane::HTTP_LEGACY).await;
    for uri in ["test://clock", stentor_tests::MARK] {
        client.ask("resources/subscribe", json!({"uri": uri})).await;
    }
    server.engine.catalog().add(Server::tool("early")).await.expect("a new tool");
    server.engine.send_resource_updated("test://clock");
    server.engine.notify_all("notifications/example/all", json!({})).await.expect("running");
    server.settle().await;
    // Announced once, however often it changes before the client reads.
    server.engine.catalog().add(Server::tool("early, too")).await.expect("a new tool");
    server.mark().await;
    let mut notices = client.notices().await;
    let mut heard = notices.until_mark().await;
    heard.sort();
    assert_eq!(heard, ["example/all", "resources/updated test://clock", TOOLS]);
    // The same while no stream is open.
    drop(notices);
    stentor_tests::eventually("the stream to be given up", async || {
        let sessions = server.activity().await.sessions;
        !sessions.iter().any(|it| it.id == client.session() && it.attached)
    })
    .await;
    server.engine.catalog().add(Server::prompt("between")).await.expect("a new prompt");
    server.mark().await;
    assert_eq!(client.notices().await.until_mark().await, [PROMPTS]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_of_the_application_reaches_every_legacy_client() {
    let server = Server::start().await;
    let mut audience = audience(&server).await;
    server.engine.notify_all("notifications/example/all", json!({"n": 1})).await.expect("running");
    server.mark().await;
    for (client, notices) in &mut audience {
        // The protocol limits the notices of modern clients to those that they listen for.
        let expected: &[&str] = if client.lane().is_legacy() { &["example/all"] } else { &[] };
        assert_eq!(notices.until_mark().await, expected, "{:?}", client.lane());
    }
}
