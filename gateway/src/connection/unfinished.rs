//! Frames and messages cut off in the middle, and who has to go when all of them together pass the gateway's bound.
//! Whoever comes last is not refused for it: the bucket that holds most lets those go that have held most for longest, in
//! byte-milliseconds, so that neither many small ones that stay nor large ones that come and go keep an honest one out.
//! Invariant: what is unfinished in a bucket is what `self.host.unfinished` has it down for.

use std::cmp::Reverse;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::ws::Decoder;

use super::event_loop::EventLoop;
use super::rare::Timer;
use crate::budget::Evict;
use crate::clock::{Millis, since};

/// Of what a bucket holds, the part that it lets go at once: one look at all its holders has to serve for several.
const LET_GO_PART: usize = 8;
/// Advice to those who had to make room.
const RETRY_AFTER_MS: u32 = 1_000;

impl EventLoop {
    /// What a connection has left unfinished, and since when.
    pub(super) fn take_partial(&mut self, slot: u32) -> (Decoder, Millis) {
        let begun =
            self.rare.get_mut(slot).and_then(|rare| Some((rare.partial.take()?, rare.timers.stop(Timer::Message)?)));
        match begun {
            Some((decoder, since)) => {
                self.host.unfinished.let_go(self.index, decoder.buffered_bytes());
                (decoder, since)
            }
            None => (Decoder::default(), self.host.clock().now()),
        }
    }

    /// Keeps what is unfinished; if all that is unfinished is too much then, someone makes room, who may be this one.
    pub(super) fn keep_partial(&mut self, slot: u32, decoder: Decoder, since: Millis) {
        let bytes = decoder.buffered_bytes();
        let rare = self.rare.of(slot);
        rare.partial = Some(decoder);
        rare.timers.set(Timer::Message, since);
        let evict = self.host.unfinished.hold(self.index, bytes, self.host.settings.partial_bytes_total());
        self.make_room_for(evict);
    }

    /// Makes room if this bucket was told to.
    pub(super) fn make_room_if_told(&mut self) {
        let max = self.host.settings.partial_bytes_total();
        if self.host.unfinished.is_told(self.index, max) {
            self.make_room_for(Evict::Own);
        }
    }

    fn make_room_for(&mut self, mut evict: Evict) {
        while evict == Evict::Own && self.rare.iter().any(|(_, rare)| rare.partial.is_some()) {
            self.make_room();
            evict = self.host.unfinished.turn(self.index, self.host.settings.partial_bytes_total());
        }
        if let Evict::Of(other) = evict {
            self.host.buckets[other].wake();
        }
    }

    /// Lets those go that have held most for longest.
    fn make_room(&mut self) {
        let now = self.host.clock().now();
        let wanted = self.host.unfinished.of(self.index) / LET_GO_PART;
        let held = self.rare.iter().filter_map(|(slot, rare)| {
            let (bytes, begun) = (rare.partial.as_ref()?.buffered_bytes(), rare.timers.get(Timer::Message)?);
            Some((bytes as u64 * (u64::from(since(now, begun)) + 1), bytes, slot))
        });
        let mut holders: Vec<(u64, usize, u32)> = held.collect();
        holders.sort_unstable_by_key(|holder| Reverse(*holder));
        let mut gone = 0;
        for (_, bytes, slot) in holders {
            let _ = self.take_partial(slot);
            if let Some(key) = self.key_in(slot) {
                let reason = CloseReason::Overload;
                self.begin_close(key, reason.code(), &reason.text(Some(RETRY_AFTER_MS)));
            }
            self.host.unfinished.count_evicted();
            gone += bytes;
            if gone > wanted {
                return;
            }
        }
    }
}
