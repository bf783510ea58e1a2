//! What must hold for every input of every parser of the node cache.
//!
//! One function a target. Each takes any bytes and panics if a property does not hold. They are
//! called from two places: from `targets/`, by libFuzzer, and from `node-cache/tests/it/corpus.rs`,
//! which runs the committed inputs through them with every `cargo test`.
//!
//! To add a target: a function here (in a file of its own, by what it is about), three lines in
//! `targets/`, a `[[bin]]` in `Cargo.toml`, a folder `corpus/<target>` with a few inputs, and a
//! line in `TARGETS` in `node-cache/tests/it/corpus.rs`. `fuzz/run` finds it by its folder.
//!
//! An input that breaks a property is a defect: `cargo fuzz tmin` it and commit it to the corpus
//! under a name that says what it is, together with the repair.

mod access;
mod content;
mod document;
mod mirror;
mod request;

pub use access::{challenge, token};
pub use content::{digest, manifest};
pub use document::config;
pub use mirror::{containerd_config, hosts_toml};
pub use request::{ns, path, range};

/// The first line and the rest, where an input has two parts.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
