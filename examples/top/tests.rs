//! Each view on a terminal that is not there, and a real console.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use serde_json::{Value, json};
use stentor::console::{self, ConsoleConfig};
use stentor::{Engine, tool};

use crate::app::{App, Wanted};
use crate::client::{Client, encoded};
use crate::{draw, text};

/// A name that would clear the screen, and change the title of the terminal.
const HOSTILE: &str = "evil\u{1b}[2J\u{9b}31m\u{1b}]0;mine\u{7}\r\n\u{202e}name";

fn screen(app: &App, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw::draw(frame, app)).expect("it is drawn");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned()).collect()
}

/// What is on a terminal of 80 columns and 24 lines. No cell of it may have a control character.
fn shown(app: &App) -> String {
    let shown = lines(&screen(app, 80, 24)).join("\n");
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(bad), "{shown:?}");
    shown
}

/// Whether the line with this text is red.
fn is_red(app: &App, text: &str) -> bool {
    let buffer = screen(app, 80, 24);
    let line = lines(&buffer).iter().position(|it| it.contains(text)).expect("a line");
    let (column, line) = (2, u16::try_from(line).expect("a small number"));
    buffer[(column, line)].fg == Color::LightRed
}

fn press(app: &mut App, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '<' => KeyCode::Esc,
            '^' => KeyCode::Up,
            letter => KeyCode::Char(letter),
        };
        app.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

/// Hands over what the console says to whatever is asked now, as the client does.
fn say(app: &mut App, mut answer: Value) -> String {
    text::clean_all(&mut answer);
    let wanted = app.wanted();
    app.on_answer(&wanted, Ok(answer));
    match wanted {
        Wanted::Answer(asked) => asked,
        Wanted::Action(action) => action.to_string(),
    }
}

fn fail(app: &mut App, why: &str) {
    let wanted = app.wanted();
    app.on_answer(&wanted, Err(why.to_owned()));
}

/// Somebody who may act or not, at the console of two nodes, of which `two` does not answer.
fn app(may_act: bool) -> App {
    let mut app = App::new();
    let server = json!({"name": "Clock", "version": "1.0.0"});
    let asked = say(&mut app, json!({"version": 1, "mayAct": may_act, "server": server}));
    assert_eq!(asked, "me");
    app
}

fn answer(at: u64, answer: Value) -> Value {
    json!({
        "version": 1, "at": at, "node": "one", "unknown": {"a": [1]},
        "nodes": [
            {"node": "one", "answer": answer, "unknown": 1},
            {"node": "two", "error": "it did not answer in time"},
        ],
    })
}

fn overview(at: u64, delivered: u64, dropped: u64) -> Value {
    let it = json!({
        "state": "running", "upMs": 120_000 + at, "memoryBytes": 44_040_192, "peers": ["two"],
        "sessions": {"pipe": 1, "http": 12, "listen": 3, "unknown": 9},
        "calls": {"running": 4, "awaitingInput": 1}, "tasks": 2, "subscribers": 15, "published": 7,
        "revision": 3, "recentRestarts": 0, "crashes": 0, "unknown": null,
        "frames": {"delivered": {"reply": delivered, "unknown": 0}, "dropped": {"log": dropped}, "closed": 0},
        "held": {"bytes": 50, "budget": 100}, "requests": {"bytes": 0, "budget": 100},
    });
    answer(at, it)
}

#[test]
fn the_overview_has_a_row_for_each_node_and_rates() {
    let mut app = app(false);
    assert_eq!(say(&mut app, overview(1_000, 100, 0)), "overview?");
    say(&mut app, overview(3_000, 500, 3));
    let shown = shown(&app);
    let row = shown.lines().find(|it| it.starts_with("one ")).expect("a row");
    for part in ["running", " 12 ", " 15 ", "42 MiB", "50%"] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(shown.contains("two         it did not answer in time"), "{shown}");
    assert!(is_red(&app, "did not answer") && !is_red(&app, "running"));
    assert!(shown.contains("Frames delivered a second: 200, at most 200"), "{shown}");
    assert!(shown.contains("streams closed, a second: 2, at most 2"), "{shown}");
    assert!(shown.contains("one: up 2m, revision 3"), "{shown}");
    // A node that has begun again counts from 0.
    say(&mut app, overview(1_000, 5, 0));
    say(&mut app, overview(1_100, 8, 0));
    assert_eq!(app.rates.delivered, [200, 30]);
}

fn a_slow_session() -> Value {
    json!({
        "id": "one.AbC123", "kind": "http", "principal": "ann", "version": "2025-06-18", "era": "legacy",
        "client": {"name": HOSTILE, "version": "1"}, "ageMs": 61_000, "attached": true, "unread": 7,
        "streams": 1, "subscriptions": 2, "openCalls": 1, "mailbox": 0, "recentRestarts": 0,
        "frames": {"delivered": {"log": 20, "reply": 0}, "coalesced": {}, "dropped": {"log": 5},
                   "conflated": 1, "refused": 0, "closed": 0, "held": 2_048},
        "heldBytes": 2_048, "slow": true, "why": "7 wait to be read, 5 were dropped", "unknown": [],
    })
}

fn sessions(ids: &[&str]) -> Value {
    let quick =
        ids.iter().map(|id| json!({"id": id, "kind": "listen", "slow": false, "why": null}));
    let mut all: Vec<_> = quick.collect();
    all.push(a_slow_session());
    answer(1, json!({"total": 200, "found": 120, "sessions": all}))
}

#[test]
fn slow_sessions_are_first_and_red_and_say_why() {
    let mut app = app(false);
    press(&mut app, "2");
    assert_eq!(say(&mut app, sessions(&["one.quick"])), "sessions?order=slow&limit=100&text=");
    let shown = shown(&app);
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
    assert!(at("one.AbC123") < at("one.quick"));
    at("slow: 7 wait to be read, 5 were dropped");
    at("evil [2J 31m");
    at("two: it did not answer in time");
    at("and 118 more");
    assert!(is_red(&app, "one.AbC123") && is_red(&app, "slow: 7") && !is_red(&app, "one.quick"));
}

#[test]
fn a_chosen_session_stays_chosen_where_it_moves_to() {
    let mut app = app(false);
    press(&mut app, "2");
    say(&mut app, sessions(&["one.b", "one.c"]));
    press(&mut app, "jj");
    say(&mut app, sessions(&["one.c", "one.b"]));
    press(&mut app, "\n");
    assert_eq!(app.opened, Some(("one".to_owned(), "one.c".to_owned())));
}

#[test]
fn a_search_asks_for_what_is_typed_and_escape_forgets_it() {
    let mut app = app(false);
    press(&mut app, "2/q 2&");
    assert!(!app.ended, "letters are no commands there");
    assert_eq!(app.wanted(), Wanted::Answer("sessions?order=slow&limit=100&text=q+2%26".into()));
    assert!(shown(&app).contains("/q 2&_"));
    press(&mut app, "\n<");
    assert_eq!(app.search, "");
    assert_eq!(encoded("é/?#"), "%C3%A9%2F%3F%23");
}

#[test]
fn an_open_session_shows_calls_and_what_became_of_messages() {
    let mut app = app(true);
    press(&mut app, "2");
    say(&mut app, sessions(&[]));
    press(&mut app, "\n");
    let call = json!({"call": 17, "method": "tools/call", "target": "convert", "ageMs": 1_000,
                      "progress": {"progress": 3.0, "total": 4.0}});
    let entry = |what: &str, became: &str, why: &str| json!({"at": 1_000, "took": 12, "seq": 4, "class": "log", "what": what, "became": became, "why": why});
    let followed = json!({"on": true, "until": 5_000, "capacity": 256, "missed": 1, "entries": [
        entry("notifications/message", "delivered", ""),
        entry(HOSTILE, "dropped", "the client fell behind, and newer ones were kept"),
    ]});
    let open = |followed: &Value| json!({"session": a_slow_session(), "calls": [call], "followed": followed});
    let asked = say(&mut app, answer(2, open(&followed)));
    assert_eq!(asked, "session?id=one.AbC123&node=one");
    let text = shown(&app);
    for part in [
        "one.AbC123 on one, legacy http",
        "log                        20          0          5",
        "███████████████░░░░░  75%",
        "00:00:01 4    message               delivered   12ms",
        "dropped     12ms the client fell",
        "slow: 7 wait",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    press(&mut app, "f");
    let action = say(&mut app, json!({"done": "what was noted is forgotten"}));
    assert_eq!(action, r#"{"node":"one","action":"unfollow","session":"one.AbC123"}"#);
    assert!(app.is_pressing(), "it is asked at once what came of it");
    say(&mut app, answer(3, open(&json!({"on": false, "entries": []}))));
    assert!(shown(&app).contains("f notes what becomes of each"), "{}", shown(&app));
    assert!(shown(&app).contains("what was noted is forgotten"));
    say(&mut app, answer(4, Value::Null));
    assert!(shown(&app).contains("This session has ended"));
    press(&mut app, "<");
    assert_eq!(app.opened, None);
}

#[test]
fn who_may_only_look_follows_nothing() {
    let mut app = app(false);
    press(&mut app, "2");
    say(&mut app, sessions(&[]));
    press(&mut app, "\n");
    say(&mut app, answer(2, json!({"session": a_slow_session(), "calls": [], "followed": {}})));
    press(&mut app, "f");
    assert!(matches!(app.wanted(), Wanted::Answer(_)));
    assert!(shown(&app).contains("you may only look"));
}

#[test]
fn the_catalog_says_who_sees_what_and_where_nodes_differ() {
    let mut app = app(false);
    press(&mut app, "3");
    let item = |key: &str, scopes: &[&str]| {
        json!({"kind": "tool", "key": key, "description": HOSTILE, "restricted": true,
               "labels": ["admin"], "scopes": scopes, "conflict": null})
    };
    let of = |items: Vec<Value>| json!({"revision": 3, "items": items});
    say(
        &mut app,
        json!({"version": 1, "at": 1, "nodes": [
            {"node": "one", "answer": of(vec![item("same", &[]), item("other", &["write"]), item("alone", &[])])},
            {"node": "two", "answer": of(vec![item("same", &[]), item("other", &[])])},
        ]}),
    );
    let shown = shown(&app);
    let row = |key: &str| shown.lines().find(|it| it.contains(key)).expect("a row").to_owned();
    assert!(row("same").contains("all     admin"), "{shown}");
    assert!(row("alone").contains("one     admin"), "{shown}");
    assert_eq!(shown.matches("differs between nodes").count(), 1, "{shown}");
}

#[test]
fn events_show_types_and_webhooks_that_fail() {
    let mut app = app(false);
    press(&mut app, "4");
    let types = json!([{"name": "incident.created", "modes": ["poll", "push"], "webhooks": 1, "streams": 2,
                        "lag": 0, "log": {"entries": 9, "bytes": 4_096, "end": 9}}]);
    let webhooks = json!([{"type": "incident.created", "principal": "bot", "url": "https://hooks.example",
                           "state": "paused", "lastError": "410 Gone", "lastDelivery": 1_000}]);
    say(&mut app, answer(1, json!({"types": types, "webhooks": webhooks, "more": 0})));
    let text = shown(&app);
    assert!(text.contains("incident.created       poll,push"), "{text}");
    assert!(text.contains("bot, last delivery at 00:00:01, 410 Gone"), "{text}");
    assert!(is_red(&app, "410 Gone") && is_red(&app, "paused"));
    say(&mut app, answer(1, json!({"absent": true})));
    assert!(shown(&app).contains("its console shows no events"));
}

#[test]
fn tasks_are_listed_with_what_they_say() {
    let mut app = app(false);
    press(&mut app, "5");
    let tasks = json!([{"id": "one.T1", "status": "failed", "target": "convert", "ageMs": 5_000,
                        "principal": "ann", "message": "no disk"}]);
    say(&mut app, answer(1, json!({"tasks": tasks, "more": 3})));
    let text = shown(&app);
    assert!(text.contains("one.T1") && text.contains("no disk") && text.contains("and 3 more"));
    assert!(is_red(&app, "one.T1"));
}

#[test]
fn the_log_is_a_tail_that_stands_still_while_older_entries_are_read() {
    let mut app = app(false);
    press(&mut app, "6");
    let log = |entries: std::ops::Range<u64>| {
        let entry = |n: u64| {
            json!({"n": n, "at": n * 1_000, "event": "call started", "level": "warn", "session": null,
                   "call": n, "text": format!("entry-{n} {HOSTILE}")})
        };
        answer(
            9,
            json!({"entries": entries.map(entry).collect::<Vec<_>>(), "last": 9, "missed": 2}),
        )
    };
    say(&mut app, log(0..50));
    let text = shown(&app);
    assert!(
        text.contains("entry-49 ") && !text.contains("entry-10 ") && text.contains("2 not shown")
    );
    press(&mut app, "^^");
    say(&mut app, log(50..100));
    let text = shown(&app);
    assert!(text.contains("entry-47 ") && !text.contains("entry-48 "), "{text}");
    press(&mut app, "G");
    say(&mut app, log(50..100));
    assert!(shown(&app).contains("entry-99 "));
}

#[test]
fn a_console_that_is_away_is_asked_again_and_what_was_there_stays() {
    let mut app = app(false);
    say(&mut app, overview(1_000, 1, 0));
    fail(&mut app, "Connection refused");
    fail(&mut app, "Connection refused");
    let text = shown(&app);
    assert!(text.contains("no answer (2), and goes on trying: Connection refused"), "{text}");
    assert!(text.contains("running") && !app.is_pressing());
    assert_eq!(app.wanted(), Wanted::Answer("me".to_owned()));
    say(&mut app, json!({"version": 1}));
    say(&mut app, overview(2_000, 2, 0));
    assert!(!shown(&app).contains("no answer"));
    say(&mut app, json!({"version": 2}));
    assert!(shown(&app).contains("version"), "another version is not read");
}

#[test]
fn keys_choose_views_and_nodes_and_end_it() {
    let mut app = app(false);
    say(&mut app, overview(1_000, 1, 0));
    for node in ["&node=one", "&node=two", ""] {
        press(&mut app, "n");
        assert_eq!(app.wanted(), Wanted::Answer(format!("overview?{node}")));
    }
    press(&mut app, "\t\t?");
    assert!(shown(&app).contains("any key closes this"));
    press(&mut app, "xq");
    assert!(app.ended);
    let mut other = App::new();
    press(&mut other, "2/");
    other.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(other.ended);
}

#[test]
fn any_answer_is_drawn_on_any_terminal() {
    for nonsense in
        [json!(null), json!([1]), json!({"sessions": 5, "items": [null], "tasks": [[]]})]
    {
        for tab in "123456".chars() {
            let mut app = app(true);
            press(&mut app, &tab.to_string());
            say(&mut app, answer(u64::MAX, nonsense.clone()));
            press(&mut app, "jG\n");
            for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 80)] {
                screen(&app, width, height);
            }
            say(&mut app, json!({"version": 1, "nodes": nonsense}));
            screen(&app, 80, 24);
        }
    }
}

#[test]
fn texts_are_cut_to_their_columns() {
    assert_eq!(text::fit("abc", 5), "abc  ");
    assert_eq!(text::fit("abcdef", 4), "abc…");
    assert_eq!(text::fit("漢字漢字", 5), "漢字…");
    assert_eq!(text::fit("漢字漢字", 4), "漢… ");
    assert_eq!(text::fit("abc", 0), "");
    assert_eq!(text::columns(&[("a", 3), ("12", -4)]), "a     12");
    assert_eq!(text::bytes(44_040_192), "42 MiB");
    assert_eq!(text::bar(1.0, 2.0, 4), "██░░");
    assert_eq!(text::bar(f64::NAN, 0.0, 2), "░░");
}

#[tokio::test]
async fn a_real_console_is_printed_once() {
    let engine = Engine::builder("Clock", "1.0.0").tool(tool("noon", || async { "12:00" }));
    let engine = engine.start().await.expect("an engine");
    let console = console::serve(&engine, ConsoleConfig::new(), 0).await.expect("a console");
    let client = Client::new(&console.address().to_string(), &[]).expect("an address");
    let (text, complete) = crate::overview(&client).await.expect("an answer");
    assert!(text.starts_with("NODE ") && text.contains(" running "), "{text}");
    assert!(complete && text.contains(engine.node().as_str()), "{text}");

    // Each view reads what a real console answers.
    let mut app = App::new();
    for tab in "1234561".chars() {
        press(&mut app, &tab.to_string());
        while app.is_pressing() {
            let wanted = app.wanted();
            let answer = client.ask(&wanted).await;
            app.on_answer(&wanted, answer);
        }
        assert_eq!(app.away, None);
        assert_eq!(shown(&app).contains("noon"), tab == '3', "{}", shown(&app));
    }
    engine.shutdown().await;
    drop(console);
    assert!(crate::overview(&client).await.is_err(), "nobody answers");
}

#[test]
fn only_an_address_of_http_is_asked() {
    assert!(Client::new("https://127.0.0.1:7667/", &[]).is_err());
    assert!(Client::new("http://", &[]).is_err());
    let nested = Client::new("http://[::1]:7667/ops/console", &[]).expect("a URL");
    assert_eq!(nested.url(), "http://[::1]:7667/ops/console/");
    let refused = Client::new("127.0.0.1", &["secret".to_owned()]).err().expect("no header");
    assert!(!refused.contains("secret"), "{refused}");
}
