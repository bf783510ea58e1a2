//! The upstreams in force.

use std::{collections::BTreeMap, sync::Arc};

use larder_crds::node::RejectedUpstream;

use crate::{config::Config, metrics::Metrics, oci::UpstreamHost, upstream::Upstream};

/// A configuration with the clients built from it; replaced whole.
#[derive(Debug)]
pub struct Upstreams {
    /// What it was built from.
    pub config: Config,
    /// Upstreams that are left out, whether their configuration or their client is wrong.
    pub rejected: Vec<RejectedUpstream>,
    by_host: BTreeMap<UpstreamHost, Arc<Upstream>>,
}

impl Upstreams {
    /// Builds the clients. Those of `previous` whose configuration did not change are kept, with
    /// their connections, tokens and breakers.
    pub fn build(config: Config, previous: Option<&Self>, metrics: &Metrics) -> Self {
        let mut rejected = config.rejected.clone();
        let mut by_host = BTreeMap::new();
        for (host, upstream) in &config.upstreams {
            let unchanged = previous
                .and_then(|previous| previous.by_host.get(host))
                .filter(|built| built.config() == &**upstream);
            if let Some(built) = unchanged {
                by_host.insert(host.clone(), built.clone());
                continue;
            }
            match Upstream::new(upstream.clone()) {
                Ok(built) => {
                    metrics.announce(host);
                    by_host.insert(host.clone(), Arc::new(built));
                }
                Err(error) => rejected.push(RejectedUpstream {
                    host: host.to_string(),
                    field: "tls".to_owned(),
                    message: format!("no client can be built: {error}"),
                }),
            }
        }
        for RejectedUpstream { host, field, message } in &rejected {
            tracing::error!(host, field, reason = message, "an upstream is left out");
        }
        for field in &config.unknown_fields {
            tracing::warn!(field, "the configuration has a field that this version does not know");
        }
        metrics.upstreams_rejected.set(i64::try_from(rejected.len()).unwrap_or(i64::MAX));
        Self { config, rejected, by_host }
    }

    /// The upstream that clients call `host`.
    pub fn get(&self, host: &UpstreamHost) -> Option<Arc<Upstream>> {
        self.by_host.get(host).cloned()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_host.values()
    }
}
