//! Draws what is shown.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Sparkline};
use serde_json::Value;

use crate::answers;
use crate::app::{App, Tab};
use crate::session;
use crate::text::{clock, count, list, number, text};
use crate::views::{self, DIM, RED, Row, YELLOW};

const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// Nodes that did not answer, above other lists than theirs.
const MAX_ERRORS: usize = 3;

const HELP: [&str; 12] = [
    "1-6, Tab     another view",
    "n            the next node alone, then all again",
    "arrows, j k  another row; PgUp PgDn Home End",
    "Enter        open the session",
    "Esc          back; forget the search",
    "/            search sessions: an id, client or principal",
    "f            follow the open session, or end that:",
    "             what becomes of each message, and why",
    "q, Ctrl-C    end",
    "",
    "HELD are bytes that wait for clients, of the budget.",
    "RST are restarts of actors within the last minute.",
];

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    let areas = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
    let [top, body, bottom] = Layout::vertical(areas).areas(frame.area());
    frame.render_widget(Paragraph::new(tabs(app)), top);
    frame.render_widget(Paragraph::new(status(app)), bottom);
    match (&app.answer, app.tab) {
        (None, _) => frame.render_widget(Paragraph::new(Line::styled("asking ...", DIM)), body),
        (Some(answer), Tab::Overview) => overview(frame, app, answer, body),
        (Some(answer), _) => list_of(frame, app, answer, body),
    }
    if app.helps {
        help(frame);
    }
}

fn tabs(app: &App) -> Line<'static> {
    let mut spans: Vec<_> = Tab::ALL
        .into_iter()
        .enumerate()
        .map(|(at, tab)| {
            let style = if tab == app.tab { CHOSEN } else { Style::new() };
            Span::styled(format!(" {} {tab:?} ", at + 1), style)
        })
        .collect();
    let node = app.node.as_deref().map_or("all nodes".to_owned(), |it| format!("node {it}"));
    spans.push(Span::styled(format!("  {node}"), BOLD));
    Line::from(spans)
}

fn status(app: &App) -> Line<'static> {
    if let Some(why) = &app.away {
        let times = if app.tried == 1 { "" } else { ", and goes on trying" };
        return Line::styled(format!("no answer ({}){times}: {why}", app.tried), RED);
    }
    if app.is_searching {
        return Line::raw(format!("/{}_  Enter keeps it, Esc forgets it", app.search));
    }
    if let Some(notice) = &app.notice {
        return Line::styled(notice.clone(), YELLOW);
    }
    let server = &app.me["server"];
    let at = app.answer.as_ref().map(|it| clock(number(it, "at"))).unwrap_or_default();
    let mut said = format!("{} {}  {at} UTC", text(server, "name"), text(server, "version"));
    if !app.search.is_empty() && app.tab == Tab::Sessions {
        said.push_str(&format!("  search: {}", app.search));
    }
    if app.tab == Tab::Log && app.selected > 0 {
        said.push_str("  it stands still; End goes on");
    }
    if app.missed > 0 {
        said.push_str(&format!("  {} not shown", count(app.missed)));
    }
    Line::styled(format!("{said}  ? help  q end"), DIM)
}

/// The rows of the page on which the chosen one is, and those on which lines of it are.
fn page(rows: Vec<Row>, chosen: usize, height: usize) -> Vec<Line<'static>> {
    let (mut page, mut lines) = (Vec::new(), 0);
    for (at, mut row) in rows.into_iter().enumerate() {
        if lines + row.len() > height && !page.is_empty() {
            if at > chosen {
                break;
            }
            (page, lines) = (Vec::new(), 0);
        }
        if at == chosen {
            row = row.into_iter().map(|line| line.patch_style(CHOSEN)).collect();
        }
        lines += row.len();
        page.extend(row);
    }
    page
}

fn overview(frame: &mut Frame<'_>, app: &App, answer: &Value, area: Rect) {
    let (header, rows) = views::rows(app, answer, area.width.into());
    let wanted = u16::try_from(rows.len()).unwrap_or(u16::MAX).saturating_add(1);
    let chart = if area.height >= 16 { 5 } else { 0 };
    let most = area.height.saturating_sub(2 * chart + 1).max(2);
    let areas = [
        Constraint::Length(wanted.min(most)),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let [nodes, about, delivered, lost] = Layout::vertical(areas).areas(area);
    let mut lines = vec![Line::styled(header, BOLD)];
    lines.extend(page(rows, app.selected, nodes.height.saturating_sub(1).into()));
    frame.render_widget(Paragraph::new(lines), nodes);
    let chosen = list(answer, "nodes").get(app.selected);
    let said = chosen.filter(|it| it.get("error").is_none()).map(views::about);
    frame.render_widget(Paragraph::new(Line::styled(said.unwrap_or_default(), DIM)), about);
    let rates = &app.rates;
    let named = |name, rates: &std::collections::VecDeque<u64>| {
        let most = rates.iter().max().copied().unwrap_or(0);
        format!("{name}: {}, at most {}", count(rates.back().copied().unwrap_or(0)), count(most))
    };
    for (title, rates, style, area) in [
        ("Frames delivered a second", &rates.delivered, Style::new(), delivered),
        ("Dropped, and streams closed, a second", &rates.lost, RED, lost),
    ] {
        let shown = rates.iter().skip(rates.len().saturating_sub(area.width.into())).copied();
        let block = Block::new().borders(Borders::TOP).title(named(title, rates));
        let data: Vec<_> = shown.collect();
        frame.render_widget(Sparkline::default().data(&data).style(style).block(block), area);
    }
}

/// Any other view: a list, or one session.
fn list_of(frame: &mut Frame<'_>, app: &App, answer: &Value, area: Rect) {
    let (width, mut height) = (usize::from(area.width), usize::from(area.height));
    let errors = answers::errors(answer).take(MAX_ERRORS);
    let mut lines: Vec<_> =
        errors.map(|(node, why)| Line::styled(format!("{node}: {why}"), RED)).collect();
    if list(answer, "nodes").is_empty() {
        lines.push(Line::styled("there is no such node now", RED));
    }
    height = height.saturating_sub(lines.len());
    if app.opened.is_some() {
        let session = session::lines(answer, app.me["mayAct"] == true, width);
        let first = app.selected.min(session.len().saturating_sub(height));
        lines.extend(session.into_iter().skip(first).take(height));
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    let (header, mut rows) = views::rows(app, answer, width);
    height = height.saturating_sub(1);
    lines.push(Line::styled(header, BOLD));
    if rows.is_empty() {
        lines.push(Line::styled("nothing", DIM));
    }
    if app.tab == Tab::Log {
        // The chosen entry is the last one that is shown.
        rows.truncate(rows.len().saturating_sub(app.selected).max(height.min(rows.len())));
        lines.extend(rows.drain(rows.len().saturating_sub(height)..).flatten());
    } else {
        let hidden = hidden(app, answer);
        height = height.saturating_sub(usize::from(hidden > 0));
        lines.extend(page(rows, app.selected, height));
        if hidden > 0 {
            lines.push(Line::styled(format!("and {} more", count(hidden)), DIM));
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many there are that the answer does not have.
fn hidden(app: &App, answer: &Value) -> u64 {
    let of_node = |(_, it): (&str, &Value)| match app.tab {
        Tab::Sessions => number(it, "found").saturating_sub(list(it, "sessions").len() as u64),
        _ => number(it, "more"),
    };
    answers::answered(answer).map(of_node).sum()
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (area.width.min(58), area.height.min(HELP.len() as u16 + 2));
    let (x, y) = ((area.width - width) / 2, (area.height - height) / 2);
    let popup = Rect { x: area.x + x, y: area.y + y, width, height };
    let block = Block::new().borders(Borders::ALL).title(" Keys (any key closes this) ");
    frame.render_widget(Clear, popup);
    frame.render_widget(Paragraph::new(HELP.map(Line::raw).to_vec()).block(block), popup);
}
