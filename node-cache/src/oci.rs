//! The vocabulary of the OCI distribution specification, as types. No I/O.
//!
//! Text becomes one of these types at the edge and nobody checks it again: a [`Digest`] or
//! [`Repository`] that exists is safe as a path component.

mod digest;
mod error;
mod host;
pub mod manifest;
mod name;

pub use digest::{Algorithm, Digest, Hasher, ParseDigestError};
pub use error::ErrorCode;
pub use host::{ParseHostError, UpstreamHost};
pub use name::{ParseNameError, Reference, Repository, Tag};
