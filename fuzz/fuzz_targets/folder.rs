//! Folders to import.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portfolio_mcp_fuzz::folder(input));
