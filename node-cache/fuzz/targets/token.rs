//! See `larder_fuzz::token`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::token(data));
