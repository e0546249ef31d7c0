//! What is known of a run, as JSON (schema `tidegate-bench/1`) for machines; `text` makes lines for people of it.
//! A file of its own because every command prints alike. It measures nothing.

mod amount;
mod table;
mod text;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::OnceLock;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::ending;
use crate::ledger::Standing;
use crate::machine::Machine;
use crate::process::Usage;

pub use amount::amount;
pub use table::{Better, Column, Line, Plot, Record, Table, cell_text};
pub use text::Detail;

pub const SCHEMA: &str = "tidegate-bench/1";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub scenario: String,
    /// Nothing was lost, duplicated or disordered, and nothing else made the figures worthless.
    pub sound: bool,
    /// What makes the run unsound, worst first.
    pub faults: Vec<String>,
    /// Every figure that has a bound is within it.
    pub targets_met: bool,
    pub figures: Vec<Figure>,
    pub latency: Vec<Latency>,
    pub processes: Vec<Process>,
    /// Growth of the server's counters during the measurement, and its gauges at the end.
    pub counters: BTreeMap<String, f64>,
    /// Commands that repeat the run and its parts.
    pub commands: Vec<String>,
    pub machine: Machine,
    pub load_at_end: String,
    pub seconds: f64,
    /// Reports of the parts as they gave them.
    pub parts: BTreeMap<String, serde_json::Value>,
    /// Figures of several things side by side.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Curves: memory by connections, deliveries by second.
    #[serde(default)]
    pub plots: Vec<Plot>,
    /// Sentences that belong beside the tables.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// What was asked for and is not here, and why.
    #[serde(default)]
    pub skipped: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub bound: Option<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub name: String,
    pub us: Distribution,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    /// CPU during the measurement, memory at its end.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::Exactly(bound) => value == bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, bound) = match self {
            Self::AtMost(bound) => ('≤', bound),
            Self::AtLeast(bound) => ('≥', bound),
            Self::Exactly(bound) => ('=', bound),
        };
        write!(out, "{sign} {}", number(*bound))
    }
}

impl Report {
    pub fn new(scenario: &str) -> Self {
        Self { schema: SCHEMA.into(), scenario: scenario.into(), machine: Machine::look(), ..Self::default() }
    }

    pub fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure { name: name.into(), value, unit: unit.into(), bound: None });
    }

    pub fn bounded(&mut self, name: &str, value: f64, unit: &str, bound: Bound) {
        self.figures.push(Figure { name: name.into(), value, unit: unit.into(), bound: Some(bound) });
    }

    pub fn latency(&mut self, name: &str, us: &Distribution) {
        self.latency.push(Latency { name: name.into(), us: us.clone() });
    }

    /// A curve of what came in each second; nothing when nothing came.
    pub fn by_second(&mut self, what: &str, counts: &[u64]) {
        if counts.is_empty() {
            return;
        }
        let points = counts.iter().enumerate().map(|(second, count)| (second as f64, *count as f64)).collect();
        self.plots.push(Plot {
            title: format!("{what} in each second"),
            x: "s".to_owned(),
            y: what.to_owned(),
            lines: vec![Line { name: what.to_owned(), points }],
        });
    }

    /// Keeps a part's own report for the JSON.
    pub fn part(&mut self, name: &str, part: &impl Serialize) {
        let value = serde_json::to_value(part).unwrap_or_else(|error| error.to_string().into());
        self.parts.insert(name.to_owned(), value);
    }

    /// Takes in what was measured of one thing of several, under its name.
    pub fn absorb(&mut self, name: &str, part: Self) {
        let named = |what: &str| format!("{name}: {what}");
        let Self { figures, latency, processes, counters, parts, plots, .. } = part;
        self.figures.extend(figures.into_iter().map(|figure| Figure { name: named(&figure.name), ..figure }));
        self.latency.extend(latency.into_iter().map(|latency| Latency { name: named(&latency.name), ..latency }));
        self.processes.extend(processes.into_iter().map(|process| Process { name: named(&process.name), ..process }));
        self.counters.extend(counters.into_iter().map(|(counter, value)| (named(&counter), value)));
        self.parts.extend(parts.into_iter().map(|(part, value)| (named(&part), value)));
        self.plots.extend(plots.into_iter().map(|plot| Plot { title: named(&plot.title), ..plot }));
    }

    /// Decides soundness and targets from what was collected.
    pub fn conclude(&mut self) {
        self.sound = self.faults.is_empty();
        self.targets_met = self.figures.iter().all(Figure::is_met);
        self.load_at_end = crate::machine::load();
    }
}

impl Figure {
    pub fn is_met(&self) -> bool {
        self.bound.is_none_or(|bound| bound.holds(self.value))
    }
}

/// `1234567.8` → `1,234,568`; small numbers keep digits that mean something.
pub fn number(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 1_000.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

/// The line that stands first when something is wrong.
pub fn loss_line(standing: &Standing) -> String {
    let Standing { lost, duplicated, disordered, stray, overclaimed, seq_breaks, faulty_clients, clients, .. } =
        standing;
    format!(
        "LOST {lost}, DUPLICATED {duplicated}, DISORDERED {disordered}, STRAY {stray}, OVERCLAIMED {overclaimed}, \
         SEQ BREAKS {seq_breaks} at {faulty_clients} of {clients} clients"
    )
}

pub fn distribution_line(name: &str, unit: &str, distribution: &Distribution) -> String {
    let p = distribution.percentiles();
    if p.count == 0 {
        return format!("{name:<12} nothing measured");
    }
    let [p50, p90, p99, p999, max] = [p.p50, p.p90, p.p99, p.p999, p.max].map(|value| number(value as f64));
    format!("{name:<12} p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} {unit}  ({} values)", p.count)
}

/// Prints JSON or lines.
pub fn print(json: bool, outcome: &impl Serialize, lines: &[String]) -> anyhow::Result<ExitCode> {
    let text = if json { serde_json::to_string(outcome)? } else { lines.join("\n") };
    ending::answer(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr what a run is at, with the time since the first such word: long runs are not silent, in a log neither.
pub fn stage(what: &str) {
    static STARTED_NS: OnceLock<u64> = OnceLock::new();
    let now_ns = crate::clock::now_ns();
    let seconds = now_ns.saturating_sub(*STARTED_NS.get_or_init(|| now_ns)) as f64 / 1e9;
    crate::ending::say(&format!("{seconds:>6.1} s  {what}"));
}

/// A bar on stderr; nothing when stderr is not a terminal.
pub fn progress(length: u64, what: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style).with_message(what.to_owned())
}

/// The same, with the rate.
pub fn rate_progress(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<24} [{bar:30}] {human_pos}/{human_len} {per_sec} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    progress(length, what).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-999.0), "-999");
        assert_eq!(number(1.15), "1.150");
        assert_eq!(number(12_345.678), "12,346");
    }

    #[test]
    fn a_report_survives_json() {
        let mut report = Report::new("idle");
        report.bounded("a", 1.0, "B", Bound::Exactly(1.0));

        let json = serde_json::to_string(&report).expect("serializes");
        let again: Report = serde_json::from_str(&json).expect("parses");

        assert_eq!(again.figures[0].bound, Some(Bound::Exactly(1.0)));
        assert_eq!(again.schema, SCHEMA);
    }
}
