//! SIGHUP: the configuration is read again with the same precedence (flags, environment, file, defaults), judged as a whole, and
//! what can change while the process runs is put in force. Anything wrong leaves everything as it was and is logged by name; what
//! needs a restart is logged by key, and again at each reload until the restart.
//! Decides what changed and says so; how a tier takes it over is `Logic::reload`'s and `Gateway::reload`'s.
//! Invariants: no value is logged, only names of keys; `running` has the value in force of every key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_logic::{KeyConfig, LogicConfig, MetricsText, Moment};
use toml::Value;

use crate::config::exposure::Role;
use crate::config::{self, Config, Given, Loaded, gateways_file};
use crate::{judge, log};

/// Puts a configuration in force at the tiers of this process; the error says what is wrong, and then nothing has changed.
pub type Apply<'a> = &'a dyn Fn(&Config) -> Result<(), Vec<String>>;

/// Links these gateways and no others; the error says what is wrong with the list, and then nothing has changed.
pub type Link<'a> = &'a dyn Fn(&[String]) -> Result<(), Vec<String>>;

/// The configuration of a running process.
pub struct Reloads {
    given: Given,
    role: Role,
    running: Values,
    /// Those of the keys file too, which are no setting.
    keys: Vec<KeyConfig>,
    /// Those of the configuration alone.
    listed: Vec<String>,
    config: Config,
    counts: Arc<Counts>,
}

/// What the metrics say.
#[derive(Debug)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    /// When the configuration in force was read, Unix seconds.
    loaded_s: AtomicU64,
    /// Keys whose new value waits for a restart.
    waiting: AtomicU64,
}

/// Names of keys whose value is another than before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Can be put in force now.
    live: Vec<String>,
    /// Need a restart.
    fixed: Vec<String>,
}

impl Reloads {
    /// Begins with what the process started with.
    pub fn new(given: Given, role: Role, loaded: Loaded) -> Self {
        let counts = Counts {
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            loaded_s: AtomicU64::new(Moment::now().0),
            waiting: AtomicU64::new(0),
        };
        Self {
            given,
            role,
            running: values(&loaded),
            keys: loaded.config.logic.keys.clone(),
            listed: listed(&loaded),
            config: loaded.config,
            counts: Arc::new(counts),
        }
    }

    /// The configuration as it was last read in full.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Reads everything again and puts in force what can be.
    pub fn again(&mut self, apply: Apply<'_>) {
        let outcome = self.read().and_then(|loaded| {
            apply(&loaded.config)?;
            Ok(loaded)
        });
        match outcome {
            Ok(loaded) => self.took(loaded),
            Err(problems) => {
                self.counts.failed.fetch_add(1, Relaxed);
                for problem in &problems {
                    tracing::error!("not reloaded: {problem}");
                }
                tracing::error!(problems = problems.len(), "the configuration in force stays as it was");
            }
        }
    }

    /// Reads the file of gateways again, and nothing else, and links those that are listed now; false when that is refused.
    pub fn gateways_again(&mut self, link: Link<'_>) -> bool {
        let mut is_taken = true;
        let outcome = self.read_gateways().and_then(|logic| {
            link(&logic.gateways)?;
            Ok(logic)
        });
        match outcome {
            Ok(logic) if logic.gateways == self.config.logic.gateways => {}
            Ok(logic) => {
                tracing::info!(gateways = logic.gateways.len(), "logic.gateways_file reloaded");
                self.config.logic = logic;
                self.counts.done.fetch_add(1, Relaxed);
                self.counts.loaded_s.store(Moment::now().0, Relaxed);
            }
            Err(problems) => {
                self.counts.failed.fetch_add(1, Relaxed);
                problems.iter().for_each(|problem| tracing::error!("not reloaded: {problem}"));
                is_taken = false;
            }
        }
        is_taken
    }

    fn read_gateways(&self) -> Result<LogicConfig, Vec<String>> {
        let mut logic = LogicConfig { gateways: self.listed.clone(), ..self.config.logic.clone() };
        gateways_file::add(&mut logic).map_err(|problem| vec![problem])?;
        let problems = logic.problems();
        if problems.is_empty() { Ok(logic) } else { Err(problems) }
    }

    fn read(&self) -> Result<Loaded, Vec<String>> {
        let loaded = config::load(&self.given)?;
        let refusals = judge::refusals(&loaded.config, self.role);
        if refusals.is_empty() { Ok(loaded) } else { Err(refusals) }
    }

    fn took(&mut self, loaded: Loaded) {
        log::set_level(loaded.config.log.level);
        let mut changes = changes(&self.running, &values(&loaded), self.role);
        if self.role.has_api()
            && self.keys != loaded.config.logic.keys
            && !changes.live.iter().any(|key| key == "logic.keys")
        {
            changes.live.push("logic.keys".into());
        }
        for setting in loaded.settings.iter().filter(|setting| !changes.fixed.contains(&setting.key)) {
            self.running.insert(setting.key.clone(), setting.value.clone());
        }
        if self.role.has_api()
            && self.config.logic.gateways != loaded.config.logic.gateways
            && !changes.live.iter().any(|key| key == "logic.gateways")
        {
            changes.live.push("logic.gateways".into());
        }
        self.keys.clone_from(&loaded.config.logic.keys);
        self.listed = listed(&loaded);
        self.config = loaded.config;
        self.counts.done.fetch_add(1, Relaxed);
        self.counts.loaded_s.store(Moment::now().0, Relaxed);
        self.counts.waiting.store(changes.fixed.len() as u64, Relaxed);
        tracing::info!(changed = list(&changes.live), "configuration reloaded");
        if !changes.fixed.is_empty() {
            tracing::warn!(keys = list(&changes.fixed), "changed, but only a restart puts these in force");
        }
    }

    /// Appends the metrics of reloading.
    pub fn metrics(&self) -> MetricsText {
        let counts = Arc::clone(&self.counts);
        Arc::new(move |out| counts.write(out))
    }
}

impl Counts {
    fn write(&self, out: &mut String) {
        let n = |counter: &AtomicU64| counter.load(Relaxed);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# HELP tidegate_config_reloads Reloads of the configuration, by result\n\
             # TYPE tidegate_config_reloads counter\n\
             tidegate_config_reloads_total{{result=\"done\"}} {}\n\
             tidegate_config_reloads_total{{result=\"failed\"}} {}\n\
             # HELP tidegate_config_loaded_seconds When the configuration in force was read, Unix time\n\
             # TYPE tidegate_config_loaded_seconds gauge\n\
             tidegate_config_loaded_seconds {}\n\
             # HELP tidegate_config_waiting Changed keys that only a restart puts in force\n\
             # TYPE tidegate_config_waiting gauge\n\
             tidegate_config_waiting {}\n",
            n(&self.done),
            n(&self.failed),
            n(&self.loaded_s),
            n(&self.waiting),
        );
    }
}

/// The gateways that the configuration lists itself, without those of the file.
fn listed(loaded: &Loaded) -> Vec<String> {
    let setting = loaded.settings.iter().find(|setting| setting.key == "logic.gateways");
    let list = setting.and_then(|setting| setting.value.as_ref()?.as_array());
    list.into_iter().flatten().filter_map(|url| url.as_str().map(str::to_owned)).collect()
}

fn values(loaded: &Loaded) -> Values {
    loaded.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
}

type Values = BTreeMap<String, Option<Value>>;

fn changes(running: &Values, new: &Values, role: Role) -> Changes {
    let mut changes = Changes::default();
    // With another way of knowing clients comes the rest of the section, and both at the restart (`Gateway::reload`).
    let is_other_mode = running.get("gateway.auth.mode") != new.get("gateway.auth.mode");
    let is_live = |key: &str| is_live(key) && !(is_other_mode && key.starts_with("gateway.auth."));
    for (key, _) in new.iter().filter(|(key, value)| concerns(role, key) && running.get(*key) != Some(value)) {
        let kind = if is_live(key) { &mut changes.live } else { &mut changes.fixed };
        kind.push(key.clone());
    }
    changes
}

/// Whether a process of this role reads the key at all.
fn concerns(role: Role, key: &str) -> bool {
    match key.split_once('.') {
        Some(("gateway", _)) => role.has_clients(),
        Some(("logic", _)) => role.has_api(),
        _ => true,
    }
}

/// Whether a change takes effect without a restart. What may be exposed is judged at each reload.
fn is_live(key: &str) -> bool {
    matches!(key, "log.level" | "auth.allow_open" | "auth.allow_open_ops")
        || tidegate_logic::is_live(key)
        || tidegate_gateway::is_reloadable(key)
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;

    const KEY: &str =
        "[[gateway.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"a secret that is long enough for this test\"\n";

    fn begin(path: &Path) -> Reloads {
        let given = || Given { file: Some(path.to_owned()), ..Given::default() };
        let loaded = config::load(&given()).expect("a good configuration");
        Reloads::new(given(), Role::Serve, loaded)
    }

    fn written(folder: &Path, text: &str) -> std::path::PathBuf {
        let path = folder.join("tidegate.toml");
        std::fs::write(&path, text).expect("a scratch file");
        path
    }

    fn metric(reloads: &Reloads, name: &str) -> u64 {
        let mut text = String::new();
        reloads.metrics()(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of this name");
        line.trim().parse().expect("a number")
    }

    #[test]
    fn what_needs_a_restart_is_named_until_the_restart() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = written(folder.path(), "[logic.limits]\nmessages = 5\n");
        let mut reloads = begin(&path);
        let seen = Cell::new(0);
        let apply = |config: &Config| {
            seen.set(config.logic.limits.messages);
            Ok(())
        };

        written(folder.path(), "[logic.limits]\nmessages = 6\nconnections = 9\n[gateway]\nlisten = \"127.0.0.1:9\"\n");
        reloads.again(&apply);
        let waiting = metric(&reloads, "tidegate_config_waiting ");
        reloads.again(&apply);

        assert_eq!(seen.get(), 6);
        assert_eq!((waiting, metric(&reloads, "tidegate_config_waiting ")), (2, 2));
        assert_eq!(metric(&reloads, "tidegate_config_reloads_total{result=\"done\"}"), 2);
    }

    #[test]
    fn with_another_mode_all_that_is_of_tokens_waits_for_the_restart() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let text = |mode: &str, leeway: u8| format!("[gateway.auth]\nmode = \"{mode}\"\nleeway_s = {leeway}\n{KEY}");
        let path = written(folder.path(), &text("jwt", 1));
        let mut reloads = begin(&path);
        let waiting = |reloads: &Reloads| metric(reloads, "tidegate_config_waiting ");

        written(folder.path(), &text("none", 2));
        reloads.again(&|_| Ok(()));
        let both = waiting(&reloads);
        reloads.again(&|_| Ok(()));
        let still = waiting(&reloads);
        written(folder.path(), &text("jwt", 2));
        reloads.again(&|_| Ok(()));

        assert_eq!((both, still, waiting(&reloads)), (2, 2, 0));
        assert_eq!(reloads.running["gateway.auth.leeway_s"], Some(Value::Integer(2)));
    }

    #[test]
    fn a_process_is_not_told_to_restart_for_the_other_tier() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = written(folder.path(), "");
        let mut reloads = Reloads { role: Role::Gateway, ..begin(&path) };

        written(folder.path(), "[logic]\ngateways = [\"http://127.0.0.1:1\"]\n");
        reloads.again(&|_| Ok(()));

        assert_eq!(metric(&reloads, "tidegate_config_waiting "), 0);
    }

    #[test]
    fn a_value_put_back_waits_for_nothing_any_more() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = written(folder.path(), "");
        let mut reloads = begin(&path);

        written(folder.path(), "[logic.limits]\nconnections = 9\n");
        reloads.again(&|_| Ok(()));
        let waiting = metric(&reloads, "tidegate_config_waiting ");
        written(folder.path(), "");
        reloads.again(&|_| Ok(()));

        assert_eq!((waiting, metric(&reloads, "tidegate_config_waiting ")), (1, 0));
    }

    #[test]
    fn nothing_is_applied_of_a_file_that_is_wrong_or_unsafe() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = written(folder.path(), "");
        let mut reloads = begin(&path);
        let applied = Cell::new(0);

        for text in [
            "[logic",
            "[logic.limits]\nmesages = 1\n",
            "[logic.limits]\nmessages = 0\n",
            "[logic]\napi = \"0.0.0.0:1\"\n",
        ] {
            written(folder.path(), text);
            reloads.again(&|_| {
                applied.set(applied.get() + 1);
                Ok(())
            });
        }

        assert_eq!(applied.get(), 0);
        assert_eq!(metric(&reloads, "tidegate_config_reloads_total{result=\"failed\"}"), 4);
        assert_eq!(metric(&reloads, "tidegate_config_reloads_total{result=\"done\"}"), 0);
    }

    #[test]
    fn a_tier_that_refuses_keeps_the_old_configuration() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = written(folder.path(), "[logic.limits]\nmessages = 5\n");
        let mut reloads = begin(&path);

        written(folder.path(), "[logic.limits]\nmessages = 6\n");
        reloads.again(&|_| Err(vec!["a file of keys is gone".into()]));

        assert_eq!(reloads.config().logic.limits.messages, 5);
        assert_eq!(metric(&reloads, "tidegate_config_reloads_total{result=\"failed\"}"), 1);
    }

    #[test]
    fn keys_of_the_keys_file_count_as_changed_by_what_they_are() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let key = |n: u8| format!("[[logic.keys]]\nid = \"a\"\nsha256 = \"{n:064}\"\nscopes = [\"push\"]\n");
        let keys = folder.path().join("keys.toml");
        std::fs::write(&keys, key(1)).expect("a scratch file");
        let path = written(folder.path(), &format!("[logic]\nkeys_file = {:?}\n", keys.to_str().expect("plain")));
        let mut reloads = begin(&path);

        std::fs::write(&keys, key(2)).expect("a scratch file");
        reloads.again(&|_| Ok(()));

        assert_eq!(reloads.config().logic.keys[0].sha256, format!("{:064}", 2));
        assert_eq!(reloads.keys, reloads.config().logic.keys);
    }
}
