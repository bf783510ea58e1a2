//! Sends containerd to the cache: `larder-node configure` and `larder-node withdraw`.
//!
//! containerd reads a registry's `hosts.toml` at every pull, so a file is all it takes, and no
//! restart. The files are there while the cache answers and containerd has somewhere else to go;
//! [`agent`] sees to that once a second.
//!
//! [`hosts_toml`], [`mark`], [`folder`] and [`plan`] decide, without I/O; [`certs_dir`] is the only
//! one that writes to containerd's folder; [`round`] goes through all registries once; [`colon`] sees
//! to a `config_path` that is a list.
//!
//! The files are also written where containerd does not read the folder (yet): they do no harm, and
//! are in force as soon as somebody makes the edit that the state names. Only then is the state
//! `Mirrored`; `hosts` in it are the registries with a file, whatever the state.

pub mod agent;
pub mod certs_dir;
pub mod colon;
pub mod folder;
pub mod hosts_toml;
pub mod mark;
pub mod once;
pub mod plan;
pub mod probe;
pub mod round;
pub mod state;
