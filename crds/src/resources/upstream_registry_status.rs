//! What the operator says about an `UpstreamRegistry`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator says about an `UpstreamRegistry`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRegistryStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: the spec is in force. `Reachable`: the nodes reach the registry.
    /// `CredentialsValid`: the Secret could be read, and the registry takes it. `Insecure`: the
    /// registry's identity is not checked. `Shared`: pods read with the cache's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The pull limit that the registry announces, as the node with the least left sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// The last error that a node had with the registry; absent while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Body bytes that nodes fetched from the registry since their caches started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_fetched: Option<i64>,
    /// Body bytes that nodes served since their caches started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_served: Option<i64>,
}

/// A pull limit, as Docker Hub announces it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Pulls allowed in the registry's window.
    pub limit: i64,
    /// Pulls left in it.
    pub remaining: i64,
    /// Node that was told so.
    pub source: String,
}

/// An error that a node had with the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// Its kind, for example `Timeout`, `Refused`, `Tls`, `RateLimited`.
    pub class: String,
    /// What happened.
    pub message: String,
    /// Node that had it.
    pub node: String,
}
