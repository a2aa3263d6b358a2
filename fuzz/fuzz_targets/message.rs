//! Messages at the entrances: a line of standard input, and a body of `/messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portfolio_mcp_fuzz::message(input));
