//! The rows of each list, as lines.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use serde_json::Value;

use crate::answers::{self, Item};
use crate::app::{App, Tab};
use crate::text::{
    bar, bytes, clock, columns, count, counted, fit, joined, list, number, span, sum, text,
};

pub(crate) const RED: Style = Style::new().fg(Color::LightRed);
pub(crate) const YELLOW: Style = Style::new().fg(Color::Yellow);
pub(crate) const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// One entry of a list; its further lines say more about it.
pub(crate) type Row = Vec<Line<'static>>;

/// The line above a list, and its rows, for a terminal of this width.
pub(crate) fn rows(app: &App, answer: &Value, width: usize) -> (String, Vec<Row>) {
    match app.tab {
        Tab::Overview => overview(answer, width.saturating_sub(69).clamp(4, 40)),
        Tab::Sessions => sessions(answer, width),
        Tab::Catalog => catalog(answer, width),
        Tab::Events => events(answer, width),
        Tab::Tasks => tasks(answer, width),
        Tab::Log => log(answer, width),
    }
}

fn row(text: String, style: Style) -> Row {
    vec![Line::styled(text, style)]
}

/// The nodes; those that did not answer with the reason. `name` is the width of their names.
pub(crate) fn overview(answer: &Value, name: usize) -> (String, Vec<Row>) {
    let name = name as isize;
    let line = |cells: [&str; 11]| {
        let widths = [name, 8, -4, -5, -6, -5, -5, -5, -8, 10, -3];
        columns(&std::array::from_fn::<_, 11, _>(|at| (cells[at], widths[at])))
    };
    let header = line([
        "NODE", "STATE", "PIPE", "HTTP", "LISTEN", "CALLS", "TASKS", "SUBS", "MEMORY", "HELD",
        "RST",
    ]);
    let node = |node: &Value| {
        let named = text(node, "node");
        if node.get("error").is_some() {
            let why = text(node, "error");
            return row(format!("{} {why}", fit(named, name.unsigned_abs())), RED);
        }
        let it = &node["answer"];
        let calls = sum(&it["calls"]);
        let (held, budget) = (number(&it["held"], "bytes"), number(&it["held"], "budget"));
        let percent = held.saturating_mul(100).checked_div(budget).unwrap_or(0);
        let of_kind = |kind: &str| counted(&it["sessions"], kind);
        let text = line([
            named,
            text(it, "state"),
            &of_kind("pipe"),
            &of_kind("http"),
            &of_kind("listen"),
            &count(calls),
            &counted(it, "tasks"),
            &counted(it, "subscribers"),
            &it["memoryBytes"].as_u64().map_or_else(|| "-".to_owned(), bytes),
            &format!("{} {percent:>3}%", bar(held as f64, budget as f64, 5)),
            &counted(it, "recentRestarts"),
        ]);
        let is_bad = number(it, "recentRestarts") > 0 || percent >= 80;
        let is_odd = is_bad || it["state"] != "running";
        row(text, if is_odd { YELLOW } else { Style::new() })
    };
    (header, list(answer, "nodes").iter().map(node).collect())
}

/// More of one node.
pub(crate) fn about(node: &Value) -> String {
    let it = &node["answer"];
    format!(
        "{}: up {}, revision {}, {} notices, requests {}, {} await input, {} crashes",
        text(node, "node"),
        span(number(it, "upMs")),
        number(it, "revision"),
        counted(it, "published"),
        bytes(number(&it["requests"], "bytes")),
        number(&it["calls"], "awaitingInput"),
        counted(it, "crashes"),
    )
}

/// The name and the version of a client; modern ones say it in each request, and the session has none.
pub(crate) fn client(session: &Value) -> String {
    let client = &session["client"];
    format!("{} {}", text(client, "name"), text(client, "version")).trim().to_owned()
}

fn sessions(answer: &Value, width: usize) -> (String, Vec<Row>) {
    let wider = width.saturating_sub(80) as isize / 2;
    let line = |cells: [&str; 8]| {
        let widths = [15, 17 + wider, 11 + wider, 6, -5, -5, -6, -8];
        columns(&std::array::from_fn::<_, 8, _>(|at| (cells[at], widths[at])))
    };
    let header = line(["SESSION", "CLIENT", "PRINCIPAL", "KIND", "AGE", "CALLS", "UNREAD", "HELD"]);
    let session = |(_, it): (&str, &Value)| {
        let text_of = line([
            text(it, "id"),
            &client(it),
            text(it, "principal"),
            text(it, "kind"),
            &span(number(it, "ageMs")),
            &counted(it, "openCalls"),
            &counted(it, "unread"),
            &bytes(number(it, "heldBytes")),
        ]);
        let slow = it["slow"] == true;
        let mut row = row(text_of, if slow { RED } else { Style::new() });
        match it["why"].as_str() {
            Some(why) if slow => row.push(Line::styled(format!("  slow: {why}"), RED)),
            Some(why) => row.push(Line::styled(format!("  {why}"), DIM)),
            None => {}
        }
        row
    };
    (header, answers::sessions(answer).into_iter().map(session).collect())
}

fn catalog(answer: &Value, width: usize) -> (String, Vec<Row>) {
    let nodes = answers::answered(answer).count();
    let rest = width.saturating_sub(64).max(10) as isize;
    let line = |cells: [&str; 6]| {
        let widths = [8, 26, 7, 10, 8, rest];
        columns(&std::array::from_fn::<_, 6, _>(|at| (cells[at], widths[at])))
    };
    let item = |known: Item<'_>| {
        let it = known.item;
        let on = match known.nodes.len() {
            all if all == nodes => "all".to_owned(),
            _ => known.nodes.join(","),
        };
        let seen_by = match (joined(it, "labels", ", "), it["restricted"] == true) {
            (labels, _) if !labels.is_empty() => labels,
            (_, true) => "some".to_owned(),
            _ => "everybody".to_owned(),
        };
        let title = match text(it, "title") {
            "" => text(it, "description"),
            title => title,
        };
        let mut row = row(
            line([
                text(it, "kind"),
                text(it, "key"),
                &on,
                &seen_by,
                &joined(it, "scopes", " "),
                title,
            ]),
            if known.differs { YELLOW } else { Style::new() },
        );
        if known.differs {
            let conflict = &it["conflict"];
            let hidden = joined(conflict, "hidden", ", ");
            let said = match hidden.is_empty() {
                true => "  differs between nodes".to_owned(),
                false => format!("  what {hidden} defines is hidden"),
            };
            row.push(Line::styled(said, YELLOW));
        }
        row
    };
    let header = line(["KIND", "KEY", "NODES", "SEEN BY", "SCOPES", "WHAT"]);
    (header, answers::catalog(answer).into_iter().map(item).collect())
}

fn events(answer: &Value, width: usize) -> (String, Vec<Row>) {
    let wider = width.saturating_sub(80) as isize;
    let line = |cells: [&str; 8]| {
        let widths = [8, 22 + wider, 13, -7, -5, -5, -5, -7];
        columns(&std::array::from_fn::<_, 8, _>(|at| (cells[at], widths[at])))
    };
    let header = line(["NODE", "TYPE", "MODES", "STREAMS", "HOOKS", "LAG", "KEPT", "BYTES"]);
    let types = answers::all(answer, "types").into_iter().map(|(node, it)| {
        let log = &it["log"];
        let text_of = line([
            node,
            text(it, "name"),
            &joined(it, "modes", ","),
            &counted(it, "streams"),
            &counted(it, "webhooks"),
            &counted(it, "lag"),
            &counted(log, "entries"),
            &bytes(number(log, "bytes")),
        ]);
        row(text_of, if number(it, "lag") > 0 { YELLOW } else { Style::new() })
    });
    let webhooks = answers::all(answer, "webhooks").into_iter().map(|(node, it)| {
        let cells = [
            (node, 8),
            (text(it, "type"), 22 + wider),
            ("webhook", 8),
            (text(it, "state"), 7),
            (text(it, "url"), 30),
        ];
        let failed = it["state"] == "paused" || !it["lastError"].is_null();
        let mut row = row(columns(&cells), if failed { RED } else { Style::new() });
        let who = text(it, "principal");
        let last = match it["lastDelivery"].as_u64() {
            Some(at) => format!("last delivery at {}", clock(at)),
            None => "nothing delivered".to_owned(),
        };
        let error = text(it, "lastError");
        let said = [who, &last, error].into_iter().filter(|it| !it.is_empty());
        let said = format!("  {}", said.collect::<Vec<_>>().join(", "));
        row.push(Line::styled(said, if failed { RED } else { DIM }));
        row
    });
    let absent = answers::answered(answer).filter(|(_, it)| it["absent"] == true);
    let absent = absent
        .map(|(node, _)| row(columns(&[(node, 8), ("its console shows no events", 40)]), DIM));
    (header, types.chain(webhooks).chain(absent).collect())
}

fn tasks(answer: &Value, width: usize) -> (String, Vec<Row>) {
    let rest = width.saturating_sub(65).max(10) as isize;
    let line = |cells: [&str; 6]| {
        let widths = [15, 14, 16, -5, 10, rest];
        columns(&std::array::from_fn::<_, 6, _>(|at| (cells[at], widths[at])))
    };
    let task = |(_, it): (&str, &Value)| {
        let style = match text(it, "status") {
            "failed" | "cancelled" => RED,
            "input_required" => YELLOW,
            _ => Style::new(),
        };
        let text_of = line([
            text(it, "id"),
            text(it, "status"),
            text(it, "target"),
            &span(number(it, "ageMs")),
            text(it, "principal"),
            text(it, "message"),
        ]);
        row(text_of, style)
    };
    let header = line(["TASK", "STATUS", "TOOL", "AGE", "PRINCIPAL", "MESSAGE"]);
    (header, answers::all(answer, "tasks").into_iter().map(task).collect())
}

fn log(answer: &Value, width: usize) -> (String, Vec<Row>) {
    let rest = width.saturating_sub(48).max(10) as isize;
    let line = |cells: [&str; 4]| {
        let widths = [8, 19, 18, rest];
        columns(&std::array::from_fn::<_, 4, _>(|at| (cells[at], widths[at])))
    };
    let entry = |(node, it): (&str, &Value)| {
        let style = match text(it, "level") {
            "error" => RED,
            "warn" => YELLOW,
            _ => Style::new(),
        };
        let of = match (it["session"].as_str(), it["call"].as_u64()) {
            (Some(session), _) => session.to_owned(),
            (None, Some(call)) => format!("{node} call {call}"),
            _ => node.to_owned(),
        };
        let at = clock(number(it, "at"));
        row(line([&at, text(it, "event"), &of, text(it, "text")]), style)
    };
    let header = line(["TIME UTC", "EVENT", "OF", "WHAT"]);
    (header, answers::log(answer).into_iter().map(entry).collect())
}
