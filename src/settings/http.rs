//! The settings of `http`: address, access, limits.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::{
    ALLOWED_HOSTS, ALLOWED_ORIGINS, Environment, LISTEN, PUBLIC_API, PUBLIC_PATH, RATE_LIMIT,
    SettingWarning, Source, TOKENS, file_access::others_may_write, resolver::Resolver,
    store_file::warn_of_readers,
};
use crate::{
    cli::Cli,
    domain::text::shown_path,
    http::{PublicPath, Settings, Tokens},
};

/// What `http` needs to know, besides the store.
#[derive(Debug)]
pub struct HttpSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Which requests it serves. The tokens are not in it, because they may be replaced while it
    /// runs.
    pub server: Settings,
    /// The tokens; `None` if requests need no token.
    pub tokens: Option<TokenSource>,
}

/// Where tokens come from.
#[derive(Debug)]
pub enum TokenSource {
    /// A file, which may be read again later.
    File {
        /// Its path.
        path: PathBuf,
        /// Its tokens at the start.
        tokens: Tokens,
    },
    /// The environment.
    Variable(Tokens),
}

/// Who can reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    ThisMachine,
    TokenHolders,
}

impl HttpSettings {
    /// What arguments and environment say, or everything that is wrong with them; and what somebody
    /// should look at.
    pub(super) fn resolve(
        cli: &Cli,
        environment: &Environment,
    ) -> (Result<Self, Vec<String>>, Vec<SettingWarning>) {
        let mut resolver = Resolver::new(cli, environment);
        let tokens = tokens(&mut resolver);
        let audience = match resolver.given(&TOKENS) {
            (Some(_), _) => Audience::TokenHolders,
            (None, _) => Audience::ThisMachine,
        };
        let listen = listen_address(audience, &mut resolver);
        let server = Settings {
            public_api: resolver.bool(&PUBLIC_API),
            rate_limit: rate_limit(&mut resolver),
            allowed_hosts: resolver.list(&ALLOWED_HOSTS),
            allowed_origins: resolver.list(&ALLOWED_ORIGINS),
            public_path: public_path(&mut resolver),
            ..Settings::default()
        };
        let (problems, warnings) = resolver.finish();
        let settings = if problems.is_empty() {
            Ok(Self {
                listen,
                server,
                tokens,
            })
        } else {
            Err(problems)
        };
        (settings, warnings)
    }
}

/// Reads a file of tokens.
///
/// # Errors
/// Everything that is wrong with it, each problem with the file's name. No line of the file is
/// repeated.
pub fn read_tokens(file: &Path) -> Result<Tokens, Vec<String>> {
    let name = file.to_string_lossy();
    let name = shown_path(&name);
    let text = fs::read_to_string(file)
        .map_err(|error| vec![format!("{name} cannot be read: {error}")])?;
    if others_may_write(file) {
        return Err(vec![format!(
            "{name} can be changed by other users, who could add a token of their own; run `chmod 600` on it"
        )]);
    }
    Tokens::parse(&text).map_err(|problems| prefixed(&format!("{name}, "), problems))
}

fn prefixed(prefix: &str, problems: Vec<String>) -> Vec<String> {
    problems
        .into_iter()
        .map(|problem| format!("{prefix}{problem}"))
        .collect()
}

fn tokens(resolver: &mut Resolver<'_>) -> Option<TokenSource> {
    let (text, source) = resolver.given(&TOKENS);
    let text = text?;
    let result = if source == Source::Flag {
        let path = resolver.path(&text);
        warn_of_readers(&path, &shown_path(&text), resolver);
        read_tokens(&path)
            .map(|tokens| TokenSource::File { path, tokens })
            .map_err(|problems| prefixed(&format!("{} ", TOKENS.flag), problems))
    } else {
        Tokens::parse(&text)
            .map(TokenSource::Variable)
            .map_err(|problems| prefixed(&format!("{}, ", TOKENS.variable), problems))
    };
    match result {
        Ok(tokens) => Some(tokens),
        Err(problems) => {
            for problem in problems {
                resolver.add_problem(problem);
            }
            None
        }
    }
}

fn public_path(resolver: &mut Resolver<'_>) -> Option<PublicPath> {
    let (text, _) = resolver.given(&PUBLIC_PATH);
    match text?.parse() {
        Ok(path) => Some(path),
        Err(problem) => {
            resolver.reject(&PUBLIC_PATH, problem);
            None
        }
    }
}

fn rate_limit(resolver: &mut Resolver<'_>) -> Option<NonZeroU32> {
    if let Ok(number) = resolver.text(&RATE_LIMIT).parse() {
        return NonZeroU32::new(number);
    }
    resolver.reject(
        &RATE_LIMIT,
        "expected a number of requests per second, or 0 for no limit",
    );
    None
}

fn listen_address(audience: Audience, resolver: &mut Resolver<'_>) -> SocketAddr {
    let text = resolver.text(&LISTEN);
    let local = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address: Option<SocketAddr> = local.as_deref().unwrap_or(&text).parse().ok();
    match address {
        Some(address)
            if audience == Audience::TokenHolders || address.ip().to_canonical().is_loopback() =>
        {
            return address;
        }
        Some(_) => resolver.reject(
            &LISTEN,
            "a non-loopback address needs tokens, because anyone could write without them; \
             add --token-file or PORTFOLIO_TOKENS, or listen on 127.0.0.1 or [::1]",
        ),
        None => resolver.reject(
            &LISTEN,
            "expected an address with a port, such as 127.0.0.1:8787",
        ),
    }
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}
