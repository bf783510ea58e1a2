//! Everything that two of Larder's processes must agree on.
//!
//! [`node`] holds the two documents between the operator and a node cache:
//! [`node::NodeConfig`] (operator to node, a mounted file) and [`node::NodeReport`]
//! (what a node answers to `GET /report`). With the feature `resources`, `resources` holds what
//! users write. Sizes and durations are written as people write
//! them in Kubernetes manifests: [`ByteSize`] (`20Gi`) and [`Duration`] (`24h`).

mod byte_size;
mod duration;
pub mod node;
#[cfg(feature = "resources")]
#[allow(
    unreachable_pub,
    reason = "KubeSchema makes a public copy of every struct inside a function"
)]
pub mod resources;

pub use byte_size::{ByteSize, ParseByteSizeError};
pub use duration::{Duration, ParseDurationError};
