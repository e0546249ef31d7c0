//! The sweep: who has been silent, who does not answer, and whose pending bytes have not moved (rules L-2 and L-3).
//! One pass over numbers in slot order every half second; no timer per connection.

use std::sync::atomic::Ordering;

use tidegate_protocol::close::CloseReason;

use super::drive::Drive;
use super::table::Table;
use crate::clock::{Coarse, Millis, Moment, age_of, coarse, is_due, since, since_coarse};
use crate::live::LiveRates;
use crate::node::Node;

/// A ping without a payload: FIN and opcode 9, length 0 (RFC 6455 section 5.5.2).
const PING: [u8; 2] = [0x89, 0];

impl Drive {
    /// Looks at every connection's last sign of life, and at what has waited too long.
    pub(super) fn sweep(&mut self, node: &Node) {
        let moment = node.clock.moment();
        #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
        let now = moment as Millis;
        if since(now, self.chatty_since) >= 1_000 {
            self.chatty_since = now;
            self.chatty.clear();
            let LiveRates { requests, replies, user_sends } = node.live.rates();
            self.requests.set(requests);
            self.replies.set(replies);
            self.user_sends.set(user_sends);
            self.requests.sweep(now);
            self.replies.sweep(now);
            self.user_sends.sweep(now);
        }
        self.expire(node);
        let over: Vec<u32> = self.closing.iter().filter(|(_, at)| is_due(now, **at)).map(|(s, _)| *s).collect();
        let patience = node.live.message_ms();
        let unfinished: Vec<u32> =
            self.partial.iter().filter(|(_, p)| since(now, p.since) >= patience).map(|(s, _)| *s).collect();
        // Whom the gateway itself does not listen to at the moment cannot finish.
        let unfinished: Vec<u32> = unfinished.into_iter().filter(|slot| !self.paused.contains_key(slot)).collect();
        for slot in unfinished {
            if let Some(generation) = self.generation_of(node, slot) {
                let _ = self.take_partial(node, slot);
                self.begin_close(node, slot, generation, 1008, "a message must be complete within limits.message_ms");
            }
        }
        let (idle, dead, slow) = {
            let table = node.buckets[self.index].table.read();
            let has_pending = self.bucket().counters.read().pending_bytes != 0;
            judge(&table, node, has_pending, moment)
        };
        for slot in over {
            if let Some(generation) = self.generation_of(node, slot) {
                self.remove(node, slot, generation);
            }
        }
        for (slot, generation) in slow {
            if !self.closing.contains_key(&slot) {
                node.totals.slow_closed.fetch_add(1, Ordering::Relaxed);
                self.cut(node, slot, generation, CloseReason::Slow);
                let _ = self.send_pending(node, slot, generation);
            }
        }
        for (slot, generation) in dead {
            if !self.closing.contains_key(&slot) {
                node.totals.idle_closed.fetch_add(1, Ordering::Relaxed);
                self.begin_close(node, slot, generation, CloseReason::Idle.code(), &CloseReason::Idle.text(None));
            }
        }
        self.ping(node, &idle, moment);
    }

    /// Asks for a sign of life; all in one go, so that their answers come together and wake the task once.
    fn ping(&mut self, node: &Node, idle: &[(u32, u32)], now: Moment) {
        if idle.is_empty() {
            return;
        }
        let asked: Vec<(u32, u32)> = {
            let mut table = node.buckets[self.index].table.write();
            let is_asked = |&&(slot, generation): &&(u32, u32)| {
                !self.closing.contains_key(&slot) && table.find(slot, generation).is_some()
            };
            let asked: Vec<(u32, u32)> = idle.iter().filter(is_asked).copied().collect();
            asked.iter().for_each(|(slot, _)| table.cold[*slot as usize].pinged = coarse(now));
            asked
        };
        node.totals.pings.fetch_add(asked.len() as u64, Ordering::Relaxed);
        for (slot, generation) in asked {
            self.say(node, slot, generation, bytes::Bytes::from_static(&PING), false);
        }
    }

    pub(super) fn generation_of(&self, node: &Node, slot: u32) -> Option<u32> {
        let table = node.buckets[self.index].table.read();
        table.hot.get(slot as usize).filter(|h| h.fd.is_some()).map(|h| h.generation)
    }
}

type Slots = Vec<(u32, u32)>;

/// Who should be pinged, who is silent beyond hope, and whose pending has not moved for too long.
/// `has_pending`: whether anything waits in this bucket at all; without, no outbox is looked at.
#[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits, and time wraps")]
fn judge(table: &Table, node: &Node, has_pending: bool, moment: Moment) -> (Slots, Slots, Slots) {
    let now = moment as Millis;
    let (mut idle, mut dead, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    let heartbeat = &node.config.heartbeat;
    let soonest = heartbeat.pong_ms.min(heartbeat.idle_ms / 5 * 4);
    for (i, hot) in table.hot.iter().enumerate() {
        if hot.fd.is_none() {
            continue;
        }
        let (slot, generation) = (i as u32, hot.generation);
        let quiet = age_of(&hot.seen, now).min(age_of(&hot.wrote, now));
        if quiet >= soonest {
            let pinged = table.cold[i].pinged;
            let waited = since_coarse(moment, pinged);
            let is_unanswered = is_unanswered(moment, pinged, age_of(&hot.seen, now));
            if is_unanswered && quiet >= heartbeat.pong_ms && waited >= u64::from(heartbeat.pong_ms) {
                dead.push((slot, generation));
            } else if !is_unanswered && quiet >= jittered(heartbeat.idle_ms, slot, generation) {
                idle.push((slot, generation));
            }
        }
        if has_pending {
            let stuck = hot.outbox.lock().as_ref().and_then(|p| p.stuck_since());
            if stuck.is_some_and(|at| since(now, at) >= node.config.pending.age_ms) {
                slow.push((slot, generation));
            }
        }
    }
    (idle, dead, slow)
}

/// Whether nothing has come since the ping. A pong may come in the millisecond of its ping, and a ping is kept as up to
/// 64 ms earlier than it was; nobody is pinged who was heard of that lately.
fn is_unanswered(now: Moment, pinged: Coarse, silent_ms: u32) -> bool {
    pinged != 0 && u64::from(silent_ms) > since_coarse(now, pinged)
}

/// `ms` ± 20 %, the same for a connection's whole life (rule L-2).
fn jittered(ms: u32, slot: u32, generation: u32) -> u32 {
    let mix = (slot ^ generation.rotate_left(16)).wrapping_mul(0x9e37_79b9) >> 16;
    let percent = 80 + mix % 41;
    (u64::from(ms) * u64::from(percent) / 100).try_into().unwrap_or(ms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::config::GatewayConfig;
    use crate::node::Gateway;

    /// A gateway of this age that serves nobody.
    fn gateway(age: Duration) -> Gateway {
        let config = GatewayConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..GatewayConfig::default() };
        Gateway::start_on(config, Clock::start().started_earlier(age)).expect("starts")
    }

    #[test]
    fn a_pong_in_the_millisecond_of_its_ping_is_an_answer() {
        for pinged in 100_000..100_128 {
            let now = pinged + 8_000;
            let heard = |at: Moment| is_unanswered(now, coarse(pinged), u32::try_from(now - at).expect("seconds"));

            assert!(!heard(pinged) && !heard(pinged + 1), "pinged at {pinged}");
            assert!(heard(pinged - 20_000), "pinged at {pinged}");
        }
    }

    #[tokio::test]
    async fn a_reload_reaches_every_rate_within_a_second() {
        let gateway = gateway(Duration::from_secs(2));
        let node = &gateway.node;
        let mut drive = Drive::new(Arc::clone(node), 0);
        let mut other = node.config.clone();
        other.limits.requests_per_s += 1;
        other.limits.user_sends_per_s += 1;
        gateway.reload(&other).expect("a good configuration");

        drive.sweep(node);

        let in_force = LiveRates {
            requests: drive.requests.rate(),
            replies: drive.replies.rate(),
            user_sends: drive.user_sends.rate(),
        };
        assert_eq!(in_force, node.live.rates());
    }

    /// Rule L-2: one that only listens says nothing for weeks and is written to all the time; when the writes end it is pinged.
    #[tokio::test]
    async fn a_listener_is_pinged_however_long_it_has_said_nothing() {
        for days in [25, 50, 100] {
            let gateway = gateway(Duration::from_secs(days * 24 * 60 * 60));
            let node = &gateway.node;
            let mut drive = Drive::new(Arc::clone(node), 0);
            let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let bucket = &node.buckets[0];
            bucket.table.write().insert(near.into(), Default::default(), 1);
            let written_till = node.clock.now().wrapping_sub(2 * node.config.heartbeat.idle_ms);
            // It has been looked at all the time.
            for now in (0..=node.clock.moment()).step_by(1 << 29) {
                age_of(&bucket.table.read().hot[0].seen, now as Millis);
            }
            bucket.table.read().hot[0].wrote.store(written_till, Ordering::Relaxed);

            drive.sweep(node);

            assert_eq!(node.totals.pings.load(Ordering::Relaxed), 1, "after {days} days");
        }
    }
}
