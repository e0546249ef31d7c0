//! Distribution of a measured quantity: an HdrHistogram that travels between processes as JSON.
//! A file of its own so that every percentile in a report comes from one place.
//! Invariant: merging loses nothing; values above the range count as its end, never vanish.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest recordable value: 60 s in µs.
const LIMIT: u64 = 60_000_000;
/// Significant digits: 0.1 % error.
const DIGITS: u8 = 3;

/// Counts by value, 1 to 60,000,000, three significant digits. The unit is the owner's business (mostly µs).
#[derive(Clone, Debug)]
pub struct Distribution(Histogram<u64>);

/// What a table shows of a distribution.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Percentiles {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LIMIT, DIGITS).expect("constant bounds are valid"))
    }
}

impl Distribution {
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub fn record_n(&mut self, value: u64, count: u64) {
        self.0.saturating_record_n(value, count);
    }

    /// Records the time from `from_ns` to `to_ns` in µs; a clock that ran backwards counts as zero.
    pub fn record_span_ns(&mut self, from_ns: u64, to_ns: u64) {
        self.record(to_ns.saturating_sub(from_ns) / 1_000);
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn max(&self) -> u64 {
        self.0.max()
    }

    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.0.len(),
            min: self.0.min(),
            mean: self.0.mean(),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.0.max(),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut distribution = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            distribution.record_n(value, count);
        }
        Ok(distribution)
    }
}

/// Exact quantile of a handful of measurements (nearest rank); zero when there are none.
pub fn exact_quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_survive_the_trip_through_json() {
        let mut sent = Distribution::default();
        (1..=10_000).for_each(|value| sent.record(value));

        let json = serde_json::to_string(&sent).expect("serializes");
        let received: Distribution = serde_json::from_str(&json).expect("parses");

        assert_eq!(received.percentiles(), sent.percentiles());
    }

    #[test]
    fn a_value_beyond_the_range_is_counted_at_its_end() {
        let mut distribution = Distribution::default();

        distribution.record(u64::MAX);

        assert_eq!(distribution.count(), 1);
        assert!(distribution.max() >= LIMIT);
    }

    #[test]
    fn the_median_of_three_is_the_middle_one() {
        assert_eq!(exact_quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(exact_quantile(&[], 0.5), 0.0);
    }
}
