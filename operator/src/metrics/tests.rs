use larder_crds::resources::RateLimit;

use super::*;

fn condition(kind: &str, status: &str) -> Condition {
    let condition = serde_json::json!({
        "type": kind, "status": status, "reason": "Any", "message": "",
        "lastTransitionTime": "2026-11-24T10:00:00Z",
    });
    serde_json::from_value(condition).unwrap()
}

fn conditions(pairs: &[(&str, &str)]) -> Vec<Condition> {
    pairs.iter().map(|(kind, status)| condition(kind, status)).collect()
}

fn problem(reason: NodeReason) -> ProblemNode {
    ProblemNode { reason: reason.to_string(), ..ProblemNode::default() }
}

/// Every series but those of histograms, as `name{label,label} value`, by the values of the labels.
fn series(registry: &Registry) -> Vec<String> {
    let families = registry.gather();
    let of_family = |family: &prometheus::proto::MetricFamily| {
        let name = family.name().strip_prefix("larder_operator_").unwrap().to_owned();
        let line = |series: &prometheus::proto::Metric| {
            let values: Vec<_> =
                series.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
            format!("{name}{{{}}} {}", values.join(","), series.get_gauge().get_value())
        };
        family.get_metric().iter().map(line).collect::<Vec<_>>()
    };
    families.iter().flat_map(of_family).collect()
}

fn filled() -> (Registry, Metrics) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let cache = ProxyCacheStatus {
        conditions: conditions(&[
            ("Accepted", "True"),
            ("Available", "False"),
            ("MirrorEffective", "Unknown"),
            ("Degraded", "True"),
        ]),
        nodes: Some(NodeCounts { desired: 4, ready: 3, mirrored: 2, reporting: 1 }),
        ..ProxyCacheStatus::default()
    };
    let problems = [NodeReason::DiskFull, NodeReason::NotReady, NodeReason::DiskFull].map(problem);
    metrics.cache("default", &cache, &problems);
    let all = ["Accepted", "Reachable", "CredentialsValid", "Insecure", "Shared"];
    let limit = RateLimit { limit: 100, remaining: 7, source: "n1".to_owned() };
    let upstream = UpstreamRegistryStatus {
        conditions: conditions(&all.map(|kind| (kind, "True"))),
        rate_limit: Some(limit),
        ..UpstreamRegistryStatus::default()
    };
    let nodes = UpstreamNodes { reporting: 3, unreachable: 1, rejected: 0 };
    metrics.upstream("hub", "docker.io", &upstream, nodes);
    (registry, metrics)
}

#[test]
fn what_is_said_about_objects_is_exported() {
    let (registry, _) = filled();
    let series = series(&registry);
    for expected in [
        "condition{ProxyCache,default,Accepted} 1",
        "condition{ProxyCache,default,Available} 0",
        "condition{ProxyCache,default,MirrorEffective} -1",
        "condition{UpstreamRegistry,hub,Reachable} 1",
        "nodes{default,desired} 4",
        "nodes{default,mirrored} 2",
        "nodes{default,ready} 3",
        "nodes{default,reporting} 1",
        "problem_nodes{default,DiskFull} 2",
        "problem_nodes{default,NotReady} 1",
        "problem_nodes{default,ConfigPathMissing} 0",
        "upstream_nodes{hub,reporting,docker.io} 3",
        "upstream_nodes{hub,unreachable,docker.io} 1",
        "upstream_nodes{hub,rejected,docker.io} 0",
        "upstream_rate_limit{hub,docker.io} 100",
        "upstream_rate_limit_remaining{hub,docker.io} 7",
    ] {
        assert!(series.iter().any(|found| found == expected), "no {expected} in {series:#?}");
    }
}

#[test]
fn the_number_of_series_is_what_the_module_says() {
    let (registry, metrics) = filled();
    let of = |name: &str| series(&registry).iter().filter(|one| one.contains(name)).count();
    assert_eq!((of("{default,") + of(",default,"), of("{hub,") + of(",hub,")), (26, 10));
    metrics.retain(&BTreeSet::new(), &BTreeSet::new());
    // The text format makes fourteen lines of each of the two histograms.
    assert!(series(&registry).len() + 2 * 13 <= 50, "{:#?}", series(&registry));
}

#[test]
fn an_object_that_is_gone_and_a_condition_that_is_said_no_longer_leave_no_series() {
    let (registry, metrics) = filled();
    let has = |part: &str| series(&registry).iter().any(|found| found.contains(part));
    metrics.upstream(
        "hub",
        "docker.io",
        &UpstreamRegistryStatus {
            conditions: conditions(&[("Accepted", "True")]),
            ..UpstreamRegistryStatus::default()
        },
        UpstreamNodes::default(),
    );
    assert!(has("hub,Accepted") && !has("hub,Insecure"), "{:#?}", series(&registry));
    assert!(has("upstream_rate_limit{hub,docker.io} 0"), "{:#?}", series(&registry));
    // One name, two kinds.
    metrics.upstream(
        "default",
        "ghcr.io",
        &UpstreamRegistryStatus::default(),
        UpstreamNodes::default(),
    );
    metrics.retain(&["default".to_owned()].into(), &BTreeSet::new());
    assert!(has("nodes{default,desired}") && has("ProxyCache,default"), "{:#?}", series(&registry));
    assert!(!has("hub") && !has("ghcr.io"), "{:#?}", series(&registry));
}
