//! What a node cache says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer to `GET /report`: at most 256 KiB of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Always [`API_VERSION`](super::API_VERSION).
    pub api_version: String,
    /// Which process answers: the pod's UID in a cluster.
    pub instance: String,
    /// Name of the node; empty outside a cluster.
    #[serde(default)]
    pub node: String,
    /// Version of the node cache.
    pub version: String,
    /// Hash of the configuration in force: lower-case hex SHA-256 of its text.
    pub config_hash: String,
    /// containerd's side, as the configurator sees it.
    #[serde(default)]
    pub mirror: MirrorReport,
    /// The store.
    pub store: StoreReport,
    /// By `host`.
    #[serde(default)]
    pub upstreams: BTreeMap<String, UpstreamReport>,
}

/// Whether containerd is sent to this cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MirrorReport {
    /// `Unknown` until a configurator reports.
    pub state: String,
    /// A reason from the configurator's closed list; empty when all is well.
    pub reason: String,
    /// Hosts with a mirror file of ours.
    pub hosts: Vec<String>,
}

/// The state of the store. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreReport {
    /// `Ready`; `Accounting` for a moment after a start; `Full` while something does not fit;
    /// `ReadOnly`, `Failing`, `Locked` (by another process) while nothing new can be kept.
    pub state: String,
    /// Bytes of stored blobs and unfinished downloads.
    pub used_bytes: u64,
    /// The configured capacity.
    pub capacity_bytes: u64,
    /// Bytes that the file system has free for an unprivileged user.
    pub free_bytes: u64,
    /// Number of stored blobs, manifests included.
    pub blobs: u64,
}

/// One upstream as this node sees it. Counters start at zero with the process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamReport {
    /// Whether its configuration is in force.
    pub accepted: bool,
    /// Whether the last request to it was answered.
    pub reachable: bool,
    /// The last error, or why the configuration was rejected; empty when there is none.
    pub last_error: String,
    /// The pull limit that the upstream announces, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitReport>,
    /// Requests answered from the store.
    pub hits: u64,
    /// Requests for which the upstream's body was fetched, or that joined such a fetch.
    pub misses: u64,
    /// Tags answered from the store because the upstream failed.
    pub stale: u64,
    /// Requests answered by the upstream's bytes without storing them.
    pub pass_through: u64,
    /// Body bytes sent to clients.
    pub bytes_served: u64,
    /// Body bytes received from the upstream.
    pub bytes_fetched: u64,
    /// Requests that containerd sent here because of a mirror file: the proof that it reads them.
    pub mirrored_requests: u64,
}

/// A pull limit, as Docker Hub announces it in `ratelimit-*` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitReport {
    /// Pulls allowed in the window.
    pub limit: u64,
    /// Pulls left.
    pub remaining: u64,
}
