//! What is said about a registry. No I/O, no clock.

use std::time::Duration;

use jiff::Timestamp;
use larder_crds::{
    node::{NodeReport, UpstreamReport},
    resources::{
        AccessMode, ConditionType, LastError, RateLimit, UpstreamReason, UpstreamRegistry,
        UpstreamRegistryStatus,
    },
};

use super::validate::{Rejected, ValidUpstream};
use crate::{
    condition::{self, Finding, conditions},
    metrics::UpstreamNodes,
};

/// What is known of a registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// Whether a ProxyCache uses it.
    pub used: bool,
    /// What the nodes reported.
    pub reports: &'a [&'a NodeReport],
    /// Whether everybody has been asked at least once.
    pub polled: bool,
}

impl Seen<'_> {
    /// How many nodes reported on `host`, and what.
    pub(super) fn nodes(&self, host: &str) -> UpstreamNodes {
        let mut nodes = UpstreamNodes::default();
        for report in self.reports.iter().filter_map(|report| report.upstreams.get(host)) {
            nodes.reporting += 1;
            nodes.rejected += usize::from(!report.accepted);
            nodes.unreachable += usize::from(report.accepted && !report.reachable);
        }
        nodes
    }
}

type Reported<'a> = Vec<(&'a str, &'a UpstreamReport)>;

/// The status for what was seen.
pub(super) fn status(
    registry: &UpstreamRegistry,
    outcome: &Result<ValidUpstream, Rejected>,
    seen: &Seen<'_>,
    now: Timestamp,
) -> UpstreamRegistryStatus {
    let spec = &registry.spec;
    let before = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation;
    let mut reported: Reported<'_> = seen
        .reports
        .iter()
        .filter_map(|report| Some((report.node.as_str(), report.upstreams.get(&spec.host)?)))
        .collect();
    reported.sort_by_key(|(node, _)| *node);

    let mut findings = vec![accepted(outcome, seen, &reported), reachable(&reported, seen)];
    if spec.credentials.is_some() {
        findings.push(credentials(outcome));
    }
    if let Some(insecure) = spec.tls.as_ref().and_then(|tls| tls.insecure.as_ref()) {
        let message = format!("the registry's identity is not checked: {}", insecure.reason);
        let reason = UpstreamReason::InsecureAllowed.as_str();
        findings.push(Finding::new(ConditionType::Insecure, Some(true), reason, message));
    }
    if let Some(access) = spec.access.as_ref().filter(|access| access.mode == AccessMode::Shared) {
        let message = format!(
            "every pod of a node reads {} with the cache's credentials",
            access.repositories.join(", ")
        );
        let reason = UpstreamReason::SharedAccess.as_str();
        findings.push(Finding::new(ConditionType::Shared, Some(true), reason, message));
    }
    let sum = |of: fn(&UpstreamReport) -> u64| {
        let total = reported.iter().map(|(_, report)| of(report)).fold(0, u64::saturating_add);
        i64::try_from(total).unwrap_or(i64::MAX)
    };
    UpstreamRegistryStatus {
        observed_generation: generation,
        conditions: conditions(findings, &before.conditions, generation, now),
        rate_limit: if seen.polled { rate_limit(&reported) } else { before.rate_limit },
        last_error: if seen.polled { last_error(&reported) } else { before.last_error },
        bytes_fetched: if seen.polled {
            Some(sum(|report| report.bytes_fetched))
        } else {
            before.bytes_fetched
        },
        bytes_served: if seen.polled {
            Some(sum(|report| report.bytes_served))
        } else {
            before.bytes_served
        },
    }
}

fn accepted(
    outcome: &Result<ValidUpstream, Rejected>,
    seen: &Seen<'_>,
    reported: &Reported<'_>,
) -> Finding {
    let kind = ConditionType::Accepted;
    if let Err(rejected) = outcome {
        return Finding::new(kind, Some(false), rejected.reason.as_str(), rejected.message.clone());
    }
    if let Some((node, report)) = reported.iter().find(|(_, report)| !report.accepted) {
        let message = format!("node {node}: {}", without_time(&report.last_error));
        return Finding::new(kind, Some(false), UpstreamReason::RejectedByNodes.as_str(), message);
    }
    if !seen.used {
        let message = "valid, and no ProxyCache uses it: create one, or look at its spec.upstreams";
        return Finding::new(kind, Some(true), UpstreamReason::NotUsed.as_str(), message);
    }
    Finding::new(kind, Some(true), UpstreamReason::Accepted.as_str(), "in force")
}

fn reachable(reported: &Reported<'_>, seen: &Seen<'_>) -> Finding {
    let kind = ConditionType::Reachable;
    let known: Vec<_> = reported.iter().filter(|(_, report)| report.accepted).collect();
    if known.is_empty() || !seen.polled {
        let reason = UpstreamReason::NotReported.as_str();
        return Finding::new(kind, None, reason, "no node cache has reported on it yet");
    }
    // Of a registry that nobody has asked for anything there is no news.
    let asked = |report: &UpstreamReport| {
        let answered = [report.hits, report.misses, report.stale, report.pass_through];
        !report.reachable || report.bytes_fetched > 0 || answered.iter().any(|count| *count > 0)
    };
    if !known.iter().any(|(_, report)| asked(report)) {
        let reason = UpstreamReason::NotAsked.as_str();
        return Finding::new(kind, None, reason, "no node has needed anything of it yet");
    }
    let failing: Vec<_> = known.iter().filter(|(_, report)| !report.reachable).collect();
    let Some((node, report)) = failing.first() else {
        return Finding::new(
            kind,
            Some(true),
            UpstreamReason::Reachable.as_str(),
            "the last request of every node was answered",
        );
    };
    let message = format!(
        "not reached from {} of {} nodes; {node}: {}",
        failing.len(),
        known.len(),
        without_time(&report.last_error)
    );
    Finding::new(kind, Some(false), UpstreamReason::Unreachable.as_str(), message)
}

fn credentials(outcome: &Result<ValidUpstream, Rejected>) -> Finding {
    let kind = ConditionType::CredentialsValid;
    match outcome {
        Err(rejected)
            if matches!(
                rejected.reason,
                UpstreamReason::SecretNotFound | UpstreamReason::SecretInvalid
            ) =>
        {
            Finding::new(kind, Some(false), rejected.reason.as_str(), rejected.message.clone())
        }
        _ => Finding::new(
            kind,
            Some(true),
            UpstreamReason::CredentialsValid.as_str(),
            "the Secret could be read",
        ),
    }
}

/// The node with the least left tells.
fn rate_limit(reported: &Reported<'_>) -> Option<RateLimit> {
    let limits = reported.iter().filter_map(|(node, report)| Some((*node, report.rate_limit?)));
    let (node, limit) = limits.min_by_key(|(_, limit)| limit.remaining)?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Some(RateLimit {
        limit: number(limit.limit),
        remaining: number(limit.remaining),
        source: node.to_owned(),
    })
}

/// The newest error of a node that does not reach it. A node writes `<time> <class>: <what>`.
fn last_error(reported: &Reported<'_>) -> Option<LastError> {
    let failing = reported.iter().filter(|(_, report)| !report.accepted || !report.reachable);
    let (node, report) = failing.max_by_key(|(_, report)| report.last_error.clone())?;
    let text = without_time(&report.last_error);
    let (class, message) = text.split_once(": ").unwrap_or(("error", text));
    Some(LastError {
        class: class.to_owned(),
        message: message.to_owned(),
        node: (*node).to_owned(),
    })
}

/// A time that changes with every request would be a status that is written for ever.
fn without_time(text: &str) -> &str {
    match text.split_once(' ') {
        Some((time, rest)) if time.parse::<Timestamp>().is_ok() => rest,
        _ => text,
    }
}

/// Whether the new status has to be written: at once if it says something else, at most once a
/// minute if only what is printed or a text has changed.
pub(super) fn is_due(
    before: &UpstreamRegistryStatus,
    after: &UpstreamRegistryStatus,
    since_last: Option<Duration>,
) -> bool {
    if before.observed_generation != after.observed_generation
        || condition::said(&before.conditions) != condition::said(&after.conditions)
    {
        return true;
    }
    let printed = |status: &UpstreamRegistryStatus| {
        (
            status.conditions.clone(),
            status.rate_limit.as_ref().map(|limit| limit.remaining),
            status.last_error.as_ref().map(|error| error.class.clone()),
        )
    };
    printed(before) != printed(after)
        && since_last.is_none_or(|since| since >= Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_refuses_is_a_condition_without_the_time_of_the_report() {
        let registry: UpstreamRegistry = serde_json::from_value(json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
            "metadata": {"name": "a"}, "spec": {"host": "a.example"},
        }))
        .unwrap();
        let registry = std::sync::Arc::new(registry);
        let valid = super::super::validate::validate(
            &registry,
            std::slice::from_ref(&registry),
            &super::super::validate::Named::default(),
        );
        let report: NodeReport = serde_json::from_value(json!({
            "apiVersion": "node.larder.dev/v1alpha1", "instance": "u", "node": "n1",
            "version": "0", "configHash": "h", "store": {},
            "upstreams": {"a.example": {
                "accepted": false, "lastError": "2026-11-24T10:00:00Z config: no such field",
            }},
        }))
        .unwrap();
        let seen = Seen { used: true, reports: &[&report], polled: true };
        let status = status(&registry, &valid, &seen, Timestamp::UNIX_EPOCH);
        let accepted = &status.conditions[0];
        assert_eq!((&*accepted.type_, &*accepted.status), ("Accepted", "False"));
        assert_eq!(accepted.reason, "RejectedByNodes");
        assert_eq!(accepted.message, "node n1: config: no such field");
    }
}
