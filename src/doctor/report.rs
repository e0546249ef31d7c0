//! The doctor's report, as text for people and as JSON with a stable schema (`schema` rises when a field changes
//! its meaning or goes; new fields may come at any time).

use std::fmt::Write as _;

use super::capacity::Capacity;
use super::check::{CheckResult, Count, Need, Verdict};

pub struct Report {
    pub need: Need,
    pub results: Vec<CheckResult>,
    pub capacity: Capacity,
}

impl Report {
    /// The worst of all. What is unknown does not count: it claims nothing.
    pub fn verdict(&self) -> Verdict {
        let known = self.results.iter().map(|result| result.verdict).filter(|&verdict| verdict != Verdict::Unknown);
        known.max().unwrap_or(Verdict::Ok)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema": 1,
            "for": self.need.connections,
            "verdict": self.verdict(),
            "checks": self.results,
            "capacity": self.capacity,
        })
    }

    /// One line a check; below it, for those that are not ok, the reason and the fix.
    pub fn text(&self) -> String {
        let widths = |of: fn(&CheckResult) -> usize| self.results.iter().map(of).max().unwrap_or(0);
        let (id_width, found_width) = (widths(|result| result.id.len()), widths(|result| result.found.len()));
        let mut out = String::new();
        for result in &self.results {
            let CheckResult { id, found, wanted, .. } = result;
            let line = format!("{:7} {id:id_width$}  {found:found_width$}  {wanted}", word(result.verdict));
            let _ = writeln!(out, "{}", line.trim_end());
            if result.verdict >= Verdict::Warn {
                let _ = writeln!(out, "        why   {}", result.why);
                let place =
                    if result.file.is_empty() { String::new() } else { format!("   (to last: {})", result.file) };
                let _ = writeln!(out, "        fix   {}{place}", result.fix);
            }
        }
        let count = |verdict| self.results.iter().filter(|result| result.verdict == verdict).count();
        let _ = writeln!(
            out,
            "\nfor {} connections: {} ok, {} warnings, {} failed, {} unknown; tuning/apply sets most of it",
            Count(self.need.connections),
            count(Verdict::Ok),
            count(Verdict::Warn),
            count(Verdict::Fail),
            count(Verdict::Unknown)
        );
        let _ = writeln!(out, "{}", self.capacity.line());
        out
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unknown => "unknown",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    }
}
