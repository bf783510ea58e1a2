//! The Prometheus text format, as far as tests read it.

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    series: Vec<(String, String, f64)>,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        });
        Self { series: series.collect() }
    }

    /// The sum of all series of this name that carry these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |text: &str| {
            labels.iter().all(|(key, value)| text.contains(&format!("{key}=\"{value}\"")))
        };
        let matching = self.series.iter().filter(|(n, text, _)| n == name && carries(text));
        // Not the iterator's own sum: that of nothing is -0.
        matching.fold(0.0, |sum, (_, _, value)| sum + value)
    }

    /// Requests of one upstream with one outcome.
    pub fn requests(&self, upstream: &str, outcome: &str) -> f64 {
        let labels = [("upstream", upstream), ("outcome", outcome)];
        self.sum("larder_node_requests_total", &labels)
    }

    pub fn has(&self, name: &str) -> bool {
        self.series.iter().any(|(n, _, _)| n == name)
    }

    /// How many series of ours there are.
    pub fn len(&self) -> usize {
        self.series.iter().filter(|(name, _, _)| name.starts_with("larder_")).count()
    }
}
