//! From a `ProxyCache` to what is built of it. No I/O.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};
use larder_crds::{
    ByteSize,
    node::{self, MinFree},
    resources::{CacheReason, Distribution, Existing, ProxyCache, UpstreamRegistry},
};

use super::placement::{Architecture, Placement};

/// A ProxyCache whose fields are known to be good.
#[derive(Clone, Debug)]
pub struct ValidCache {
    /// The object itself.
    pub cache: Arc<ProxyCache>,
    /// The store, as the node caches are told.
    pub storage: node::Storage,
    /// containerd's files, as the node caches are told.
    pub containerd: node::Containerd,
}

/// Why a ProxyCache is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// One of a closed list.
    pub reason: CacheReason,
    /// The field, what is wrong with it, and what to do.
    pub message: String,
}

fn rejected<T>(reason: CacheReason, message: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected { reason, message: message.into() })
}

/// Longest name of a ProxyCache: the names of its pods and of their labels are made of it.
const MAX_NAME: usize = 40;

/// Checks one cache against all of them, and the nodes that the image runs on.
pub fn validate(
    cache: &Arc<ProxyCache>,
    all: &[Arc<ProxyCache>],
    nodes: &[Arc<Node>],
    architectures: &[Architecture],
) -> Result<ValidCache, Rejected> {
    let name = cache.name_any();
    if name.len() > MAX_NAME {
        let message = format!(
            "metadata.name: longer than {MAX_NAME} characters; create it with a shorter name"
        );
        return rejected(CacheReason::InvalidSpec, message);
    }
    let spec = &cache.spec;
    let invalid = |message: String| Rejected { reason: CacheReason::InvalidSpec, message };
    let capacity: ByteSize = spec
        .storage
        .capacity
        .parse()
        .map_err(|error| invalid(format!("spec.storage.capacity: {error}")))?;
    let min_free: MinFree = spec
        .storage
        .min_free
        .parse()
        .map_err(|error| invalid(format!("spec.storage.minFree: {error}")))?;
    if let Some((other, node)) = older_on_a_node(cache, all, nodes, architectures) {
        let message = format!(
            "spec.nodes: ProxyCache {other} is older and has node {node} already; select other nodes, or delete \
             one of the two"
        );
        return rejected(CacheReason::NodesTaken, message);
    }
    Ok(ValidCache {
        cache: cache.clone(),
        storage: node::Storage { path: spec.storage.host_path.clone().into(), capacity, min_free },
        containerd: containerd(cache),
    })
}

fn older_on_a_node(
    cache: &ProxyCache,
    all: &[Arc<ProxyCache>],
    nodes: &[Arc<Node>],
    architectures: &[Architecture],
) -> Option<(String, String)> {
    let age = |cache: &ProxyCache| {
        (cache.metadata.creation_timestamp.clone().map(|time| time.0), cache.name_any())
    };
    let mine = Placement::of(cache, architectures);
    all.iter()
        .filter(|other| other.name_any() != cache.name_any())
        .filter(|other| other.metadata.deletion_timestamp.is_none() && age(other) < age(cache))
        .find_map(|other| {
            let theirs = Placement::of(other, architectures);
            let shared = nodes.iter().find(|node| mine.allows(node) && theirs.allows(node))?;
            Some((other.name_any(), shared.name_any()))
        })
}

/// Where a distribution has containerd's files: docs/guide/distributions.md.
fn containerd(cache: &ProxyCache) -> node::Containerd {
    let spec = &cache.spec.containerd;
    let (certs, config) = match spec.distribution.unwrap_or_default() {
        Distribution::Generic => ("/etc/containerd/certs.d", "/etc/containerd/config.toml"),
        Distribution::K3s => (
            "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        ),
        Distribution::Rke2 => (
            "/var/lib/rancher/rke2/agent/etc/containerd/certs.d",
            "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        ),
        Distribution::MicroK8s => (
            "/var/snap/microk8s/current/args/certs.d",
            "/var/snap/microk8s/current/args/containerd.toml",
        ),
        Distribution::K0s => ("/etc/k0s/containerd.d/certs.d", "/etc/k0s/containerd.d/larder.toml"),
    };
    node::Containerd {
        certs_dir: spec.certs_dir.as_deref().unwrap_or(certs).into(),
        config_file: spec.config_file.as_deref().unwrap_or(config).into(),
        existing: match spec.existing {
            Existing::Prepend => node::ExistingHosts::Prepend,
            Existing::Leave => node::ExistingHosts::Leave,
        },
        colon_path_repair: spec.colon_path_repair,
    }
}

/// The registries that a cache keeps images of, by host.
pub fn selected(
    cache: &ProxyCache,
    all: &[Arc<UpstreamRegistry>],
) -> Result<Vec<Arc<UpstreamRegistry>>, Rejected> {
    let upstreams = cache.spec.upstreams.clone().unwrap_or_default();
    let missing: Vec<_> = upstreams
        .names
        .iter()
        .filter(|name| !all.iter().any(|registry| registry.name_any() == **name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "spec.upstreams.names: there is no UpstreamRegistry {}; create it, or take the name out",
            missing.join(", ")
        );
        return rejected(CacheReason::UpstreamNotFound, message);
    }
    let selector = upstreams
        .selector
        .as_ref()
        .map(|selector| Selector::try_from(selector.clone()))
        .transpose();
    let selector = selector.map_err(|error| Rejected {
        reason: CacheReason::InvalidSpec,
        message: format!("spec.upstreams.selector: {error}"),
    })?;
    let mut chosen: Vec<_> = all
        .iter()
        .filter(|registry| registry.metadata.deletion_timestamp.is_none())
        .filter(|registry| {
            upstreams.names.is_empty() || upstreams.names.contains(&registry.name_any())
        })
        .filter(|registry| {
            selector.as_ref().is_none_or(|selector| selector.matches(registry.labels()))
        })
        .cloned()
        .collect();
    chosen.sort_by(|one, other| one.spec.host.cmp(&other.spec.host));
    Ok(chosen)
}
