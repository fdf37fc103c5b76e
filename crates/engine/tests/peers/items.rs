//! Items, notices and tasks of another node.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use stentor_engine::transport_api::Answer;
use stentor_engine::{Engine, prompt, resource, tool};
use stentor_wire::{ProtocolVersion, meta_key};
use tokio::sync::Notify;

use crate::nodes::Nodes;
use crate::support::{Client, methods};
use crate::{answered, modern, two, until};

#[tokio::test]
async fn resources_prompts_and_completion_are_found_where_they_are() {
    let nodes = Nodes::default();
    let template = stentor_engine::resource_template(
        "a://{x}",
        "a",
        |vars: stentor_engine::TemplateVars| async move { format!("it is {}", vars["x"]) },
    );
    let far = Engine::builder("test", "1")
        .resource(resource("b://1", "b", || async { "far away".to_owned() }))
        .resource_template(template.complete(|_asked| async { vec!["xyz".to_owned()] }))
        .prompt(prompt("greet", || async { "Hello" }));
    let _far = nodes.start("far", far).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;

    for (uri, text) in [("b://1", "far away"), ("a://7", "it is 7")] {
        let read =
            answered(&near, modern(1, "resources/read", json!({"uri": uri}), json!({}))).await;
        assert_eq!(read["result"]["contents"][0]["text"], text, "{read}");
    }
    let got = answered(&near, modern(1, "prompts/get", json!({"name": "greet"}), json!({}))).await;
    assert_eq!(got["result"]["messages"][0]["content"]["text"], "Hello", "{got}");
    let params = json!({
        "ref": {"type": "ref/resource", "uri": "a://{x}"}, "argument": {"name": "x", "value": "x"},
    });
    let completed = answered(&near, modern(1, "completion/complete", params, json!({}))).await;
    assert_eq!(completed["result"]["completion"]["values"], json!(["xyz"]), "{completed}");
    let params = json!({"uri": "c://1"});
    let missing = answered(&near, modern(1, "resources/read", params, json!({}))).await;
    assert_eq!(missing["error"]["code"], -32602, "{missing}");
}

#[tokio::test]
async fn notifications_of_one_application_reach_the_clients_of_all_nodes() {
    let (_nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    client.subscribe("s", "test://watched").await;
    far.send_resource_updated("test://watched");
    let heard = client.next().await.unwrap();
    assert_eq!(heard["method"], "notifications/resources/updated", "{heard}");
    far.notify_all("notifications/own", json!({"a": 1})).await.unwrap();
    assert_eq!(client.next().await.unwrap()["params"]["a"], 1);
    far.send_prompt_list_changed();
    assert_eq!(client.next().await.unwrap()["method"], "notifications/prompts/list_changed");
    far.catalog().add(tool("new", || async { "" })).await.unwrap();
    assert_eq!(client.next().await.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(methods(&client.ping().await), [""; 0], "each of it once");
}

#[tokio::test]
async fn a_notification_reaches_other_nodes_after_the_changes_that_an_actor_sent_before_it() {
    use stentor_engine::{Audience, EngineMsg, Mutation};
    let (_nodes, near, far) = two().await;
    let mut client = Client::legacy(&near).await;
    for n in 0..50 {
        let new = tool(format!("new-{n}"), || async { "" });
        far.actor().cast(EngineMsg::Apply(vec![Mutation::Add(new.into())], None)).unwrap();
        let method = "notifications/own".to_owned();
        far.actor().cast(EngineMsg::Notify(Audience::all(), method, None)).unwrap();
        while client.next().await.unwrap()["method"] != "notifications/own" {}
        let listed = answered(&near, modern(1, "tools/list", json!({}), json!({}))).await;
        assert!(listed.to_string().contains(&format!("\"new-{n}\"")), "{listed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_task_is_polled_and_listened_to_through_any_node() {
    poll_and_listen(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_listen_to_a_remote_task_goes_on_after_a_link_broke() {
    poll_and_listen(true).await;
}

/// The link to the node of the task is cut for a while if `cut`.
async fn poll_and_listen(cut: bool) {
    let nodes = Nodes::default();
    let go = Arc::new(Notify::new());
    let waits = tool("waits", {
        let go = go.clone();
        move || {
            let go = go.clone();
            async move {
                go.notified().await;
                "done"
            }
        }
    });
    let waits = waits.as_task(stentor_engine::AsTask::Always);
    let _far = nodes.start("far", Engine::builder("test", "1").tool(waits)).await;
    let near = nodes.start("near", Engine::builder("test", "1")).await;
    let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ask = |id, method, params| modern(id, method, params, capabilities.clone());

    let created = answered(&near, ask(1, "tools/call", json!({"name": "waits"}))).await;
    let task = created["result"]["taskId"].as_str().expect("a task").to_owned();
    assert!(task.starts_with("far."), "{created}");
    let got = answered(&near, ask(2, "tasks/get", json!({"taskId": task}))).await;
    assert_eq!(got["result"]["status"], "working", "{got}");

    let unknown = format!("{task}x");
    let params = json!({"notifications": {"taskIds": [task, unknown], "toolsListChanged": true}});
    let request = ask(3, "subscriptions/listen", params);
    let answer = near.answer(ProtocolVersion::V2026_07_28, request, None).await.unwrap();
    let Answer::Stream(mut receiver) = answer else { panic!("no stream") };
    let (mut heard, mut batch) = (Vec::<Value>::new(), Vec::new());
    if cut {
        tokio::time::sleep(Duration::from_millis(100)).await;
        nodes.cut(true);
        tokio::time::sleep(Duration::from_secs(3)).await;
        nodes.cut(false);
    }
    go.notify_one();
    while heard.last().is_none_or(|last| last["params"]["status"] != "completed") {
        assert!(receiver.next(&mut batch).await);
        for stentor_delivery::Delivered { frame, .. } in batch.drain(..) {
            let mut out = BytesMut::new();
            frame.write(&mut out);
            heard.push(serde_json::from_slice(&out).unwrap());
        }
    }
    let acknowledged = &heard[0]["params"];
    assert_eq!(acknowledged["notifications"]["taskIds"], json!([task]), "{heard:?}");
    for message in &heard {
        assert_eq!(message["params"]["_meta"][meta_key::SUBSCRIPTION_ID], 3, "{message}");
    }
    let told: Vec<_> = heard.iter().filter(|it| it["method"] == "notifications/tasks").collect();
    assert!(told.iter().all(|it| it["params"]["taskId"] == *task), "{told:?}");
    assert_eq!(told.last().unwrap()["params"]["result"]["content"][0]["text"], "done");
    drop(receiver);
}

#[tokio::test]
async fn what_a_node_offered_while_the_registry_crashed_is_shown_by_the_next_one() {
    let (_nodes, near, far) = two().await;
    // The offer goes to a registry that has died and is not replaced yet.
    let kill = stentor_engine::testing::kill(&near, stentor_engine::testing::FaultTarget::Registry);
    let new = tool("new", || async { "" });
    let catalog = far.catalog();
    let (killed, added) = tokio::join!(kill, catalog.add(new));
    killed.unwrap();
    added.unwrap();
    until(|| near.catalog().snapshot().tool_names().any(|name| name == "new")).await;
    let names = |engine: &Engine| -> Vec<String> {
        engine.catalog().snapshot().tool_names().map(str::to_owned).collect()
    };
    assert_eq!(names(&near), names(&far));
}
