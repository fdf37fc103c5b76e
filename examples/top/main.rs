//! A terminal view of an MCP server and of its cluster, from the JSON of its console
//! (`docs/CONSOLE.md`): nodes, sessions, catalog, events, tasks and the log. It asks once a second
//! for what it shows, and for nothing else.
//!
//!     cargo run --release -p stentor-top --example top -- [URL] [--once] [--header 'Name: value']...
//!
//! The URL is that of the console, by default `http://127.0.0.1:7667/`. `--once` prints the overview
//! as text, and ends. A header is for a console that wants to know who looks
//! (`ConsoleConfig::operator`). `?` shows the keys.
//!
//! Exit code: 0; with `--once` 1 if a node did not answer; 2 for usage, and if there is no answer
//! or no terminal.

mod answers;
mod app;
mod client;
mod draw;
mod session;
#[cfg(test)]
mod tests;
mod text;
mod views;

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use app::{App, Wanted};
use client::Client;

const USAGE: &str = "usage: top [URL] [--once] [--header 'Name: value']...";
/// Where a console usually is.
const USUAL: &str = "http://127.0.0.1:7667/";
/// From one question to the next.
const EVERY: Duration = Duration::from_secs(1);
/// The same, if somebody waits for the answer.
const SOON: Duration = Duration::from_millis(100);

struct Options {
    client: Client,
    once: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut url, mut once, mut headers) = (None, false, Vec::new());
    while let Some(arg) = args.next() {
        if arg == "--once" {
            once = true;
        } else if arg == "--header" {
            headers.push(args.next().ok_or("--header needs 'Name: value'")?);
        } else if arg.starts_with('-') || url.is_some() {
            return Err(format!("unexpected argument: {arg}"));
        } else {
            url = Some(arg);
        }
    }
    let client = Client::new(url.as_deref().unwrap_or(USUAL), &headers)?;
    Ok(Options { client, once })
}

/// The overview as text, and whether all nodes answered.
async fn overview(client: &Client) -> Result<(String, bool), String> {
    let answer = client.ask(&Wanted::Answer("overview".to_owned())).await;
    let answer = answer.map_err(|why| format!("no answer from {}: {why}", client.url()))?;
    let longest = answers::names(&answer).iter().map(|it| it.chars().count()).max();
    let (header, rows) = views::overview(&answer, longest.unwrap_or(0).clamp(8, 40));
    let mut text = header + "\n";
    for line in rows.iter().flatten() {
        text += &format!("{line}\n");
    }
    Ok((text, answers::errors(&answer).next().is_none()))
}

type Asking = Pin<Box<dyn Future<Output = Result<Value, String>>>>;

async fn watch(client: &Client, terminal: &mut DefaultTerminal) -> Result<(), String> {
    let mut app = App::new();
    let mut keys = keys();
    let mut asking: Option<(Wanted, Asking)> = None;
    let mut asked = Instant::now();
    let mut next = asked;
    let mut told = std::pin::pin!(told_to_end());
    while !app.ended {
        terminal.draw(|frame| draw::draw(frame, &app)).map_err(|error| error.to_string())?;
        if let Some((other, _)) = &asking
            && *other != app.wanted()
            && !matches!(other, Wanted::Action(_))
        {
            // Nobody looks at it any more.
            asking = None;
        }
        if app.is_pressing() {
            next = next.min(asked + SOON);
        }
        if asking.is_none() && next <= Instant::now() {
            asked = Instant::now();
            next = asked + EVERY;
            let (wanted, client) = (app.wanted(), client.clone());
            let asks = wanted.clone();
            asking = Some((wanted, Box::pin(async move { client.ask(&asks).await })));
        }
        let waits = asking.is_some();
        let answer = async {
            match &mut asking {
                Some((_, asking)) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) => app.on_key(key),
                Some(_) => {}
                None => return Err("the terminal cannot be read".to_owned()),
            },
            answer = answer => {
                if let Some((wanted, _)) = asking.take() {
                    app.on_answer(&wanted, answer);
                }
            }
            () = tokio::time::sleep_until(next), if !waits => {}
            () = &mut told => return Ok(()),
        }
    }
    Ok(())
}

/// What happens at the terminal, read by a thread of its own, since that waits.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Another process tells this one to end.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

async fn run(options: Options) -> Result<bool, String> {
    if options.once {
        let (text, complete) = overview(&options.client).await?;
        // A reader of a pipe that has gone does not want the rest.
        let _ = io::stdout().write_all(text.as_bytes());
        return Ok(complete);
    }
    if !io::stdout().is_terminal() {
        return Err("the output is no terminal; try --once".to_owned());
    }
    // It also restores the terminal after a panic.
    let mut terminal =
        ratatui::try_init().map_err(|error| format!("no terminal ({error}); try --once"))?;
    let ended = watch(&options.client, &mut terminal).await;
    ratatui::restore();
    ended.map(|()| true)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let ended = match parse(args) {
        Ok(options) => run(options).await,
        Err(error) => Err(format!("{error}\n{USAGE}")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("top: {error}");
            ExitCode::from(2)
        }
    }
}
