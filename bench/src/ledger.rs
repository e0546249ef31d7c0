//! Who has which messages: every client's next expected number per publisher, and what went wrong.
//! Knows nothing of sockets or bytes. A healthy client costs a few bytes in arrays; only a client with a fault has an entry.
//! Invariants: `next` of a publisher is one past the highest number seen; holes below it are in `Trouble`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::dialect::content::{Gap, Push, Run};

/// Room numbers and publishers not seen yet. No test sends four billion messages.
const UNSEEN: u32 = u32::MAX;
/// Holes remembered one by one for a client; beyond, late messages of older holes count as duplicates.
const HOLES_MAX: usize = 1_024;
/// Faulty clients named in a report.
const EXAMPLES_MAX: usize = 8;

#[derive(Debug)]
pub struct Ledger {
    publishers: usize,
    rooms: usize,
    /// `publishers` numbers a client.
    next: Vec<u32>,
    /// `rooms` room ids a client; the client's own, in its order.
    membership: Vec<u16>,
    /// Last room number seen; agrees with `membership`.
    room_last: Vec<u32>,
    room_ids: HashMap<String, u16>,
    trouble: HashMap<u32, Trouble>,
}

/// What is wrong with one client.
#[derive(Debug, Default)]
struct Trouble {
    holes: Vec<Run>,
    missing: u64,
    excused: u64,
    duplicated: u64,
    disordered: u64,
    seq_breaks: u64,
    foreign_publisher: u64,
}

/// What one publisher sent, as far as it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    pub publisher: u32,
    /// Numbers 0..count were sent …
    pub count: u32,
    /// … of which the API refused this many.
    pub refused: u32,
    /// `all`, `room:NAME` or `user:NAME`.
    pub to: String,
}

/// The judgement over a group of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub clients: u64,
    /// Messages neither received nor named in a GAP.
    pub lost: u64,
    pub duplicated: u64,
    pub disordered: u64,
    /// Messages of a publisher to somebody else.
    pub stray: u64,
    /// Messages missing and named in a GAP.
    pub excused: u64,
    /// Messages named in a GAP that were received all the same.
    pub overclaimed: u64,
    /// Room numbers that did not follow on the previous ones.
    pub seq_breaks: u64,
    /// Clients with any fault.
    pub faulty_clients: u64,
    pub examples: Vec<String>,
}

impl Standing {
    pub fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.disordered + self.stray + self.overclaimed + self.seq_breaks
    }

    pub fn merge(&mut self, other: Self) {
        self.clients += other.clients;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.stray += other.stray;
        self.excused += other.excused;
        self.overclaimed += other.overclaimed;
        self.seq_breaks += other.seq_breaks;
        self.faulty_clients += other.faulty_clients;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }
}

impl Ledger {
    /// `from_zero`: clients are there before the publishers start, so the first number missing is a loss as well.
    pub fn new(clients: usize, publishers: usize, rooms: usize, from_zero: bool) -> Self {
        Self {
            publishers,
            rooms,
            next: vec![if from_zero { 0 } else { UNSEEN }; clients * publishers],
            membership: vec![0; clients * rooms],
            room_last: vec![UNSEEN; clients * rooms],
            room_ids: HashMap::new(),
            trouble: HashMap::new(),
        }
    }

    /// Notes which rooms a client joins, in order.
    pub fn enrol<'a>(&mut self, client: u32, rooms: impl Iterator<Item = &'a str>) {
        let start = client as usize * self.rooms;
        for (slot, room) in self.membership[start..start + self.rooms].iter_mut().zip(rooms) {
            let fresh = self.room_ids.len() as u16;
            *slot = *self.room_ids.entry(room.to_owned()).or_insert(fresh);
        }
    }

    /// Applies one frame's messages to a client. Hot path.
    pub fn push(&mut self, client: u32, push: &Push) {
        if let Some(room) = &push.room {
            self.room_push(client, room, push.seq);
        }
        for run in &push.runs {
            self.run(client, *run);
        }
    }

    fn run(&mut self, client: u32, run: Run) {
        let index = client as usize * self.publishers + run.publisher as usize;
        let next = match self.next.get_mut(index) {
            Some(next) if (run.publisher as usize) < self.publishers => next,
            _ => {
                self.trouble.entry(client).or_default().foreign_publisher += u64::from(run.last - run.first) + 1;
                return;
            }
        };
        if *next == run.first || *next == UNSEEN {
            *next = run.last + 1;
        } else if run.first > *next {
            let hole = Run { publisher: run.publisher, first: *next, last: run.first - 1 };
            *next = run.last + 1;
            self.trouble.entry(client).or_default().open(hole);
        } else {
            let seen_to = *next - 1;
            *next = (*next).max(run.last + 1);
            let trouble = self.trouble.entry(client).or_default();
            (run.first..=run.last.min(seen_to)).for_each(|sequence| trouble.late(run.publisher, sequence));
        }
    }

    fn room_push(&mut self, client: u32, room: &str, seq: Option<(u64, u64)>) {
        let Some(slot) = self.room_slot(client, room) else {
            self.trouble.entry(client).or_default().foreign_publisher += 1;
            return;
        };
        let Some((first, last)) = seq else { return };
        // Modulo 2^32: enough to tell neighbours, and half the memory.
        let seen = std::mem::replace(&mut self.room_last[slot], last as u32);
        if seen != UNSEEN && seen.wrapping_add(1) != first as u32 {
            self.trouble.entry(client).or_default().seq_breaks += 1;
        }
    }

    fn room_slot(&self, client: u32, room: &str) -> Option<usize> {
        let id = *self.room_ids.get(room)?;
        let start = client as usize * self.rooms;
        let own = &self.membership[start..start + self.rooms];
        own.iter().position(|own| *own == id).map(|position| start + position)
    }

    /// The server says what is missing at this client.
    pub fn gap(&mut self, client: u32, gap: &Gap) {
        if let Some(slot) = gap.room.as_deref().and_then(|room| self.room_slot(client, room)) {
            self.room_last[slot] = gap.to as u32;
        }
        self.trouble.entry(client).or_default().excused += gap.messages();
    }

    /// Whether a client has everything up to the expected ends (holes are not asked about).
    pub fn has_all(&self, client: u32, expected: &[(&Expected, bool)]) -> bool {
        let next = &self.next[client as usize * self.publishers..][..self.publishers];
        expected.iter().all(|(expected, member)| {
            let next = next.get(expected.publisher as usize).copied().filter(|next| *next != UNSEEN).unwrap_or(0);
            !member || next >= expected.count
        })
    }

    /// Highest number seen plus one, per publisher, over all clients.
    pub fn reached(&self) -> BTreeMap<u32, u32> {
        let mut reached = BTreeMap::new();
        for (index, next) in self.next.iter().enumerate().filter(|(_, next)| **next != UNSEEN && **next > 0) {
            let publisher = (index % self.publishers) as u32;
            let highest = reached.entry(publisher).or_insert(0);
            *highest = (*next).max(*highest);
        }
        reached
    }

    /// Judges one client; `expected` says of each publisher whether the client is in its audience.
    pub fn judge(&self, client: u32, name: u64, expected: &[(&Expected, bool)], standing: &mut Standing) {
        let next = &self.next[client as usize * self.publishers..][..self.publishers];
        let (mut missing, mut refused, mut stray) = (0, 0, 0);
        for (expected, member) in expected {
            let next = next.get(expected.publisher as usize).copied().filter(|next| *next != UNSEEN).unwrap_or(0);
            if *member {
                missing += u64::from(expected.count.saturating_sub(next));
                refused += u64::from(expected.refused);
            } else {
                stray += u64::from(next);
            }
        }
        standing.clients += 1;
        let nothing = Trouble::default();
        let trouble = self.trouble.get(&client).unwrap_or(&nothing);
        missing += trouble.missing;
        stray += trouble.foreign_publisher;
        let one = Standing {
            clients: 0,
            lost: missing.saturating_sub(trouble.excused + refused),
            duplicated: trouble.duplicated,
            disordered: trouble.disordered,
            stray,
            excused: trouble.excused.min(missing),
            overclaimed: trouble.excused.saturating_sub(missing),
            seq_breaks: trouble.seq_breaks,
            faulty_clients: 0,
            examples: Vec::new(),
        };
        if one.faults() > 0 {
            let holes: Vec<_> = trouble.holes.iter().take(4).map(|h| (h.publisher, h.first, h.last)).collect();
            let Standing { lost, duplicated, disordered, stray, overclaimed, seq_breaks, .. } = one;
            let example = format!(
                "client {name}: lost {lost}, duplicated {duplicated}, disordered {disordered}, stray {stray}, \
                 overclaimed {overclaimed}, seq breaks {seq_breaks}, next {next:?}, holes {holes:?}"
            );
            standing.merge(Standing { faulty_clients: 1, examples: vec![example], ..one });
        } else {
            standing.merge(one);
        }
    }
}

impl Trouble {
    fn open(&mut self, hole: Run) {
        self.missing += u64::from(hole.last - hole.first) + 1;
        if self.holes.len() < HOLES_MAX {
            self.holes.push(hole);
        }
    }

    /// A message below the highest seen: it fills a hole (out of order) or it was there already (duplicate).
    fn late(&mut self, publisher: u32, sequence: u32) {
        let holds = |hole: &Run| hole.publisher == publisher && (hole.first..=hole.last).contains(&sequence);
        let Some(index) = self.holes.iter().position(holds) else {
            self.duplicated += 1;
            return;
        };
        let hole = self.holes.swap_remove(index);
        self.missing -= 1;
        self.disordered += 1;
        if hole.first < sequence {
            self.holes.push(Run { last: sequence - 1, ..hole });
        }
        if sequence < hole.last {
            self.holes.push(Run { first: sequence + 1, ..hole });
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
