//! The sweep: who has been silent, who does not answer, and whose pending bytes have not moved (rules L-2 and L-3).
//! One pass over numbers in slot order every half second; no timer per connection. Neighbours of whom nobody can be due yet are
//! passed over, so that a quiet million costs a look at one number in eight.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashMap;
use rustix::net::sockopt;
use tidegate_protocol::close::CloseReason;

use super::event_loop::EventLoop;
use super::host::Rules;
use super::rare::{Rare, Timer};
use crate::bucket::table::Table;
use crate::clock::{Coarse, Millis, Moment, age_of, coarse, is_due, since, since_coarse};
use crate::config::HeartbeatConfig;
use crate::key::SlotKey;

/// A ping without a payload: FIN and opcode 9, length 0 (RFC 6455 section 5.5.2).
const PING: [u8; 2] = [0x89, 0];
/// Slots that are looked at or passed over together: those of one cache line.
const BLOCK: usize = 2;

/// What a bucket's sweep keeps from one pass to the next.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// By [`BLOCK`]: when one of its connections can be due at the earliest. Life only ever puts that off, and so does another
    /// connection in a slot, so it stays right however long it is not looked at.
    until: Vec<Millis>,
    /// Who has kept its window shut once, and when it last took something of what waited. Only what these say counts as life.
    stalled: HashMap<u32, AtomicU32, ahash::RandomState>,
}

impl Quiet {
    /// Notes that a peer has not taken what it was sent. Where a window has once been shut, Linux measures `TCP_USER_TIMEOUT`
    /// from then on and would end the connection as soon as the window shuts again (docs/adr/0007): for this connection
    /// it is taken off. A TLS client's socket is its relay's, which does the same.
    pub(super) fn note_stall(&mut self, socket: &OwnedFd, slot: u32, now: Millis) {
        if self.stalled.insert(slot, AtomicU32::new(now)).is_some() {
            return;
        }
        let _ = sockopt::set_tcp_user_timeout(socket, 0);
        if let Some(until) = self.until.get_mut(slot as usize / BLOCK) {
            *until = now;
        }
    }

    /// Forgets a slot whose connection is gone.
    pub(super) fn forget(&mut self, slot: u32) {
        self.stalled.remove(&slot);
    }
}

impl EventLoop {
    /// Looks at every connection's last sign of life, and at what has waited too long.
    pub(super) fn sweep(&mut self) {
        let moment = self.host.clock().moment();
        #[expect(clippy::cast_possible_truncation, reason = "wraps by design")]
        let now = moment as Millis;
        if since(now, self.second) >= 1_000 {
            self.second = now;
            self.rates = self.host.settings.rates();
            self.rare.tidy(now, &self.rates);
            self.user_sends.set(self.rates.user_sends);
            self.user_sends.sweep(now);
        }
        self.expire();
        let over = self.rare.over(now);
        let patience = self.host.settings.message_ms();
        // Whom the gateway itself does not listen to at the moment cannot finish.
        let is_late = |rare: &Rare| {
            rare.paused.is_none() && rare.timers.get(Timer::Message).is_some_and(|at| since(now, at) >= patience)
        };
        let unfinished: Vec<u32> = self.rare.iter().filter(|(_, rare)| is_late(rare)).map(|(slot, _)| slot).collect();
        for slot in unfinished {
            if let Some(key) = self.key_in(slot) {
                let _ = self.take_partial(slot);
                self.begin_close(key, 1008, "a message must be complete within limits.message_ms");
            }
        }
        let is_turn = since(now, self.ping_turn) >= ping_interval(&self.host.rules.heartbeat);
        if is_turn {
            self.ping_turn = now;
        }
        let (idle, dead, slow) = {
            let table = self.host.buckets[self.index].table.read();
            let has_pending = self.bucket().counters.read().pending_bytes != 0;
            judge(&table, &self.host.rules, Look { has_pending, is_turn, moment }, &mut self.quiet)
        };
        for slot in over {
            if let Some(key) = self.key_in(slot) {
                self.remove(key);
            }
        }
        for key in slow {
            if !self.rare.is_closing(key.slot) {
                self.host.totals.slow_closed.fetch_add(1, Ordering::Relaxed);
                self.cut(key, CloseReason::Slow);
                let _ = self.send_pending(key);
            }
        }
        for key in dead {
            if !self.rare.is_closing(key.slot) {
                self.host.totals.idle_closed.fetch_add(1, Ordering::Relaxed);
                self.begin_close(key, CloseReason::Idle.code(), &CloseReason::Idle.text(None));
            }
        }
        self.ping(&idle, moment);
    }

    /// Asks for a sign of life; all in one go, so that their answers come together and wake the task once.
    fn ping(&mut self, idle: &[SlotKey], now: Moment) {
        if idle.is_empty() {
            return;
        }
        let asked: Vec<SlotKey> = {
            let mut table = self.host.buckets[self.index].table.write();
            let is_asked = |key: &&SlotKey| !self.rare.is_closing(key.slot) && table.find(**key).is_some();
            let asked: Vec<SlotKey> = idle.iter().filter(is_asked).copied().collect();
            asked.iter().for_each(|key| table.cold[key.slot as usize].pinged = coarse(now));
            asked
        };
        self.host.totals.pings.fetch_add(asked.len() as u64, Ordering::Relaxed);
        for key in asked {
            self.send_control(key, bytes::Bytes::from_static(&PING), false);
        }
    }

    /// The connection in a slot now.
    pub(super) fn key_in(&self, slot: u32) -> Option<SlotKey> {
        let table = self.host.buckets[self.index].table.read();
        table.hot.get(slot as usize).filter(|h| h.fd.is_some()).map(|h| SlotKey { slot, generation: h.generation })
    }
}

type Slots = Vec<SlotKey>;

/// One look at a bucket.
#[derive(Clone, Copy)]
struct Look {
    /// Whether anything waits in this bucket at all; without, no outbox is looked at.
    has_pending: bool,
    /// Whether pings are sent now; who is due otherwise is looked at again.
    is_turn: bool,
    /// Now.
    moment: Moment,
}

/// Who should be pinged, who is silent beyond hope, and whose pending has not moved for too long.
#[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits, and time wraps")]
fn judge(table: &Table, rules: &Rules, look: Look, quiet: &mut Quiet) -> (Slots, Slots, Slots) {
    let Look { has_pending, is_turn, moment } = look;
    let now = moment as Millis;
    let (mut idle, mut dead, mut slow) = (Vec::new(), Vec::new(), Vec::new());
    let heartbeat = &rules.heartbeat;
    let Quiet { until, stalled } = quiet;
    until.resize(table.hot.len().div_ceil(BLOCK), now);
    for (block, until) in until.iter_mut().enumerate() {
        if !has_pending && !is_due(now, *until) {
            continue;
        }
        let first = block * BLOCK;
        let hots = &table.hot[first..table.hot.len().min(first + BLOCK)];
        // The least a connection is left alone that has just given a sign of life, or one that comes to a slot now.
        let mut patience = heartbeat.idle_ms / 5 * 4;
        for (i, hot) in (first..).zip(hots) {
            if hot.fd.is_none() {
                continue;
            }
            let key = SlotKey { slot: i as u32, generation: hot.generation };
            if has_pending && let Some(at) = hot.outbox.lock().as_ref().and_then(|p| p.stuck_since()) {
                // It cannot answer what it does not take: for how long it may take nothing is another bound.
                patience = 0;
                if since(now, at) >= rules.pending_age_ms {
                    slow.push(key);
                }
                continue;
            }
            let silent = age_of(&hot.seen, now);
            let unwritten = age_of(&hot.wrote, now);
            let resumed = stalled.get(&key.slot).map(|at| age_of(at, now));
            let quiet = if resumed.is_some() { silent } else { silent.min(unwritten) };
            let pinged = table.cold[i].pinged;
            if is_unanswered(moment, pinged, silent) {
                // All have to be that long ago: the ping, the last that was written, and that it could be read.
                let waited = since_coarse(moment, pinged).min(quiet.into()) as u32;
                let waited = waited.min(resumed.unwrap_or(u32::MAX));
                patience = patience.min(heartbeat.pong_ms.saturating_sub(waited));
                if waited >= heartbeat.pong_ms {
                    dead.push(key);
                }
            } else {
                let ping_after = jittered(heartbeat.idle_ms, key);
                let is_pinged = is_turn && quiet >= ping_after;
                // Who is pinged now is next of interest when the pong is due.
                patience = patience.min(if is_pinged { heartbeat.pong_ms } else { ping_after.saturating_sub(quiet) });
                if is_pinged {
                    idle.push(key);
                }
            }
        }
        *until = now.wrapping_add(patience);
    }
    (idle, dead, slow)
}

/// Whether nothing has come since the ping. A pong may come in the millisecond of its ping, and a ping is kept as up to
/// 64 ms earlier than it was; nobody is pinged who was heard of that lately.
fn is_unanswered(now: Moment, pinged: Coarse, silent_ms: u32) -> bool {
    pinged != 0 && u64::from(silent_ms) > since_coarse(now, pinged)
}

/// How long pings of a bucket wait for each other, so that one wake-up serves many pongs: 2 s at the default of 25 s, where each
/// fourth sweep sends them. With [`jittered`] that stays within rule L-2.
pub(super) fn ping_interval(heartbeat: &HeartbeatConfig) -> u32 {
    heartbeat.idle_ms / 100 * 7
}

/// `ms` − 20 % to + 12 %, the same for a connection's whole life; what a ping waits for others adds up to 8 % (rule L-2: ± 20 %).
fn jittered(ms: u32, key: SlotKey) -> u32 {
    let mix = (key.slot ^ key.generation.rotate_left(16)).wrapping_mul(0x9e37_79b9) >> 16;
    let percent = 80 + mix % 33;
    (u64::from(ms) * u64::from(percent) / 100).try_into().unwrap_or(ms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::config::GatewayConfig;
    use crate::gateway::Gateway;

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
        let host = &gateway.parts.host;
        let mut event_loop = EventLoop::new(Arc::clone(host), 0);
        let mut other = GatewayConfig::default();
        other.limits.requests_per_s += 1;
        other.limits.user_sends_per_s += 1;
        gateway.reload(&other).expect("a good configuration");

        event_loop.sweep();

        assert_eq!(event_loop.rates, host.settings.rates());
        assert_eq!(event_loop.user_sends.rate(), host.settings.rates().user_sends);
    }

    /// With neighbours passed over everybody is judged as without, whoever answers, falls silent, leaves or comes.
    #[tokio::test]
    #[expect(clippy::cast_possible_truncation, reason = "time wraps")]
    async fn passing_over_neighbours_overlooks_nobody() {
        let gateway = gateway(Duration::from_secs(1_000));
        let host = &gateway.parts.host;
        let mut table = host.buckets[0].table.write();
        let socket = || std::os::unix::net::UnixStream::pair().expect("a pair").0.into();
        let begun = host.clock().moment();
        for _ in 0..33 {
            table.insert(socket(), Default::default(), begun);
        }
        let mut random = 1_u32;
        let mut dice = |sides: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % sides
        };
        let (mut quiet, mut pings, mut ends) = (Quiet::default(), 0, 0);
        for moment in (begun..begun + 400_000).step_by(500) {
            let (now, is_turn) = (moment as Millis, dice(4) == 0);
            for slot in 0..33 {
                // A third of them says hardly anything.
                match dice(if slot % 3 == 0 { 1_000 } else { 80 }) {
                    0 => table.hot[slot as usize].seen.store(now, Ordering::Relaxed),
                    1 => table.hot[slot as usize].wrote.store(now, Ordering::Relaxed),
                    2 => {
                        table.remove(slot);
                        quiet.forget(slot);
                        table.insert(socket(), Default::default(), moment);
                    }
                    3 => quiet.note_stall(table.hot[slot as usize].fd.as_ref().expect("a socket"), slot, now),
                    _ => {}
                }
            }

            let look = Look { has_pending: false, is_turn, moment };
            let (idle, dead, _) = judge(&table, &host.rules, look, &mut quiet);

            let copy = |(slot, at): (&u32, &AtomicU32)| (*slot, at.load(Ordering::Relaxed).into());
            let mut afresh = Quiet { until: Vec::new(), stalled: quiet.stalled.iter().map(copy).collect() };
            let (all_idle, all_dead, _) = judge(&table, &host.rules, look, &mut afresh);
            assert_eq!((&idle, &dead), (&all_idle, &all_dead), "{} ms in", moment - begun);
            for key in &idle {
                table.cold[key.slot as usize].pinged = coarse(moment);
                table.hot[key.slot as usize].wrote.store(now, Ordering::Relaxed);
            }
            for key in &dead {
                table.remove(key.slot);
                quiet.forget(key.slot);
                table.insert(socket(), Default::default(), moment);
            }
            pings += idle.len();
            ends += dead.len();
        }
        assert!(pings > 100 && ends > 20, "{pings} pings, {ends} ends: too few to prove anything");
    }

    /// Rule L-2: one that only listens says nothing for weeks and is written to all the time; when the writes end it is pinged.
    #[tokio::test]
    async fn a_listener_is_pinged_however_long_it_has_said_nothing() {
        for days in [25, 50, 100] {
            let gateway = gateway(Duration::from_secs(days * 24 * 60 * 60));
            let host = &gateway.parts.host;
            let mut event_loop = EventLoop::new(Arc::clone(host), 0);
            let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let bucket = &host.buckets[0];
            bucket.table.write().insert(near.into(), Default::default(), 1);
            let written_till = host.clock().now().wrapping_sub(2 * host.rules.heartbeat.idle_ms);
            // It has been looked at all the time.
            for now in (0..=host.clock().moment()).step_by(1 << 29) {
                age_of(&bucket.table.read().hot[0].seen, now as Millis);
            }
            bucket.table.read().hot[0].wrote.store(written_till, Ordering::Relaxed);

            event_loop.sweep();

            assert_eq!(host.totals.pings.load(Ordering::Relaxed), 1, "after {days} days");
        }
    }
}
