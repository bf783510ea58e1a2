//! Sends containerd to the cache: `larder-node configure` and `larder-node withdraw`.
//!
//! containerd reads a registry's `hosts.toml` at every pull, so a file is all it takes, and no
//! restart. The files are there while the cache answers and containerd has somewhere else to go;
//! [`agent`] sees to that once a second.
//!
//! [`hosts_toml`], [`mark`], [`folder`] and [`plan`] decide, without I/O; [`certs_dir`] is the only
//! one that writes to containerd's folder; [`round`] goes through all registries once.

pub mod agent;
pub mod certs_dir;
pub mod folder;
pub mod hosts_toml;
pub mod mark;
pub mod once;
pub mod plan;
pub mod probe;
pub mod round;
pub mod state;
