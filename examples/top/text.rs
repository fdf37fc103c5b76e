//! Words and numbers as they are printed: without control characters, and in columns.

use ratatui::text::Span;
use serde_json::Value;

/// Characters of one text that are kept.
const MAX_TEXT: usize = 1_000;

/// Whether a terminal could take a character as a command, or show what follows in another order.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text without anything that is no letter, and not longer than is of use.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if is_unsafe(c) { ' ' } else { c }).collect()
}

/// Cleans all texts of an answer, also the names of its members.
pub(crate) fn clean_all(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MAX_TEXT || text.contains(is_unsafe) => {
            *text = clean(text);
        }
        Value::Array(values) => values.iter_mut().for_each(clean_all),
        Value::Object(members) => {
            if members.keys().any(|it| it.len() > MAX_TEXT || it.contains(is_unsafe)) {
                let cleaned = std::mem::take(members).into_iter();
                *members = cleaned.map(|(name, value)| (clean(&name), value)).collect();
            }
            members.values_mut().for_each(clean_all);
        }
        _ => {}
    }
}

/// A member as text; nothing if it has none.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

/// The elements of a member; none if it is no array.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a member, in one.
pub(crate) fn joined(value: &Value, name: &str, between: &str) -> String {
    let texts: Vec<_> = list(value, name).iter().filter_map(Value::as_str).collect();
    texts.join(between)
}

/// The sum of the numbers of an object, or the number.
pub(crate) fn sum(value: &Value) -> u64 {
    match value {
        Value::Object(members) => {
            members.values().filter_map(Value::as_u64).fold(0, u64::saturating_add)
        }
        _ => value.as_u64().unwrap_or_default(),
    }
}

/// A number in at most five characters.
pub(crate) fn count(number: u64) -> String {
    match number {
        0..=99_999 => number.to_string(),
        100_000..=9_999_999 => format!("{}k", number / 1_000),
        10_000_000..=9_999_999_999 => format!("{}M", number / 1_000_000),
        10_000_000_000..=9_999_999_999_999 => format!("{}G", number / 1_000_000_000),
        _ => "many".to_owned(),
    }
}

/// A member that is a number, or a dash.
pub(crate) fn counted(value: &Value, name: &str) -> String {
    value[name].as_u64().map_or_else(|| "-".to_owned(), count)
}

pub(crate) fn bytes(bytes: u64) -> String {
    let (mut left, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if left < 1_000.0 {
            break;
        }
        (left, unit) = (left / 1_024.0, larger);
    }
    if unit == "B" || left >= 10.0 {
        format!("{left:.0} {unit}")
    } else {
        format!("{left:.1} {unit}")
    }
}

/// A time in two or three digits and a unit.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The time of the day, in UTC.
pub(crate) fn clock(at: u64) -> String {
    let seconds = at / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// How full something is, as a bar of this width.
pub(crate) fn bar(part: f64, whole: f64, width: usize) -> String {
    let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
    let full = (share * width as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(width - full.min(width)))
}

fn width(c: char) -> usize {
    Span::raw(c.encode_utf8(&mut [0; 4]) as &str).width()
}

/// A text in exactly so many columns of the terminal, cut if it is longer.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let mut fitted = String::new();
    let (mut used, mut cut) = (0, 0);
    for c in text.chars() {
        let wide = width(c);
        if used + wide > columns {
            // The last letters make place for the sign that something is cut.
            fitted.truncate(cut);
            used = fitted.chars().map(width).sum();
            if used < columns {
                fitted.push('…');
                used += 1;
            }
            break;
        }
        if used + wide < columns {
            cut = fitted.len() + c.len_utf8();
        }
        fitted.push(c);
        used += wide;
    }
    fitted.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
    fitted
}

/// Texts beside each other; numbers (a negative width) on the right of their column.
pub(crate) fn columns(cells: &[(&str, isize)]) -> String {
    let cells = cells.iter().map(|(text, width)| {
        let columns = width.unsigned_abs();
        let fitted = fit(text, columns);
        match *width < 0 {
            true => {
                let trimmed = fitted.trim_end_matches(' ');
                format!("{}{trimmed}", &fitted[trimmed.len()..])
            }
            false => fitted,
        }
    });
    let line = cells.collect::<Vec<_>>().join(" ");
    line.trim_end().to_owned()
}
