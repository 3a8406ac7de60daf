//! How many refusals an address gets before it is not listened to for a while; pure, time is an argument.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How many attempts of one address may fail at once: a person who mistypes a few times is not stopped.
const ADDRESS_BURST: u32 = 8;

/// After how long an address may fail once more.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How many attempts may fail at once from everywhere.
const ALL_BURST: u32 = 64;

/// After how long one more may fail from anywhere: each failed one is a line in the audit log, and its disk is synced.
const ALL_INTERVAL: Duration = Duration::from_millis(50);

/// How many addresses are remembered. Whoever has more of them meets the bound of all.
const ADDRESSES_MAX: usize = 4096;

/// Counts failures. An attempt is admitted while its address, and all addresses together, have failures left.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    all: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
}

/// A bucket of attempts, as the moment when it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket(Option<Instant>);

impl Bucket {
    /// Whether one is left of `burst` that come back one by one.
    pub(crate) fn has_one(self, now: Instant, burst: u32, interval: Duration) -> bool {
        self.0
            .is_none_or(|full| full.saturating_duration_since(now) <= interval * (burst - 1))
    }

    /// Takes one.
    pub(crate) fn take(&mut self, now: Instant, interval: Duration) {
        self.0 = Some(self.0.map_or(now, |full| full.max(now)) + interval);
    }

    fn is_full(self, now: Instant) -> bool {
        self.0.is_none_or(|full| full <= now)
    }
}

impl Limit {
    /// Whether an attempt from there is looked at.
    pub(crate) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let bucket = self.addresses.get(&network(address)).copied().unwrap_or_default();
        self.all.has_one(now, ALL_BURST, ALL_INTERVAL) && bucket.has_one(now, ADDRESS_BURST, ADDRESS_INTERVAL)
    }

    /// An attempt from there has failed.
    pub(crate) fn failed(&mut self, address: IpAddr, now: Instant) {
        self.all.take(now, ALL_INTERVAL);
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&network(address)) {
            self.addresses
                .entry(network(address))
                .or_default()
                .take(now, ADDRESS_INTERVAL);
        }
    }
}

/// Whoever has an IPv6 address has the 2^64 of its network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_that_fails_often_waits_and_others_do_not() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        for _ in 0..ADDRESS_BURST {
            assert!(limit.admits(v4(1), now));
            limit.failed(v4(1), now);
        }
        assert!(!limit.admits(v4(1), now));
        assert!(limit.admits(v4(2), now));
        assert!(!limit.admits(v4(1), now + ADDRESS_INTERVAL - Duration::from_millis(1)));
        assert!(limit.admits(v4(1), now + ADDRESS_INTERVAL));
    }

    #[test]
    fn addresses_of_one_v6_network_are_one() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        for last in 0..8 {
            limit.failed(address(last), now);
        }
        assert!(!limit.admits(address(99), now));
        assert!(limit.admits(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]), now));
    }

    #[test]
    fn many_addresses_together_meet_the_bound_of_all_and_memory_has_one() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        for last in 0..ALL_BURST {
            limit.failed(IpAddr::from([10, 1, 0, u8::try_from(last).unwrap()]), now);
        }
        assert!(!limit.admits(v4(1), now));
        assert!(limit.admits(v4(1), now + ALL_INTERVAL));
        for number in 0..2 * ADDRESSES_MAX as u32 {
            limit.failed(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(limit.addresses.len() <= ADDRESSES_MAX);
    }
}
