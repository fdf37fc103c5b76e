//! Questions that send the user to a web page.

use serde_json::{Value, json};
use stentor_engine::{Context, Elicit, Engine, ToolError, UrlElicitation, prompt, tool};
use stentor_wire::meta_key;

use crate::support::{self, Client};
use crate::{Login, legacy, text};

/// A server that sends users to a web page. Tests receive the visits through the channel.
async fn sending(visits: tokio::sync::mpsc::UnboundedSender<UrlElicitation>) -> Engine {
    let told = visits.clone();
    let go = tool("go", move |ctx: Context| {
        let visits = visits.clone();
        async move {
            let page = Elicit::url("Go there", "https://example.com/?of=42").elicitation("42");
            let visit = ctx.elicit_url(page).await?;
            let id = visit.id().to_owned();
            visits.send(visit).unwrap();
            Ok::<_, ToolError>(id)
        }
    });
    let first = tool("first", move |ctx: Context| {
        let page = Elicit::url("Connect", "https://example.com/connect");
        told.send(ctx.url_elicitation(&page)).unwrap();
        let error = ctx.url_elicitation_required("Connect your account first.", [page]);
        std::future::ready(Err::<(), ToolError>(error))
    });
    let hello = prompt("lonely", |ctx: Context| async move {
        Ok::<_, ToolError>(ctx.elicit::<Login>("who?").await?.user)
    });
    support::engine().tool(go).tool(first).prompt(hello).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_url_elicitation_has_an_id_and_its_client_is_notified_of_its_end() {
    let (visits, mut told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({"elicitation": {"url": {}}})).await;
    let mut other = legacy(&engine, json!({})).await;
    client.call(1, "go").await;
    let question = client.next().await.unwrap();
    assert_eq!(question["params"]["elicitationId"], "42");
    assert_eq!(question["params"]["mode"], "url");
    client
        .send(json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}))
        .await;
    assert_eq!(text(&client.answer(1).await.0), "42");
    // Long after the call.
    told.recv().await.unwrap().complete().await.unwrap();
    let complete = client.next().await.unwrap();
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"], json!({"elicitationId": "42"}));
    assert_eq!(other.ping().await, [Value::Null; 0], "nobody else is told");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_needs_a_url_elicitation_first_is_answered_in_the_form_of_its_era() {
    let (visits, mut told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({"elicitation": {"url": {}}})).await;
    client.call(1, "first").await;
    let (refused, _) = client.answer(1).await;
    assert_eq!(refused["error"]["code"], -32042);
    let asked = refused["error"]["data"]["elicitations"][0].clone();
    let visit = told.recv().await.unwrap();
    assert_eq!(
        asked,
        json!({"mode": "url", "message": "Connect", "url": "https://example.com/connect",
            "elicitationId": visit.id()})
    );
    visit.complete().await.unwrap();
    let complete = client.next().await.unwrap();
    assert_eq!(complete["params"]["elicitationId"], visit.id());

    let mut client = Client::connect(&engine).await;
    let params = json!({"name": "first", "_meta": {
        meta_key::PROTOCOL_VERSION: "2026-07-28",
        meta_key::CLIENT_CAPABILITIES: {"elicitation": {"url": {}}},
    }});
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await;
    let (asked, _) = client.answer(1).await;
    assert_eq!(asked["result"]["resultType"], "input_required");
    let requests = asked["result"]["inputRequests"].as_object().unwrap();
    let question = requests.values().next().unwrap();
    assert_eq!(question["params"]["url"], "https://example.com/connect");
    assert_eq!(question["params"].get("elicitationId"), None, "it knows no such thing");
}

#[tokio::test(start_paused = true)]
async fn a_legacy_client_that_lacks_a_capability_gets_an_error_of_its_era() {
    let (visits, _told) = tokio::sync::mpsc::unbounded_channel();
    let engine = sending(visits).await;
    let mut client = legacy(&engine, json!({})).await;
    for name in ["go", "first"] {
        client.call(1, name).await;
        let (answer, _) = client.answer(1).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        assert!(text(&answer).contains("elicitation"), "{answer}");
    }
    let get =
        json!({"jsonrpc": "2.0", "id": 2, "method": "prompts/get", "params": {"name": "lonely"}});
    client.send(get).await;
    assert_eq!(client.answer(2).await.0["error"]["code"], -32603);
}
