//! What the agents know and the callers cannot: when each agent was there, and which value it gave to which command.
//! Judges every HTTP answer by it. Invariant: an agent is noted as gone before its socket is closed, and as there after its
//! HELLO has come, so that what is noted lies inside what is true.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use serde_json::Value;

/// Someone who was there for so long on end has been sent the command and had the time to answer: a look for new
/// connections comes after a second at first, an answer takes 20 ms.
const CHANCE_NS: u64 = 1_500_000_000;

/// What an agent does with a command, decided when it is first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Only this agent knows it, and only for this command.
    pub value: u64,
    /// Never answers.
    pub is_mute: bool,
    /// Dies before it answers, and answers when it is asked again.
    pub dies_before: bool,
    /// Dies as soon as it has answered.
    pub dies_after: bool,
    pub delay_ms: u64,
}

#[derive(Debug)]
struct Done {
    nonce: u64,
    plan: Plan,
    asked: u32,
}

#[derive(Debug, Default)]
struct Agent {
    /// When it was there; the last may not be over.
    stays: Vec<(u64, Option<u64>)>,
    done: HashMap<String, Done>,
}

/// The knowledge of all agents.
#[derive(Debug)]
pub(super) struct Truth {
    agents: Vec<Mutex<Agent>>,
    /// Ids of the commands that were answered.
    answered: Mutex<HashSet<String>>,
}

/// One request and what came back.
#[derive(Debug)]
pub(super) struct Exchange {
    pub agent: usize,
    pub nonce: u64,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub status: u16,
    pub body: Value,
}

impl Truth {
    pub(super) fn new(agents: usize) -> Self {
        Self { agents: (0..agents).map(|_| Mutex::default()).collect(), answered: Mutex::default() }
    }

    fn of(&self, agent: usize) -> std::sync::MutexGuard<'_, Agent> {
        self.agents[agent].lock().expect("no agent panics while it notes something")
    }

    pub(super) fn came(&self, agent: usize, now_ns: u64) {
        self.of(agent).stays.push((now_ns, None));
    }

    pub(super) fn goes(&self, agent: usize, now_ns: u64) {
        if let Some(stay) = self.of(agent).stays.last_mut() {
            stay.1 = Some(now_ns);
        }
    }

    /// A COMMAND has come; the plan of the first time, and whether this is the first time.
    pub(super) fn asked(&self, agent: usize, id: &str, nonce: u64, plan: Plan) -> (Plan, bool) {
        let mut known = self.of(agent);
        let done = known.done.entry(id.to_owned()).or_insert(Done { nonce, plan, asked: 0 });
        done.asked += 1;
        (done.plan, done.asked == 1)
    }

    /// Commands that were sent to more than one connection.
    pub(super) fn asked_again(&self) -> usize {
        (0..self.agents.len()).map(|agent| self.of(agent).done.values().filter(|done| done.asked > 1).count()).sum()
    }

    /// What is wrong with an answer.
    pub(super) fn judge(&self, exchange: &Exchange) -> Result<(), String> {
        let agent = self.of(exchange.agent);
        let wrong = |why: &str| Err(format!("{why}: {} {}", exchange.status, exchange.body));
        match (exchange.status, exchange.body["code"].as_str()) {
            (200, _) => {
                let id = exchange.body["id"].as_str().unwrap_or_default();
                let Some(done) = agent.done.get(id) else { return wrong("the agent never saw that command") };
                let reply = &exchange.body["reply"];
                if reply["from"]["user"] != name(exchange.agent) {
                    return wrong("the reply of another agent");
                }
                if done.nonce != exchange.nonce || reply["data"]["nonce"] != exchange.nonce {
                    return wrong("the reply to another caller's command");
                }
                if reply["data"]["value"] != done.plan.value || done.plan.is_mute {
                    return wrong("not what the agent replied");
                }
                let is_new = self.answered.lock().expect("no judge panics here").insert(id.to_owned());
                if is_new { Ok(()) } else { wrong("a reply given twice") }
            }
            (504, Some("command_timeout")) => {
                let id = exchange.body["command"]["id"].as_str().unwrap_or_default();
                let is_mute = agent.done.get(id).is_some_and(|done| done.plan.is_mute);
                let had_chance = agent.stays.iter().any(|(from, to)| {
                    let (from, to) = ((*from).max(exchange.begun_ns), to.unwrap_or(u64::MAX).min(exchange.ended_ns));
                    to.saturating_sub(from) >= CHANCE_NS
                });
                if is_mute || !had_chance { Ok(()) } else { wrong("the agent was there and would have answered") }
            }
            (404, Some("nobody_there")) => {
                let was_there = agent
                    .stays
                    .iter()
                    .any(|(from, to)| *from <= exchange.begun_ns && to.is_none_or(|to| to >= exchange.ended_ns));
                if was_there { wrong("the agent was there all the time") } else { Ok(()) }
            }
            (_, _) => wrong("no such answer is right"),
        }
    }
}

/// The user that an agent connects as.
pub(super) fn name(agent: usize) -> String {
    format!("agent-{agent}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn plan(is_mute: bool) -> Plan {
        Plan { value: 42, is_mute, dies_before: false, dies_after: false, delay_ms: 0 }
    }

    /// Agent 0 was there from 10 s to 20 s and has seen the commands `a`, and `m` that it is mute about.
    fn truth() -> Truth {
        let truth = Truth::new(2);
        truth.came(0, 10 * SECOND);
        truth.asked(0, "a", 7, plan(false));
        truth.asked(0, "m", 8, plan(true));
        truth.goes(0, 20 * SECOND);
        truth
    }

    fn exchange(seconds: (u64, u64), nonce: u64, status: u16, body: Value) -> Exchange {
        Exchange { agent: 0, nonce, begun_ns: seconds.0 * SECOND, ended_ns: seconds.1 * SECOND, status, body }
    }

    fn reply(id: &str, user: &str, nonce: u64, value: u64) -> Value {
        json!({"id": id, "reply": {"from": {"user": user}, "data": {"nonce": nonce, "value": value}}})
    }

    #[test]
    fn a_reply_is_right_once_from_its_agent_to_its_caller() {
        let truth = truth();
        let judge = |nonce, body| truth.judge(&exchange((11, 12), nonce, 200, body));

        assert!(judge(7, reply("a", "agent-1", 7, 42)).is_err_and(|why| why.starts_with("the reply of another agent")));
        assert!(judge(9, reply("a", "agent-0", 7, 42)).is_err_and(|why| why.contains("another caller")));
        assert!(judge(7, reply("a", "agent-0", 7, 41)).is_err_and(|why| why.starts_with("not what")));
        assert!(judge(8, reply("m", "agent-0", 8, 42)).is_err());
        assert!(judge(7, reply("b", "agent-0", 7, 42)).is_err_and(|why| why.contains("never saw")));
        assert_eq!(judge(7, reply("a", "agent-0", 7, 42)), Ok(()));
        assert!(judge(7, reply("a", "agent-0", 7, 42)).is_err_and(|why| why.contains("twice")));
    }

    #[test]
    fn a_504_is_right_of_a_mute_agent_or_one_that_had_no_chance() {
        let truth = truth();
        let late = |seconds, id: &str| {
            let body = json!({"code": "command_timeout", "command": {"id": id}});
            truth.judge(&exchange(seconds, 8, 504, body))
        };

        assert_eq!(late((11, 14), "m"), Ok(()));
        assert_eq!(late((19, 22), "a"), Ok(()));
        assert!(late((11, 14), "a").is_err());
        assert!(late((18, 21), "z").is_err(), "two seconds were a chance");
    }

    #[test]
    fn a_404_is_wrong_of_an_agent_that_was_there_all_the_time() {
        let truth = truth();
        let nobody = |seconds| truth.judge(&exchange(seconds, 7, 404, json!({"code": "nobody_there"})));

        assert_eq!((nobody((9, 11)), nobody((19, 21)), nobody((30, 31))), (Ok(()), Ok(()), Ok(())));
        assert!(nobody((12, 13)).is_err());
        assert!(truth.judge(&exchange((12, 13), 7, 503, json!({"code": "overloaded"}))).is_err());
    }
}
