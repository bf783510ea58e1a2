//! The node cache.

pub mod config;
pub mod oci;
pub mod upstream;
