//! `larder-node`.
fn main() {}
