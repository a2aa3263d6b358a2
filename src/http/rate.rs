//! Rate limits: a token bucket for each client, so that one client in a loop does not take the
//! server from the others.
//!
//! A client is identified by its token's name, otherwise by its address. A client on this machine
//! without a token is one of the owner's own programs and is not limited. Forwarded addresses are
//! not trusted: anyone can send them.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::http::StatusCode;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::rejection::Rejection;
use crate::caller::Caller;

/// How many times the rate a client may send at once after a pause.
const BURST_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// Requests with a missing or wrong token that an address may send at once; then one per second.
const FAILURE_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const EVICTION_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Token(Arc<str>),
    Address(IpAddr),
}

impl Client {
    /// `None` for this machine.
    fn at(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return None;
        }
        Some(Self::Address(match address {
            // The owner of one IPv6 address usually has its whole /64 network.
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
            IpAddr::V4(address) => address.into(),
        }))
    }
}

type Buckets = RateLimiter<Client, HashMapStateStore<Client>, DefaultClock>;

/// The buckets of all clients.
pub(super) struct Rates {
    requests: Option<(NonZeroU32, Buckets)>,
    failures: Buckets,
}

impl Rates {
    /// Allows each client `limit` requests per second, or any number if there is no limit.
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        let requests = limit.map(|limit| {
            let burst = limit.saturating_mul(BURST_FACTOR);
            (
                limit,
                RateLimiter::hashmap(Quota::per_second(limit).allow_burst(burst)),
            )
        });
        Self {
            requests,
            failures: RateLimiter::hashmap(
                Quota::per_second(NonZeroU32::MIN).allow_burst(FAILURE_BURST),
            ),
        }
    }

    /// Records a request without a valid token, and rejects it if its address sent too many.
    pub(super) fn check_failure(&self, address: IpAddr) -> Result<(), Rejection> {
        let Some(client) = Client::at(address) else {
            return Ok(());
        };
        withdraw(&self.failures, &client, || {
            "too many requests with a missing or invalid token from this address".to_owned()
        })
    }

    /// Records a request, and rejects it if its client sent too many.
    pub(super) fn check(
        &self,
        caller: Option<&Caller>,
        address: Option<IpAddr>,
    ) -> Result<(), Rejection> {
        let Some((limit, buckets)) = &self.requests else {
            return Ok(());
        };
        let client = match caller {
            Some(caller) => Some(Client::Token(Arc::clone(&caller.name))),
            None => address.and_then(Client::at),
        };
        let Some(client) = client else {
            return Ok(());
        };
        withdraw(buckets, &client, || {
            format!("more than {limit} requests per second from this client (see `--rate-limit`)")
        })
    }

    /// Drops the full buckets of idle clients at intervals until `stop`.
    pub(super) async fn evict_idle(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(EVICTION_INTERVAL))
            .await
            .is_some()
        {
            for buckets in self
                .requests
                .iter()
                .map(|(_, buckets)| buckets)
                .chain([&self.failures])
            {
                buckets.retain_recent();
            }
        }
    }
}

/// Takes one token out of the client's bucket.
fn withdraw(
    buckets: &Buckets,
    client: &Client,
    problem: impl FnOnce() -> String,
) -> Result<(), Rejection> {
    let Err(not_until) = buckets.check_key(client) else {
        return Ok(());
    };
    let problem = problem();
    let wait = not_until.wait_time_from(DefaultClock::default().now());
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    debug!("rejected a request: {problem}");
    let text = format!("{problem}; retry in {seconds} s");
    Err(Rejection::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(seconds))
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;
    use crate::caller::Role;

    const REMOTE: &str = "203.0.113.7";

    /// How many of `requests` requests in a row are accepted.
    fn accepted(rates: &Rates, requests: usize, caller: Option<&str>, address: &str) -> usize {
        let caller = caller.map(|name| Caller {
            name: name.into(),
            role: Role::Read,
        });
        let address = address.parse().unwrap();
        (0..requests)
            .filter(|_| rates.check(caller.as_ref(), Some(address)).is_ok())
            .count()
    }

    #[test]
    fn each_client_has_its_own_bucket() {
        let rates = Rates::new(NonZeroU32::new(1));

        for client in [Some("marie"), Some("site"), None] {
            let accepted = accepted(&rates, 1000, client, REMOTE);
            // More than the burst only on a machine that takes seconds for this.
            assert!((4..900).contains(&accepted), "{client:?}: {accepted}");
        }
        let rejection = rates
            .check(None, Some(REMOTE.parse().unwrap()))
            .unwrap_err();
        assert_eq!(rejection.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(rejection.headers, [(header::RETRY_AFTER, 1.into())]);
    }

    #[test]
    fn this_machine_is_limited_only_when_it_sends_a_token() {
        let rates = Rates::new(NonZeroU32::new(1));

        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(accepted(&rates, 1000, None, address), 1000, "{address}");
            assert!(
                (0..1000).all(|_| rates.check_failure(address.parse().unwrap()).is_ok()),
                "{address}"
            );
        }
        assert!(accepted(&rates, 1000, Some("marie"), "127.0.0.1") < 1000);
        assert_eq!(
            accepted(&Rates::new(None), 1000, Some("marie"), REMOTE),
            1000
        );
    }

    #[test]
    fn addresses_of_one_network_share_a_bucket_and_failures_have_their_own() {
        let rates = Rates::new(NonZeroU32::new(100));

        assert!((0..500).any(|number| {
            rates
                .check_failure(format!("2001:db8::{number:x}").parse().unwrap())
                .is_err()
        }));
        assert!(
            rates
                .check_failure("2001:db8:0:1::1".parse().unwrap())
                .is_ok()
        );
        assert_eq!(accepted(&rates, 10, None, "2001:db8::1"), 10);
    }

    #[test]
    fn idle_clients_are_evicted() {
        let rates = Rates::new(NonZeroU32::new(1_000_000));
        let (_, buckets) = rates.requests.as_ref().unwrap();
        assert_eq!(accepted(&rates, 1, None, REMOTE), 1);

        while !buckets.is_empty() {
            buckets.retain_recent();
        }
    }
}
