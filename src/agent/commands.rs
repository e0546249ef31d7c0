//! Takes commands and yields replies, whatever becomes of the connection they came by. Each allowed command runs in a task of
//! its own; a few at once, a few more wait. Invariant: each id that was taken is finished exactly once.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};

use super::allow::Allow;
use super::execute;
use super::host::{Host, unix_ms};
use super::memory::{Memory, Seen};

/// Commands that wait for their turn, beside those that run.
const WAITING: usize = 64;
/// Largest REPLY: what a gateway takes from a client by default.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// `data` of COMMAND.
#[derive(Debug, Deserialize)]
pub struct Asked {
    command: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    deadline_ms: Option<u64>,
}

/// What a command came to: `data` or `error` of REPLY.
type Outcome = Result<Value, Value>;

/// A command that has come to something.
struct Finished {
    id: String,
    outcome: Outcome,
}

/// Commands that were taken, and what became of them.
pub struct Commands {
    allow: Arc<Allow>,
    host: Arc<Mutex<Host>>,
    /// Commands and replies.
    pub memory: Memory,
    /// Places for those that run and wait, and for those that run.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    finish: mpsc::Sender<Finished>,
    finished: mpsc::Receiver<Finished>,
}

impl Commands {
    /// One that does so many at once and remembers so many.
    pub fn new(allow: Allow, at_once: usize, remember: usize) -> Self {
        let places = at_once + WAITING;
        // A task sends one message and each has a place, so sending never waits.
        let (finish, finished) = mpsc::channel(places);
        Self {
            allow: Arc::new(allow),
            host: Arc::new(Mutex::new(Host::new())),
            memory: Memory::new(remember),
            places: Arc::new(Semaphore::new(places)),
            turns: Arc::new(Semaphore::new(at_once)),
            finish,
            finished,
        }
    }

    /// Takes a command; its reply, if that is known already.
    pub fn take(&mut self, id: &str, asked: Asked) -> Option<Arc<str>> {
        match self.memory.see(id) {
            Seen::Done(reply) => return Some(reply),
            Seen::Running => return None,
            Seen::First => {}
        }
        let job = match Job::of(&self.allow, asked) {
            Ok(job) => job,
            Err(refused) => return Some(self.remember(id, &Err(refused))),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let message = format!("{} commands run or wait already", self.places.available_permits() + WAITING);
            return Some(self.remember(id, &Err(error("busy", &message))));
        };
        let (host, turns, finish) = (Arc::clone(&self.host), Arc::clone(&self.turns), self.finish.clone());
        let id = id.to_owned();
        tokio::spawn(async move {
            let deadline = job.deadline;
            let work = async {
                // Never closed.
                let _turn = turns.acquire().await;
                job.work(&host).await
            };
            let late = || Err(error("timeout", "the command's deadline passed"));
            let outcome = timeout(deadline, work).await.unwrap_or_else(|_| late());
            drop(place);
            let _ = finish.send(Finished { id, outcome }).await;
        });
        None
    }

    /// The next command that is finished; its id.
    pub async fn finished(&mut self) -> String {
        // `self.finish` keeps the channel open.
        let Some(Finished { id, outcome }) = self.finished.recv().await else { std::future::pending().await };
        self.remember(&id, &outcome);
        id
    }

    fn remember(&mut self, id: &str, outcome: &Outcome) -> Arc<str> {
        let text = |outcome: &Outcome| {
            let data = match outcome {
                Ok(data) => json!({"data": data}),
                Err(error) => json!({"error": error}),
            };
            json!({"type": "REPLY", "id": id, "data": data}).to_string()
        };
        let mut reply = text(outcome);
        if reply.len() > REPLY_BYTES_MAX {
            reply = text(&Err(error("too_large", "the result does not fit a reply")));
        }
        let reply: Arc<str> = reply.into();
        self.memory.finish(id, Arc::clone(&reply));
        reply
    }
}

fn error(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message})
}

/// An allowed command.
struct Job {
    what: What,
    deadline: Duration,
}

enum What {
    Ping,
    Info,
    Run { program: super::allow::Program, args: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    #[serde(default)]
    args: Vec<String>,
}

impl Job {
    fn of(allow: &Allow, asked: Asked) -> Result<Self, Value> {
        let not_allowed = || error("not_allowed", &format!("this agent does not do {:.64?}", asked.command));
        let what = match asked.command.split_once(':') {
            None if asked.command == "ping" && allow.ping => What::Ping,
            None if asked.command == "info" && allow.info => What::Info,
            Some(("exec", name)) => {
                let program = allow.programs.get(name).ok_or_else(not_allowed)?;
                let args = arguments(asked.data.as_deref())?;
                if !program.admits(&args) {
                    return Err(error("not_allowed", "these arguments are not in the program's list"));
                }
                What::Run { program: program.clone(), args }
            }
            _ => return Err(not_allowed()),
        };
        Ok(Self { what, deadline: Duration::from_millis(asked.deadline_ms.unwrap_or(5_000)) })
    }

    async fn work(self, host: &Arc<Mutex<Host>>) -> Outcome {
        match self.what {
            What::Ping => Ok(json!({"time_ms": unix_ms()})),
            What::Info => {
                let mut host = Arc::clone(host).lock_owned().await;
                sleep_until(host.next_look()).await;
                let info = tokio::task::spawn_blocking(move || host.info()).await;
                info.map_err(|_| error("failed", "the host could not be looked at"))
            }
            What::Run { program, args } => {
                let result = execute::run(&program, &args, self.deadline).await;
                result.map_err(|failed| error(failed.code(), &failed.to_string()))
            }
        }
    }
}

/// `{"args": […]}`, or nothing.
fn arguments(data: Option<&RawValue>) -> Result<Vec<String>, Value> {
    match data.map(RawValue::get) {
        None | Some("null") => Ok(Vec::new()),
        Some(text) => tidegate_protocol::json::from_str::<Arguments>(text)
            .map(|a| a.args)
            .map_err(|_| error("bad_data", "data of exec is {\"args\": [texts]} or nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(words: &str) -> Commands {
        Commands::new(Allow::read(words).expect("known words"), 2, 10)
    }

    fn asked(text: &str) -> Asked {
        serde_json::from_str(text).expect("data of COMMAND")
    }

    fn data(reply: &str) -> Value {
        serde_json::from_str::<Value>(reply).expect("JSON")["data"].take()
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_refused_by_code() {
        let mut commands = commands("info");

        for (n, command) in ["ping", "exec:date", "exec", "exec:../date", "INFO", ""].iter().enumerate() {
            let reply =
                commands.take(&n.to_string(), asked(&json!({"command": command}).to_string())).expect("at once");
            assert_eq!(data(&reply)["error"]["code"], "not_allowed", "{command}");
        }
    }

    #[tokio::test]
    async fn an_allowed_command_is_done_once_and_answered_as_often_as_it_comes() {
        let mut commands = commands("ping");

        assert!(commands.take("a", asked(r#"{"command":"ping","data":null,"deadline_ms":5000}"#)).is_none());
        assert!(commands.take("a", asked(r#"{"command":"ping"}"#)).is_none(), "still running");
        assert_eq!(commands.finished().await, "a");
        let again = commands.take("a", asked(r#"{"command":"ping"}"#)).expect("remembered");

        assert!(data(&again)["data"]["time_ms"].is_u64(), "{again}");
        assert_eq!(commands.memory.unsent(), [Arc::from("a")]);
    }

    #[tokio::test]
    async fn arguments_come_from_the_list_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        let text = "[programs.say]\nargv = [\"/bin/echo\", \"hi\"]\nargs = [\"you\"]\n";
        std::fs::write(file.path(), text).expect("a scratch file");
        let mut commands = commands(&format!("exec:{}", file.path().display()));
        let exec = |args: Value| asked(&json!({"command": "exec:say", "data": args}).to_string());

        assert!(commands.take("a", exec(json!({"args": ["you"]}))).is_none());
        assert_eq!(commands.finished().await, "a");
        let said = commands.memory.reply("a").expect("finished");
        assert_eq!(data(&said)["data"]["stdout"], "hi you\n");
        for (n, (bad, code)) in [
            (json!({"args": ["me"]}), "not_allowed"),
            (json!({"args": "you"}), "bad_data"),
            (json!({"argv": []}), "bad_data"),
            (json!(["you"]), "bad_data"),
            (json!([["you"]]), "bad_data"),
        ]
        .into_iter()
        .enumerate()
        {
            let reply = commands.take(&n.to_string(), exec(bad.clone())).expect("at once");
            assert_eq!(data(&reply)["error"]["code"], code, "{bad}");
        }
    }

    #[tokio::test]
    async fn beyond_its_places_the_desk_is_busy() {
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        std::fs::write(file.path(), "[programs.wait]\nargv = [\"/bin/sleep\", \"60\"]\n").expect("a scratch file");
        let mut commands = commands(&format!("exec:{}", file.path().display()));
        let wait = || asked(r#"{"command":"exec:wait","deadline_ms":60000}"#);

        for n in 0..2 + WAITING {
            assert!(commands.take(&n.to_string(), wait()).is_none());
        }
        let reply = commands.take("one more", wait()).expect("at once");

        assert_eq!(data(&reply)["error"]["code"], "busy");
    }
}
