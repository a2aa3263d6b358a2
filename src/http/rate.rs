//! How much one client may ask: a token bucket for each, so that a client in a loop does not take the server from the others.
//!
//! A client is known by its token's name, else by its address; without a token from this machine it is one of the owner's own
//! programs and not counted. Forwarded addresses are not believed: anyone can send them.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::caller::Caller;

/// So many times the rate may be asked at once after a while of silence.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// Requests with a wrong token or none: one a second from each address, after so many.
const FAILURES: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
/// How often clients that have been silent are forgotten.
const FORGET: Duration = Duration::from_mins(1);

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
            // Whoever has one address of IPv6 has its whole network.
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
    /// At most `limit` requests a second of each client; any number if there is none.
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        let requests = limit.map(|limit| {
            let burst = limit.saturating_mul(BURST);
            (
                limit,
                RateLimiter::hashmap(Quota::per_second(limit).allow_burst(burst)),
            )
        });
        Self {
            requests,
            failures: RateLimiter::hashmap(
                Quota::per_second(NonZeroU32::MIN).allow_burst(FAILURES),
            ),
        }
    }

    /// Counts a request without a good token; the answer when there were too many from its address.
    pub(super) fn count_failure(&self, address: IpAddr) -> Option<Response> {
        take(&self.failures, Client::at(address), || {
            "too many requests without a good token come from this address".to_owned()
        })
    }

    /// Counts a request; the answer when there were too many from its client.
    pub(super) fn count(
        &self,
        caller: Option<&Caller>,
        address: Option<IpAddr>,
    ) -> Option<Response> {
        let (limit, buckets) = self.requests.as_ref()?;
        let client = match caller {
            Some(caller) => Some(Client::Token(Arc::clone(&caller.name))),
            None => address.and_then(Client::at),
        };
        take(buckets, client, || {
            format!("more than {limit} requests a second come from this client (`--rate-limit`)")
        })
    }

    /// Forgets those that have been silent, from time to time until `stop`.
    pub(super) async fn forget_the_silent(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(FORGET))
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

fn take(
    buckets: &Buckets,
    client: Option<Client>,
    problem: impl FnOnce() -> String,
) -> Option<Response> {
    let until = buckets.check_key(&client?).err()?;
    let problem = problem();
    let wait = until.wait_time_from(DefaultClock::default().now());
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    debug!("turned a request away: {problem}");
    let text = format!("{problem}; try again in {seconds} s");
    Some(
        (
            StatusCode::TOO_MANY_REQUESTS,
            [(header::RETRY_AFTER, seconds.to_string())],
            text,
        )
            .into_response(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Role;

    const FAR: &str = "203.0.113.7";

    /// How many of so many requests at once are let through.
    fn passed(rates: &Rates, requests: usize, caller: Option<&str>, address: &str) -> usize {
        let caller = caller.map(|name| Caller {
            name: name.into(),
            role: Role::Read,
        });
        let address = address.parse().unwrap();
        (0..requests)
            .filter(|_| rates.count(caller.as_ref(), Some(address)).is_none())
            .count()
    }

    #[test]
    fn each_client_has_a_bucket_of_its_own() {
        let rates = Rates::new(NonZeroU32::new(1));

        for client in [Some("marie"), Some("site"), None] {
            let passed = passed(&rates, 1000, client, FAR);
            // More than the burst only on a machine that takes seconds for this.
            assert!((4..900).contains(&passed), "{client:?}: {passed}");
        }
        let refused = rates.count(None, Some(FAR.parse().unwrap())).unwrap();
        assert_eq!(
            (
                refused.status(),
                refused.headers()[header::RETRY_AFTER].as_bytes()
            ),
            (StatusCode::TOO_MANY_REQUESTS, &b"1"[..])
        );
    }

    #[test]
    fn this_machine_is_not_counted_unless_it_presents_a_token() {
        let rates = Rates::new(NonZeroU32::new(1));

        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(passed(&rates, 1000, None, address), 1000, "{address}");
            assert!(
                (0..1000).all(|_| rates.count_failure(address.parse().unwrap()).is_none()),
                "{address}"
            );
        }
        assert!(passed(&rates, 1000, Some("marie"), "127.0.0.1") < 1000);
        assert_eq!(passed(&Rates::new(None), 1000, Some("marie"), FAR), 1000);
    }

    #[test]
    fn addresses_of_one_network_are_one_client_and_failures_are_counted_apart() {
        let rates = Rates::new(NonZeroU32::new(100));

        assert!((0..500).any(|number| {
            rates
                .count_failure(format!("2001:db8::{number:x}").parse().unwrap())
                .is_some()
        }));
        assert!(
            rates
                .count_failure("2001:db8:0:1::1".parse().unwrap())
                .is_none()
        );
        assert!(passed(&rates, 10, None, "2001:db8::1") == 10);
    }

    #[test]
    fn the_silent_are_forgotten() {
        let rates = Rates::new(NonZeroU32::new(1_000_000));
        let (_, buckets) = rates.requests.as_ref().unwrap();
        assert_eq!(passed(&rates, 1, None, FAR), 1);

        while !buckets.is_empty() {
            buckets.retain_recent();
        }
    }
}
