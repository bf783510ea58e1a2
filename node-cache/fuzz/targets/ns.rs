//! See `larder_fuzz::ns`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| larder_fuzz::ns(data));
