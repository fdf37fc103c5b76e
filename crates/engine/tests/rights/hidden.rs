//! What is hidden from a client is as if it were not there, to the byte.

use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::{
    Audience, Engine, ListCache, TemplateVars, Toolbox, prompt, resource, resource_template, tool,
};
use stentor_test::{Client, Notice, assert_notified, assert_silent};
use stentor_wire::Era;
use stentor_wire::encode::CacheHint;
use stentor_wire::model::CacheScope;

use crate::support::modern_meta;
use crate::{ann, modern};

/// What everybody may keep, as an author says who forgets what is hidden.
fn public() -> CacheHint {
    CacheHint { scope: CacheScope::Public, ..CacheHint::default() }
}

/// Each kind of item in two versions: one for all, and one that is hidden from those who have
/// neither the label nor the scope `admin`.
async fn engine(by_scope: bool) -> Engine {
    macro_rules! hidden {
        ($item:expr) => {
            match by_scope {
                true => $item.require_scope("admin").hide_without_scope(),
                false => $item.only_for(["admin"]),
            }
        };
    }
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Number {
        #[expect(dead_code, reason = "only its schema counts")]
        number: u32,
    }
    let tool_of = |name: &str| tool(name, |_: Number| async { "done" });
    let read = |_: TemplateVars| async { "text" };
    let complete = |_| async { vec!["value".to_owned()] };
    Engine::builder("test", "1")
        .tool(tool_of("open"))
        .tool(hidden!(tool_of("hidden")))
        .prompt(prompt("open", || async { "text" }).complete(complete))
        .prompt(hidden!(prompt("hidden", || async { "text" }).complete(complete)))
        .resource(resource("open://resource", "open", || async { "text" }))
        .resource(hidden!(
            resource("test://hidden", "hidden", || async { "text" }).cache(7, CacheScope::Public)
        ))
        .resource(hidden!(resource("fits://hidden", "hidden", || async { "text" })))
        .resource_template(resource_template("fits://{x}", "open", read).complete(complete))
        .resource_template(hidden!(
            resource_template("test://in/hidden/{x}", "hidden", read).complete(complete)
        ))
        .configure(|config| {
            config.lists.page_size = 1;
            config.lists.cache = ListCache::all(public());
        })
        .start()
        .await
        .unwrap()
}

/// Requests for a hidden item, and whether they are of one era only.
fn requests() -> Vec<(&'static str, Value, Option<Era>)> {
    let both = None;
    let completion = |of: Value| json!({"ref": of, "argument": {"name": "x", "value": ""}});
    vec![
        ("tools/call", json!({"name": "hidden"}), both),
        ("tools/call", json!({"name": "hidden", "arguments": {"number": 1}}), both),
        ("tools/call", json!({"name": "hidden", "arguments": {"wrong": 1}}), both),
        ("tools/call", json!({"name": "hidden", "arguments": 1}), both),
        ("tools/call", json!({"name": "hidden", "_meta": {"progressToken": 7}}), both),
        ("tools/call", json!({"name": "hidden", "task": {"ttl": 1}}), both),
        ("tools/call", json!({"name": "hidden", "requestState": "x"}), both),
        ("tools/call", json!({"name": "hidden", "inputResponses": {"x": {}}}), both),
        ("prompts/get", json!({"name": "hidden"}), both),
        ("prompts/get", json!({"name": "hidden", "arguments": {"x": "y"}}), both),
        ("resources/read", json!({"uri": "test://hidden"}), both),
        ("resources/read", json!({"uri": "TEST://hidden"}), both),
        ("resources/read", json!({"uri": "test://in/hidden/1"}), both),
        ("completion/complete", completion(json!({"type": "ref/prompt", "name": "hidden"})), both),
        (
            "completion/complete",
            completion(json!({"type": "ref/resource", "uri": "test://in/hidden/{x}"})),
            both,
        ),
        ("resources/subscribe", json!({"uri": "test://hidden"}), Some(Era::Legacy)),
        ("resources/subscribe", json!({"uri": "test://in/hidden/1"}), Some(Era::Legacy)),
        ("resources/unsubscribe", json!({"uri": "test://hidden"}), Some(Era::Legacy)),
    ]
}

/// The bytes that come before and with the response, of an in-memory client.
async fn said(
    engine: &Engine,
    era: Era,
    who: Option<Identity>,
    method: &str,
    params: Value,
) -> String {
    let builder = Client::builder(engine).era(era);
    let mut client = match who {
        Some(who) => builder.identity(who).raw().await,
        None => builder.raw().await,
    };
    let mut params = params;
    if era == Era::Modern {
        let mut meta = modern_meta();
        if let Some(own) = params.get("_meta").and_then(Value::as_object) {
            meta.as_object_mut().unwrap().extend(own.clone());
        }
        params["_meta"] = meta;
    }
    client.request(1, method, params).await;
    let (answer, before) = client.answer(1).await;
    format!("{before:?} {answer}")
}

fn without_hidden(params: &Value) -> Value {
    serde_json::from_str(&params.to_string().replace("hidden", "absent")).unwrap()
}

#[tokio::test]
async fn a_request_for_a_hidden_item_is_answered_as_one_for_an_unknown_item() {
    for by_scope in [false, true] {
        let engine = engine(by_scope).await;
        let strangers = [Some(ann(&["other"])), Some(Identity::named("bob")), None];
        for (method, params, only) in requests() {
            for era in [Era::Legacy, Era::Modern] {
                if only.is_some_and(|only| only != era) {
                    continue;
                }
                for who in &strangers {
                    let hidden = said(&engine, era, who.clone(), method, params.clone()).await;
                    let unknown =
                        said(&engine, era, who.clone(), method, without_hidden(&params)).await;
                    assert_eq!(hidden.replace("hidden", "absent"), unknown, "{method} {params}");
                }
                let seen = said(&engine, era, Some(ann(&["admin"])), method, params.clone()).await;
                let unknown =
                    said(&engine, era, Some(ann(&["admin"])), method, without_hidden(&params))
                        .await;
                let same = seen.replace("hidden", "absent") == unknown;
                assert_eq!(same, method == "resources/unsubscribe", "{method} {params} {seen}");
            }
        }
    }
}

#[tokio::test]
async fn a_toolbox_narrows_who_sees_its_items() {
    let named = |name: &str| tool(name, || async { "" });
    let items = Toolbox::new().tool(named("both").only_for(["admin"])).tool(named("staff"));
    let engine = Engine::builder("test", "1").toolbox(items.only_for(["staff"]));
    let engine = engine.start().await.unwrap();
    for (roles, seen) in [(&["staff", "admin"][..], 2), (&["staff"], 1), (&["admin"], 0), (&[], 0)]
    {
        let who = Identity::named("ann").roles(roles.iter().copied());
        let listed = modern(&engine, &who, "tools/list", json!({})).await;
        assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), seen, "{roles:?}");
    }
}

#[tokio::test]
async fn a_hidden_resource_is_not_read_through_a_template_that_all_see() {
    let engine = engine(false).await;
    for era in [Era::Legacy, Era::Modern] {
        let read = async |uri: &str, scopes| {
            said(&engine, era, Some(ann(scopes)), "resources/read", json!({ "uri": uri })).await
        };
        assert!(read("fits://other", &[]).await.contains("\"text\":\"text\""));
        let hidden = read("fits://hidden", &[]).await;
        assert_eq!(hidden.replace("fits:", "none:"), read("none://hidden", &[]).await);
        assert!(read("fits://hidden", &["admin"]).await.contains("\"text\":\"text\""));
    }
}

#[tokio::test]
async fn lists_with_hidden_items_are_private_for_all_on_all_pages() {
    let engine = engine(false).await;
    let lists = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];
    for method in lists {
        for (who, pages) in [(ann(&["admin"]), 2), (ann(&[]), 1)] {
            let (mut params, mut count) = (json!({}), 0);
            loop {
                let page = modern(&engine, &who, method, params.clone()).await;
                assert_eq!(page["result"]["cacheScope"], "private", "{method} {page}");
                assert_eq!(page.to_string().contains("hidden"), pages == 2 && count > 0);
                count += 1;
                match page["result"].get("nextCursor") {
                    Some(cursor) => params = json!({ "cursor": cursor }),
                    None => break,
                }
            }
            let pages = pages + usize::from(method == "resources/list" && pages == 2);
            assert_eq!(count, pages, "{method}: no page is empty");
        }
    }
    let read = async |uri: &str| {
        modern(&engine, &ann(&["admin"]), "resources/read", json!({ "uri": uri })).await
    };
    assert_eq!(read("test://hidden").await["result"]["cacheScope"], "private");
    assert_eq!(read("test://in/hidden/1").await["result"]["cacheScope"], "private");
    // Once nothing of a kind is hidden, its list is as before.
    engine.catalog().remove_tool("hidden").await.unwrap();
    let page = modern(&engine, &ann(&[]), "tools/list", json!({})).await;
    assert_ne!(page["result"]["cacheScope"], "private", "{page}");
}

#[tokio::test(start_paused = true)]
async fn only_those_who_see_a_resource_hear_that_it_was_updated() {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};
    let admins = Arc::new(Mutex::new(BTreeSet::from(["ann"])));
    let table = admins.clone();
    let engine = Engine::builder("test", "1")
        .labels(move |user: &Identity| {
            let admins = table.lock().unwrap();
            admins.iter().filter(|it| **it == user.principal()).map(|_| "admin").collect()
        })
        .resource(resource("test://hidden", "hidden", || async { "" }).only_for(["admin"]))
        .start()
        .await
        .unwrap();
    for era in [Era::Legacy, Era::Modern] {
        *admins.lock().unwrap() = ["ann", "bob"].into();
        engine.refresh_visibility_all().await;
        let mut heard = Vec::new();
        for name in ["ann", "bob"] {
            let client = Client::builder(&engine).era(era).principal(name).connect().await;
            // The notices begin with a subscription to the lists.
            let notices = client.notices().await;
            client.watch("test://hidden").await.unwrap();
            heard.push((client, notices));
        }
        let updated = Notice::updated("test://hidden");
        let [(_, anns), (_, bobs)] = &mut heard[..] else { unreachable!() };
        engine.send_resource_updated("test://hidden");
        assert_notified(anns, updated.clone()).await;
        assert_notified(bobs, updated.clone()).await;

        *admins.lock().unwrap() = ["ann"].into();
        assert_eq!(engine.refresh_visibility("bob").await, 1);
        assert_notified(bobs, Notice::ResourcesChanged).await;
        engine.send_resource_updated("test://hidden");
        assert_notified(anns, updated.clone()).await;
        assert_silent(bobs).await;
        assert_silent(anns).await;

        *admins.lock().unwrap() = ["ann", "bob"].into();
        engine.refresh_visibility("bob").await;
        assert_notified(bobs, Notice::ResourcesChanged).await;
        engine.send_resource_updated("test://hidden");
        assert_notified(bobs, updated.clone()).await;
        assert_notified(anns, updated).await;
        let (anns, bobs) = (heard.remove(0), heard.remove(0));
        anns.0.close().await;
        bobs.0.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_listen_for_a_hidden_resource_is_acknowledged_as_for_any_and_hears_nothing() {
    let engine = engine(false).await;
    let client = Client::builder(&engine).principal("bob").connect().await;
    let mut notices = client.notices().await;
    for uri in ["test://hidden", "test://absent"] {
        let granted = client.listen(json!({ "resourceSubscriptions": [uri] })).await.unwrap();
        assert_eq!(granted["resourceSubscriptions"], json!([uri]));
    }
    engine.send_resource_updated("test://hidden");
    assert_silent(&mut notices).await;
}

#[tokio::test(start_paused = true)]
async fn an_audience_can_be_those_with_a_label() {
    let engine = engine(false).await;
    let connect = |who: Identity| Client::builder(&engine).era(Era::Legacy).identity(who);
    let (admin, other) =
        (connect(ann(&["admin"])).connect().await, connect(ann(&[])).connect().await);
    let (mut admins, mut others) = (admin.notices().await, other.notices().await);
    let audience = Audience::all().label("admin");
    engine.notify(&audience, "notifications/own", json!({})).await.unwrap();
    assert_notified(&mut admins, Notice::custom("notifications/own", json!({}))).await;
    assert_silent(&mut others).await;
    let audience = audience.principal("bob");
    engine.notify(&audience, "notifications/own", json!({})).await.unwrap();
    assert_silent(&mut admins).await;
}
