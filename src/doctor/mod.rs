//! `tidegate doctor`: can this machine hold N connections, and what to change if not.
//! Checks are data (`limits`, `tcp`, `system`): what is read, what is wanted for N, the fix, the file for it, and why.
//! They read through `Machine`, whose root can be any folder, so that tests run on made-up machines. What cannot be
//! read is `unknown`, never a guess. Changes nothing, needs no rights, takes milliseconds.

mod capacity;
mod check;
mod limits;
mod machine;
mod report;
mod system;
mod tcp;

use std::path::Path;
use std::process::ExitCode;

pub use check::Need;
use check::Verdict;
use machine::Machine;
use report::Report;

use crate::failure::Failure;
use crate::out;

/// Runs all checks, prints the report, and gives 0 for ok, 1 for warnings, 2 for failures.
pub fn run(root: &Path, need: Need, json: bool) -> Result<ExitCode, Failure> {
    let report = examine(&Machine::new(root), need);
    out::answer(&if json { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(match report.verdict() {
        Verdict::Ok | Verdict::Unknown => ExitCode::SUCCESS,
        Verdict::Warn => ExitCode::from(1),
        Verdict::Fail => ExitCode::from(2),
    })
}

fn examine(machine: &Machine, need: Need) -> Report {
    let checks = limits::CHECKS.iter().chain(tcp::CHECKS).chain(system::CHECKS);
    Report { need, results: checks.map(|check| check.result(machine, need)).collect(), capacity: capacity::of(machine) }
}

#[cfg(test)]
mod tests;
