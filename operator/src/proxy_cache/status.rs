//! What is said about a cache. No I/O, no clock.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use larder_crds::{
    node::UpstreamReport,
    resources::{
        CacheReason, ConditionType, NodeCounts, Printed, ProblemNode, ProxyCache, ProxyCacheStatus,
        StorageStatus, UpstreamCounts,
    },
};

use super::{
    problems::{MOST_NODES, Seen, first_of},
    validate::Rejected,
};
use crate::condition::{self, Finding, conditions};

/// What came of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The objects are as planned; hosts that are configured.
    Applied(Vec<String>),
    /// The spec is not in force; what was in force before still is.
    Rejected(Rejected),
}

/// The status for what was seen.
pub(super) fn status(
    cache: &ProxyCache,
    outcome: &Outcome,
    daemon_set: Option<&DaemonSet>,
    seen: &Seen,
) -> ProxyCacheStatus {
    let before = cache.status.clone().unwrap_or_default();
    let generation = cache.metadata.generation;
    let problems = seen.problems();
    let counts = counts(daemon_set, seen, &before);
    let mut findings = vec![accepted(outcome)];
    findings.push(available(daemon_set, &counts, seen));
    findings.push(mirror_effective(&counts, seen, &before));
    findings.push(degraded(&problems));
    let (storage, upstreams) = if seen.polled {
        (Some(storage(seen)), upstreams(seen, outcome))
    } else {
        (before.storage, before.upstreams)
    };
    ProxyCacheStatus {
        observed_generation: generation,
        conditions: conditions(findings, &before.conditions, generation, seen.now),
        printed: Some(printed(&counts, storage.as_ref(), &upstreams)),
        nodes: Some(counts),
        storage,
        upstreams,
        problem_nodes: problems.into_iter().take(MOST_NODES).collect(),
    }
}

/// Counts of what only reports tell do not fall before everybody has been asked once: after a
/// change of leader nobody has.
fn counts(daemon_set: Option<&DaemonSet>, seen: &Seen, before: &ProxyCacheStatus) -> NodeCounts {
    let found = daemon_set.and_then(|set| set.status.as_ref());
    let before = before.nodes.clone().unwrap_or_default();
    let told = |counted: usize, before: i64| {
        let counted = i64::try_from(counted).unwrap_or(i64::MAX);
        if seen.polled { counted } else { counted.max(before) }
    };
    NodeCounts {
        desired: found.map_or(0, |status| status.desired_number_scheduled.into()),
        ready: found.map_or(0, |status| status.number_ready.into()),
        mirrored: told(seen.mirrored(), before.mirrored),
        reporting: told(seen.reporting(), before.reporting),
    }
}

fn accepted(outcome: &Outcome) -> Finding {
    match outcome {
        Outcome::Applied(hosts) if hosts.is_empty() => Finding::new(
            ConditionType::Accepted,
            Some(true),
            CacheReason::Accepted.as_str(),
            "in force, and there is no UpstreamRegistry to cache: create one",
        ),
        Outcome::Applied(hosts) => {
            let message = format!("in force; {} registries", hosts.len());
            Finding::new(
                ConditionType::Accepted,
                Some(true),
                CacheReason::Accepted.as_str(),
                message,
            )
        }
        Outcome::Rejected(rejected) => Finding::new(
            ConditionType::Accepted,
            Some(false),
            rejected.reason.as_str(),
            rejected.message.clone(),
        ),
    }
}

/// Nodes that the image does not run on are named and no problem: nothing on them is broken.
fn available(daemon_set: Option<&DaemonSet>, counts: &NodeCounts, seen: &Seen) -> Finding {
    let kind = ConditionType::Available;
    let NodeCounts { desired, ready, .. } = counts;
    // Until the DaemonSet controller has looked, its numbers are those of another time.
    let looked = daemon_set.is_some_and(|set| {
        set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation
    });
    if !looked {
        return Finding::new(
            kind,
            Some(false),
            CacheReason::NotAllReady.as_str(),
            "the pods are being made",
        );
    }
    let without_image = |message: String| match &seen.without_image {
        Some(nodes) => format!("{message}; {nodes}"),
        None => message,
    };
    if *desired == 0 {
        let message = without_image("spec.nodes matches no node".to_owned());
        return Finding::new(kind, Some(false), CacheReason::NoNodes.as_str(), message);
    }
    let message = without_image(format!("{ready} of {desired} node caches are ready"));
    let all = ready >= desired;
    let reason = if all { CacheReason::AllReady } else { CacheReason::NotAllReady };
    Finding::new(kind, Some(all), reason.as_str(), message)
}

/// True needs a proof: a request of containerd. Counters start again with their process, so what was
/// proven once stays so while every node is mirrored.
fn mirror_effective(counts: &NodeCounts, seen: &Seen, before: &ProxyCacheStatus) -> Finding {
    let kind = ConditionType::MirrorEffective;
    if !seen.polled {
        return Finding::new(
            kind,
            None,
            CacheReason::NotPolled.as_str(),
            "the node caches are being asked",
        );
    }
    let message = format!(
        "containerd is sent to the cache on {} of {} nodes",
        counts.mirrored, counts.desired
    );
    let proven = CacheReason::AllMirrored.as_str();
    let was_proven =
        before.conditions.iter().any(|it| it.type_ == kind.as_str() && it.reason == proven);
    if counts.desired == 0 || counts.mirrored < counts.desired {
        Finding::new(kind, Some(false), CacheReason::NotAllMirrored.as_str(), message)
    } else if seen.any_asked() || was_proven {
        Finding::new(kind, Some(true), proven, message)
    } else {
        let message = format!("{message}, and has not asked yet: nothing was pulled");
        Finding::new(kind, None, CacheReason::NothingPulled.as_str(), message)
    }
}

fn degraded(problems: &[ProblemNode]) -> Finding {
    let kind = ConditionType::Degraded;
    if problems.is_empty() {
        return Finding::new(
            kind,
            Some(false),
            CacheReason::AsExpected.as_str(),
            "nothing is known to be wrong",
        );
    }
    let mut by_reason = BTreeMap::<&str, Vec<&str>>::new();
    for problem in problems {
        by_reason.entry(&problem.reason).or_default().push(&problem.name);
    }
    let parts: Vec<_> = by_reason
        .iter()
        .map(|(reason, nodes)| format!("{reason} on {}", first_of(nodes)))
        .collect();
    Finding::new(kind, Some(true), CacheReason::NodeProblems.as_str(), parts.join("; "))
}

fn storage(seen: &Seen) -> StorageStatus {
    let mut storage = StorageStatus::default();
    for report in seen.pods.iter().filter_map(|pod| seen.report(pod)) {
        add(&mut storage.used_bytes, report.store.used_bytes);
        add(&mut storage.capacity_bytes, report.store.capacity_bytes);
        add(&mut storage.blobs, report.store.blobs);
    }
    storage
}

/// Numbers of a node may be anything.
fn add(sum: &mut i64, value: u64) {
    *sum = sum.saturating_add(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Only hosts that are configured: a node may report any number of others.
fn upstreams(seen: &Seen, outcome: &Outcome) -> Vec<UpstreamCounts> {
    let Outcome::Applied(hosts) = outcome else {
        return Vec::new();
    };
    hosts
        .iter()
        .map(|host| {
            let mut counts = UpstreamCounts { host: host.clone(), ..UpstreamCounts::default() };
            let reports = seen.pods.iter().filter_map(|pod| seen.report(pod)?.upstreams.get(host));
            for UpstreamReport {
                hits,
                misses,
                stale,
                pass_through,
                bytes_served,
                bytes_fetched,
                ..
            } in reports
            {
                add(&mut counts.hits, *hits);
                add(&mut counts.misses, *misses);
                add(&mut counts.stale, *stale);
                add(&mut counts.pass_through, *pass_through);
                add(&mut counts.bytes_served, *bytes_served);
                add(&mut counts.bytes_fetched, *bytes_fetched);
            }
            counts
        })
        .collect()
}

fn printed(
    counts: &NodeCounts,
    storage: Option<&StorageStatus>,
    upstreams: &[UpstreamCounts],
) -> Printed {
    let sum =
        |of: fn(&UpstreamCounts) -> i64| upstreams.iter().map(of).fold(0, i64::saturating_add);
    let hits = sum(|counts| counts.hits).saturating_add(sum(|counts| counts.stale));
    let all = hits
        .saturating_add(sum(|counts| counts.misses))
        .saturating_add(sum(|counts| counts.pass_through));
    let hit_rate = if all == 0 {
        "-".to_owned()
    } else {
        format!("{}%", i128::from(hits) * 100 / i128::from(all))
    };
    let used = storage.map_or("-".to_owned(), |storage| {
        format!("{}/{}", rounded(storage.used_bytes), rounded(storage.capacity_bytes))
    });
    Printed { nodes: format!("{}/{}", counts.ready, counts.desired), hit_rate, used }
}

/// With two or three digits: who wants more reads the status.
fn rounded(bytes: i64) -> String {
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let (unit, name) = [(1_u64 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit)
        .unwrap_or((1 << 20, "Mi"));
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths >= 100 || tenths % 10 == 0 {
        return format!("{}{name}", tenths / 10);
    }
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

/// Whether the new status has to be written: at once if it says something else, at most once a
/// minute if only numbers that are printed or texts have changed.
pub(super) fn is_due(
    before: &ProxyCacheStatus,
    after: &ProxyCacheStatus,
    since_last: Option<std::time::Duration>,
) -> bool {
    const COUNTERS: std::time::Duration = std::time::Duration::from_mins(1);
    let said = |status: &ProxyCacheStatus| {
        let nodes: Vec<_> = status
            .problem_nodes
            .iter()
            .map(|problem| (problem.name.clone(), problem.reason.clone()))
            .collect();
        (status.observed_generation, nodes)
    };
    if said(before) != said(after)
        || condition::said(&before.conditions) != condition::said(&after.conditions)
    {
        return true;
    }
    let is_other = before.printed != after.printed || before.conditions != after.conditions;
    is_other && since_last.is_none_or(|since| since >= COUNTERS)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_without_an_image_are_named_and_degrade_nothing() {
        let cache = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "ProxyCache", "metadata": {"name": "main"}, "spec": {},
        });
        let cache: ProxyCache = serde_json::from_value(cache).unwrap();
        let seen = Seen { without_image: Some("2 nodes have".to_owned()), ..Seen::default() };
        let said = |count: i32, kind: ConditionType| {
            let set = json!({"metadata": {"generation": 1}, "status": {
                "observedGeneration": 1, "desiredNumberScheduled": count, "numberReady": count,
                "currentNumberScheduled": count, "numberMisscheduled": 0,
            }});
            let set = serde_json::from_value(set).unwrap();
            let outcome = Outcome::Applied(vec!["docker.io".to_owned()]);
            let status = status(&cache, &outcome, Some(&set), &seen);
            let mut found = status.conditions.into_iter();
            let found = found.find(|condition| condition.type_ == kind.as_str()).unwrap();
            (found.status, found.message)
        };
        let ready = "3 of 3 node caches are ready; 2 nodes have";
        assert_eq!(said(3, ConditionType::Available), ("True".to_owned(), ready.to_owned()));
        assert_eq!(said(3, ConditionType::Degraded).0, "False");
        let none = "spec.nodes matches no node; 2 nodes have";
        assert_eq!(said(0, ConditionType::Available), ("False".to_owned(), none.to_owned()));
    }

    #[test]
    fn sizes_are_printed_with_the_digits_that_matter() {
        let table = [
            (0, "0Mi"),
            (1 << 20, "1Mi"),
            ((3 << 30) / 2, "1.5Gi"),
            (20 << 30, "20Gi"),
            (260 << 30, "260Gi"),
            (i64::MAX, "8388607Ti"),
            (-1, "0Mi"),
        ];
        for (bytes, expected) in table {
            assert_eq!(rounded(bytes), expected);
        }
    }

    #[test]
    fn counters_alone_are_written_once_a_minute_and_only_if_they_are_printed() {
        let status = |hit_rate: &str, hits| ProxyCacheStatus {
            printed: Some(Printed { hit_rate: hit_rate.to_owned(), ..Printed::default() }),
            upstreams: vec![UpstreamCounts { hits, ..UpstreamCounts::default() }],
            ..ProxyCacheStatus::default()
        };
        let (second, minute) =
            (std::time::Duration::from_secs(1), std::time::Duration::from_mins(1));
        assert!(!is_due(&status("90%", 1), &status("90%", 2), Some(minute)));
        assert!(!is_due(&status("90%", 1), &status("91%", 2), Some(second)));
        assert!(is_due(&status("90%", 1), &status("91%", 2), Some(minute)));
        let other = ProxyCacheStatus { observed_generation: Some(2), ..status("90%", 1) };
        assert!(is_due(&status("90%", 1), &other, Some(second)));
        let text = |message: &str, holds| {
            let finding =
                Finding::new(ConditionType::Degraded, Some(holds), "NodeProblems", message);
            ProxyCacheStatus {
                conditions: conditions(vec![finding], &[], None, Timestamp::UNIX_EPOCH),
                ..status("90%", 1)
            }
        };
        assert!(!is_due(&text("one", true), &text("other", true), Some(second)));
        assert!(is_due(&text("one", true), &text("other", true), Some(minute)));
        assert!(is_due(&text("one", true), &text("one", false), Some(second)));
    }
}
