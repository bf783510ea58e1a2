//! What the operator says about a `ProxyCache`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator says about a `ProxyCache`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCacheStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: the spec is in force. `Available`: the caches run. `MirrorEffective`: containerd
    /// asks them. `Degraded`: something on a node or of an upstream is not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many nodes are how far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// The stores of all nodes that report, added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// By upstream, over all nodes that report, since their caches started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub upstreams: Vec<UpstreamCounts>,
    /// Up to 20 nodes on which something is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problem_nodes: Vec<ProblemNode>,
    /// What `kubectl get` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printed: Option<Printed>,
}

/// How many nodes are how far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes that should have a cache.
    pub desired: i64,
    /// Nodes whose cache is ready.
    pub ready: i64,
    /// Nodes whose containerd is sent to the cache.
    pub mirrored: i64,
    /// Nodes whose cache answered when it was last asked.
    pub reporting: i64,
}

/// The stores of all nodes that report, added up. Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// What they occupy.
    pub used_bytes: i64,
    /// What they may occupy.
    pub capacity_bytes: i64,
    /// Number of stored blobs, manifests included.
    pub blobs: i64,
}

/// One upstream over all nodes, since their caches started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamCounts {
    /// The registry.
    pub host: String,
    /// Requests answered from disk.
    pub hits: i64,
    /// Requests for which the registry was asked for the body.
    pub misses: i64,
    /// Tags answered from disk because the registry failed.
    pub stale: i64,
    /// Requests answered by the registry's bytes without storing them.
    pub pass_through: i64,
    /// Body bytes sent to containerd.
    pub bytes_served: i64,
    /// Body bytes received from the registry.
    pub bytes_fetched: i64,
}

/// A node on which something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemNode {
    /// Name of the node.
    pub name: String,
    /// One word, for example `ConfigPathMissing`, `DiskFull`, `NotReporting`.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What `kubectl get` prints. Written at most once a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Printed {
    /// Ready of desired node caches: `12/13`.
    pub nodes: String,
    /// Share of requests answered from disk: `93%`; `-` before the first.
    pub hit_rate: String,
    /// Used of capacity: `31Gi/260Gi`.
    pub used: String,
}
