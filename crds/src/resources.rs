//! The custom resources that users write: [`ProxyCache`] and [`UpstreamRegistry`].
//!
//! Texts such as sizes and durations stay text here: an object that an older CRD let pass must
//! still be readable, so that the operator can say in a condition what is wrong with it.

mod condition;
mod proxy_cache;
mod proxy_cache_status;
mod upstream_registry;
mod upstream_registry_status;

pub use condition::{CacheReason, ConditionType, NodeReason, UpstreamReason};
pub use proxy_cache::{
    Containerd, Distribution, Endpoint, Existing, Nodes, Pod, ProxyCache, ProxyCacheSpec, Storage,
    UpdateStrategy, Upstreams,
};
pub use proxy_cache_status::{
    NodeCounts, Printed, ProblemNode, ProxyCacheStatus, StorageStatus, UpstreamCounts,
};
pub use upstream_registry::{
    Access, AccessMode, CaBundle, Credentials, Insecure, KeyRef, Repositories, SecretName, Tags,
    Timeouts, Tls, UpstreamEndpoint, UpstreamRegistry, UpstreamRegistrySpec,
};
pub use upstream_registry_status::{LastError, RateLimit, UpstreamRegistryStatus};

/// API group of both resources.
pub const GROUP: &str = "larder.dev";

/// The definitions of both resources, as they are applied to an API server.
pub fn definitions()
-> [k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition; 2]
{
    use kube::CustomResourceExt;
    [ProxyCache::crd(), UpstreamRegistry::crd()]
}

#[cfg(test)]
mod tests;
