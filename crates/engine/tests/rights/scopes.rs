//! Scopes that are missing are asked for, all together, before anything runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stentor_engine::identity::Identity;
use stentor_engine::{
    Context, Engine, ScopeRequest, TemplateVars, ToolError, prompt, resource, resource_template,
    tool,
};
use stentor_wire::Era;

use crate::{ann, answer, modern};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Zone {
    zone: String,
}

fn in_zone(request: &ScopeRequest<'_>) -> Vec<String> {
    request.text("zone").map(|zone| format!("zone:{zone}")).into_iter().collect()
}

async fn inside(ctx: Context) -> Result<&'static str, ToolError> {
    ctx.require_scope("inside")?;
    Ok("done")
}

async fn engine(runs: Arc<AtomicUsize>) -> Engine {
    let count = move || {
        runs.fetch_add(1, Ordering::Relaxed);
    };
    macro_rules! counted {
        ($text:expr) => {{
            let count = count.clone();
            move || {
                count();
                async { $text }
            }
        }};
    }
    let zone = {
        let count = count.clone();
        move |Zone { zone }: Zone| {
            count();
            async move { zone }
        }
    };
    let variable = {
        let count = count.clone();
        move |vars: TemplateVars| {
            count();
            async move { vars["zone"].to_owned() }
        }
    };
    Engine::builder("test", "1")
        .tool(tool("plain", counted!("done")).require_scope("write").require_scope("read"))
        .tool(tool("zone", zone.clone()).require(in_zone))
        .tool(tool("both", zone).require_scope("write").require(in_zone))
        .tool(tool("inside", inside))
        .tool(tool("secret", counted!("done")).require_scope("write").hide_without_scope())
        .prompt(
            prompt("plain", counted!("done"))
                .argument("zone", "", false)
                .require_scope("write")
                .require(in_zone),
        )
        .resource(resource("test://plain", "plain", counted!("done")).require_scope("write"))
        .resource_template(
            resource_template("zone://{zone}", "zone", variable)
                .require_scope("write")
                .require(in_zone),
        )
        .start()
        .await
        .unwrap()
}

/// The scopes that an answer asks for.
fn asked(answer: &Value) -> Vec<&str> {
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["data"]["error"]),
        (&403.into(), &"insufficient_scope".into()),
        "{answer}"
    );
    error["data"]["scope"].as_str().expect("scopes").split(' ').collect()
}

/// The scopes that a request lacks, which its client is told; `None` if it lacks none.
type Asks = Option<&'static [&'static str]>;

#[tokio::test]
async fn missing_scopes_are_asked_for_together_and_nothing_runs() {
    let runs = Arc::<AtomicUsize>::default();
    let engine = engine(runs.clone()).await;
    let call =
        |name: &str, zone: &str| ("tools/call", json!({"name": name, "arguments": {"zone": zone}}));
    let plain = ("tools/call", json!({"name": "plain"}));
    let inside = ("tools/call", json!({"name": "inside"}));
    let prompted = ("prompts/get", json!({"name": "plain", "arguments": {"zone": "1"}}));
    let read = |uri: &str| ("resources/read", json!({ "uri": uri }));
    #[rustfmt::skip]
    let table: Vec<((&str, Value), &[&str], Asks)> = vec![
        (plain.clone(), &[], Some(&["read", "write"])),
        (plain.clone(), &["read"], Some(&["read", "write"])),
        (plain, &["read", "write"], None),
        (call("zone", "1"), &["zone:2"], Some(&["zone:1"])),
        (call("zone", "2"), &["zone:2"], None),
        (call("both", "1"), &[], Some(&["write", "zone:1"])),
        (call("both", "1"), &["write"], Some(&["write", "zone:1"])),
        (call("both", "1"), &["zone:1"], Some(&["write", "zone:1"])),
        (call("both", "1"), &["write", "zone:1"], None),
        (inside.clone(), &["write"], Some(&["inside"])),
        (inside, &["inside"], None),
        (prompted.clone(), &[], Some(&["write", "zone:1"])),
        (prompted.clone(), &["write"], Some(&["write", "zone:1"])),
        (prompted, &["write", "zone:1"], None),
        (read("test://plain"), &[], Some(&["write"])),
        (read("test://plain"), &["write"], None),
        (read("zone://1"), &["zone:1"], Some(&["write", "zone:1"])),
        (read("zone://1"), &["write"], Some(&["write", "zone:1"])),
        (read("zone://1"), &["write", "zone:1"], None),
    ];
    for ((method, params), has, asks) in table {
        for era in [Era::Legacy, Era::Modern] {
            let before = runs.load(Ordering::Relaxed);
            let answer = answer(&engine, era, &ann(has), method, params.clone()).await;
            let Some(asks) = asks else {
                assert!(answer["result"].is_object(), "{method} {params}: {answer}");
                assert_ne!(answer["result"]["isError"], true, "{answer}");
                continue;
            };
            let mut expected: Vec<_> = asks.to_vec();
            if era == Era::Legacy {
                // Older clients replace their scopes by those that are asked for.
                expected.extend(has);
                expected.sort_unstable();
                expected.dedup();
            }
            assert_eq!(asked(&answer), expected, "{era:?} {method} {params} {has:?}");
            assert_eq!(runs.load(Ordering::Relaxed), before, "nothing runs");
        }
    }
}

#[tokio::test]
async fn who_may_not_read_a_resource_may_not_watch_it() {
    let engine = engine(Arc::default()).await;
    for (has, asks) in [(&[][..], true), (&["write"], true), (&["write", "zone:1"], false)] {
        let params = json!({"uri": "zone://1"});
        let answer = answer(&engine, Era::Legacy, &ann(has), "resources/subscribe", params).await;
        match asks {
            true => assert_eq!(asked(&answer), ["write", "zone:1"], "{has:?}"),
            false => assert!(answer["result"].is_object(), "{answer}"),
        }
    }
}

#[tokio::test]
async fn what_needs_a_scope_is_listed_unless_it_is_hidden_without_it() {
    let engine = engine(Arc::default()).await;
    let names = async |who: &Identity| {
        let listed = modern(&engine, who, "tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&ann(&[])).await, ["plain", "zone", "both", "inside"]);
    assert_eq!(names(&ann(&["write"])).await, ["plain", "zone", "both", "inside", "secret"]);
    let refused = modern(&engine, &ann(&[]), "tools/call", json!({"name": "secret"})).await;
    assert_eq!(refused["error"]["code"], -32602, "it is unknown, and not refused: {refused}");
}

#[tokio::test]
async fn a_scope_that_another_implies_is_there() {
    let engine = engine(Arc::default()).await;
    let who = ann(&["all"]).implied_scopes(["read", "write", "zone:1"]);
    for name in ["plain", "secret"] {
        let done = modern(&engine, &who, "tools/call", json!({ "name": name })).await;
        assert!(done["result"].is_object(), "{done}");
    }
}

#[tokio::test]
async fn a_legacy_client_is_told_no_scopes_of_other_servers() {
    let engine = engine(Arc::default()).await;
    let who = Identity::issued("https://i", "ann").scopes(["read", "other:api"]);
    let refused = answer(&engine, Era::Legacy, &who, "tools/call", json!({"name": "plain"})).await;
    assert_eq!(asked(&refused), ["read", "write"]);
}
