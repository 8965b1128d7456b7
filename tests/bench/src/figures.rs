//! What was measured: printed as it comes, written to a file at the end.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// Shown only.
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtMost(limit) => Some(value <= limit),
            Goal::AtLeast(limit) => Some(value >= limit),
            Goal::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Goal::AtMost(limit) => format!("≤ {}", number(limit)),
            Goal::AtLeast(limit) => format!("≥ {}", number(limit)),
            Goal::None => String::new(),
        }
    }
}

struct Figure {
    group: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

/// All figures of a run.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
    group: &'static str,
}

impl Report {
    /// Begins a group of figures.
    pub fn group(&mut self, group: &'static str) {
        self.group = group;
        println!("\n{group}");
    }

    /// Takes a figure, and prints it.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        let figure = Figure { group: self.group, name: name.into(), value, unit, goal };
        let verdict = match goal.is_met(value) {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        println!("  {:<66} {:>12} {:<9} {:>10}  {verdict}", figure.name, number(value), unit, goal.text());
        self.figures.push(figure);
    }

    /// Writes them down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path, quick: bool) -> io::Result<()> {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let goal = match figure.goal {
                    Goal::AtMost(limit) => json!({"at_most": limit}),
                    Goal::AtLeast(limit) => json!({"at_least": limit}),
                    Goal::None => Value::Null,
                };
                json!({
                    "group": figure.group,
                    "name": figure.name,
                    "value": figure.value,
                    "unit": figure.unit,
                    "goal": goal,
                    "met": figure.goal.is_met(figure.value),
                })
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let report = json!({"quick": quick, "cores": cores, "figures": figures});
        std::fs::write(file, format!("{report:#}\n"))
    }

    /// Figures that miss their goal.
    pub fn missed(&self) -> usize {
        self.figures.iter().filter(|figure| figure.goal.is_met(figure.value) == Some(false)).count()
    }
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    let text = match magnitude {
        m if m >= 100.0 || m == 0.0 => format!("{value:.0}"),
        m if m >= 10.0 => format!("{value:.1}"),
        m if m >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    let digits = text.trim_start_matches('-');
    if digits.len() < 5 || digits.contains('.') {
        return text;
    }
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|chunk| std::str::from_utf8(chunk).unwrap_or_default()).collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// The value that this share of all is not above.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length => values[((length as f64 * share) as usize).min(length - 1)],
    }
}
