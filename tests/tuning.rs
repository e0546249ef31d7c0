//! `tuning/apply`, `check` and `revert` on a made-up machine below a scratch folder.
//! The promise: a dry run changes nothing, twice is once, and revert is exact to the byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A stock machine, in the kernel's own notation. `tcp_fin_timeout` and connection tracking are missing.
const STOCK: &[(&str, &str)] = &[
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/epoll/max_user_watches", "800000\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/tcp_mem", "287901\t383869\t9000000\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
    ("proc/sys/vm/swappiness", "1\n"),
    ("etc/sysctl.d/90-tidegate.conf", "# an administrator's own file\nvm.swappiness = 1\n"),
];

struct Scratch(TempDir);

impl Scratch {
    fn stock() -> Self {
        let scratch = Self(tempfile::tempdir().expect("a scratch folder"));
        for (path, text) in STOCK {
            let path = scratch.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a path with a folder")).expect("a scratch folder");
            fs::write(path, text).expect("a scratch file");
        }
        scratch
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(script);
        let root = self.0.path().to_str().expect("a plain path");
        Command::new("sh").arg(path).args(["--root", root]).args(arguments).output().expect("sh is there")
    }

    fn done(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.run(script, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).expect("a file of the scratch machine")
    }

    /// Every file with its contents.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a scratch folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read_to_string(&path).expect("text"));
                }
            }
        }
        files
    }
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_and_why() {
    let scratch = Scratch::stock();
    let before = scratch.files();

    let text = scratch.done("apply", &[]);

    assert_eq!(scratch.files(), before);
    assert!(text.contains("would    net.core.somaxconn = 65535 (now 4096)"), "{text}");
    assert!(text.contains("Connections wait here for accept."), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
}

#[test]
fn applying_twice_is_applying_once() {
    let scratch = Scratch::stock();

    scratch.done("apply", &["--yes"]);
    let once = scratch.files();
    scratch.done("apply", &["--yes"]);

    assert_eq!(scratch.files(), once);
}

#[test]
fn check_fails_before_and_holds_after() {
    let scratch = Scratch::stock();

    let before = scratch.run("check", &[]);
    scratch.done("apply", &["--yes"]);
    let after = scratch.run("check", &[]);

    assert_eq!(before.status.code(), Some(1));
    assert_eq!(after.status.code(), Some(0), "{}", String::from_utf8_lossy(&after.stdout));
}

#[test]
fn nothing_that_is_better_already_is_made_worse() {
    let scratch = Scratch::stock();

    scratch.done("apply", &["--yes"]);

    let written = scratch.read("etc/sysctl.d/90-tidegate.conf");
    assert_eq!(scratch.read("proc/sys/fs/file-max"), "9223372036854775807\n");
    assert_eq!(scratch.read("proc/sys/vm/swappiness"), "1\n");
    assert_eq!(scratch.read("proc/sys/net/ipv4/tcp_mem"), "1048576 1572864 9000000\n");
    assert!(!written.contains("fs.file-max"), "{written}");
    assert!(written.contains("net.ipv4.tcp_mem = 1048576 1572864 9000000"), "{written}");
    assert!(!written.contains("tcp_fin_timeout"), "this kernel has no such setting: {written}");
}

#[test]
fn revert_restores_every_byte_even_after_two_applies() {
    let scratch = Scratch::stock();
    let before = scratch.files();

    scratch.done("apply", &["--yes"]);
    scratch.done("apply", &["--yes"]);
    scratch.done("revert", &[]);
    assert_ne!(scratch.files(), before, "a dry run reverts nothing");
    scratch.done("revert", &["--yes"]);
    assert_eq!(scratch.files(), before);

    let again = scratch.done("revert", &["--yes"]);
    assert!(again.contains("nothing to revert"), "{again}");
    assert_eq!(scratch.files(), before);
}

/// Connection tracking, say, whose module was unloaded in the meantime.
#[test]
fn a_setting_that_is_gone_since_is_said_and_the_rest_restored_for_good() {
    let scratch = Scratch::stock();
    scratch.done("apply", &["--yes"]);
    fs::remove_file(scratch.0.path().join("proc/sys/net/core/somaxconn")).expect("it was there");

    let text = scratch.done("revert", &["--yes"]);

    assert!(text.contains("absent   net.core.somaxconn (was 4096"), "{text}");
    assert_eq!(scratch.read("proc/sys/net/ipv4/tcp_slow_start_after_idle"), "1\n");
    let again = scratch.done("revert", &["--yes"]);
    assert!(again.contains("nothing to revert"), "{again}");
}

#[test]
fn an_unknown_argument_is_refused() {
    let scratch = Scratch::stock();

    assert_eq!(scratch.run("apply", &["--force"]).status.code(), Some(2));
}

/// What is promised to be repeatable is there to repeat it.
#[test]
fn every_measurement_that_the_readme_names_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let readme = fs::read_to_string(folder.join("README.md")).expect("the README");
    let script = fs::read_to_string(folder.join("measure")).expect("the script");

    let named: Vec<&str> = readme.split("`tuning/measure ").skip(1).filter_map(|rest| rest.split('`').next()).collect();

    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(script.contains(&format!("\"{name}\": ({name}, [")), "{name}");
    }
}

/// Only names that the units and the doctor promise; their syntax is systemd's to check.
#[test]
fn units_raise_the_limit_that_the_doctor_names() {
    for unit in ["gateway", "logic"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tuning/systemd/tidegate-{unit}.service"));
        let text = fs::read_to_string(path).expect("the unit");

        assert!(text.contains("Type=notify"), "{unit}");
        assert!(text.contains(&format!("ExecStart=/usr/bin/tidegate {unit} -c")), "{unit}");
        assert!(text.contains("RestartPreventExitStatus=2"), "{unit}");
    }
}
