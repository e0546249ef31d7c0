//! The last word of logic on what the rest of the fleet could take, should this gateway leave.
//! Logic says it with every request for events; a drain follows it, and it runs out when nobody says it again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tidegate_protocol::records::Rest;

use crate::clock::{Millis, since};

/// How long a word holds: logic renews it with every request for events, and none is held longer than 30 s.
const WORD_MS: u32 = 35_000;

/// The last word of logic on the rest of the fleet, and the speed made of it: written by the backplane and the drain,
/// read by the metrics.
#[derive(Debug, Default)]
pub struct SpareCapacity {
    /// Connections a second, and above them when that was said; 0: nobody has said anything.
    word: AtomicU64,
    /// How often logic has said something.
    words: AtomicU32,
    closes_per_s: AtomicU32,
}

impl SpareCapacity {
    /// Keeps the word of a logic node; one that knows of no other gateway says nothing, and the last word runs out.
    pub fn note(&self, rest: Option<&Rest>, now: Millis) {
        if let Some(rest) = rest {
            self.word.store(u64::from(now.max(1)) << 32 | u64::from(rest.accept_spare), Relaxed);
        }
        self.words.fetch_add(1, Relaxed);
    }

    /// Connections a second that the others can take, if anybody has said so lately.
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    pub fn others(&self, now: Millis) -> Option<u32> {
        let word = self.word.load(Relaxed);
        (word != 0 && since(now, (word >> 32) as u32) < WORD_MS).then_some(word as u32)
    }

    /// How often logic has said something; a larger number later means a word that is fresh.
    pub fn words(&self) -> u32 {
        self.words.load(Relaxed)
    }

    /// For the metric: closes a second.
    pub fn set_closes(&self, per_s: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        self.closes_per_s.store(per_s as u32, Relaxed);
    }

    /// Closes a second now; 0 when not leaving.
    pub fn closes(&self) -> u32 {
        self.closes_per_s.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_until_it_runs_out() {
        let spare = SpareCapacity::default();
        assert_eq!(spare.others(1), None);

        spare.note(Some(&Rest { accept_spare: 7, gateways: 1 }), 1_000);
        spare.note(None, 1_500);

        assert_eq!((spare.others(1_500), spare.words()), (Some(7), 2));
        assert_eq!(spare.others(1_000 + WORD_MS), None, "the others may be gone, or logic");
    }
}
