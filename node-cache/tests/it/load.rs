//! The node cache under load: crowds, slow and half-open clients, a small memory cgroup, few file
//! descriptors, and very many malformed requests.
//!
//! A test binary of its own: these tests take the whole machine, one after the other. Their size
//! is set by environment variables; the defaults are for CI.
//!
//! | variable | default | long form | is |
//! |---|---|---|---|
//! | `LARDER_LOAD_CLIENTS` | 512 | 2048 | clients of one stored blob |
//! | `LARDER_LOAD_MIB` | 16 | 100 | size of that blob |
//! | `LARDER_LOAD_SECONDS` | 12 | 86400 | how long slow and half-open clients stay |
//! | `LARDER_LOAD_REQUESTS` | 50000 | 10000000 | malformed requests |
//! | `LARDER_LOAD_SEED` | 1 | any | which malformed requests |
//!
//! Run one alone: `LARDER_LOAD_MIB=100 cargo test --workspace --test load g12`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "nobody uses a test binary as a library"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the server's log belongs into the failure")]

#[allow(dead_code, unused_imports, reason = "the other test binary uses the rest")]
mod faulty;
#[allow(dead_code, unused_imports, reason = "the other test binary uses the rest")]
mod larder;

mod load {
    mod cgroup;
    mod clients;
    mod crowd;
    mod descriptors;
    mod malformed;
    mod memory;
    mod process;
    mod settings;
}
