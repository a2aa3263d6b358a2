//! Patches, their changes, and the way back.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portfolio_mcp_fuzz::patch(input));
