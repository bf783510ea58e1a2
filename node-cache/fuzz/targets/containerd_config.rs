//! See `larder_fuzz::containerd_config`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::containerd_config(data));
