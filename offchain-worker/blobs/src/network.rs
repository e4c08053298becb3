//! Which addresses a client connects to. Addresses come from strangers: a requester names where its input is, a node where
//! its outputs are, and neither shall be able to point a worker at the machines behind its firewall.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use url::{Host, Url};

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_documentation()
        || v4.is_multicast()
        || a == 0
        || (a == 100 && b & 0xc0 == 64) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 198 && b & 0xfe == 18) // benchmarks
        || a >= 240) // reserved
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [first, second, ..] = v6.segments();
    // Global unicast is 2000::/3; of it, 2001:db8::/32 is for documentation and 2001::/23 for protocols.
    first & 0xe000 == 0x2000 && !(first == 0x2001 && (second == 0x0db8 || second < 0x0200))
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) => Some(v4(g, h)),
        // :: and ::1 are addresses of their own, and not public either.
        (0, 0, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x0064, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => None,
    }
}

/// Link-local addresses serve machines' credentials in clouds (169.254.169.254); nothing of ours lives there.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            first & 0xffc0 == 0xfe80 || embedded_v4(v6).is_some_and(|v4| v4.is_link_local())
        }
    }
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) allow_private: bool,
}

impl Reach {
    fn refusal(self, address: IpAddr) -> Option<String> {
        if is_link_local(address) {
            return Some(format!("{address} is a link-local address"));
        }
        if !self.allow_private && !is_public(address) {
            return Some(format!(
                "{address} is not on the public internet, and private addresses are not allowed"
            ));
        }
        None
    }

    /// Why this address cannot be fetched from, if it cannot.
    pub(crate) fn check(self, url: &Url) -> Option<String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Some(format!("\"{}:\" is neither http nor https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Some("it contains credentials".to_owned());
        }
        match url.host() {
            None => Some("it names no host".to_owned()),
            Some(Host::Ipv4(v4)) => self.refusal(v4.into()),
            Some(Host::Ipv6(v6)) => self.refusal(v6.into()),
            // Names are checked where they are resolved, by `Resolve` below.
            Some(Host::Domain(_)) => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{host} leads nowhere that may be connected to: {reason}")]
struct Refused {
    host: String,
    reason: String,
}

/// Resolves names and keeps only what may be connected to. The connection goes to what was checked here, so a name that
/// changes its address in between gains nothing.
impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = *self;
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let mut reason = "it has no address".to_owned();
            let mut kept = Vec::with_capacity(found.len());
            for address in found {
                match reach.refusal(address.ip()) {
                    None => kept.push(address),
                    Some(refusal) => reason = refusal,
                }
            }
            if kept.is_empty() {
                return Err(Refused { host, reason }.into());
            }
            let addresses: Addrs = Box::new(kept.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_and_other_addresses() {
        for public in
            ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2002:101:101::"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "250.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        let open = Reach { allow_private: true };
        let strict = Reach { allow_private: false };
        let url = |text: &str| Url::parse(text).unwrap();
        for (text, when_open, when_strict) in [
            ("http://127.0.0.1:9000", true, false),
            ("http://[::1]:9000", true, false),
            ("http://0x7f.1/", true, false),
            ("http://2130706433/", true, false),
            ("https://1.1.1.1/x", true, true),
            ("https://example.com/x", true, true),
            ("http://169.254.169.254/latest/meta-data", false, false),
            ("http://[::ffff:169.254.169.254]/", false, false),
            ("http://[fe80::1]/", false, false),
            ("file:///etc/passwd", false, false),
            ("ftp://example.com/x", false, false),
            ("gopher://example.com/x", false, false),
            ("http://user:secret@example.com/", false, false),
        ] {
            assert_eq!(open.check(&url(text)).is_none(), when_open, "{text}");
            assert_eq!(strict.check(&url(text)).is_none(), when_strict, "{text}");
        }
    }

    #[tokio::test]
    async fn names_that_lead_to_private_addresses_are_refused() {
        let resolve = |reach: Reach| reach.resolve("localhost".parse().unwrap());
        let Err(error) = resolve(Reach { allow_private: false }).await else { panic!("resolved") };
        assert!(error.to_string().contains("not on the public internet"), "{error}");
        assert!(resolve(Reach { allow_private: true }).await.unwrap().count() > 0);
    }
}
