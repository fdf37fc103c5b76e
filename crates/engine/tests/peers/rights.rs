//! Rules, labels and revocations among nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stentor_delivery::StreamReceiver;
use stentor_engine::identity::Identity;
use stentor_engine::transport_api::{Answer, HttpSession, Refused, RequestSender};
use stentor_engine::{Audience, Engine, EngineBuilder, Tool, tool};
use stentor_wire::ProtocolVersion;

use crate::nodes::Nodes;
use crate::{all, legacy, modern, until};

/// What the authenticator of one node has found.
struct Groups(Vec<&'static str>);

fn builder() -> EngineBuilder {
    Engine::builder("test", "1").labels(|user: &Identity| {
        let groups = user.get::<Groups>().map(|groups| groups.0.clone()).unwrap_or_default();
        user.granted_scopes().map(str::to_owned).chain(groups.into_iter().map(Into::into)).collect()
    })
}

fn named(name: &'static str) -> Tool {
    tool(name, move || async move { name })
}

async fn asked(engine: &Engine, who: &Identity, method: &str, params: Value) -> Value {
    let request = modern(1, method, params, json!({}));
    let answer = engine.answer(ProtocolVersion::V2026_07_28, request, Some(who.clone()));
    match answer.await.unwrap() {
        Answer::Now(bytes, _) => serde_json::from_slice(&bytes).unwrap(),
        Answer::Stream(mut receiver) => all(&mut receiver).await.pop().unwrap(),
    }
}

fn names(listed: &Value) -> BTreeSet<&str> {
    let tools = listed["result"]["tools"].as_array().expect("a list");
    tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
}

async fn listed(engine: &Engine, who: &Identity) -> Value {
    asked(engine, who, "tools/list", json!({})).await
}

async fn called(engine: &Engine, who: &Identity, tool: &str) -> Value {
    asked(engine, who, "tools/call", json!({ "name": tool })).await
}

async fn session(engine: &Engine, who: &Identity) -> HttpSession {
    let session = engine.open_http_session(RequestSender::known(who.clone())).await.unwrap();
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    });
    all(&mut session.request(legacy(0, "initialize", params)).await.unwrap()).await;
    session
}

async fn listen(engine: &Engine, who: &Identity) -> StreamReceiver {
    let params = json!({"notifications": {"toolsListChanged": true}});
    let request = modern(1, "subscriptions/listen", params, json!({}));
    let answer = engine.answer(ProtocolVersion::V2026_07_28, request, Some(who.clone()));
    let Answer::Stream(receiver) = answer.await.unwrap() else { panic!("no stream") };
    receiver
}

#[tokio::test]
async fn the_rules_of_a_node_hold_on_all_nodes() {
    let nodes = Nodes::default();
    let far = builder().tool(named("hidden").only_for(["admin"]).require_scope("write"));
    let _far = nodes.start("far", far.tool(named("open"))).await;
    let near = nodes.start("near", builder()).await;
    let admin = Identity::named("ann").scopes(["admin"]);
    let writer = Identity::named("ann").scopes(["admin", "write"]);
    let other = Identity::named("bob").scopes(["write"]);

    assert_eq!(names(&listed(&near, &admin).await), ["hidden", "open"].into());
    let seen = listed(&near, &other).await;
    assert_eq!(names(&seen), ["open"].into());
    assert_eq!(seen["result"]["cacheScope"], "private", "{seen}");
    let refused = called(&near, &admin, "hidden").await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["data"]["scope"]),
        (&403.into(), &"write".into())
    );
    assert_eq!(called(&near, &writer, "hidden").await["result"]["content"][0]["text"], "hidden");
    let unknown = called(&near, &other, "unknown").await.to_string();
    let hidden = called(&near, &other, "hidden").await.to_string();
    assert_eq!(hidden.replace("hidden", "unknown"), unknown);
}

#[tokio::test]
async fn where_nodes_disagree_only_who_fulfils_all_rules_sees_an_item() {
    let nodes = Nodes::default();
    let near = nodes.start("near", builder().tool(named("x").only_for(["a"]))).await;
    let far = nodes.start("far", builder().tool(named("x").only_for(["b"]))).await;
    let third = nodes.start("third", builder()).await;
    let of = |scopes: &[&'static str]| Identity::named("ann").scopes(scopes.iter().copied());
    for engine in [&near, &far, &third] {
        assert_eq!(names(&listed(engine, &of(&["a"])).await), [].into());
        assert_eq!(names(&listed(engine, &of(&["b"])).await), [].into());
        assert_eq!(names(&listed(engine, &of(&["a", "b"])).await), ["x"].into());
        assert_eq!(called(engine, &of(&["a"]), "x").await["error"]["code"], -32602);
        assert!(called(engine, &of(&["a", "b"]), "x").await["result"].is_object());
    }
    far.catalog().put(named("x").only_for(["a"])).await.unwrap();
    // Once the others have heard of it.
    until_shown(&[&near, &third], &of(&["a"]), &["x"]).await;
    assert_eq!(names(&listed(&third, &of(&["b"])).await), [].into());
}

async fn until_shown(engines: &[&Engine], who: &Identity, expected: &[&str]) {
    for engine in engines {
        while names(&listed(engine, who).await) != expected.iter().copied().collect() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn labels_that_only_one_node_can_find_hold_where_a_call_runs() {
    let nodes = Nodes::default();
    let far = nodes.start("far", builder().tool(named("hidden").only_for(["staff"]))).await;
    let near = nodes.start("near", builder()).await;
    let staff = Identity::named("ann").with(Groups(vec!["staff"]));
    let bare = Identity::named("ann");
    assert_eq!(called(&near, &staff, "hidden").await["result"]["content"][0]["text"], "hidden");
    assert_eq!(called(&near, &bare, "hidden").await["error"]["code"], -32602);
    drop(far);
}

#[tokio::test]
async fn a_session_on_another_node_has_the_labels_of_the_node_that_knows_them() {
    let nodes = Nodes::default();
    let far = nodes.start("far", builder()).await;
    let near = nodes.start("near", builder()).await;
    let staff = || Identity::named("ann").with(Groups(vec!["staff"]));
    let id = session(&far, &Identity::named("ann")).await.id().clone();
    let sender = RequestSender::known(staff());
    let through = near.http_session(id.as_str(), &sender).await.unwrap();
    let ping = || legacy(1, "ping", json!({}));
    all(&mut through.request(ping()).await.unwrap()).await;
    let mut notices = through.attach().await.unwrap();
    far.catalog().add(named("hidden").only_for(["staff"])).await.unwrap();
    let mut batch = Vec::new();
    assert!(notices.next(&mut batch).await);
    let request = legacy(2, "tools/list", json!({}));
    let seen = all(&mut through.request(request).await.unwrap()).await.pop().unwrap();
    assert_eq!(names(&seen), ["hidden"].into());
    // A notification for those with the label reaches it, too.
    near.notify(&Audience::all().label("staff"), "notifications/own", json!({})).await.unwrap();
    batch.clear();
    assert!(notices.next(&mut batch).await);

    // After a refresh the node finds the labels by itself, until the client comes again.
    assert_eq!(far.refresh_visibility("ann").await, 1);
    batch.clear();
    assert!(notices.next(&mut batch).await, "its list may differ");
    let request = legacy(3, "tools/list", json!({}));
    let seen = all(&mut through.request(request).await.unwrap()).await.pop().unwrap();
    assert_eq!(names(&seen), ["hidden"].into());
}

#[tokio::test]
async fn who_is_revoked_is_revoked_on_all_nodes() {
    let nodes = Nodes::default();
    let far = nodes.start("far", builder()).await;
    let near = nodes.start("near", builder()).await;
    let (ann, bob) = (Identity::named("ann"), Identity::named("bob"));
    let mut listens = Vec::new();
    for engine in [&near, &far] {
        session(engine, &ann).await;
        session(engine, &bob).await;
        listens.push(listen(engine, &ann).await);
    }
    near.revoke("ann").await;
    for (engine, listen) in [&near, &far].into_iter().zip(&mut listens) {
        let last = all(listen).await.pop().unwrap();
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
        until(|| engine.http_sessions().len() == 1).await;
        assert!(engine.is_revoked("ann") && !engine.is_revoked("bob"));
        assert_eq!(engine.sessions()[0].principal.as_deref(), Some("bob"));
    }
}

#[tokio::test]
async fn a_session_is_found_through_any_node_only_by_its_principal_and_client() {
    let nodes = Nodes::default();
    let far = nodes.start("far", builder()).await;
    let near = nodes.start("near", builder()).await;
    let owner = Identity::named("ann").client("editor");
    let id = session(&far, &owner).await.id().clone();
    let others = [
        Some(Identity::named("ann")),
        Some(Identity::named("ann").client("other")),
        Some(Identity::named("bob").client("editor")),
        Some(Identity::issued("https://i", "ann").client("editor")),
        None,
    ];
    for engine in [&near, &far] {
        for other in &others {
            let sender = RequestSender::from(other.clone());
            // That a session is unknown on another node shows when it is used.
            let found = engine.http_session(id.as_str(), &sender).await;
            let refused = match found {
                Ok(session) => session.request(legacy(1, "ping", json!({}))).await.unwrap_err(),
                Err(refused) => refused,
            };
            assert_eq!(refused, Refused::SessionEnded, "{other:?}");
        }
        let stronger = RequestSender::known(owner.clone().scopes(["more"]));
        let session = engine.http_session(id.as_str(), &stronger).await.unwrap();
        let answer = all(&mut session.request(legacy(1, "ping", json!({}))).await.unwrap()).await;
        assert!(answer[0]["result"].is_object());
    }
}
