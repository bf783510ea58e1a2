//! See `larder_fuzz::path`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::path(data));
