//! What a check is, and what comes of one.
//! The usual rule is a number in a file that must reach another; anything else is a function of the machine.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::machine::Machine;

/// Files that a gateway keeps beside its connections (`gateway.connections_max` = 0 computes the same): 256 for logs,
/// listeners and links, and an epoll set and a doorbell for each of at most 1,024 buckets.
pub const fn files_reserve(cores: u64) -> u64 {
    let buckets = (cores * 32).next_power_of_two();
    256 + 2 * if buckets > 1_024 {
        1_024
    } else if buckets < 64 {
        64
    } else {
        buckets
    }
}

/// For how many connections of one gateway process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub connections: u64,
}

impl Need {
    /// Open files of the process, with the largest reserve.
    pub const fn files(self) -> u64 {
        self.connections + files_reserve(u16::MAX as u64)
    }

    /// Length of the queues before `accept`: a reconnect storm comes all at once, and what does not fit is dropped and
    /// retried by the client's kernel after 1 s. A tenth of the clients, within what is useful and possible.
    pub const fn backlog(self) -> u64 {
        let tenth = self.connections / 10;
        if tenth < 4_096 {
            4_096
        } else if tenth > 65_535 {
            65_535
        } else {
            tenth
        }
    }
}

impl FromStr for Need {
    type Err = String;

    /// `10000`, `10_000`, `100k`, `1m`, `1.5m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a number of connections; write 10000, 100k or 1m");
        let lower = text.to_lowercase().replace(['_', ','], "");
        let (digits, unit) = match lower.strip_suffix('k') {
            Some(digits) => (digits, 1e3),
            None => lower.strip_suffix('m').map_or((lower.as_str(), 1.0), |digits| (digits, 1e6)),
        };
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let connections = number * unit;
        // One address and port of a server can have no more than 2^32 peers' addresses times ports; 1e9 is past any use.
        if (1.0..=1e9).contains(&connections) { Ok(Self { connections: connections as u64 }) } else { Err(wrong()) }
    }
}

/// How bad it is; the order is that of `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as wanted.
    Ok,
    /// It could not be read; nothing is claimed.
    Unknown,
    /// N connections fit, but will be served worse than they could be.
    Warn,
    /// N connections do not fit.
    Fail,
}

/// One check, as data.
pub struct Check {
    /// Stable name, for scripts.
    pub id: &'static str,
    /// What is read.
    pub reads: &'static str,
    /// What goes wrong otherwise.
    pub why: &'static str,
    /// Where a fix is made to last.
    pub file: &'static str,
    pub rule: Rule,
}

/// How a check judges.
pub enum Rule {
    /// The kernel setting must be at least this, else the verdict.
    AtLeast(fn(Need) -> u64, Verdict),
    /// The kernel setting must be this, else the verdict.
    Equal(u64, Verdict),
    /// Anything else; `None`: what it reads is not there.
    Judge(fn(&Machine, Need) -> Option<Finding>),
}

/// What a check found.
pub struct Finding {
    pub verdict: Verdict,
    pub found: String,
    pub wanted: String,
    /// One line to type or to write; empty when ok.
    pub fix: String,
}

/// A check with its finding; this shape, with `reads` and `why`, is the JSON schema of `--json`.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    pub id: &'static str,
    pub verdict: Verdict,
    pub found: String,
    pub wanted: String,
    pub fix: String,
    pub file: &'static str,
    pub reads: &'static str,
    pub why: &'static str,
}

impl Check {
    pub fn result(&self, machine: &Machine, need: Need) -> CheckResult {
        let finding = match self.rule {
            Rule::AtLeast(wanted, miss) => {
                let wanted = wanted(need);
                self.number(machine, &format!("at least {}", Count(wanted)), (wanted, miss), |found| found >= wanted)
            }
            Rule::Equal(wanted, miss) => {
                self.number(machine, &format!("exactly {}", Count(wanted)), (wanted, miss), |found| found == wanted)
            }
            Rule::Judge(judge) => judge(machine, need),
        };
        let unread = || Finding {
            verdict: Verdict::Unknown,
            found: "not readable here".into(),
            wanted: String::new(),
            fix: String::new(),
        };
        let Finding { verdict, found, wanted, fix } = finding.unwrap_or_else(unread);
        let Self { id, reads, why, file, .. } = *self;
        CheckResult { id, verdict, found, wanted, fix, file, reads, why }
    }

    /// `wanted` in words; the number to set where the one that is read does not do, and the verdict then.
    fn number(
        &self,
        machine: &Machine,
        wanted: &str,
        (value, miss): (u64, Verdict),
        does: impl Fn(u64) -> bool,
    ) -> Option<Finding> {
        let found = machine.number(self.reads)?;
        let good = does(found);
        Some(Finding {
            verdict: if good { Verdict::Ok } else { miss },
            found: Count(found).to_string(),
            wanted: wanted.to_owned(),
            fix: if good { String::new() } else { set(self.reads, &value.to_string()) },
        })
    }
}

/// The command that sets a kernel setting, from its path below `/proc/sys`.
pub fn set(path: &str, value: &str) -> String {
    let key = path.trim_start_matches("/proc/sys/").replace('/', ".");
    if value.contains(' ') { format!("sysctl -w {key}=\"{value}\"") } else { format!("sysctl -w {key}={value}") }
}

/// A number with thousands apart, or "unlimited".
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The kernel's own "no limit": LONG_MAX for file-max.
        if self.0 >= i64::MAX as u64 {
            return f.write_str("unlimited");
        }
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}
