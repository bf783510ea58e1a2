//! Metrics of the operator: `larder_operator_*`. Labels are closed sets and the names of objects:
//! at most 50 series, 26 for each ProxyCache and 10 for each UpstreamRegistry.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use larder_crds::resources::{
    ConditionType, NodeCounts, NodeReason, ProblemNode, ProxyCacheStatus, UpstreamRegistryStatus,
};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// A ProxyCache, in labels.
pub const PROXY_CACHE: &str = "ProxyCache";
/// An UpstreamRegistry, in labels.
pub const UPSTREAM_REGISTRY: &str = "UpstreamRegistry";

/// Metrics of the operator. Those of objects exist in the one that leads only.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: IntCounterVec,
    seconds: HistogramVec,
    leader: IntGauge,
    conditions: IntGaugeVec,
    nodes: IntGaugeVec,
    problems: IntGaugeVec,
    upstream_nodes: IntGaugeVec,
    rate_limit: IntGaugeVec,
    rate_remaining: IntGaugeVec,
}

/// How the node caches see one registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamNodes {
    /// Those that reported on it.
    pub reporting: usize,
    /// Of those, the ones that do not reach it.
    pub unreachable: usize,
    /// Of those, the ones that take its configuration for wrong.
    pub rejected: usize,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name, help, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            add(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let upstream: &[&str] = &["name", "upstream"];
        let build =
            Opts::new("larder_operator_build_info", "Constant 1, labelled with the version.")
                .const_label("version", env!("CARGO_PKG_VERSION"));
        add(registry, IntGauge::with_opts(build)?)?.set(1);
        let metrics = Self {
            reconciles: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "larder_operator_reconciles_total",
                        "Reconciles, by kind and result.",
                    ),
                    &["kind", "result"],
                )?,
            )?,
            seconds: add(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "larder_operator_reconcile_seconds",
                        "Time that a reconcile took.",
                    ),
                    &["kind"],
                )?,
            )?,
            leader: add(
                registry,
                IntGauge::new("larder_operator_leader", "1 in the operator that acts.")?,
            )?,
            conditions: gauges(
                "larder_operator_condition",
                "Conditions of ProxyCaches and UpstreamRegistries: 1 True, 0 False, -1 Unknown.",
                &["kind", "name", "type"],
            )?,
            nodes: gauges(
                "larder_operator_nodes",
                "Nodes of a ProxyCache, by how far their caches are.",
                &["name", "state"],
            )?,
            problems: gauges(
                "larder_operator_problem_nodes",
                "Nodes of a ProxyCache on which something is wrong, by the worst that is.",
                &["name", "reason"],
            )?,
            upstream_nodes: gauges(
                "larder_operator_upstream_nodes",
                "Node caches that report on an UpstreamRegistry, and of those the ones that fail.",
                &["name", "upstream", "state"],
            )?,
            rate_limit: gauges(
                "larder_operator_upstream_rate_limit",
                "Pulls that the registry allows the node with the least left; 0 if it announces no limit.",
                upstream,
            )?,
            rate_remaining: gauges(
                "larder_operator_upstream_rate_limit_remaining",
                "Pulls left of them.",
                upstream,
            )?,
        };
        // A rate over a series works from the first event on only if the series was there before.
        for kind in [PROXY_CACHE, UPSTREAM_REGISTRY] {
            for result in ["ok", "error"] {
                metrics.reconciles.with_label_values(&[kind, result]);
            }
            metrics.seconds.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, kind: &str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles.with_label_values(&[kind, result]).inc();
        self.seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    /// This operator acts now.
    pub fn lead(&self) {
        self.leader.set(1);
    }

    /// Publishes what is said about a ProxyCache. `problems` are all of them, not the twenty of the
    /// status.
    pub fn cache(&self, name: &str, status: &ProxyCacheStatus, problems: &[ProblemNode]) {
        self.conditions(PROXY_CACHE, name, &status.conditions);
        let NodeCounts { desired, ready, mirrored, reporting } =
            status.nodes.clone().unwrap_or_default();
        for (state, count) in [
            ("desired", desired),
            ("ready", ready),
            ("mirrored", mirrored),
            ("reporting", reporting),
        ] {
            self.nodes.with_label_values(&[name, state]).set(count);
        }
        for reason in NodeReason::ALL.iter().map(|reason| reason.as_str()) {
            let nodes = problems.iter().filter(|problem| problem.reason == reason).count();
            self.problems.with_label_values(&[name, reason]).set(whole(nodes));
        }
    }

    /// Publishes what is said about an UpstreamRegistry.
    pub fn upstream(
        &self,
        name: &str,
        host: &str,
        status: &UpstreamRegistryStatus,
        nodes: UpstreamNodes,
    ) {
        self.conditions(UPSTREAM_REGISTRY, name, &status.conditions);
        let UpstreamNodes { reporting, unreachable, rejected } = nodes;
        for (state, count) in
            [("reporting", reporting), ("unreachable", unreachable), ("rejected", rejected)]
        {
            self.upstream_nodes.with_label_values(&[name, host, state]).set(whole(count));
        }
        let limit = status.rate_limit.clone().unwrap_or_default();
        self.rate_limit.with_label_values(&[name, host]).set(limit.limit);
        self.rate_remaining.with_label_values(&[name, host]).set(limit.remaining);
    }

    fn conditions(&self, kind: &str, name: &str, conditions: &[Condition]) {
        for &condition in ConditionType::ALL {
            let labels = [kind, name, condition.as_str()];
            match conditions.iter().find(|found| found.type_ == condition.as_str()) {
                Some(found) => {
                    let value = match found.status.as_str() {
                        "True" => 1,
                        "False" => 0,
                        _ => -1,
                    };
                    self.conditions.with_label_values(&labels).set(value);
                }
                // Said no longer, or never said of this kind.
                None => drop(self.conditions.remove_label_values(&labels)),
            }
        }
    }

    /// Forgets objects that are gone: an alert on one would stay for ever.
    pub fn retain(&self, caches: &BTreeSet<String>, registries: &BTreeSet<String>) {
        let is_gone = |labels: &HashMap<&str, &str>, kind: &str| {
            let known = if kind == PROXY_CACHE { caches } else { registries };
            labels.get("name").is_some_and(|name| !known.contains(*name))
        };
        for (gauges, kind) in [
            (&self.conditions, None),
            (&self.nodes, Some(PROXY_CACHE)),
            (&self.problems, Some(PROXY_CACHE)),
            (&self.upstream_nodes, Some(UPSTREAM_REGISTRY)),
            (&self.rate_limit, Some(UPSTREAM_REGISTRY)),
            (&self.rate_remaining, Some(UPSTREAM_REGISTRY)),
        ] {
            for family in gauges.collect() {
                for series in family.get_metric() {
                    let labels: HashMap<_, _> = series
                        .get_label()
                        .iter()
                        .map(|label| (label.name(), label.value()))
                        .collect();
                    let kind = kind.or_else(|| labels.get("kind").copied()).unwrap_or_default();
                    if is_gone(&labels, kind) {
                        // Nobody else removes any.
                        let _ = gauges.remove(&labels);
                    }
                }
            }
        }
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests;
