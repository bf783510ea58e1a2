//! Boots real parts on loopback and lets tests tell stories about them.
//!
//! In reading order: a [`sandbox`] gives a story its own network namespace and temporary folder;
//! [`image`] builds what is pulled; [`registry`] is the upstream and [`relay`] the line to it;
//! [`larder`] is the cache under test; [`containerd`], which a [`configurator`] sends to it, and the
//! [`clients`] pull. Programs are found by [`tools`] and started by [`process`], which also ends
//! them. [`disk`] is a disk that may break, [`snapshot`] sees what changed in a folder, [`soak`]
//! keeps count of what runs many times, [`certificates`] are of an authority that nobody trusts.
//! A [`cluster`] is a whole Kubernetes, a [`prometheus`] scrapes either.

pub mod certificates;
pub mod clients;
pub mod cluster;
pub mod configurator;
pub mod containerd;
pub mod digest;
pub mod disk;
pub mod image;
pub mod larder;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod registry;
pub mod relay;
pub mod sandbox;
pub mod snapshot;
pub mod soak;
pub mod tools;
