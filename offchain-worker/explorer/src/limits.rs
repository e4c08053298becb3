//! How much one address may ask.

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// How many live streams one address may have.
const STREAMS_EACH: u32 = 16;
/// How many there may be.
const STREAMS: u32 = 1_000;
/// After how many requests addresses that have been quiet are forgotten.
const SWEEP: u32 = 10_000;

type Limiter = RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock>;

/// How much addresses have asked lately.
pub(crate) struct Limits {
    requests: Limiter,
    since_sweep: AtomicU32,
    streams: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// An address' live stream, until it is dropped.
pub(crate) struct Stream {
    address: IpAddr,
    streams: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut streams = self.streams.lock();
        if let Some(count) = streams.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streams.remove(&self.address);
            }
        }
    }
}

/// Whoever has an IPv6 address has a whole /64 of them.
fn whole(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

impl Limits {
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Limits {
        Limits {
            requests: RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)),
            since_sweep: AtomicU32::new(0),
            streams: Arc::default(),
        }
    }

    /// Takes a request; how long to wait where it is one too many.
    pub(crate) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        if self.since_sweep.fetch_add(1, Ordering::Relaxed) >= SWEEP {
            self.since_sweep.store(0, Ordering::Relaxed);
            self.requests.retain_recent();
        }
        self.requests
            .check_key(&whole(address))
            .map_err(|not_yet| not_yet.wait_time_from(DefaultClock::default().now()))
    }

    /// Begins a live stream; `None` where there are enough.
    pub(crate) fn stream(&self, address: IpAddr) -> Option<Stream> {
        let address = whole(address);
        let mut streams = self.streams.lock();
        let all: u32 = streams.values().sum();
        let count = streams.entry(address).or_default();
        if *count >= STREAMS_EACH || all >= STREAMS {
            return None;
        }
        *count = count.saturating_add(1);
        drop(streams);
        Some(Stream { address, streams: self.streams.clone() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_limited_and_others_are_not() {
        let one = NonZeroU32::MIN;
        let limits = Limits::new(one, NonZeroU32::new(3).unwrap());
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert!((0..3).all(|_| limits.take(a).is_ok()));
        assert!(limits.take(a).unwrap_err() <= Duration::from_secs(1));
        assert!(limits.take(b).is_ok());
        // All of one network's addresses are one.
        let network = |last: &str| format!("2001:db8:1:2::{last}").parse::<IpAddr>().unwrap();
        assert!((0..3).all(|n| limits.take(network(&n.to_string())).is_ok()));
        assert!(limits.take(network("ffff")).is_err());
        assert_eq!(whole("::ffff:192.0.2.1".parse().unwrap()), a);
    }

    #[test]
    fn streams_are_counted_while_they_last() {
        let limits = Limits::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..STREAMS_EACH).map(|_| limits.stream(address).unwrap()).collect();
        assert!(limits.stream(address).is_none());
        drop(held);
        assert!(limits.stream(address).is_some());
        assert!(limits.streams.lock().is_empty());
    }
}
