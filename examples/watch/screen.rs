//! The output: bars at the bottom, lines above them. Without a terminal, only lines.

use std::io::{self, Write as _};
use std::process::exit;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rmcp::model::{LoggingMessageNotificationParam, ProgressNotificationParam};

pub(crate) struct Screen(MultiProgress);

impl Screen {
    pub(crate) fn new() -> Self {
        Self(MultiProgress::with_draw_target(ProgressDrawTarget::stdout()))
    }

    pub(crate) fn line(&self, text: &str) {
        let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
        // `println!` would panic when the reader of a pipe has disconnected.
        if self.0.suspend(|| writeln!(io::stdout(), "{text}")).is_err() {
            exit(1);
        }
    }

    pub(crate) fn log(&self, message: LoggingMessageNotificationParam) {
        let level = format!("{:?}", message.level).to_lowercase();
        let logger = message.logger.map(|logger| format!(" {logger}:")).unwrap_or_default();
        let data = message.data.as_str().map_or(message.data.to_string(), str::to_owned);
        self.line(&format!("[{level}]{logger} {data}"));
    }

    /// A spinner, until a total is known.
    pub(crate) fn bar(&self, label: String) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new_spinner().with_prefix(label));
        bar.set_style(style("{prefix:.bold} {spinner} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// One line that each beat replaces; without a terminal, a line for each.
    pub(crate) fn beat(&self, bar: &ProgressBar, text: &str) {
        if self.0.is_hidden() {
            return self.line(text);
        }
        bar.set_message(text.to_owned());
    }

    pub(crate) fn progress(&self, bar: &ProgressBar, p: ProgressNotificationParam) {
        let round = |n: f64| (n * 100.0).round() / 100.0;
        let total = p.total.map(|total| format!("/{}", round(total))).unwrap_or_default();
        let message = p.message.unwrap_or_default().replace(char::is_control, " ");
        let text = format!("{}{total} {message}", round(p.progress)).trim_end().to_owned();
        if self.0.is_hidden() {
            return self.line(&format!("{} {text}", bar.prefix()));
        }
        if let Some(total) = p.total {
            bar.set_style(style("{prefix:.bold} [{bar:32.cyan/blue}] {wide_msg}"));
            bar.set_length(1000); // progress may be fractions of 1; a bar needs whole steps
            bar.set_position((p.progress / total * 1000.0) as u64);
        }
        bar.set_message(text);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
