//! What is counted. Labels are closed sets: configured upstreams and the variants of enums here, so
//! the number of series does not depend on what clients send (T16).

use std::collections::{BTreeSet, HashMap};

use larder_crds::node::{MirrorReason, MirrorReport, MirrorState};
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use crate::{
    oci::UpstreamHost,
    store::{StoreState, StoreUsage},
};

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the store, without asking the upstream.
    Hit,
    /// By fetching from the upstream.
    Miss,
    /// By following a fetch that another request had started.
    Joined,
    /// From the store, after the upstream confirmed it.
    Revalidated,
    /// From the store, although the upstream could not confirm it.
    Stale,
    /// With the upstream's bytes, not stored.
    PassThrough,
    /// 403: policy, or not readable anonymously.
    Refused,
    /// 404: the upstream says so.
    NotFound,
    /// 416.
    BadRange,
    /// 503: the upstream cannot be reached.
    Unavailable,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::Hit,
        Self::Miss,
        Self::Joined,
        Self::Revalidated,
        Self::Stale,
        Self::PassThrough,
        Self::Refused,
        Self::NotFound,
        Self::BadRange,
        Self::Unavailable,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::PassThrough => "pass_through",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::BadRange => "bad_range",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a download ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillEnd {
    /// Verified and stored.
    Stored,
    /// Verified and served, but the disk did not take it.
    NotKept,
    /// The bytes were not what the digest says.
    Mismatch,
    /// The upstream failed; what came is kept for a resume.
    Interrupted,
}

impl FillEnd {
    const ALL: [Self; 4] = [Self::Stored, Self::NotKept, Self::Mismatch, Self::Interrupted];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::NotKept => "not_kept",
            Self::Mismatch => "mismatch",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Every metric of the node cache.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    served: IntCounterVec,
    fetched: IntCounterVec,
    mirrored: IntCounterVec,
    fills: IntCounterVec,
    invalid: IntCounter,
    rate_limit: IntGaugeVec,
    rate_remaining: IntGaugeVec,
    reachable: IntGaugeVec,
    /// Content that was not what its name says, moved aside.
    pub quarantined: IntCounter,
    /// Passes of the scrub.
    pub scrubs: IntCounter,
    /// Blobs and unfinished downloads given up to make room.
    pub evicted: IntCounter,
    /// The store's state, one of them 1.
    store_state: IntGaugeVec,
    mirror_state: IntGaugeVec,
    mirror_problem: IntGaugeVec,
    /// Bytes free on the store's file system.
    pub store_free: IntGauge,
    /// Errors of the disk that did not reach a client.
    pub store_errors: IntCounter,
    /// 1 while the newest configuration is the one in force.
    pub config_valid: IntGauge,
    /// Upstreams of the configuration that are left out.
    pub upstreams_rejected: IntGauge,
    /// Bodies being sent.
    pub open_streams: IntGauge,
    /// Bytes allocated by the store.
    pub store_used: IntGauge,
    /// The store's configured capacity in bytes.
    pub store_capacity: IntGauge,
    /// Stored blobs.
    pub store_blobs: IntGauge,
}

impl Metrics {
    /// Creates every metric in `registry`, which must not have them yet.
    #[expect(clippy::too_many_lines, reason = "it is a list")]
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        build_info(registry)?;
        let upstream: &[&str] = &["upstream"];
        let counters = |name, help, labels| -> Result<IntCounterVec, prometheus::Error> {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            add(registry, IntCounter::new(name, help)?)
        };
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            add(registry, IntGauge::new(name, help)?)
        };
        let gauges = |name, help| -> Result<IntGaugeVec, prometheus::Error> {
            add(registry, IntGaugeVec::new(Opts::new(name, help), upstream)?)
        };
        let states = |name, help, label: &str| -> Result<IntGaugeVec, prometheus::Error> {
            add(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)
        };
        Ok(Self {
            requests: counters(
                "larder_node_requests_total",
                "Pull requests answered, by upstream and outcome.",
                &["upstream", "outcome"],
            )?,
            served: counters(
                "larder_node_served_bytes_total",
                "Body bytes sent to clients.",
                upstream,
            )?,
            fetched: counters(
                "larder_node_fetched_bytes_total",
                "Body bytes received from the upstream.",
                upstream,
            )?,
            mirrored: counters(
                "larder_node_mirrored_requests_total",
                "Requests of containerd that a mirror file of its sent here.",
                upstream,
            )?,
            fills: counters(
                "larder_node_fills_total",
                "Blob downloads, by upstream and how they ended.",
                &["upstream", "end"],
            )?,
            invalid: counter(
                "larder_node_invalid_requests_total",
                "Requests refused before any upstream was involved.",
            )?,
            rate_limit: gauges(
                "larder_node_upstream_rate_limit",
                "Pulls that the upstream allows per window; 0 if it announces no limit.",
            )?,
            rate_remaining: gauges(
                "larder_node_upstream_rate_limit_remaining",
                "Pulls left in the window when the upstream last said so.",
            )?,
            reachable: gauges(
                "larder_node_upstream_reachable",
                "1 if the last request to the upstream was answered.",
            )?,
            quarantined: counter(
                "larder_node_quarantined_total",
                "Content that was not what its digest says, moved aside.",
            )?,
            scrubs: counter(
                "larder_node_scrubs_total",
                "Times that every stored blob was read and compared with its digest.",
            )?,
            evicted: counter(
                "larder_node_evicted_total",
                "Blobs and unfinished downloads given up to make room.",
            )?,
            store_state: states(
                "larder_node_store_state",
                "1 for the state that the store is in, 0 for the others.",
                "state",
            )?,
            mirror_state: states(
                "larder_node_mirror_state",
                "1 for the state of containerd's mirror files, 0 for the others. Only with --mirror-state.",
                "state",
            )?,
            mirror_problem: states(
                "larder_node_mirror_problem",
                "1 for the reason why containerd is not sent here, or not for every registry.",
                "reason",
            )?,
            store_free: gauge(
                "larder_node_store_free_bytes",
                "Bytes free on the file system of the store.",
            )?,
            store_errors: counter(
                "larder_node_store_errors_total",
                "Failed operations on the store's files.",
            )?,
            config_valid: gauge(
                "larder_node_config_valid",
                "1 while the newest configuration is the one in force, 0 while it was refused.",
            )?,
            upstreams_rejected: gauge(
                "larder_node_upstreams_rejected",
                "Upstreams of the configuration that are left out because they are wrong.",
            )?,
            open_streams: gauge("larder_node_open_streams", "Bodies being sent.")?,
            store_used: gauge(
                "larder_node_store_used_bytes",
                "Bytes allocated by blobs, unfinished downloads and quarantine.",
            )?,
            store_capacity: gauge(
                "larder_node_store_capacity_bytes",
                "Configured capacity of the store.",
            )?,
            store_blobs: gauge("larder_node_store_blobs", "Stored blobs, manifests included.")?,
        })
    }

    /// Publishes how full the store is.
    pub fn set_store(&self, usage: &StoreUsage) {
        let value = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.store_used.set(value(usage.used));
        self.store_capacity.set(value(usage.capacity));
        self.store_free.set(value(usage.free));
        self.store_blobs.set(value(usage.blobs));
        self.evicted.inc_by(usage.evicted.saturating_sub(self.evicted.get()));
        for state in StoreState::ALL {
            let is = i64::from(state == usage.state);
            self.store_state.with_label_values(&[state.as_str()]).set(is);
        }
    }

    /// Publishes what the configurator reports.
    pub fn set_mirror(&self, report: &MirrorReport) {
        for state in MirrorState::ALL.map(MirrorState::as_str).into_iter().chain(["Unknown"]) {
            self.mirror_state.with_label_values(&[state]).set(i64::from(state == report.state));
        }
        for reason in MirrorReason::ALL.map(MirrorReason::as_str) {
            self.mirror_problem
                .with_label_values(&[reason])
                .set(i64::from(reason == report.reason));
        }
    }

    /// Makes the series of a configured upstream appear with zero, so that a rate over them works
    /// from the first request on.
    pub fn announce(&self, host: &UpstreamHost) {
        for outcome in Outcome::ALL {
            self.requests.with_label_values(&[host.as_str(), outcome.as_str()]);
        }
        for end in FillEnd::ALL {
            self.fills.with_label_values(&[host.as_str(), end.as_str()]);
        }
        self.served.with_label_values(&[host.as_str()]);
        self.fetched.with_label_values(&[host.as_str()]);
        self.mirrored.with_label_values(&[host.as_str()]);
    }

    /// Forgets every upstream but those of `configured`: a gauge of one that is gone would keep its
    /// last value, and an alert on it, for ever.
    pub fn retain(&self, configured: &BTreeSet<&str>) {
        for counters in [&self.requests, &self.served, &self.fetched, &self.mirrored, &self.fills] {
            retain(counters, configured);
        }
        for gauges in [&self.rate_limit, &self.rate_remaining, &self.reachable] {
            retain(gauges, configured);
        }
    }

    /// Counts one answered request.
    pub fn request(&self, host: &UpstreamHost, outcome: Outcome) {
        self.requests.with_label_values(&[host.as_str(), outcome.as_str()]).inc();
    }

    /// Counts one request that never came to an upstream.
    pub fn invalid_request(&self) {
        self.invalid.inc();
    }

    /// The counter of body bytes sent for `host`.
    pub fn served(&self, host: &UpstreamHost) -> IntCounter {
        self.served.with_label_values(&[host.as_str()])
    }

    /// The counter of body bytes received from `host`.
    pub fn fetched(&self, host: &UpstreamHost) -> IntCounter {
        self.fetched.with_label_values(&[host.as_str()])
    }

    /// The counter of requests that containerd sent here because of a mirror file for `host`.
    pub fn mirrored(&self, host: &UpstreamHost) -> IntCounter {
        self.mirrored.with_label_values(&[host.as_str()])
    }

    /// Counts the end of one download.
    pub fn fill(&self, host: &UpstreamHost, end: FillEnd) {
        self.fills.with_label_values(&[host.as_str(), end.as_str()]).inc();
    }

    /// How many requests for `host` had this outcome.
    pub fn requests_with(&self, host: &UpstreamHost, outcome: Outcome) -> u64 {
        self.requests.with_label_values(&[host.as_str(), outcome.as_str()]).get()
    }

    /// Publishes the pull limit that an upstream announced.
    pub fn set_rate_limit(&self, host: &UpstreamHost, limit: u64, remaining: u64) {
        let value = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.rate_limit.with_label_values(&[host.as_str()]).set(value(limit));
        self.rate_remaining.with_label_values(&[host.as_str()]).set(value(remaining));
    }

    /// Publishes whether an upstream answers.
    pub fn set_reachable(&self, host: &UpstreamHost, reachable: bool) {
        self.reachable.with_label_values(&[host.as_str()]).set(i64::from(reachable));
    }
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let build = IntGauge::with_opts(
        Opts::new("larder_node_build_info", "Constant 1, labelled with the version.")
            .const_label("version", env!("CARGO_PKG_VERSION")),
    )?;
    build.set(1);
    add(registry, build).map(drop)
}

fn retain<B: MetricVecBuilder>(metric: &MetricVec<B>, configured: &BTreeSet<&str>) {
    for family in metric.collect() {
        for series in family.get_metric() {
            let labels: HashMap<_, _> =
                series.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if labels.get("upstream").is_some_and(|host| !configured.contains(host)) {
                // Another scrape may have removed it already.
                let _ = metric.remove(&labels);
            }
        }
    }
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
