use super::*;

fn host(text: &str) -> UpstreamHost {
    text.parse().unwrap()
}

/// Every series, as `name{label values}`.
fn series(registry: &Registry) -> Vec<String> {
    let families = registry.gather();
    let of_family = |family: &prometheus::proto::MetricFamily| {
        let line = |series: &prometheus::proto::Metric| {
            let values: Vec<_> =
                series.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
            format!("{}{{{}}}", family.name(), values.join(","))
        };
        family.get_metric().iter().map(line).collect::<Vec<_>>()
    };
    families.iter().flat_map(of_family).collect()
}

/// As after one scrape of a process with these upstreams.
fn scraped(hosts: &[&str]) -> (Registry, Metrics) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    for &name in hosts {
        metrics.announce(&host(name));
        metrics.set_reachable(&host(name), true);
        metrics.set_rate_limit(&host(name), 0, 0);
    }
    metrics.set_mirror(&MirrorReport::default());
    metrics.set_store(&StoreUsage {
        state: StoreState::Ready,
        used: 1,
        capacity: 2,
        free: 3,
        blobs: 4,
        evicted: 5,
    });
    (registry, metrics)
}

#[test]
fn t16_the_number_of_series_depends_on_the_configuration_alone() {
    let [none, one, two] =
        [&[][..], &["docker.io"], &["docker.io", "ghcr.io"]].map(|hosts| scraped(hosts).0);
    let counts = [none, one, two].map(|registry| series(&registry).len());
    assert!(counts[0] <= 150, "{counts:?}");
    assert!(counts[1] - counts[0] <= 25, "{counts:?}");
    assert_eq!(counts[2] - counts[1], counts[1] - counts[0], "{counts:?}");
}

#[test]
fn whatever_happens_no_series_comes_that_was_not_there_from_the_start() {
    let (registry, metrics) = scraped(&["docker.io"]);
    let before = series(&registry);
    for outcome in Outcome::ALL {
        metrics.request(&host("docker.io"), outcome);
    }
    for end in FillEnd::ALL {
        metrics.fill(&host("docker.io"), end);
    }
    metrics.set_mirror(&MirrorReport {
        state: "Mirrored".to_owned(),
        reason: "ForeignMirror".to_owned(),
        hosts: Vec::new(),
    });
    metrics.set_rate_limit(&host("docker.io"), 100, 50);
    assert_eq!(series(&registry), before);
}

#[test]
fn an_upstream_that_is_configured_no_longer_leaves_no_series() {
    let (registry, metrics) = scraped(&["docker.io", "ghcr.io"]);
    metrics.retain(&["ghcr.io"].into());
    let left = series(&registry);
    assert!(!left.iter().any(|one| one.contains("docker.io")), "{left:#?}");
    let (others, _) = scraped(&["ghcr.io"]);
    assert_eq!(left, series(&others));
}

#[test]
fn one_state_and_at_most_one_reason_of_the_mirror_is_1() {
    let (_, metrics) = scraped(&[]);
    let state = |name: &str| metrics.mirror_state.with_label_values(&[name]).get();
    let problem = |name: &str| metrics.mirror_problem.with_label_values(&[name]).get();
    let report = |state: &str, reason: &str| MirrorReport {
        state: state.to_owned(),
        reason: reason.to_owned(),
        hosts: Vec::new(),
    };
    metrics.set_mirror(&report("NotEffective", "ConfigPathMissing"));
    assert_eq!((state("NotEffective"), problem("ConfigPathMissing")), (1, 1));
    assert_eq!((state("Mirrored"), state("Unknown"), problem("ForeignMirror")), (0, 0, 0));
    metrics.set_mirror(&report("Unknown", ""));
    assert_eq!((state("NotEffective"), problem("ConfigPathMissing")), (0, 0));
    assert_eq!(state("Unknown"), 1);
}
