//! Standard output: sentences for people, or one JSON object a line.
//!
//! Invariant: with `--json` nothing but JSON objects reaches standard output. Progress, logs and
//! errors go to standard error.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::CliError;

/// How a command answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether answers are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints an answer in the form that was asked for.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`] if standard output takes nothing more.
    pub(crate) fn answer(
        self,
        value: &impl Serialize,
        sentence: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json {
            self.json_line(value)
        } else {
            self.line(&sentence())
        }
    }

    /// Prints a line that has the form that was asked for.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`] if standard output takes nothing more.
    pub(crate) fn raw(self, line: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Prints a JSON object, whatever was asked for.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`] if standard output takes nothing more.
    pub(crate) fn json_line(self, value: &impl Serialize) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        write_json(&mut out, value)
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Prints a line for people; nothing with `--json`.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`] if standard output takes nothing more.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Prints a line for people on standard error; nothing with `--json`.
    pub(crate) fn aside(self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// Says on standard error what did not end the command: as a sentence, or as a JSON object.
    pub(crate) fn warn(self, text: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "warning": text }));
        } else {
            eprintln!("headwater: {text}");
        }
    }
}

/// Writes one JSON object and a line feed.
///
/// # Errors
///
/// The writer's own.
pub(crate) fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its noun: `1 event`, `1,234 events`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let plural = if number == 1 { "" } else { "s" };
    format!("{text} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(999, "event"), "999 events");
        assert_eq!(count(1_234_567, "author"), "1,234,567 authors");
    }
}
