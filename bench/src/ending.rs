//! The end by a signal: Ctrl-C, SIGTERM and the hang-up of a terminal run no destructor, so a thread of its own hears
//! them and ends what this process has started. Also names the scratch folders, so that they can be found at that moment.
//! Knows no scenario. Invariant: a process is only killed while it stands below the one named.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::process;

/// What a shell says of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;
/// Whether [`end_all_on_signal`] is at work.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// Looks for processes below: the first may just have been starting others.
const ROUNDS: usize = 2;

/// Calls `on_signal` for every signal that asks this process to end, until it ends. A hang-up that whoever started it
/// wants ignored (`nohup`) stays ignored.
pub fn hear(mut on_signal: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut int, mut term, mut hang_up) = {
        let _inside = runtime.enter();
        let hang_up = (!ignores(&status, Signal::HUP)).then(|| signal(SignalKind::hangup())).transpose()?;
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hang_up)
    };
    let listen = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = int.recv() => {},
                    _ = term.recv() => {},
                    Some(()) = async { hang_up.as_mut()?.recv().await } => {},
                }
                on_signal();
            }
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context("no thread for signals")?;
    Ok(())
}

/// From now on a signal kills every process below this one, removes its scratch folders and ends it, whatever it does
/// at that moment; nothing is reported.
pub fn end_all_on_signal() -> anyhow::Result<()> {
    hear(|| {
        IS_ENDING.store(true, Ordering::SeqCst);
        say("interrupted: ending what was started");
        end_below(std::process::id());
        scratch_folders().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
        std::process::exit(INTERRUPTED);
    })
}

/// Waits for the end if a signal has begun it: that its servers are gone is no failure of a run that is being ended.
pub fn let_it_end() {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// To stderr, if it is still there: after a hang-up the terminal is not, and `eprintln!` would panic.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an answer of some lines to stdout. That nobody reads any more (`… | head`) is no failure, and no panic.
pub fn answer(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written to")
        }
        _ => Ok(()),
    }
}

/// Makes the folder of this process for `name`; it is there already when two parts share it.
pub fn scratch(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// What [`scratch`] has made and nobody has removed.
fn scratch_folders() -> impl Iterator<Item = PathBuf> {
    let ours = format!("-{}", std::process::id());
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let is_ours = move |name: &str| name.starts_with("tidegate-") && name.ends_with(&ours);
    entries.filter(move |entry| entry.file_name().to_str().is_some_and(&is_ours)).map(|entry| entry.path())
}

/// Kills every process below `pid`, parents before their children.
fn end_below(pid: u32) {
    for _ in 0..ROUNDS {
        for pid in process::descendants(pid).into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
            // One that has ended already cannot be killed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether /proc/PID/status says that the process ignores a signal: its bit, counted from 1, is set in `SigIgn`.
fn ignores(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn those_below_end_at_any_depth_and_the_one_above_does_not() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sh -c 'sleep 60; :' & wait; exit 7"]).spawn();
        let shell = shell.as_mut().expect("a shell");
        let patience = std::time::Duration::from_secs(5);
        clock::until(patience, || process::descendants(shell.id()).len() == 2);
        let below = process::descendants(shell.id());

        end_below(shell.id());

        assert_eq!(below.len(), 2, "a shell and its sleep");
        assert_eq!(shell.wait().expect("it had only waited").code(), Some(7));
        let are_gone = || !below.iter().any(|pid| process::is_alive(*pid));
        assert!(clock::until(patience, are_gone), "{below:?} live on");
    }

    #[test]
    fn a_scratch_folder_is_found_again_and_no_other() {
        let folder = scratch("ending-test").expect("the temporary folder is writable");
        let other = folder.with_file_name("tidegate-ending-test-0");
        std::fs::create_dir_all(&other).expect("writable");

        let found: Vec<PathBuf> = scratch_folders().collect();
        std::fs::remove_dir_all(&folder).expect("it is there");
        std::fs::remove_dir_all(&other).expect("it is there");

        assert!(found.contains(&folder) && !found.contains(&other), "{found:?}");
    }

    #[test]
    fn a_hang_up_is_ignored_by_its_bit() {
        assert!(ignores("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n", Signal::HUP));
        assert!(!ignores("SigIgn:\t0000000000001002\n", Signal::HUP));
        assert!(!ignores("", Signal::HUP));
    }
}
