//! What clients see of the types: `events/list`, and what the server declares.

mod support;

use serde_json::{Value, json};
use stentor_engine::Engine;
use stentor_engine::identity::Identity;
use stentor_events::{Events, IDENTIFIER, Mode, OriginError, TypeError, WebhookConfig};
use stentor_test::Client;
use support::{Jobs, LIST_CHANGED, Peer, engine, engine_with, jobs, server, without_replay};

fn names(answer: &Value) -> Vec<&str> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|it| it["name"].as_str().unwrap()).collect()
}

async fn with_webhooks(types: &[&Jobs], early_clients: bool) -> Engine {
    let events = types.iter().fold(Events::new(), |events, it| events.add(it));
    let events = events.webhooks(WebhookConfig::new());
    let events = events.configure(|config| config.early_clients = early_clients);
    server().extension(events).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn pages_have_the_types_in_the_order_in_which_they_were_added() {
    let types: Vec<_> = ["e", "b", "d", "a", "c"].map(jobs).into();
    let engine = engine_with(&types.iter().collect::<Vec<_>>(), |it| it.page_size = 2).await;
    let mut client = Peer::stranger(&engine).await;
    let (mut params, mut pages) = (json!({}), Vec::new());
    loop {
        let page = client.list(params).await;
        assert_eq!(page["resultType"], "complete");
        pages.push(names(&page).into_iter().map(str::to_owned).collect::<Vec<_>>());
        match page.get("nextCursor") {
            Some(cursor) => params = json!({ "cursor": cursor }),
            None => break,
        }
    }
    assert_eq!(pages, [vec!["e", "b"], vec!["d", "a"], vec!["c"]]);
    assert_eq!(names(&client.list(json!({"cursor": null})).await), ["e", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_just_full_has_no_next_one() {
    let types: Vec<_> = ["a", "b"].map(jobs).into();
    let engine = engine_with(&types.iter().collect::<Vec<_>>(), |it| it.page_size = 2).await;
    let page = Peer::stranger(&engine).await.list(json!({})).await;
    assert_eq!((names(&page), page.get("nextCursor")), (vec!["a", "b"], None));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_cursor_is_refused() {
    let engine = engine(&[&jobs("a")]).await;
    let mut client = Peer::stranger(&engine).await;
    for cursor in [json!("no cursor"), json!(""), json!("bm9uZQ"), json!(7), json!(["a"])] {
        let error = client.ask("events/list", json!({ "cursor": cursor })).await.unwrap_err();
        assert_eq!(error["code"], -32602, "{cursor}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_descriptor_says_how_a_type_is_delivered_and_what_it_takes() {
    let polled = jobs("polled").description("Jobs that are done.").delivery([Mode::Poll]);
    let plain = without_replay("plain");
    let engine = with_webhooks(&[&polled, &plain], true).await;
    let list = Peer::named(&engine, "ann").await.list(json!({})).await;
    let [first, second] = [&list["events"][0], &list["events"][1]];
    assert_eq!(first["description"], "Jobs that are done.");
    assert_eq!(first["delivery"], json!(["poll"]));
    assert_eq!(first["inputSchema"], Value::Object(polled.input_schema()));
    assert_eq!(first["payloadSchema"], Value::Object(polled.payload_schema()));
    assert_eq!(first["inputSchema"]["type"], "object");
    assert_eq!(second["delivery"], json!(["push", "webhook"]), "a poll would find nothing");
    assert_eq!(second.get("description"), None);
}

#[tokio::test(start_paused = true)]
async fn who_could_own_no_webhook_is_offered_none() {
    let everywhere = jobs("everywhere");
    let webhook_only = jobs("webhook-only").delivery([Mode::Webhook]);
    let engine = with_webhooks(&[&everywhere, &webhook_only], true).await;
    let list = Peer::named(&engine, "ann").await.list(json!({})).await;
    assert_eq!(names(&list), ["everywhere", "webhook-only"]);
    assert_eq!(list["events"][0]["delivery"], json!(["poll", "push", "webhook"]));
    let list = Peer::stranger(&engine).await.list(json!({})).await;
    assert_eq!(names(&list), ["everywhere"]);
    assert_eq!(list["events"][0]["delivery"], json!(["poll", "push"]));
    let plain = support::engine(&[&jobs("plain")]).await;
    let list = Peer::named(&plain, "ann").await.list(json!({})).await;
    assert_eq!(list["events"][0]["delivery"], json!(["poll", "push"]), "webhooks are off");
}

#[tokio::test(start_paused = true)]
async fn hidden_types_are_on_no_page_and_do_not_shorten_one() {
    let hidden = |name| jobs(name).access(|rules| rules.only_for(["auditor"]));
    let types = [jobs("a"), hidden("x"), hidden("y"), jobs("b"), hidden("z"), jobs("c")];
    let engine = engine_with(&types.iter().collect::<Vec<_>>(), |it| it.page_size = 2).await;
    let mut stranger = Peer::stranger(&engine).await;
    let page = stranger.list(json!({})).await;
    assert_eq!(names(&page), ["a", "b"]);
    let page = stranger.list(json!({"cursor": page["nextCursor"]})).await;
    assert_eq!((names(&page), page.get("nextCursor")), (vec!["c"], None));
    let auditor = Identity::named("ann").roles(["auditor"]);
    let page = Peer::known(&engine, auditor).await.list(json!({})).await;
    assert_eq!(names(&page), ["a", "x"]);
}

#[tokio::test(start_paused = true)]
async fn both_capabilities_are_declared_to_both_eras_unless_early_clients_are_off() {
    for early_clients in [true, false] {
        let engine = with_webhooks(&[&jobs("a")], early_clients).await;
        let clients = [Client::connect(&engine).await, Client::legacy(&engine).await];
        for client in clients {
            let declared = client.server().await.unwrap()["capabilities"].take();
            let is_modern = client.era() == stentor_wire::Era::Modern;
            let extension = declared["extensions"].get(IDENTIFIER);
            let top = declared.get("events");
            assert_eq!(top, early_clients.then_some(&json!({})), "{declared}");
            if is_modern {
                assert_eq!(extension, Some(&json!({"listChanged": true})), "{declared}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn legacy_sessions_have_lists_and_webhooks_if_early_clients_are_served() {
    for early_clients in [true, false] {
        let engine = with_webhooks(&[&jobs("a")], early_clients).await;
        let mut client = Peer::legacy(&engine, "ann").await;
        for method in ["events/poll", "events/stream"] {
            let error = client.ask(method, json!({"name": "a"})).await.unwrap_err();
            assert_eq!(error["code"], -32601, "{method}: {error}");
        }
        let list = client.ask("events/list", json!({})).await;
        let delivery = json!({"url": "https://r.example/h", "secret": "none"});
        let params = json!({"name": "a", "delivery": delivery});
        let subscribe = client.ask("events/subscribe", params.clone()).await.unwrap_err();
        let unsubscribe = client.ask("events/unsubscribe", params).await.unwrap_err();
        if early_clients {
            assert_eq!(names(&list.unwrap()), ["a"]);
            assert_eq!(subscribe["code"], -32602, "its secret is none: {subscribe}");
            assert_eq!(unsubscribe["code"], -32011, "there is none: {unsubscribe}");
        } else {
            assert_eq!(list.unwrap_err()["code"], -32601);
            assert_eq!(
                (&subscribe["code"], &unsubscribe["code"]),
                (&json!(-32601), &json!(-32601))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_extension_there_are_no_such_methods() {
    let engine = server().start().await.unwrap();
    let mut client = Peer::stranger(&engine).await;
    for method in ["list", "poll", "stream", "subscribe", "unsubscribe"] {
        let error = client.ask(&format!("events/{method}"), json!({"name": "a"})).await;
        assert_eq!(error.unwrap_err()["code"], -32601, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listen_hears_that_the_list_has_changed() {
    let (first, second) = (jobs("first"), jobs("second"));
    let events = Events::new().add(&first);
    let handle = events.handle();
    assert_eq!(handle.add(&second).await, Err(TypeError::NotRunning));
    assert_eq!(handle.allow_origin("https://r.example"), Err(OriginError::NotRunning));
    let engine = server().extension(events).start().await.unwrap();
    let listens = Client::connect(&engine).await;
    let deaf = Client::connect(&engine).await;
    let (mut heard, mut unheard) = (listens.notices().await, deaf.notices().await);
    let granted = listens.listen(json!({"eventsListChanged": true})).await.unwrap();
    assert_eq!(granted, json!({"eventsListChanged": true}));
    let changed = || vec![stentor_test::Notice::custom(LIST_CHANGED, json!({}))];

    handle.add(&second).await.unwrap();
    assert_eq!(heard.settled().await, changed());
    assert_eq!(handle.add(&second).await, Err(TypeError::Twice("second".into())));
    assert_eq!(heard.settled().await, []);
    handle.replace(&second.clone().description("now with words")).await.unwrap();
    assert_eq!(heard.settled().await, changed());
    handle.replace(&second.description("now with words")).await.unwrap();
    assert_eq!(heard.settled().await, [], "nobody sees a difference");
    let mut reader = Peer::stranger(&engine).await;
    assert_eq!(names(&reader.list(json!({})).await), ["first", "second"]);
    handle.remove("first").await.unwrap();
    assert_eq!(heard.settled().await, changed());
    assert_eq!(handle.remove("first").await, Err(TypeError::Unknown("first".into())));
    assert_eq!(names(&reader.list(json!({})).await), ["second"]);
    assert_eq!(unheard.settled().await, [], "it did not ask");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_cannot_be_delivered_or_has_no_name_is_refused() {
    let events = Events::new();
    let handle = events.handle();
    let _engine = server().extension(events).start().await.unwrap();
    let webhook_only = jobs("w").delivery([Mode::Webhook]);
    assert_eq!(handle.add(&webhook_only).await, Err(TypeError::Modes("w".into())));
    assert_eq!(handle.add(&jobs("")).await, Err(TypeError::Name));
    assert_eq!(handle.add(&jobs(&"x".repeat(257))).await, Err(TypeError::Name));
    assert_eq!(handle.replace(&jobs("none")).await, Err(TypeError::Unknown("none".into())));
    // It would promise more than there is.
    let kept = jobs("kept").durable();
    assert_eq!(handle.add(&kept).await, Err(TypeError::NoStore("kept".into())));
    let twice = Events::new().add(&jobs("a")).add(&jobs("a"));
    assert!(server().extension(twice).start().await.is_err());
}
