//! Runs one program of the allow-list: no shell, an empty environment but for PATH, nothing to read, bounded in time and
//! output. It has a process group of its own, which is killed with everything it started.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::allow::Program;

/// Where programs of programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there is no result, as `error` of the REPLY.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    #[error("it did not end in time and was killed")]
    Timeout,
    #[error("it cannot be started: {0}")]
    NotStarted(String),
}

impl Failed {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NotStarted(_) => "not_started",
        }
    }
}

/// A running program; dropped, its whole group is killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // None: it has been waited for, and its number may be another's by now.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs it; the `data` of the REPLY.
pub async fn run(program: &Program, args: &[String], deadline: Duration) -> Result<Value, Failed> {
    let begun = Instant::now();
    let (path, fixed) = program.argv.split_first().ok_or_else(|| Failed::NotStarted("no program".into()))?;
    let child = Command::new(path)
        .args(fixed)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failed::NotStarted(error.to_string()))?;
    let mut running = Running(child);
    let (out, err) = (running.0.stdout.take(), running.0.stderr.take());
    let max = program.output_bytes;
    let ended = timeout(program.timeout().min(deadline), async {
        let ((out, is_out_cut), (err, is_err_cut)) = tokio::join!(read(out, max), read(err, max));
        let is_cut = is_out_cut || is_err_cut;
        // One that writes on without end would not end either.
        let status = if is_cut { None } else { running.0.wait().await.ok() };
        (out, err, is_cut, status)
    });
    let (out, err, is_cut, status) = ended.await.map_err(|_| Failed::Timeout)?;
    Ok(json!({
        "exit": status.and_then(|s| s.code()),
        "stdout": String::from_utf8_lossy(&out),
        "stderr": String::from_utf8_lossy(&err),
        "truncated": is_cut,
        "took_ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// Reads to the end or to the bound; whether there was more.
async fn read(from: Option<impl AsyncRead + Unpin>, max: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // A pipe that breaks has ended.
        let _ = from.take(max as u64 + 1).read_to_end(&mut bytes).await;
    }
    let is_cut = bytes.len() > max;
    bytes.truncate(max);
    (bytes, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn program(argv: &[&str], rest: &str) -> Program {
        toml::from_str(&format!("argv = {argv:?}\n{rest}")).expect("a program")
    }

    #[tokio::test]
    async fn a_program_gets_its_arguments_and_nothing_of_our_environment() {
        let echo = program(&["/bin/sh", "-c", "echo $# \"$1\" ${HOME:-none}; echo no >&2; exit 3", "x"], "");

        let result = run(&echo, &["a b".into()], LONG).await.expect("it runs");

        assert_eq!((&result["stdout"], &result["stderr"]), (&json!("1 a b none\n"), &json!("no\n")));
        assert_eq!((&result["exit"], &result["truncated"]), (&json!(3), &json!(false)));
    }

    #[tokio::test]
    async fn output_beyond_the_bound_is_cut_and_the_program_with_it() {
        let endless = program(&["/usr/bin/yes"], "output_bytes = 100");

        let result = run(&endless, &[], LONG).await.expect("it runs");

        assert_eq!((result["stdout"].as_str().map(str::len), &result["truncated"]), (Some(100), &json!(true)));
        assert_eq!(result["exit"], Value::Null);
    }

    #[tokio::test]
    async fn one_that_is_late_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let pid = folder.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pid.display());
        let slow = program(&["/bin/sh", "-c", &script], "");

        let result = run(&slow, &[], Duration::from_secs(1)).await;

        assert_eq!(result, Err(Failed::Timeout));
        let started: u32 = std::fs::read_to_string(pid).expect("it began").trim().parse().expect("a number");
        let is_gone = async {
            while is_alive(started) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, is_gone).await.expect("what it started went on");
    }

    /// A process that nobody has waited for yet is gone as well.
    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    #[tokio::test]
    async fn one_that_is_not_there_says_so() {
        let result = run(&program(&["/nowhere/at/all"], ""), &[], LONG).await;

        assert_eq!(result.map_err(|e| e.code()), Err("not_started"));
    }
}
