//! One agent of the bench: connects, answers, dies and comes back, and notes the truth of it.
//! Its WebSocket is that of `socket`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::dice;
use super::socket::Socket;
use super::truth::{Plan, Truth, name};
use crate::clock;

/// An agent that died is back within this.
const AWAY_MS: u64 = 500;
/// After an attempt that failed.
const RETRY: Duration = Duration::from_millis(50);

/// What all agents share.
pub(super) struct Shared {
    /// Where clients connect.
    pub clients: SocketAddr,
    pub truth: Truth,
    /// One for each agent: die.
    pub kills: Vec<Notify>,
    pub stop: watch::Receiver<bool>,
    /// How many have had their HELLO, ever.
    pub arrivals: watch::Sender<usize>,
}

/// Why a connection is over.
enum Over {
    Died,
    Stopped,
}

/// A reply that is due.
struct Due {
    at: Instant,
    text: String,
    dies_after: bool,
}

/// Lives until it is told to stop.
pub(super) async fn live(shared: Arc<Shared>, index: usize) {
    let mut stop = shared.stop.clone();
    loop {
        let query = format!("user={}&platform=agent", name(index));
        let connected = tokio::select! {
            connected = connect(&shared, &query) => connected,
            _ = stop.changed() => return,
        };
        let Some(socket) = connected else {
            sleep(RETRY).await;
            continue;
        };
        shared.truth.came(index, clock::now_ns());
        shared.arrivals.send_modify(|n| *n += 1);
        let over = stay(&shared, index, socket, &mut stop).await;
        if matches!(over, Over::Stopped) {
            return;
        }
        sleep(Duration::from_millis(dice() % AWAY_MS)).await;
    }
}

/// Connected and past HELLO.
async fn connect(shared: &Shared, query: &str) -> Option<Socket> {
    let mut socket = Socket::connect(shared.clients, &format!("/ws?{query}")).await.ok()?;
    while let Some(message) = socket.next().await {
        if message["type"] == "HELLO" {
            return Some(socket);
        }
    }
    None
}

/// Answers until it dies. The truth is told before the socket is gone.
async fn stay(shared: &Shared, index: usize, mut socket: Socket, stop: &mut watch::Receiver<bool>) -> Over {
    let mut due: Vec<Due> = Vec::new();
    let over = loop {
        let next = due.iter().map(|reply| reply.at).min();
        tokio::select! {
            message = socket.next() => {
                let Some(message) = message else { break Over::Died };
                match asked(shared, index, &message) {
                    Asked::Die => break Over::Died,
                    Asked::Reply(reply) => due.push(reply),
                    Asked::Nothing => {}
                }
            }
            () = at(next) => {
                let now = Instant::now();
                let (ready, later): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|reply| reply.at <= now);
                due = later;
                let mut dies = false;
                for reply in ready {
                    dies |= reply.dies_after | socket.send(&reply.text).await.is_err();
                }
                if dies {
                    break Over::Died;
                }
            }
            () = shared.kills[index].notified() => break Over::Died,
            _ = stop.changed() => break Over::Stopped,
        }
    };
    shared.truth.goes(index, clock::now_ns());
    socket.cut().await;
    over
}

enum Asked {
    Nothing,
    Die,
    Reply(Due),
}

fn asked(shared: &Shared, index: usize, told: &Value) -> Asked {
    let (Some("COMMAND"), Some(id)) = (told["type"].as_str(), told["id"].as_str()) else { return Asked::Nothing };
    let nonce = told["data"]["data"]["nonce"].as_u64().unwrap_or_default();
    let is_calm = told["data"]["data"]["calm"] == true;
    let (plan, is_first) = shared.truth.asked(index, id, nonce, roll(is_calm));
    if plan.is_mute {
        return Asked::Nothing;
    }
    if plan.dies_before && is_first {
        return Asked::Die;
    }
    let data = json!({"nonce": nonce, "value": plan.value});
    Asked::Reply(Due {
        at: Instant::now() + Duration::from_millis(plan.delay_ms),
        text: json!({"type": "REPLY", "id": id, "data": {"data": data}}).to_string(),
        dies_after: plan.dies_after && is_first,
    })
}

/// Of 100 commands 2 are never answered, 8 kill the agent before and 8 after its answer; a calm one is answered at once.
fn roll(is_calm: bool) -> Plan {
    let (chance, value) = (dice() % 100, dice());
    let chance = if is_calm { 99 } else { chance };
    Plan {
        value,
        is_mute: chance < 2,
        dies_before: (2..10).contains(&chance),
        dies_after: (10..18).contains(&chance),
        delay_ms: if is_calm { 0 } else { dice() % 20 },
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
