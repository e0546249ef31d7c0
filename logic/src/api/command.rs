//! `POST /v1/agents/{user}/command` and `POST /v1/rooms/{room}/command`: reads what is asked, keeps repeats of a key
//! together, and makes the answer: one reply, lines as they come, or a problem that tells what is known.
//! A command without a key ends when its caller leaves; one with a key goes on, so that a repeat finds its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::body::must_be_json;
use super::calls;
use super::response::{self, Answer, with_type};
use crate::agents::registry::Target;
use crate::agents::run::{Ask, Conclusion, End, Expect, Step, run};
use crate::agents::{Agents, documents as document};
use crate::config::{AgentsConfig, LimitsConfig};
use crate::fleet;
use crate::json::{self as syntax, Object};
use crate::problem::Refusal;
use crate::push::dedupe::{Claim, Guard};

/// Longest command name and idempotency key, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A request, read.
struct Asked {
    ask: Ask,
    key: Option<String>,
}

/// Answers either call.
pub async fn post(asked: calls::Asked, target: Target) -> Result<Answer, Refusal> {
    let calls::Asked { api, caller, place: in_progress, head, body, .. } = asked;
    let (agents, headers, config) = (&api.agents, &head.headers, &api.agents.config);
    must_be_json(headers)?;
    // What a key may not reach is refused alike whether or not it is there.
    if let Some(reach) = &caller.reach {
        reach.check(&target.to())?;
    }
    let place = Arc::clone(&agents.places).try_acquire_owned();
    let full = Refusal::Overloaded { what: "commands that wait (logic.agents.commands)", limit: config.commands };
    let place = place.map_err(|_| full)?;
    // From here on it counts as a command: it will wait for agents, which is longer than a request takes.
    in_progress.leave();
    let now = Arc::clone(&body.now);
    let body = body.read().await?;
    let Asked { ask, key } = read(&now.limits, config, target, &body.bytes)?;
    let streams = ask.expect == Expect::All || accepts_lines(headers);
    let Some(key) = key else {
        drop(body);
        return if streams { stream(agents, ask, place, None).await } else { alone(agents, ask).await };
    };
    let print = print_of(&ask.target, &body.bytes);
    drop(body);
    match agents.keys.claim_exactly(caller.id, &key, print, Instant::now()) {
        Err(_) => {
            agents.count("conflict");
            Err(Refusal::IdempotencyConflict)
        }
        Ok(Claim::Repeat(earlier)) => {
            agents.count("repeated");
            let target = ask.target;
            let conclusion = earlier.receipt().await.ok_or(Refusal::FirstFailed)?;
            finished(agents, &target, &conclusion, streams)
        }
        Ok(Claim::First(guard)) if streams => stream(agents, ask, place, Some(guard)).await,
        Ok(Claim::First(guard)) => {
            let target = ask.target.clone();
            let conclusion = apart(agents, ask, place, Some(guard), None).await.map_err(|_| Refusal::ShuttingDown)?;
            finished(agents, &target, &conclusion, false)
        }
    }
}

/// The command ends with the request.
async fn alone(agents: &Agents, ask: Ask) -> Result<Answer, Refusal> {
    let conclusion = run(agents, &ask, None).await;
    agents.conclude(&conclusion);
    finished(agents, &ask.target, &conclusion, false)
}

/// The command runs beside the request.
fn apart(
    agents: &Arc<Agents>,
    ask: Ask,
    place: OwnedSemaphorePermit,
    guard: Option<Guard<Conclusion>>,
    steps: Option<mpsc::Sender<Step>>,
) -> JoinHandle<Arc<Conclusion>> {
    let agents = Arc::clone(agents);
    tokio::spawn(async move {
        let _place = place;
        // With a key it goes on when the caller leaves; then the lines are told to nobody.
        let (own, others) = if guard.is_some() { (None, steps) } else { (steps, None) };
        let conclusion = match others {
            None => run(&agents, &ask, own).await,
            Some(steps) => relayed(&agents, &ask, steps).await,
        };
        agents.conclude(&conclusion);
        match guard {
            // Nobody can have got it: the key is free for another try.
            Some(guard) if conclusion.delivered == 0 && conclusion.end != End::TimedOut => {
                drop(guard);
                Arc::new(conclusion)
            }
            Some(guard) => agents.keep(conclusion, guard),
            None => Arc::new(conclusion),
        }
    })
}

/// Runs with a listener that may leave without ending the run.
async fn relayed(agents: &Agents, ask: &Ask, steps: mpsc::Sender<Step>) -> Conclusion {
    let (sender, mut receiver) = mpsc::channel(agents.config.replies + 1);
    let relay = async {
        while let Some(step) = receiver.recv().await {
            // A listener that has left, or reads nothing, misses it.
            let _ = steps.try_send(step);
        }
    };
    let (conclusion, ()) = tokio::join!(run(agents, ask, Some(sender)), relay);
    conclusion
}

/// Answers with lines, once it is certain that there will be some.
async fn stream(
    agents: &Arc<Agents>,
    ask: Ask,
    place: OwnedSemaphorePermit,
    guard: Option<Guard<Conclusion>>,
) -> Result<Answer, Refusal> {
    let (sender, mut steps) = mpsc::channel(agents.config.replies + 1);
    let target = ask.target.clone();
    let running = apart(agents, ask, place, guard, Some(sender));
    if steps.recv().await.is_none() {
        let conclusion = running.await.map_err(|_| Refusal::ShuttingDown)?;
        return finished(agents, &target, &conclusion, true);
    }
    let (out, lines) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let step = tokio::select! {
                step = steps.recv() => step,
                // The caller has left; dropping the steps ends a command without a key.
                () = out.closed() => return,
            };
            match step {
                Some(Step::Line(line)) => {
                    let _ = out.send(line).await;
                }
                Some(Step::Sent) => {}
                None => break,
            }
        }
        if let Ok(conclusion) = running.await {
            let _ = out.send(document::summary(&conclusion)).await;
        }
    });
    Ok(response::lines(lines))
}

/// The answer to a command that has ended.
fn finished(agents: &Agents, target: &Target, conclusion: &Conclusion, streams: bool) -> Result<Answer, Refusal> {
    match &conclusion.end {
        End::Nobody => return Err(Refusal::NobodyThere),
        End::Untaken(failed) => return Err(fleet::untaken(failed)),
        End::Replied | End::TimedOut | End::Left => {}
    }
    if streams {
        let mut lines: Vec<u8> = conclusion.replies.iter().flat_map(document::line).collect();
        lines.extend_from_slice(&document::summary(conclusion));
        return Ok(with_type(StatusCode::OK, "application/x-ndjson", lines));
    }
    if let Some(one) = document::single(conclusion) {
        return Ok(with_type(StatusCode::OK, "application/json", one));
    }
    let known = Box::new(document::known(conclusion, agents.is_there(target)));
    Err(if conclusion.replies.is_empty() { Refusal::CommandTimeout { known } } else { Refusal::AgentError { known } })
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("application/x-ndjson"))
}

/// What is asked of whom; a key stands for this and nothing else.
fn print_of(target: &Target, body: &Bytes) -> [u8; 32] {
    let (kind, name) = match target {
        Target::User(user) => (b'u', user),
        Target::Room(room) => (b'r', room),
    };
    let mut hash = Sha256::new();
    // A name has no control characters, so the zero ends it.
    hash.update([kind]);
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

fn read(limits: &LimitsConfig, config: &AgentsConfig, target: Target, body: &Bytes) -> Result<Asked, Refusal> {
    // One level stands above `data`.
    let text = syntax::text(body, limits.json_depth + 1)?;
    let mut object = Object::read(text, "")?;
    object.only(&["command", "data", "timeout_ms", "idempotency", "expect", "wait_for_agent"])?;
    let command = object.take("command").ok_or(Refusal::MissingField { pointer: String::new(), name: "command" })?;
    let command = name(&command)?;
    let data = match object.take("data") {
        None => "null".to_owned(),
        Some(data) => {
            let text = data.raw.get();
            if text.len() > limits.message_bytes {
                let (pointer, bytes) = (data.pointer, text.len());
                return Err(Refusal::MessageTooLarge { pointer, bytes, limit: limits.message_bytes });
            }
            syntax::check_meaning(text, &|| data.pointer.clone())?;
            text.to_owned()
        }
    };
    let timeout_ms = match object.take("timeout_ms") {
        None => config.timeout_ms,
        Some(value) => {
            let ms = value.number("a whole number of milliseconds")?;
            let max = config.timeout_ms_max;
            if !(1..=max).contains(&ms) {
                let expected = format!("a number from 1 to {max} (logic.agents.timeout_ms_max)");
                return Err(Refusal::BadValue { pointer: value.pointer, expected });
            }
            ms
        }
    };
    let key = object.take("idempotency").map(|value| name(&value)).transpose()?;
    let expect = match object.take("expect") {
        None => Expect::First,
        Some(value) => match value.string("\"first\" or \"all\"")?.as_ref() {
            "first" => Expect::First,
            "all" => Expect::All,
            _ => {
                return Err(Refusal::BadValue { pointer: value.pointer, expected: "\"first\" or \"all\"".into() });
            }
        },
    };
    let waits_for_agent = match object.take("wait_for_agent") {
        None => false,
        Some(value) if !matches!(value.raw.get(), "true" | "false") => return Err(value.wrong("true or false")),
        Some(value) if value.is_true() && matches!(target, Target::Room(_)) => {
            let expected = "left out of a command to a room: a room without members is not there".into();
            return Err(Refusal::BadValue { pointer: value.pointer, expected });
        }
        Some(value) => value.is_true(),
    };
    let timeout = Duration::from_millis(u64::from(timeout_ms));
    Ok(Asked { ask: Ask { target, command, data, timeout, expect, waits_for_agent }, key })
}

fn name(value: &syntax::Value<'_>) -> Result<String, Refusal> {
    const EXPECTED: &str = "a string of 1 to 128 bytes without control characters";
    let name = value.string(EXPECTED)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::BadValue { pointer: value.pointer.clone(), expected: EXPECTED.into() });
    }
    Ok(name.into_owned())
}
