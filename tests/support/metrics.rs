//! Prometheus text, read as a scraper would.

/// One scrape.
#[derive(Debug)]
pub struct Metrics {
    samples: Vec<(String, String, f64)>,
}

impl Metrics {
    /// Parses the text format; comments and what is no sample are left out.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect() }
    }

    /// The sum over all series of `name`; panics when there is none, so that a renamed metric is not read as zero.
    pub fn sum(&self, name: &str) -> u64 {
        self.sum_where(name, "")
    }

    /// The sum over the series of `name` whose labels contain `label`.
    pub fn sum_where(&self, name: &str, label: &str) -> u64 {
        let of_name: Vec<_> = self.samples.iter().filter(|(n, ..)| n == name).collect();
        assert!(!of_name.is_empty(), "no metric {name}");
        of_name.iter().filter(|(_, labels, _)| labels.contains(label)).map(|(.., value)| *value as u64).sum()
    }
}
