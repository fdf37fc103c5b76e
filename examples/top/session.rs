//! One session: its counters, its calls, and what became of each message.

use ratatui::style::Style;
use ratatui::text::Line;
use serde_json::Value;

use crate::answers;
use crate::text::{bar, bytes, clock, columns, count, counted, list, number, span, sum, text};
use crate::views::{DIM, RED, YELLOW, client};

/// The lines, for a terminal of this width.
pub(crate) fn lines(answer: &Value, may_act: bool, width: usize) -> Vec<Line<'static>> {
    let found = answers::answered(answer).find(|(_, it)| !it.is_null());
    let Some((node, found)) = found else {
        return vec![Line::styled("This session has ended, or its node did not answer.", RED)];
    };
    let mut lines = identity(node, &found["session"]);
    lines.extend(counters(&found["session"]["frames"]));
    let calls = list(found, "calls");
    lines.push(Line::styled(format!("Calls: {}", calls.len()), DIM));
    lines.extend(calls.iter().map(|it| call(it, width)));
    lines.extend(followed(&found["followed"], may_act, width));
    lines
}

fn identity(node: &str, it: &Value) -> Vec<Line<'static>> {
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    let yes = |name: &str| it[name] == true;
    let mut lines = vec![
        Line::raw(format!(
            "{} on {node}, {} {}, {}",
            text(it, "id"),
            text(it, "era"),
            text(it, "kind"),
            text(it, "version")
        )),
        Line::raw(format!(
            "client {}, principal {}, open for {}, {}",
            or(&client(it), "unknown"),
            or(text(it, "principal"), "none"),
            span(number(it, "ageMs")),
            if yes("attached") { "reads its notices" } else { "does not read its notices now" },
        )),
        Line::raw(format!(
            "{} unread, {} held, {} streams, {} subscriptions, mailbox {}, restarts {}",
            counted(it, "unread"),
            bytes(number(it, "heldBytes")),
            counted(it, "streams"),
            counted(it, "subscriptions"),
            counted(it, "mailbox"),
            counted(it, "recentRestarts"),
        )),
    ];
    if let Some(why) = it["why"].as_str() {
        let slow = it["slow"] == true;
        let said = if slow { format!("slow: {why}") } else { why.to_owned() };
        lines.push(Line::styled(said, if slow { RED } else { DIM }));
    }
    lines
}

/// The counters by class: those classes of which there was something.
fn counters(frames: &Value) -> Vec<Line<'static>> {
    let line = |cells: [&str; 4]| {
        let widths = [18, -10, -10, -10];
        columns(&std::array::from_fn::<_, 4, _>(|at| (cells[at], widths[at])))
    };
    let by_class = ["delivered", "coalesced", "dropped"].map(|it| &frames[it]);
    let classes = by_class[0].as_object().into_iter().flat_map(|it| it.keys());
    let mut lines = vec![Line::styled(line(["CLASS", "DELIVERED", "COALESCED", "DROPPED"]), DIM)];
    for class in classes {
        let counts = by_class.map(|it| number(it, class));
        if counts.iter().any(|it| *it > 0) {
            let [delivered, coalesced, dropped] = counts.map(count);
            let style = if counts[2] > 0 { RED } else { Style::new() };
            lines.push(Line::styled(line([class, &delivered, &coalesced, &dropped]), style));
        }
    }
    let total = by_class.map(|it| count(sum(it)));
    lines.push(Line::raw(line(["all", &total[0], &total[1], &total[2]])));
    lines.push(Line::raw(format!(
        "{} conflated, {} refused, {} streams closed",
        counted(frames, "conflated"),
        counted(frames, "refused"),
        counted(frames, "closed"),
    )));
    lines
}

fn call(it: &Value, width: usize) -> Line<'static> {
    let progress = &it["progress"];
    let done = progress["progress"].as_f64();
    let gauge = match (done, progress["total"].as_f64()) {
        (Some(done), Some(total)) if total > 0.0 => {
            let percent = (done / total * 100.0).clamp(0.0, 100.0);
            format!("{} {percent:>3.0}%", bar(done, total, 20))
        }
        (Some(done), _) => format!("at {done}"),
        _ => "no progress".to_owned(),
    };
    let rest = width.saturating_sub(59).max(8) as isize;
    let call = format!("  {}", number(it, "call"));
    Line::raw(columns(&[
        (&call, 8),
        (text(it, "method"), 16),
        (text(it, "target"), rest),
        (&span(number(it, "ageMs")), -5),
        (&gauge, 26),
    ]))
}

fn followed(it: &Value, may_act: bool, width: usize) -> Vec<Line<'static>> {
    if it["on"] != true {
        let how = if may_act { "f notes" } else { "who may act can note" };
        let said = format!("Messages: not followed; {how} what becomes of each from now on.");
        return vec![Line::styled(said, DIM)];
    }
    let entries = list(it, "entries");
    let until = clock(number(it, "until"));
    let said = format!(
        "Messages: the last {}, until {until} UTC; {} older ones are forgotten",
        entries.len(),
        number(it, "missed"),
    );
    let rest = width.saturating_sub(60).max(10) as isize;
    let line = |cells: [&str; 6]| {
        let widths = [8, 4, 21, 9, -6, rest + 7];
        columns(&std::array::from_fn::<_, 6, _>(|at| (cells[at], widths[at])))
    };
    let mut lines = vec![Line::styled(said, DIM)];
    lines.push(Line::styled(line(["TIME UTC", "SEQ", "WHAT", "BECAME", "AFTER", "WHY"]), DIM));
    // The newest first.
    lines.extend(entries.iter().rev().map(|it| {
        let style = match text(it, "became") {
            "dropped" | "closed" => RED,
            "refused" | "conflated" | "coalesced" | "filtered" | "waits" => YELLOW,
            _ => Style::new(),
        };
        let what = match text(it, "what") {
            "" => text(it, "class"),
            what => what.strip_prefix("notifications/").unwrap_or(what),
        };
        let said = line([
            &clock(number(it, "at")),
            &it["seq"].as_u64().map(count).unwrap_or_default(),
            what,
            text(it, "became"),
            &span(number(it, "took")),
            text(it, "why"),
        ]);
        Line::styled(said, style)
    }));
    lines
}
