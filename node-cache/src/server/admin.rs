//! The admin port.
//!
//! ```text
//! /livez     200 while the process runs; a stuck one aborts by itself
//! /readyz    200 once the pull port answers; never depends on an upstream or on free space
//! /metrics   Prometheus text
//! /report    NodeReport (bearer token; without a configured token, loopback only)
//! /catalog   stored images (same rule)
//! ```

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use larder_crds::node::{API_VERSION, NodeReport, RateLimitReport, StoreReport, UpstreamReport};
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;

use super::listen::Peer;
use crate::{
    metrics::{Metrics, Outcome},
    mirror,
    store::{Store, StoreState, StoreUsage},
    upstream::Upstream,
    upstreams::Upstreams,
};

/// What the admin endpoints show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Every metric.
    pub registry: Registry,
    /// The node cache's own.
    pub metrics: Metrics,
    /// The upstreams in force.
    pub upstreams: watch::Receiver<Arc<Upstreams>>,
    /// For its size and the catalog.
    pub store: Arc<Store>,
    /// Which process this is.
    pub instance: String,
    /// Name of the node; empty outside a cluster.
    pub node: String,
    /// State file of the configurator, if there is one.
    pub mirror_state: Option<PathBuf>,
    /// Whether the pull port answers.
    pub ready: watch::Receiver<bool>,
}

/// The numbers are in memory; only the file system is asked how much is free. The operator waits 2 s
/// for a report.
const MEASURED_WITHIN: Duration = Duration::from_secs(1);

/// Images in one answer of `/catalog`.
const MAX_CATALOG: usize = 10_000;
/// Longest error text in a report.
const MAX_ERROR: usize = 200;
/// The operator reads no more of a report.
const MAX_REPORT: usize = 256 << 10;

/// The router of the admin port.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/report", get(report))
        .route("/catalog", get(catalog))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if *admin.ready.borrow() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the pull port does not answer yet\n").into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let upstreams = admin.upstreams.borrow().clone();
    admin
        .metrics
        .retain(&upstreams.all().map(|upstream| upstream.config().host.as_str()).collect());
    for upstream in upstreams.all() {
        let host = &upstream.config().host;
        admin.metrics.set_reachable(host, upstream.health().reachable);
        let limit = upstream.rate_limit();
        let (limit, remaining) = limit.map_or((0, 0), |limit| (limit.limit, limit.remaining));
        admin.metrics.set_rate_limit(host, limit, remaining);
    }
    // Without a configurator there is nothing to say, and nothing to alert on.
    if let Some(path) = &admin.mirror_state {
        admin.metrics.set_mirror(&mirror::state::report(Some(path)));
    }
    if let Some(usage) = admin.measure().await {
        admin.metrics.set_store(&usage);
    }
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn report(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admin.authorize(peer, &headers) {
        return refused;
    }
    let usage = admin.measure().await;
    let upstreams = admin.upstreams.borrow().clone();
    let mut by_host: BTreeMap<String, UpstreamReport> = upstreams
        .rejected
        .iter()
        .map(|rejected| {
            let last_error = cut(&format!("{}: {}", rejected.field, rejected.message));
            (rejected.host.clone(), UpstreamReport { last_error, ..UpstreamReport::default() })
        })
        .collect();
    for upstream in upstreams.all() {
        by_host.insert(upstream.config().host.to_string(), admin.upstream_report(upstream));
    }
    let report = NodeReport {
        api_version: API_VERSION.to_owned(),
        instance: admin.instance.clone(),
        node: admin.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: upstreams.config.hash.clone(),
        mirror: mirror::state::report(admin.mirror_state.as_deref()),
        store: usage.map_or_else(silent_store, |usage| StoreReport {
            state: usage.state.as_str().to_owned(),
            used_bytes: usage.used,
            capacity_bytes: usage.capacity,
            free_bytes: usage.free,
            blobs: usage.blobs,
        }),
        upstreams: by_host,
    };
    match fitted(report) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The report as text that is not too long: error texts are shortened, then hosts left out, as many
/// as need be. The state of the node as a whole is always in it.
fn fitted(mut report: NodeReport) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(&report)?;
    for longest in [MAX_ERROR / 4, 0] {
        if text.len() > MAX_REPORT {
            for upstream in report.upstreams.values_mut() {
                upstream.last_error = upstream.last_error.chars().take(longest).collect();
            }
            text = serde_json::to_string(&report)?;
        }
    }
    while text.len() > MAX_REPORT {
        // A host takes its part of the text; one step or two.
        let hosts = report.mirror.hosts.len().max(report.upstreams.len());
        let kept = (hosts * MAX_REPORT / text.len()).min(hosts.saturating_sub(1));
        report.mirror.hosts.truncate(kept);
        while report.upstreams.len() > kept {
            report.upstreams.pop_last();
        }
        if kept == 0 {
            report.mirror.hosts.clear();
            report.upstreams.clear();
            return serde_json::to_string(&report);
        }
        text = serde_json::to_string(&report)?;
    }
    Ok(text)
}

async fn catalog(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admin.authorize(peer, &headers) {
        return refused;
    }
    let store = admin.store.clone();
    let listed = tokio::task::spawn_blocking(move || store.catalog(MAX_CATALOG)).await;
    match listed {
        Ok(Ok(images)) => Json(serde_json::json!({ "images": images })).into_response(),
        Ok(Err(error)) => {
            admin.metrics.store_errors.inc();
            tracing::error!(%error, "the catalog cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read; see the log\n")
                .into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

impl Admin {
    /// With a configured token, who has it; without one, who is on this machine.
    #[expect(clippy::result_large_err, reason = "the error is the response itself")]
    fn authorize(&self, Peer(peer): Peer, headers: &HeaderMap) -> Result<(), Response> {
        let upstreams = self.upstreams.borrow().clone();
        let Some(token) = &upstreams.config.report_token else {
            if peer.ip().to_canonical().is_loopback() {
                return Ok(());
            }
            let message = "no reportTokenFile is configured, so this answers on loopback only\n";
            return Err((StatusCode::FORBIDDEN, message).into_response());
        };
        let sent = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if sent.is_some_and(|sent| token.matches(sent)) {
            return Ok(());
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"larder-node\"")];
        Err((StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response())
    }

    /// How full the store is; `None` if the disk does not say so in time.
    async fn measure(&self) -> Option<StoreUsage> {
        let store = self.store.clone();
        let measuring = tokio::task::spawn_blocking(move || store.measure());
        let Ok(measured) = tokio::time::timeout(MEASURED_WITHIN, measuring).await else {
            self.store.fell_silent();
            return None;
        };
        measured.ok()
    }

    fn upstream_report(&self, upstream: &Upstream) -> UpstreamReport {
        let host = &upstream.config().host;
        let count = |outcome| self.metrics.requests_with(host, outcome);
        let health = upstream.health();
        UpstreamReport {
            accepted: true,
            reachable: health.reachable,
            last_error: cut(&health.last_error),
            rate_limit: upstream
                .rate_limit()
                .map(|limit| RateLimitReport { limit: limit.limit, remaining: limit.remaining }),
            hits: count(Outcome::Hit) + count(Outcome::Revalidated),
            misses: count(Outcome::Miss) + count(Outcome::Joined),
            stale: count(Outcome::Stale),
            pass_through: count(Outcome::PassThrough),
            bytes_served: self.metrics.served(host).get(),
            bytes_fetched: self.metrics.fetched(host).get(),
            mirrored_requests: self.metrics.mirrored(host).get(),
        }
    }
}

/// The report of a store whose disk does not answer.
fn silent_store() -> StoreReport {
    StoreReport { state: StoreState::Failing.as_str().to_owned(), ..StoreReport::default() }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_ERROR).collect()
}

#[cfg(test)]
mod tests {
    use larder_crds::node::MirrorReport;

    use super::*;

    fn report(upstreams: usize, host: impl Fn(usize) -> String, error: &str) -> NodeReport {
        let upstream = UpstreamReport {
            last_error: cut(error),
            rate_limit: Some(RateLimitReport { limit: u64::MAX, remaining: u64::MAX }),
            bytes_served: u64::MAX,
            bytes_fetched: u64::MAX,
            ..UpstreamReport::default()
        };
        NodeReport {
            api_version: API_VERSION.to_owned(),
            instance: "i".to_owned(),
            node: "n".to_owned(),
            version: "1".to_owned(),
            config_hash: "h".to_owned(),
            mirror: MirrorReport {
                hosts: (0..upstreams).map(&host).collect(),
                ..MirrorReport::default()
            },
            store: silent_store(),
            upstreams: (0..upstreams).map(|number| (host(number), upstream.clone())).collect(),
        }
    }

    #[test]
    fn a_report_is_at_most_256_kib_whatever_is_configured() {
        let short = |number: usize| format!("registry-{number:04}.test");
        let long = |number: usize| format!("{number:05}.{}.test", "a".repeat(240));
        // Control characters are the longest in JSON.
        let error = "\u{1}".repeat(1000);
        for (upstreams, host, kept) in [
            (20, &short as &dyn Fn(usize) -> String, 20),
            (500, &short, 500),
            (500, &long, 200),
            (5_000, &short, 500),
            (5_000, &long, 200),
        ] {
            let text = fitted(report(upstreams, host, &error)).unwrap();
            assert!(text.len() <= MAX_REPORT, "{upstreams}: {}", text.len());
            let read: NodeReport = serde_json::from_str(&text).unwrap();
            assert!(read.upstreams.len() >= kept, "{upstreams}: {} left", read.upstreams.len());
            assert_eq!(read.store.state, "Failing");
            if upstreams == 20 {
                assert_eq!(read.upstreams["registry-0000.test"].last_error.chars().count(), 200);
            }
        }
    }
}
