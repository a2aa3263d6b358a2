//! What a deployment configures.

use std::num::NonZeroU32;

use tokio::sync::watch;

use super::{
    guard::{AllowedHost, AllowedOrigin},
    public_path::PublicPath,
    token::Tokens,
};

/// By default the server accepts requests for loopback host names only.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Host names of the server, in addition to loopback names.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Origins of web pages that may call the server, in addition to loopback origins.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// The path under which a proxy serves this server; without it, a proxy may name it in each
    /// request.
    pub public_path: Option<PublicPath>,
    /// Bearer tokens, one of which every request needs. They may be replaced at any time. Without
    /// tokens, anyone may call.
    pub tokens: Option<watch::Receiver<Tokens>>,
    /// Whether `/api` needs no token.
    pub public_api: bool,
    /// Requests per second allowed for each client; `None` for no limit.
    pub rate_limit: Option<NonZeroU32>,
    /// How many connections may be open at once.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            public_path: None,
            tokens: None,
            public_api: false,
            rate_limit: None,
            max_connections: 4096,
        }
    }
}
