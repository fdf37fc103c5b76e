//! What is shown, and what keys and answers change of it. It waits for nothing and prints nothing.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use crate::answers::{self, Rates};
use crate::client::encoded;
use crate::text::{list, number, text};

/// Letters of a search.
const MAX_SEARCH: usize = 64;
/// Rows of a page.
const PAGE: usize = 10;
/// Lines of a session beside its calls and messages.
const SESSION_LINES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tab {
    Overview,
    Sessions,
    Catalog,
    Events,
    Tasks,
    Log,
}

impl Tab {
    pub(crate) const ALL: [Self; 6] =
        [Self::Overview, Self::Sessions, Self::Catalog, Self::Events, Self::Tasks, Self::Log];
}

/// What the console is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// The answer with this name and these parameters.
    Answer(String),
    Action(Value),
}

pub(crate) struct App {
    pub(crate) tab: Tab,
    /// The one node that is shown; `None` for all.
    pub(crate) node: Option<String>,
    nodes: Vec<String>,
    /// Who looks, and at which server.
    pub(crate) me: Value,
    /// The last answer to what is shown, and to what it is one.
    pub(crate) answer: Option<Value>,
    answers: String,
    /// The row that is chosen; of the log, how many from its end.
    pub(crate) selected: usize,
    pub(crate) search: String,
    pub(crate) is_searching: bool,
    /// The node and the id of the session that is shown alone.
    pub(crate) opened: Option<(String, String)>,
    pub(crate) helps: bool,
    /// Why the console does not answer.
    pub(crate) away: Option<String>,
    /// How often it did not.
    pub(crate) tried: usize,
    pub(crate) notice: Option<String>,
    pub(crate) rates: Rates,
    /// Entries of the log that were not shown.
    pub(crate) missed: u64,
    action: Option<Value>,
    pub(crate) ended: bool,
}

impl App {
    pub(crate) fn new() -> Self {
        Self {
            tab: Tab::Overview,
            node: None,
            nodes: Vec::new(),
            me: Value::Null,
            answer: None,
            answers: String::new(),
            selected: 0,
            search: String::new(),
            is_searching: false,
            opened: None,
            helps: false,
            away: None,
            tried: 0,
            notice: None,
            rates: Rates::default(),
            missed: 0,
            action: None,
            ended: false,
        }
    }

    /// What is to be asked next.
    pub(crate) fn wanted(&self) -> Wanted {
        match &self.action {
            Some(action) => Wanted::Action(action.clone()),
            None if self.me.is_null() => Wanted::Answer("me".to_owned()),
            None => Wanted::Answer(self.shown()),
        }
    }

    /// Whether somebody waits for an answer that is not there.
    pub(crate) fn is_pressing(&self) -> bool {
        let waits = self.me.is_null() || self.action.is_some() || self.answers != self.shown();
        self.away.is_none() && waits
    }

    /// The name and the parameters of what is shown.
    fn shown(&self) -> String {
        let asked = match (self.tab, &self.opened) {
            (Tab::Sessions, Some((node, id))) => {
                return format!("session?id={}&node={}", encoded(id), encoded(node));
            }
            (Tab::Overview, _) => "overview?".to_owned(),
            (Tab::Sessions, None) => {
                format!("sessions?order=slow&limit=100&text={}", encoded(&self.search))
            }
            (Tab::Catalog, _) => "catalog?".to_owned(),
            (Tab::Events, _) => "events?".to_owned(),
            (Tab::Tasks, _) => "tasks?".to_owned(),
            (Tab::Log, _) => "log?limit=200".to_owned(),
        };
        match &self.node {
            Some(node) => format!("{asked}&node={}", encoded(node)),
            None => asked,
        }
    }

    pub(crate) fn on_answer(&mut self, wanted: &Wanted, answer: Result<Value, String>) {
        let asked = match wanted {
            Wanted::Answer(asked) => asked,
            Wanted::Action(_) => {
                self.action = None;
                self.answers.clear();
                self.notice = Some(match answer {
                    Ok(done) => text(&done, "done").to_owned(),
                    Err(error) => error,
                });
                return;
            }
        };
        let answer = answer.and_then(|it| match it["version"].as_u64() {
            Some(1) => Ok(it),
            version => Err(format!("this reads version 1 of its JSON, and it has {version:?}")),
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                (self.away, self.tried) = (Some(error), self.tried.saturating_add(1));
                // It may be another one when it is there again.
                self.me = Value::Null;
                return;
            }
        };
        if asked == "me" {
            self.me = answer;
            return;
        }
        (self.away, self.tried) = (None, 0);
        if *asked == self.shown() {
            self.show(answer);
            self.answers.clone_from(asked);
        }
    }

    fn show(&mut self, answer: Value) {
        match self.tab {
            Tab::Overview => self.rates.add(&answer),
            Tab::Log => {
                let missed = answers::answered(&answer).map(|(_, it)| number(it, "missed"));
                self.missed = self.missed.saturating_add(missed.sum());
                // While somebody reads older entries, they stay where they are.
                if self.selected > 0 && self.answer.is_some() {
                    return;
                }
            }
            _ => {}
        }
        if self.node.is_none() && self.opened.is_none() {
            self.nodes = answers::names(&answer);
        }
        let chosen = self.chosen().map(|(node, id)| (node.to_owned(), id.to_owned()));
        self.answer = Some(answer);
        let answer = self.answer.as_ref();
        if let (Some((node, id)), Some(answer)) = (chosen, answer) {
            // The same session stays chosen where it is now.
            let mut sessions = answers::sessions(answer).into_iter();
            let at = sessions.position(|(of, it)| of == node && text(it, "id") == id);
            self.selected = at.unwrap_or(self.selected);
        }
        self.selected = self.selected.min(self.rows().saturating_sub(1));
    }

    /// The node and the id of the session that is chosen.
    fn chosen(&self) -> Option<(&str, &str)> {
        if self.tab != Tab::Sessions || self.opened.is_some() {
            return None;
        }
        let sessions = answers::sessions(self.answer.as_ref()?);
        sessions.get(self.selected).map(|(node, it)| (*node, text(it, "id")))
    }

    /// How many rows there are to choose from.
    fn rows(&self) -> usize {
        let Some(answer) = &self.answer else { return 0 };
        match (self.tab, &self.opened) {
            (Tab::Overview, _) => list(answer, "nodes").len(),
            (Tab::Sessions, None) => answers::all(answer, "sessions").len(),
            (Tab::Sessions, Some(_)) => {
                let lines = answers::answered(answer).map(|(_, it)| {
                    list(it, "calls").len() + list(&it["followed"], "entries").len()
                });
                SESSION_LINES + lines.sum::<usize>()
            }
            (Tab::Catalog, _) => answers::catalog(answer).len(),
            (Tab::Events, _) => {
                answers::all(answer, "types").len() + answers::all(answer, "webhooks").len()
            }
            (Tab::Tasks, _) => answers::all(answer, "tasks").len(),
            (Tab::Log, _) => answers::all(answer, "entries").len(),
        }
    }

    /// Something else is shown from now on.
    fn turn(&mut self) {
        (self.answer, self.selected, self.missed) = (None, 0, 0);
        (self.notice, self.is_searching) = (None, false);
        self.answers.clear();
    }

    fn turn_to(&mut self, tab: Tab) {
        (self.tab, self.opened) = (tab, None);
        self.turn();
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            self.ended = true;
        } else if self.is_searching {
            self.on_search(key.code);
        } else if key.code == KeyCode::Char('q') {
            self.ended = true;
        } else if self.helps {
            self.helps = false;
        } else if !control {
            self.on_command(key.code);
        }
    }

    fn on_search(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) if self.search.chars().count() < MAX_SEARCH => {
                self.search.push(letter);
                self.selected = 0;
            }
            KeyCode::Backspace => drop(self.search.pop()),
            KeyCode::Enter => self.is_searching = false,
            KeyCode::Esc => {
                self.is_searching = false;
                self.search.clear();
            }
            _ => {}
        }
    }

    fn on_command(&mut self, key: KeyCode) {
        let at = self.tab as usize;
        let last = self.rows().saturating_sub(1);
        // The newest entry of the log is at the end.
        let (up, down) = match self.tab {
            Tab::Log => (self.selected.saturating_add(1), self.selected.saturating_sub(1)),
            _ => (self.selected.saturating_sub(1), self.selected.saturating_add(1)),
        };
        let (far_up, far_down) = match self.tab {
            Tab::Log => (self.selected.saturating_add(PAGE), self.selected.saturating_sub(PAGE)),
            _ => (self.selected.saturating_sub(PAGE), self.selected.saturating_add(PAGE)),
        };
        let (first, end) = if self.tab == Tab::Log { (last, 0) } else { (0, last) };
        match key {
            KeyCode::Char('?') => self.helps = true,
            KeyCode::Char(digit @ '1'..='6') => {
                self.turn_to(Tab::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Tab => self.turn_to(Tab::ALL[(at + 1) % Tab::ALL.len()]),
            KeyCode::BackTab => self.turn_to(Tab::ALL[(at + 5) % Tab::ALL.len()]),
            KeyCode::Char('n') => self.next_node(),
            KeyCode::Char('/') if self.tab == Tab::Sessions && self.opened.is_none() => {
                self.is_searching = true;
            }
            KeyCode::Up | KeyCode::Char('k') => self.selected = up.min(last),
            KeyCode::Down | KeyCode::Char('j') => self.selected = down.min(last),
            KeyCode::PageUp => self.selected = far_up.min(last),
            KeyCode::PageDown => self.selected = far_down.min(last),
            KeyCode::Home | KeyCode::Char('g') => self.selected = first,
            KeyCode::End | KeyCode::Char('G') => self.selected = end,
            KeyCode::Enter => {
                let chosen = self.chosen().map(|(node, id)| (node.to_owned(), id.to_owned()));
                if let Some(chosen) = chosen {
                    self.turn();
                    self.opened = Some(chosen);
                }
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                if self.opened.take().is_some() {
                    self.turn();
                } else if !self.search.is_empty() {
                    self.search.clear();
                }
            }
            KeyCode::Char('f') => self.follow(),
            _ => {}
        }
    }

    /// The next node alone, and after the last one all of them.
    fn next_node(&mut self) {
        let next = match &self.node {
            None => 0,
            Some(node) => self.nodes.iter().take_while(|it| *it <= node).count(),
        };
        self.node = self.nodes.get(next).cloned();
        (self.opened, self.rates) = (None, Rates::default());
        self.turn();
    }

    /// Follows the session that is open, or ends that.
    fn follow(&mut self) {
        let (Some((node, id)), Some(answer)) = (&self.opened, &self.answer) else { return };
        if self.me["mayAct"] != true {
            self.notice = Some("you may only look: see ConsoleConfig::actions".to_owned());
            return;
        }
        let is_followed = answers::answered(answer).any(|(_, it)| it["followed"]["on"] == true);
        let action = if is_followed { "unfollow" } else { "follow" };
        self.action = Some(json!({"node": node, "action": action, "session": id}));
    }
}
