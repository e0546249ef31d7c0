//! The two texts in which metrics are exposed, and which of them a scraper has asked for. Both tiers write OpenMetrics 1.0.0; this
//! turns it into Prometheus' older format for whoever does not take it. Pure, and no part of the wire.
//! Invariant: both have the same samples, under the same names.

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which every scraper reads.
    Text,
}

const OPEN_METRICS: &str = "application/openmetrics-text";
const TEXT: &str = "text/plain";

impl Exposition {
    /// What the `Accept` fields prefer (RFC 9110 section 12.5.1): OpenMetrics only by its name.
    #[must_use]
    pub fn accepted<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0.0, 0.0);
        for range in accept.flat_map(|field| field.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let is_q = |part: &str| part.get(..2).is_some_and(|name| name.eq_ignore_ascii_case("q="));
            let quality = parts.find(|part| is_q(part)).map_or(1.0, |part| part[2..].parse().unwrap_or(0.0));
            let best: &mut f32 = match () {
                () if kind.eq_ignore_ascii_case(OPEN_METRICS) => &mut open,
                () if kind.eq_ignore_ascii_case(TEXT) => &mut text,
                () => continue,
            };
            *best = best.max(quality);
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The document, made of OpenMetrics without its end mark.
    #[must_use]
    pub fn finish(self, mut metrics: String) -> String {
        match self {
            Self::OpenMetrics => {
                metrics.push_str("# EOF\n");
                metrics
            }
            Self::Text => as_text(&metrics),
        }
    }
}

/// The older format describes a counter under the name of its samples, and has neither units nor kinds beyond these.
fn as_text(metrics: &str) -> String {
    let mut out = String::with_capacity(metrics.len() + metrics.len() / 16);
    let mut help = None;
    for line in metrics.lines() {
        let words = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match words {
            Some(("HELP", rest)) => help = rest.split_once(' '),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let suffix = if kind == "counter" { "_total" } else { "" };
                let kind = if matches!(kind, "counter" | "gauge" | "histogram" | "summary") { kind } else { "untyped" };
                if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                    out.extend(["# HELP ", name, suffix, " ", text, "\n"]);
                }
                out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            Some(("UNIT" | "EOF", _)) => {}
            _ => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these programs send.
    #[test]
    fn a_scraper_gets_the_format_it_prefers() {
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        const PROMETHEUS_2: &str =
            "application/openmetrics-text; version=1.0.0; charset=utf-8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_TEXT_ONLY: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        let accepted = |fields: &[&str]| Exposition::accepted(fields.iter().copied());

        for open in [
            PROMETHEUS_3,
            PROMETHEUS_2,
            "Application/OpenMetrics-Text",
            "text/plain;q=0.2, application/openmetrics-text;Q=0.2",
        ] {
            assert_eq!(accepted(&[open]), Exposition::OpenMetrics, "{open}");
        }
        for text in [
            PROMETHEUS_TEXT_ONLY,
            "",
            "*/*",
            "text/html,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.1,text/plain",
            "application/openmetrics-text;q=x",
        ] {
            assert_eq!(accepted(&[text]), Exposition::Text, "{text}");
        }
        assert_eq!(accepted(&["text/html", "application/openmetrics-text"]), Exposition::OpenMetrics);
        assert_eq!(accepted(&[]), Exposition::Text);
    }

    #[test]
    fn the_older_text_has_the_same_samples_under_its_own_descriptions() {
        let metrics = "# HELP a Some.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# HELP\"} 1\n# TYPE b histogram\n\
                       b_bucket{le=\"+Inf\"} 2\nb_count 2\n# HELP c Info\n# TYPE c info\nc_info{v=\"1\"} 1\n";

        assert_eq!(
            Exposition::Text.finish(metrics.into()),
            "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"# HELP\"} 1\n# TYPE b histogram\n\
             b_bucket{le=\"+Inf\"} 2\nb_count 2\n# HELP c Info\n# TYPE c untyped\nc_info{v=\"1\"} 1\n"
        );
        assert_eq!(Exposition::OpenMetrics.finish(metrics.into()), format!("{metrics}# EOF\n"));
    }
}
