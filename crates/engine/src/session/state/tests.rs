use serde_json::{Value, json};
use stentor_wire::{Era, Params, meta_key};

use super::*;

fn state(serves_modern: bool) -> SessionState {
    let meter = crate::request_budget::Meter::total(1 << 20);
    SessionState::new(
        crate::ids::new_session_id(&crate::NodeId::random()),
        serves_modern,
        2,
        &meter,
    )
}

fn ask(state: &mut SessionState, id: i64, method: &str, params: Value) -> Decision {
    let params = Params::from_json(params.to_string());
    let request = Request::new(Id::Number(id), Method::parse(method), params);
    state.on_request(&request.expect("a readable _meta"), &[], false)
}

fn initialize(state: &mut SessionState, version: &str) -> Decision {
    let client = json!({"name": "c", "version": "1"});
    ask(
        state,
        0,
        "initialize",
        json!({
            "protocolVersion": version, "capabilities": {}, "clientInfo": client,
        }),
    )
}

fn modern() -> Value {
    json!({meta_key::PROTOCOL_VERSION: "2026-07-28", meta_key::CLIENT_CAPABILITIES: {}})
}

fn refused(decision: &Decision) -> i32 {
    match decision {
        Decision::Refuse(error) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn before_initialize_a_legacy_client_can_only_ping() {
    let mut state = state(false);
    assert_eq!(refused(&ask(&mut state, 1, "tools/list", json!({}))), code::INVALID_REQUEST);
    assert!(matches!(ask(&mut state, 2, "ping", json!({})), Decision::Dispatch(_)));
    let opened = initialize(&mut state, "2025-06-18");
    assert!(matches!(opened, Decision::Initialized(ProtocolVersion::V2025_06_18)));
    let Decision::Dispatch(caller) = ask(&mut state, 3, "tools/list", json!({})) else {
        panic!("refused")
    };
    assert_eq!(caller.version, ProtocolVersion::V2025_06_18);
    assert_eq!(caller.client.expect("a client").name, "c");
    assert_eq!(refused(&initialize(&mut state, "2025-06-18")), code::INVALID_REQUEST);
}

#[test]
fn a_pipe_serves_both_eras_side_by_side() {
    let mut state = state(true);
    let Decision::Dispatch(caller) = ask(&mut state, 1, "tools/list", json!({"_meta": modern()}))
    else {
        panic!("refused")
    };
    assert_eq!(caller.era(), Era::Modern);
    initialize(&mut state, "2025-11-25");
    let Decision::Dispatch(caller) = ask(&mut state, 2, "tools/list", json!({})) else {
        panic!("refused")
    };
    assert_eq!(caller.era(), Era::Legacy);
    let again = ask(&mut state, 3, "tools/list", json!({"_meta": modern()}));
    assert!(matches!(again, Decision::Dispatch(caller) if caller.era() == Era::Modern));
}

#[test]
fn subscriptions_are_bounded() {
    let mut state = state(false);
    initialize(&mut state, "2025-11-25");
    assert!(matches!(
        ask(&mut state, 1, "resources/subscribe", json!({"uri": "a:1"})),
        Decision::Watch(uri) if uri == "a:1"
    ));
    for uri in ["a:1", "a:2"] {
        assert_eq!(state.watch(uri.into()), Ok(()));
    }
    assert_eq!(state.watch("a:3".into()).unwrap_err().code, code::INVALID_PARAMS);
    assert_eq!(state.watch("a:1".into()), Ok(()), "it is watched already");
    state.unwatch("a:1");
    assert_eq!(state.watch("a:3".into()), Ok(()));

    let long = format!("a:{}", "x".repeat(stentor_wire::bounds::MAX_URI));
    let watch = ask(&mut state, 2, "resources/subscribe", json!({ "uri": long }));
    assert_eq!(refused(&watch), code::INVALID_PARAMS);
    let listen = json!({"_meta": modern(), "notifications": {"resourceSubscriptions": [long]}});
    let listen = ask(&mut self::state(true), 3, "subscriptions/listen", listen);
    assert_eq!(refused(&listen), code::INVALID_PARAMS);
}

#[test]
fn a_refused_subscription_leaves_the_one_before_it() {
    let meter = crate::request_budget::Meter::total(1_000);
    let id = crate::ids::new_session_id(&crate::NodeId::random());
    let mut state = SessionState::new(id, false, 1, &meter);
    assert_eq!(state.watch("http://a.test/b".into()), Ok(()));
    let held = meter.held();
    // The same resource in a longer spelling.
    let longer = format!("http://a.test/{}b", "./".repeat(500));
    assert_eq!(state.watch(longer.as_str().into()).unwrap_err().code, code::UNAVAILABLE);
    assert_eq!((state.subscribed(), meter.held()), (1, held));
    assert_eq!(state.watch("HTTP://a.test/b".into()), Ok(()), "beside no other");
    assert_eq!((state.subscribed(), meter.held()), (1, held));
}

#[test]
fn the_memory_for_a_client_is_counted_and_limited() {
    let meter = crate::request_budget::Meter::total(10_000);
    let id = crate::ids::new_session_id(&crate::NodeId::random());
    let mut state = SessionState::new(id, true, 100, &meter);
    let uris = |count: usize| (0..count).map(|n| format!("{n:01000}")).collect::<Vec<_>>();
    let params =
        |count| json!({"_meta": modern(), "notifications": {"resourceSubscriptions": uris(count)}});
    assert!(matches!(ask(&mut state, 1, "subscriptions/listen", params(5)), Decision::Listen(..)));
    let held = meter.held();
    assert!((5_000..7_000).contains(&held), "{held}");
    assert_eq!(refused(&ask(&mut state, 2, "subscriptions/listen", params(5))), code::UNAVAILABLE);
    assert_eq!(meter.held(), held, "what was refused is not counted");
    assert_eq!(state.watch(uris(1)[0].as_str().into()), Ok(()));
    assert!(meter.held() > held);
    state.unwatch(&uris(1)[0]);
    assert_eq!(meter.held(), held);
    assert!(state.end_listen(&Id::Number(1)).is_some());
    assert_eq!(meter.held(), 0);
    assert!(matches!(ask(&mut state, 3, "subscriptions/listen", params(5)), Decision::Listen(..)));
    drop(state);
    assert_eq!(meter.held(), 0);
}

#[test]
fn a_listen_is_granted_what_it_asks_for_and_ends_by_its_request() {
    let mut state = state(true);
    let params = json!({"_meta": modern(), "notifications": {
        "toolsListChanged": true, "resourceSubscriptions": ["a:1", "a:1"],
    }});
    let Decision::Listen(_, granted, _) =
        ask(&mut state, 7, "subscriptions/listen", params.clone())
    else {
        panic!("refused")
    };
    let subscription = state.begin(&Id::Number(7)).and_then(|found| found.id).unwrap();
    assert_eq!(subscription.as_json(), b"7");
    assert_eq!(granted.lists(), [true, false, false]);
    assert_eq!(granted.keys(KeyKind::Resource), ["a:1".into()]);
    let same_id = ask(&mut state, 7, "subscriptions/listen", params);
    assert_eq!(refused(&same_id), code::INVALID_REQUEST);
    let ended = state.end_listen(&Id::Number(7)).unwrap();
    assert_eq!(ended.subscription, Some(subscription));
    assert!(state.end_listen(&Id::Number(7)).is_none());
}

#[test]
fn a_listen_receives_nothing_until_its_own_tasks_are_known() {
    let mut state = state(true);
    let params = json!({"_meta": modern(), "notifications": {
        "toolsListChanged": true, "taskIds": ["t"],
    }});
    let id = Id::Number(7);
    let listen = ask(&mut state, 7, "subscriptions/listen", params.clone());
    let Decision::Listen(_, granted, _) = listen else { panic!("refused") };
    assert!(state.subscriptions().is_empty() && state.begin(&id).is_none());
    assert!(state.set_granted(&id, &granted));
    assert!(state.begin(&id).is_some_and(|found| found.unsaid.is_some()));
    assert_eq!(state.subscriptions().len(), 1);
    // A listen that has ended meanwhile does not come back.
    assert!(state.end_listen(&id).is_some());
    assert!(!state.set_granted(&id, &granted));
    assert!(state.subscriptions().is_empty() && state.begin(&id).is_none());
}

#[test]
fn wrong_params_are_refused_and_change_nothing() {
    let mut state = state(false);
    let wrong = ask(&mut state, 1, "initialize", json!({"protocolVersion": 7}));
    assert_eq!(refused(&wrong), code::INVALID_PARAMS);
    assert!(state.legacy().is_none());
    initialize(&mut state, "2025-11-25");
    let wrong = ask(&mut state, 2, "logging/setLevel", json!({"level": "loud"}));
    assert_eq!(refused(&wrong), code::INVALID_PARAMS);
}
