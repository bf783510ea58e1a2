//! See `larder_fuzz::hosts_toml`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::hosts_toml(data));
