//! Where things are written: data on standard output, all else on standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maxhost_model::text::{json_line, one_line};
use maxhost_model::{Code, Problem};
use serde_json::{Value, json};

use crate::cli::{Color, Global};

/// How this call of the program speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    color: bool,
    color_out: bool,
}

impl Output {
    /// As the options say.
    pub fn new(global: &Global) -> Output {
        let wanted = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Output {
            json: global.json,
            color: wanted(std::io::stderr().is_terminal()),
            color_out: wanted(std::io::stdout().is_terminal()),
        }
    }

    /// For a command line that was not understood, or that asks for help: nobody has parsed its options.
    pub fn unparsed(json: bool) -> Output {
        Output { json, color: false, color_out: false }
    }

    /// Whether programs read this.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether the log may have colours.
    pub fn is_colored(self) -> bool {
        self.color
    }

    /// One thing: an object for programs, a text for people.
    pub fn object(self, value: &Value, text: impl FnOnce() -> String) {
        if self.json {
            self.json(value);
        } else {
            self.data(&text());
        }
    }

    /// A list: one object a line for programs, a table for people.
    pub fn list(self, values: &[Value], header: &[&str], row: impl Fn(&Value) -> Vec<String>) {
        if self.json {
            values.iter().for_each(|value| self.json(value));
            return;
        }
        let line = |value| row(value).iter().map(|cell| one_line(cell).into_owned()).collect();
        let rows: Vec<Vec<String>> = values.iter().map(line).collect();
        self.data(&self.table(header, &rows));
    }

    /// A value in a line of its own.
    pub fn json(self, value: &Value) {
        self.data(&json_line(value.to_string()));
    }

    /// A line of data, which may be several. Ends the program if it cannot be written: whatever comes later would follow a
    /// gap.
    pub fn data(self, text: &str) {
        let mut out = std::io::stdout().lock();
        if let Err(problem) = written(writeln!(out, "{text}").and_then(|()| out.flush())) {
            self.problem(&problem);
            std::process::exit(problem.class().exit_code().into());
        }
    }

    /// A remark for people; programs do not get it.
    pub fn note(self, text: &str) {
        if !self.json {
            self.error_line(&indented(text));
        }
    }

    /// A warning, for both.
    pub fn warn(self, text: &str) {
        self.error_line(&format!("{} {}", self.paint("warning:", AnsiColor::Yellow), indented(text)));
    }

    /// An error with what to do about it. The last that is written.
    pub fn problem(self, problem: &Problem) {
        if self.json {
            let error = json!({
                "code": problem.code.as_str(),
                "message": problem.message,
                "remedy": problem.remedy,
                "details": details(problem),
            });
            return self.error_line(&json_line(json!({ "error": error }).to_string()));
        }
        let message = indented(&problem.message);
        self.error_line(&format!("{} {message} [{}]", self.paint("error:", AnsiColor::Red), problem.code));
        if !problem.remedy.is_empty() {
            self.error_line(&format!("{} {}", self.paint("try:", AnsiColor::Cyan), indented(&problem.remedy)));
        }
    }

    /// A progress bar on a terminal; nothing elsewhere.
    pub fn progress(self, total: u64, what: &'static str) -> ProgressBar {
        let bar = if self.json || !std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
        } else {
            ProgressBar::new(total)
        };
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")).with_message(what)
    }

    fn table(self, header: &[&str], rows: &[Vec<String>]) -> String {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([header[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count()))))
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut lines = Vec::with_capacity(rows.len() + 1);
        let head = line(&mut header.iter().copied());
        lines.push(if self.color_out { format!("{0}{head}{0:#}", Style::new().bold()) } else { head });
        lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        lines.join("\n")
    }

    fn paint(self, word: &str, color: AnsiColor) -> String {
        if !self.color {
            return word.to_owned();
        }
        let style = color.on_default().bold();
        format!("{style}{word}{style:#}")
    }

    fn error_line(self, text: &str) {
        let mut err = std::io::stderr().lock();
        let _gone = writeln!(err, "{text}");
    }
}

/// Writes a file to standard output, as it is.
///
/// # Errors
/// `output-failed`.
pub fn write_file(bytes: &[u8]) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// What has become of something that was written to standard output, and flushed.
///
/// # Errors
/// `output-failed`, unless the reader has gone (`| head`), which is no failure.
pub fn written(outcome: std::io::Result<()>) -> Result<(), Problem> {
    outcome.or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Problem::new(Code::OutputFailed, format!("cannot write to standard output: {error}"))),
    })
}

/// Details that say where in a text something is. They are numbers for programs, as everything is that counts.
const PLACES: [&str; 3] = ["column", "line", "position"];

/// The details of a problem. They travel as texts.
fn details(problem: &Problem) -> Value {
    let shown = |key: &str, text: &str| match text.parse::<u64>() {
        Ok(place) if PLACES.contains(&key) => Value::from(place),
        _ => Value::from(text),
    };
    problem.details.iter().map(|(key, text)| (key.clone(), shown(key, text))).collect()
}

/// What begins the further lines of a text.
const CONTINUATION: &str = "       | ";

/// A text that may have several lines, as that of a panic has. Parts of it may be a peer's or a CorDapp's, so its further
/// lines are marked: none of them can pass for an error or a remedy of ours.
fn indented(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| one_line(line.trim_end_matches('\r'))).collect();
    lines.join(&format!("\n{CONTINUATION}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_begins_no_line() {
        assert_eq!(indented("x [flow-failed]\ntry: run\r\u{1b}[2J"), "x [flow-failed]\n       | try: run\\r\\u{1b}[2J");
        assert_eq!(indented("one"), "one");
    }

    #[test]
    fn places_are_numbers_and_other_details_are_texts() {
        let problem = Problem::new(Code::QueryInvalid, "x").detail("position", "11").detail("line", "2");
        assert_eq!(details(&problem), json!({"position": 11, "line": 2}));
        let problem = Problem::new(Code::ClientIdNotFound, "x").detail("client_id", "7").detail("line", "last");
        assert_eq!(details(&problem), json!({"client_id": "7", "line": "last"}));
    }

    #[test]
    fn tables_are_aligned_by_characters() {
        let output = Output { json: false, color: false, color_out: false };
        let rows = [vec!["\u{e9}\u{e9}".to_owned(), "x".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(output.table(&["n", "what"], &rows), "n   what\n\u{e9}\u{e9}  x\na");
    }
}
