//! A report as lines for people: the verdict first, then the bounds, then as much as a screen holds, in units that people read.
//! A file of its own because `report` holds what is known of a run and this says what of it is said. It measures nothing.

use super::amount::amount;
use super::{Bound, Figure, Latency, Process, Report};
use crate::machine::Machine;

/// How much of a report is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// About twenty lines.
    Brief,
    /// Every figure, every metric of the server, every command.
    Full,
}

/// Of figures without a bound, of distributions and of processes: the first ones are those a scenario is about.
const FIGURES_BRIEF: usize = 8;
const LATENCIES_BRIEF: usize = 3;
const PROCESSES_BRIEF: usize = 3;

impl Report {
    pub fn lines(&self, detail: Detail) -> Vec<String> {
        let most = |brief: usize| if detail == Detail::Full { usize::MAX } else { brief };
        let (bounded, free): (Vec<&Figure>, Vec<&Figure>) = self.figures.iter().partition(|f| f.bound.is_some());
        let mut lines = vec![self.verdict()];
        lines.extend(self.faults.iter().map(|fault| format!("UNSOUND: {fault}")));
        let (met, missed): (Vec<&Figure>, Vec<&Figure>) = bounded.into_iter().partition(|figure| figure.is_met());
        let names = self.figures.iter().map(|f| f.name.chars().count()).max().unwrap_or(0).clamp(28, 56);
        lines.extend(missed.into_iter().chain(met).map(|figure| bound_line(figure, names)));
        lines.extend(free.iter().take(most(FIGURES_BRIEF)).map(|figure| figure_line(figure, names)));
        lines.extend(self.latency.iter().take(most(LATENCIES_BRIEF)).map(latency_line));
        self.tables.iter().for_each(|table| lines.extend(table.lines()));
        lines.extend(self.remarks.iter().map(|remark| format!("  {remark}")));
        lines.extend(self.skipped.iter().map(|skipped| format!("  skipped: {skipped}")));
        lines.extend(self.processes.iter().take(most(PROCESSES_BRIEF)).map(process_line));
        if detail == Detail::Full {
            lines.extend(self.counters.iter().map(|(name, value)| format!("  {name:<60} {}", super::number(*value))));
        }
        lines.extend(self.machine_lines());
        lines.extend(self.repeat_lines(detail));
        let hidden = free.len().saturating_sub(most(FIGURES_BRIEF));
        if hidden + self.counters.len() > 0 && detail == Detail::Brief {
            let more = [(hidden, "more of the figures"), (self.counters.len(), "metrics of the server")];
            let more: Vec<String> =
                more.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            lines.push(format!("  --verbose shows {}", more.join(" and ")));
        }
        lines
    }

    /// The first line: whether the run counts, and whether it is as good as it has to be.
    fn verdict(&self) -> String {
        let bounded: Vec<bool> = self.figures.iter().filter(|f| f.bound.is_some()).map(Figure::is_met).collect();
        let (met, all) = (bounded.iter().filter(|met| **met).count(), bounded.len());
        let bounds = match (met, all) {
            (_, 0) => "it has no bounds".to_owned(),
            _ if met == all => format!("{met} of {all} bounds met"),
            _ => format!("{met} of {all} bounds met, {} MISSED", all - met),
        };
        let (name, seconds) = (&self.scenario, amount(self.seconds, "s"));
        match self.faults.len() {
            0 => format!("{name}: {bounds} ({seconds})"),
            1 => format!("{name}: UNSOUND, so its figures count for nothing; {bounds} ({seconds})"),
            n => format!("{name}: UNSOUND for {n} reasons, so its figures count for nothing; {bounds} ({seconds})"),
        }
    }

    fn machine_lines(&self) -> [String; 2] {
        let Machine { cpu, cores, kernel, commit, load, congestion, .. } = &self.machine;
        let build = if self.machine.release { "release" } else { "DEBUG BUILD: figures mean nothing" };
        let memory = amount(self.machine.memory_bytes as f64, "B");
        [
            format!("  machine: {cores} × {cpu}, {memory}, Linux {kernel}, {congestion}"),
            format!("  commit {commit}, {build}; load {load} → {}", self.load_at_end),
        ]
    }

    /// The run's own command; those of its parts with the rest of the details.
    fn repeat_lines(&self, detail: Detail) -> Vec<String> {
        match (detail, &self.commands[..]) {
            (_, []) => Vec::new(),
            (Detail::Brief, [own, ..]) => vec![format!("  to repeat: {own}")],
            (Detail::Full, commands) => {
                let commands = commands.iter().map(|command| format!("    {command}"));
                std::iter::once("  to repeat:".to_owned()).chain(commands).collect()
            }
        }
    }
}

fn bound_line(Figure { name, value, unit, bound }: &Figure, names: usize) -> String {
    let Some(bound) = *bound else { return String::new() };
    let mark = if bound.holds(*value) { "met   " } else { "MISSED" };
    let (mut got, mut expected) = (amount(*value, unit), amount(bound.value(), unit));
    if got == expected && !bound.holds(*value) {
        // They differ beyond what three digits show.
        (got, expected) = (format!("{value} {unit}"), format!("{} {unit}", bound.value()));
    }
    format!("  {mark} {name:<names$}  got {got:>12}, expected {} {}", bound.words(), expected.trim_end())
}

fn figure_line(Figure { name, value, unit, .. }: &Figure, names: usize) -> String {
    format!("         {:<names$}      {:>12}", name.trim_start(), amount(*value, unit))
}

fn latency_line(Latency { name, us }: &Latency) -> String {
    let p = us.percentiles();
    if p.count == 0 {
        return format!("  {name}: nothing measured");
    }
    let [p50, p99, p999, max] = [p.p50, p.p99, p.p999, p.max].map(|us| amount(us as f64, "µs"));
    format!("  {name}: half within {p50}, 99 % within {p99}, 99.9 % within {p999}, the slowest {max}")
}

fn process_line(Process { name, usage }: &Process) -> String {
    let [user, system] = [usage.user_s, usage.system_s].map(|seconds| amount(seconds, "s"));
    let [rss, peak] = [usage.rss_bytes, usage.peak_rss_bytes].map(|bytes| amount(bytes as f64, "B"));
    format!("  {name}: CPU {user} user and {system} system; memory {rss}, at most {peak}")
}

impl Bound {
    const fn value(self) -> f64 {
        match self {
            Self::AtMost(value) | Self::AtLeast(value) | Self::Exactly(value) => value,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::AtMost(_) => "at most",
            Self::AtLeast(_) => "at least",
            Self::Exactly(_) => "exactly",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;
    use crate::ledger::Standing;
    use crate::report::loss_line;

    /// A run as large as the largest scenario's: two writers' figures, 85 metrics, ten commands.
    fn large() -> Report {
        let mut report = Report::new("delivery");
        report.seconds = 63.4;
        report.bounded("send: gateway ÷ bare loop", 0.93, "×", Bound::AtMost(1.05));
        report.bounded("memory", 283.4, "B", Bound::AtMost(500.0));
        report.bounded("handshakes a second", 38_211.7, "/s", Bound::AtLeast(20_000.0));
        report.bounded("deliveries, of those due", 1.0, "", Bound::Exactly(1.0));
        for index in 0..40 {
            report.figure(&format!("figure {index}"), 1_234.5, "µs");
        }
        report.latency("intended → read", &Distribution::default());
        report.counters.extend((0..85).map(|index| (format!("tidegate_gateway_metric_{index}"), 1.0)));
        report.commands.extend((0..10).map(|index| format!("tidegate bench run delivery {index}")));
        report.conclude();
        report
    }

    #[test]
    fn the_verdict_is_the_first_line_and_the_rest_fits_on_a_screen() {
        let lines = large().lines(Detail::Brief);

        assert_eq!(lines[0], "delivery: 4 of 4 bounds met (63.4 s)");
        assert!(lines.len() <= 24, "{} lines: {lines:#?}", lines.len());
        assert!(!lines.iter().any(|line| line.contains("tidegate_gateway_metric")), "{lines:#?}");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("  --verbose shows 32 more of the figures and 85 metrics of the server")
        );
    }

    #[test]
    fn with_details_nothing_is_left_out() {
        let lines = large().lines(Detail::Full);

        assert_eq!(lines.iter().filter(|line| line.contains("tidegate_gateway_metric_")).count(), 85);
        assert_eq!(lines.iter().filter(|line| line.contains("figure ")).count(), 40);
        assert_eq!(lines.iter().filter(|line| line.contains("bench run delivery ")).count(), 10);
    }

    #[test]
    fn a_bound_says_its_name_what_was_got_and_what_was_expected() {
        let lines = large().lines(Detail::Brief);
        let of = |name: &str| {
            lines
                .iter()
                .find(|line| line.contains(name))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        };

        assert_eq!(of("memory").as_deref(), Some("met memory got 283 B, expected at most 500 B"));
        assert_eq!(
            of("handshakes").as_deref(),
            Some("met handshakes a second got 38,212 /s, expected at least 20,000 /s")
        );
        assert_eq!(of("of those due").as_deref(), Some("met deliveries, of those due got 1, expected exactly 1"));
        assert_eq!(of("figure 0").as_deref(), Some("figure 0 1.23 ms"));
    }

    #[test]
    fn a_missed_bound_comes_first_and_shows_that_it_is_missed() {
        let mut report = large();
        report.bounded("CPU a connection", 0.500_4, "µs/s", Bound::AtMost(0.5));
        report.conclude();

        let lines = report.lines(Detail::Brief);

        assert!(report.sound && !report.targets_met);
        assert_eq!(lines[0], "delivery: 4 of 5 bounds met, 1 MISSED (63.4 s)");
        assert!(lines[1].contains("MISSED CPU a connection") && lines[1].contains("0.5004 µs/s"), "{}", lines[1]);
    }

    #[test]
    fn loss_is_in_the_verdict_and_right_below_it() {
        let mut report = large();
        report.fault(loss_line(&Standing { lost: 3, clients: 9, faulty_clients: 1, ..Standing::default() }));
        report.conclude();

        let lines = report.lines(Detail::Brief);

        assert!(!report.sound);
        assert!(lines[0].starts_with("delivery: UNSOUND, so its figures count for nothing"), "{}", lines[0]);
        assert!(lines[1].contains("LOST 3"), "{}", lines[1]);
    }
}
