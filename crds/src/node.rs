//! The documents between the operator and a node cache.
//!
//! Both are versioned: a reader ignores (and names) fields it does not know, so that an older node
//! cache works with a newer operator and the reverse.

mod config;
mod mirror;
mod parse;
mod report;

pub use config::{
    Access, AccessMode, Containerd, Endpoint, ExistingHosts, MinFree, NodeConfig, Repositories,
    Storage, Tags, Timeouts, Tls, Upstream,
};
pub use mirror::{MirrorReason, MirrorState, MirrorStatus};
pub use parse::{ParseError, ParsedConfig, RejectedUpstream};
pub use report::{MirrorReport, NodeReport, RateLimitReport, StoreReport, UpstreamReport};

/// `apiVersion` of [`NodeConfig`] and [`NodeReport`].
pub const API_VERSION: &str = "node.larder.dev/v1alpha1";
