#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| stentor_fuzz::headers(input));
