//! Places for those who are not known yet, shared among the hosts that they come from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many of one host may be on their way in at once. One host, with however many ports, leaves others the rest.
const OF_ONE_MAX: usize = 32;

/// Who is on the way in, by host.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// The place of one on the way in, until it is dropped.
pub struct Place {
    strangers: Strangers,
    host: IpAddr,
}

impl Strangers {
    /// A place for one of this address, unless its host has all that it may.
    pub(super) fn place(&self, address: IpAddr) -> Option<Place> {
        let host = host(address);
        let mut strangers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = strangers.entry(host).or_default();
        if *count >= OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Place {
            strangers: self.clone(),
            host,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut strangers = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = strangers.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.host);
            }
        }
    }
}

/// Of version 6 the first 64 bits: what follows is its owner's to choose.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_takes_its_share_and_others_have_theirs() {
        let strangers = Strangers::default();
        let of = |address: &str| strangers.place(address.parse().unwrap());
        // Each of version 6 has as many addresses as it likes.
        let places: Vec<_> = (0..OF_ONE_MAX)
            .map(|at| of(&format!("2001:db8::{at:x}")).unwrap())
            .collect();
        assert!(of("2001:db8::ffff").is_none());
        let (_other, _v4, _mapped) = (
            of("2001:db8:1::").unwrap(),
            of("10.0.0.1").unwrap(),
            of("::ffff:10.0.0.1").unwrap(),
        );
        drop(places);
        assert!(of("2001:db8::ffff").is_some());
        drop((_other, _v4, _mapped));
        assert_eq!(strangers.0.lock().unwrap().len(), 0);
    }
}
