//! What `/metrics` says, as numbers.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One reading of all series.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: Vec<Series>,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the Prometheus text format (label values without escapes: ours have none).
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let series =
            lines.map(|line| series(line).with_context(|| format!("not a metric: {line}")));
        Ok(Self { series: series.collect::<Result<_>>()? })
    }

    /// The sum of all series of that name with those labels; 0 if there are none yet.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters of bytes and requests"
    )]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |series: &Series, (label, value): &(&str, &str)| {
            series.labels.get(*label).is_some_and(|is| is == value)
        };
        let matching = self.series.iter().filter(|series| series.name == name);
        let matching = matching.filter(|series| labels.iter().all(|label| has(series, label)));
        matching.map(|series| series.value as u64).sum()
    }

    /// Requests for an upstream that ended so (`hit`, `miss`, `stale`, ...).
    pub fn requests(&self, upstream: &str, outcome: &str) -> u64 {
        self.sum("larder_node_requests_total", &[("upstream", upstream), ("outcome", outcome)])
    }

    /// Bytes that clients got of an upstream's images.
    pub fn served(&self, upstream: &str) -> u64 {
        self.sum("larder_node_served_bytes_total", &[("upstream", upstream)])
    }

    /// Bytes that came from an upstream.
    pub fn fetched(&self, upstream: &str) -> u64 {
        self.sum("larder_node_fetched_bytes_total", &[("upstream", upstream)])
    }
}

fn series(line: &str) -> Option<Series> {
    let (key, value) = line.rsplit_once(' ')?;
    let (name, labels) = match key.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (key, ""),
    };
    let mut parsed = BTreeMap::new();
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once("=\"")?;
        parsed.insert(label.to_owned(), value.trim_end_matches('"').to_owned());
    }
    Some(Series { name: name.to_owned(), labels: parsed, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_over_the_labels_that_are_not_named() {
        let text = "# HELP larder_node_requests_total Requests.\n\
                    larder_node_requests_total{outcome=\"hit\",upstream=\"docker.io\"} 3\n\
                    larder_node_requests_total{outcome=\"miss\",upstream=\"docker.io\"} 4\n\
                    larder_node_requests_total{outcome=\"hit\",upstream=\"127.0.0.1:5000\"} 8\n\
                    process_open_fds 12\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.requests("docker.io", "hit"), 3);
        assert_eq!(metrics.requests("127.0.0.1:5000", "hit"), 8);
        assert_eq!(metrics.requests("docker.io", "stale"), 0);
        assert_eq!(metrics.sum("larder_node_requests_total", &[("upstream", "docker.io")]), 7);
        assert_eq!(metrics.sum("process_open_fds", &[]), 12);
        assert!(Metrics::parse("broken{ 1").is_err());
    }
}
