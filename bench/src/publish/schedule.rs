//! What is due when: t0 + i × period, whatever the server does. Pure; time is what it gives, not what it reads.

use super::Options;

#[derive(Clone, Debug)]
pub struct Schedule {
    started_ns: u64,
    /// Between two bursts of this publisher.
    period_ns: f64,
    /// Half-way between the neighbours' bursts.
    offset_ns: f64,
    burst: u64,
    batch: u32,
    count: u32,
}

/// One push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at_ns: u64,
    pub first: u32,
    pub messages: u32,
}

impl Schedule {
    /// The part of publisher `number` of `options.connections`: `count` messages at its share of the rate.
    pub fn new(options: &Options, number: u64, count: u32, started_ns: u64) -> Self {
        let connections = f64::from(options.connections);
        let burst = options.burst.max(1);
        let rate = options.rate / connections;
        let period_ns = 1e9 * burst as f64 * f64::from(options.batch) / rate;
        let offset_ns = period_ns * number as f64 / connections;
        Self { started_ns, period_ns, offset_ns, burst, batch: options.batch, count }
    }

    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Every push in order.
    pub fn pushes(&self) -> impl Iterator<Item = Due> + '_ {
        (0..self.count.div_ceil(self.batch)).map(|push| {
            let first = push * self.batch;
            let bursts = u64::from(push) / self.burst;
            let at_ns = self.started_ns + (self.offset_ns + bursts as f64 * self.period_ns) as u64;
            Due { at_ns, first, messages: self.batch.min(self.count - first) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(batch: u32, burst: u64, count: u32) -> Schedule {
        Schedule { started_ns: 1_000, period_ns: 100.0, offset_ns: 0.0, burst, batch, count }
    }

    #[test]
    fn pushes_are_due_at_equal_distances() {
        let dues: Vec<_> = schedule(1, 1, 3).pushes().map(|due| due.at_ns).collect();

        assert_eq!(dues, [1_000, 1_100, 1_200]);
    }

    #[test]
    fn a_burst_is_due_at_once() {
        let dues: Vec<_> = schedule(1, 2, 4).pushes().map(|due| due.at_ns).collect();

        assert_eq!(dues, [1_000, 1_000, 1_100, 1_100]);
    }

    #[test]
    fn the_last_push_holds_the_rest() {
        let dues: Vec<_> = schedule(4, 1, 10).pushes().map(|due| (due.first, due.messages)).collect();

        assert_eq!(dues, [(0, 4), (4, 4), (8, 2)]);
    }
}
