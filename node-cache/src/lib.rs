//! The cache that runs on every node.
//!
//! The life of one pull, in reading order:
//!
//! 1. [`server`] accepts the connection and reads the request into a `PullRequest`.
//! 2. [`upstreams`] finds the configured registry that it names; no other is ever dialled.
//! 3. [`cache`] decides: serve from the store, follow a download, ask the upstream, or refuse.
//! 4. [`store`] has the files; [`upstream`] dials out.
//! 5. [`server`] turns the outcome into HTTP, in one place.
//!
//! [`mirror`] is the other process: it writes the files that send containerd here, judging by
//! [`containerd`] whether they are read.
//!
//! [`oci`] is the vocabulary of all of them, [`config`] what the operator or a person wrote down,
//! and [`app`] puts the parts together.

pub mod app;
pub mod args;
pub mod cache;
pub mod config;
pub mod containerd;
pub mod housekeeping;
pub mod metrics;
pub mod mirror;
pub mod oci;
pub mod own;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
pub mod upstreams;
pub mod watchdog;
