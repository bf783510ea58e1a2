//! The node cache from outside: the real binary between raw clients and a faulty upstream.
//!
//! [`faulty`] is the upstream, [`larder`] the server under test with its clients, [`faults`] the
//! table of everything that can go wrong; the other modules tell one story a test.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "nobody uses a test binary as a library"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the server's log belongs into the failure")]

mod access;
mod config;
mod corpus;
mod damage;
mod faults;
mod faulty;
mod hostile;
mod larder;
mod limits;
mod lists;
mod media;
mod mirror;
mod names;
mod planted;
mod power;
mod process;
mod pull;
mod ranges;
mod report;
mod secrets;
mod selftest;
mod tags;
