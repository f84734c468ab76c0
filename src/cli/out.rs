//! What the command prints, and how it ends.
//!
//! Invariants: with `--format json` exactly one object with the key `v` goes to stdout, errors
//! included; text errors go to stderr; exit codes are part of the interface.

use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How a command ends; the numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// No node of the cluster answers.
    Unreachable = 3,
    /// Something named is not there, or is there already.
    NotFound = 4,
    /// Refused, because it would not be safe.
    Refused = 5,
    /// Done, and something is wrong with the cluster.
    Degraded = 6,
    /// Time ran out; the outcome is unknown.
    Timeout = 7,
    /// A signal ended it, in good order.
    Interrupted = 130,
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How to end.
    pub exit: Exit,
    /// For programs.
    pub code: &'static str,
    /// For people: cause and remedy.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, code: &'static str, message: impl ToString) -> Failure {
        Failure { exit, code, message: message.to_string() }
    }
}

/// A command's result: what to print in either format, and how to end.
#[derive(Clone, Debug)]
pub struct Output {
    /// For `--format text`, without the last line feed.
    pub text: String,
    /// For `--format json`; `v` is added.
    pub json: Map<String, Value>,
    /// How to end.
    pub exit: Exit,
}

impl Output {
    /// A result that ends well. `json` is an object.
    ///
    /// # Panics
    /// If it is not.
    pub fn new(text: String, json: Value) -> Output {
        let Value::Object(json) = json else { panic!("a command prints an object") };
        Output { text, json, exit: Exit::Ok }
    }

    /// Everything was said already.
    pub fn nothing() -> Output {
        Output { text: String::new(), json: Map::new(), exit: Exit::Ok }
    }

    /// The same with another end.
    #[must_use]
    pub fn ending(self, exit: Exit) -> Output {
        Output { exit, ..self }
    }
}

/// Prints the result; the exit code.
pub fn finish(format: Format, result: Result<Output, Failure>) -> ExitCode {
    let (exit, printed) = match (format, result) {
        (Format::Text, Ok(output)) if output.text.is_empty() => (output.exit, Ok(())),
        (Format::Text, Ok(output)) => (output.exit, write(&output.text)),
        (Format::Json, Ok(Output { json, exit, .. })) if json.is_empty() => (exit, Ok(())),
        (Format::Json, Ok(Output { mut json, exit, .. })) => {
            json.insert("v".into(), 1.into());
            (exit, write(&Value::Object(json).to_string()))
        }
        (Format::Text, Err(failure)) => {
            say(&format!("chainring: {}", failure.message));
            (failure.exit, Ok(()))
        }
        (Format::Json, Err(failure)) => (failure.exit, write(&failure_json(&failure).to_string())),
    };
    match printed {
        Ok(()) => ExitCode::from(exit as u8),
        Err(error) => {
            say(&format!("chainring: the result cannot be written: {error}"));
            ExitCode::from(Exit::Failed as u8)
        }
    }
}

fn failure_json(failure: &Failure) -> Value {
    let Failure { exit, code, message } = failure;
    json!({ "v": 1, "error": { "code": code, "message": message, "exit": *exit as u8 } })
}

/// Prints a line, if it can be.
pub fn print(line: &str) {
    let _ = write(line);
}

/// Prints a line; a reader that went away (`| head`) is no error, a full disk is one.
fn write(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.or_else(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

/// Says something on stderr, whether or not somebody listens.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says something on stderr, if somebody looks at it.
pub fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        say(line);
    }
}

/// Lines of a table, columns aligned; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [["A", "LONG"], ["wide cell", "x"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        assert_eq!(table(&rows), "A          LONG\nwide cell  x");
    }
}
