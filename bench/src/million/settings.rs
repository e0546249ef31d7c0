//! The kernel settings that N connections with both ends here need, as `tidegate doctor` judges them.
//! Asks the doctor of this same binary as anybody would, by its JSON; knows no setting by itself but whose they are.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// Checks that count sockets or files of the whole machine: asked for twice N, because both ends are here.
const BOTH_ENDS: &[&str] = &["file-max", "epoll-watches", "established-hash", "conntrack"];
/// Checks about one process that holds all, or that the fleet answers by its shape: open files by the number of
/// processes, ports by the sources, memory by its own sum.
const ANSWERED: &[&str] = &["open-files-hard", "open-files-soft", "nr-open", "port-range", "memory"];

/// One of the doctor's checks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Setting {
    id: String,
    verdict: String,
    found: String,
    wanted: String,
    fix: String,
    why: String,
}

#[derive(Deserialize)]
struct Examined {
    checks: Vec<Setting>,
}

/// What is not as `connections` need it; refuses what cannot work, and anything at all when `strict`.
pub(super) fn check(connections: u64, strict: bool) -> anyhow::Result<Vec<Setting>> {
    let (one, both) = (examine(connections)?, examine(2 * connections)?);
    let amiss = amiss(one, both);
    for setting in &amiss {
        crate::ending::say(&setting.line());
    }
    let fatal = amiss.iter().filter(|setting| strict || setting.verdict == "fail").count();
    ensure!(
        fatal == 0,
        "{fatal} kernel settings are in the way of {connections} connections (above); tuning/apply sets most of them"
    );
    Ok(amiss)
}

fn examine(connections: u64) -> anyhow::Result<Examined> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args(["doctor", "--json", "--for", &connections.to_string()]).output()?;
    // 0, 1 and 2 are verdicts, not failures.
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`tidegate doctor` ended with {}: {}", output.status, output.stderr.escape_ascii()))
}

fn amiss(one: Examined, both: Examined) -> Vec<Setting> {
    let is_both = |setting: &Setting| BOTH_ENDS.contains(&setting.id.as_str());
    let one = one.checks.into_iter().filter(|setting| !is_both(setting));
    let both = both.checks.into_iter().filter(is_both);
    let matters = |setting: &Setting| {
        !ANSWERED.contains(&setting.id.as_str()) && matches!(setting.verdict.as_str(), "warn" | "fail")
    };
    one.chain(both).filter(matters).collect()
}

impl Setting {
    fn line(&self) -> String {
        let Self { id, verdict, found, wanted, fix, why } = self;
        format!("{:<5} {id}: {found}, wanted {wanted}\n      why {why}\n      fix {fix}", verdict.to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(checks: &[(&str, &str)]) -> Examined {
        let setting = |(id, verdict): &(&str, &str)| Setting {
            id: (*id).to_owned(),
            verdict: (*verdict).to_owned(),
            found: String::new(),
            wanted: String::new(),
            fix: "sysctl".to_owned(),
            why: String::new(),
        };
        Examined { checks: checks.iter().map(setting).collect() }
    }

    #[test]
    fn what_the_fleet_answers_by_its_shape_is_not_amiss() {
        let one = examined(&[("open-files-hard", "fail"), ("memory", "fail"), ("somaxconn", "warn")]);

        let amiss = amiss(one, examined(&[]));

        assert_eq!(amiss.iter().map(|setting| setting.id.as_str()).collect::<Vec<_>>(), ["somaxconn"]);
    }

    #[test]
    fn files_are_judged_for_both_ends_and_buffers_for_one() {
        let one = examined(&[("file-max", "ok"), ("tcp-mem", "ok")]);
        let both = examined(&[("file-max", "fail"), ("tcp-mem", "warn")]);

        let amiss = amiss(one, both);

        assert_eq!(amiss.iter().map(|setting| setting.id.as_str()).collect::<Vec<_>>(), ["file-max"]);
    }
}
