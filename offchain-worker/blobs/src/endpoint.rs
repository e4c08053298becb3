//! Addresses under which others are to reach a blob server: a node's registered endpoint, `blobs.public_url`, the address that a task
//! names for its input. One function says what is wrong with one, before anybody pays for registering it; another looks whether a
//! blob server answers there.

use crate::client::{below, explain, printable, read};
use crate::network::is_public;
use crate::{now_ms, Hash};
use reqwest::{redirect, Client};
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use url::{Host, Url};

/// The longest address that the contract stores, in bytes.
pub const MAX_ENDPOINT: usize = 256;
/// Endings of names that are given out within a house, and nowhere else (RFC 2606, 6761, 6762, 7686, 8375, and by custom).
const PRIVATE_NAMES: [&str; 14] = [
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
    "test",
    "example",
    "invalid",
    "onion",
    "localhost",
];
/// Names that documentation has.
const EXAMPLES: [&str; 3] = ["example.org", "example.com", "example.net"];
/// How long a probe may take to connect, and altogether.
const PROBE_CONNECT: Duration = Duration::from_secs(3);
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);
/// A health answer is a line of JSON.
const MAX_HEALTH: usize = 4 * 1024;
/// Signed requests are refused when the clocks differ by more, in milliseconds.
const CLOCK_MS: u64 = 60_000;

/// Who has to reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody: a chain with other people's nodes on it.
    Public,
    /// One's own machines: a development chain.
    Development,
}

impl Audience {
    /// Of a chain that does or does not call itself a development chain.
    pub fn of(development: bool) -> Audience {
        if development {
            Audience::Development
        } else {
            Audience::Public
        }
    }
}

/// An address that a blob server can be asked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// The address without a slash at its end: what is registered.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The port, of the scheme where none is written.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The address.
    pub endpoint: Endpoint,
    /// Why other machines cannot reach it, where that is allowed.
    pub warning: Option<String>,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address `{address}` {problem}; {advice}")]
pub struct EndpointError {
    /// The address, without credentials.
    pub address: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

/// Reads an address under which others are to reach a blob server.
///
/// # Errors
/// Where it is no http address with a host that others could connect to: scheme, host, port, and on a public chain an address of the
/// public internet.
pub fn check(text: &str, audience: Audience) -> Result<Checked, EndpointError> {
    let text = text.trim();
    let refuse = |problem: String, advice: &str| EndpointError {
        address: without_credentials(text),
        problem,
        advice: advice.to_owned(),
    };
    let form = "write http://HOST:PORT or https://HOST, with the address and port at which other machines reach this one";
    if text.is_empty() {
        return Err(refuse("is empty".into(), form));
    }
    if text.len() > MAX_ENDPOINT {
        return Err(refuse(
            format!("has {} bytes, and the contract stores {MAX_ENDPOINT}", text.len()),
            "give a shorter name",
        ));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(refuse("has a space in it".into(), form));
    }
    if !text.contains("://") {
        return Err(refuse("has no scheme".into(), &format!("write http://{}", without_credentials(text))));
    }
    let url = Url::parse(text).map_err(|error| refuse(format!("is none ({error})"), form))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(
            format!("is of the scheme `{}`", url.scheme()),
            "blobs are fetched by http or https: write http://HOST:PORT or https://HOST",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "contains a user name or a password, which everybody could read on the chain".into(),
            "leave them out: requests are signed, and the server knows who may have what",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse(
            "has a query or a fragment, which paths cannot be put below".into(),
            "leave out everything from the ? or # on",
        ));
    }
    let Some(host) = url.host() else { return Err(refuse("names no host".into(), form)) };
    if url.port() == Some(0) {
        return Err(refuse(
            "has port 0, which nobody can connect to".into(),
            "give the port that the blob server listens at, or that is forwarded to it",
        ));
    }
    match (unreachable(&host), audience) {
        (None, _) => Ok(Checked { endpoint: Endpoint(url), warning: None }),
        (Some(reason), Audience::Development) => {
            let warning = format!(
                "the address {} {reason}: nodes on other machines cannot fetch from it, and it would be refused on a public chain",
                Endpoint(url.clone())
            );
            Ok(Checked { endpoint: Endpoint(url), warning: Some(warning) })
        }
        (Some(reason), Audience::Public) => Err(refuse(
            reason,
            "give the public name or address of this machine, or of the proxy before it: the other nodes fetch from there, and \
             what they cannot fetch earns nothing",
        )),
    }
}

/// Why other machines cannot reach a host, if that can be told from its name.
fn unreachable(host: &Host<&str>) -> Option<String> {
    match host {
        Host::Ipv4(v4) => unreachable_ip((*v4).into()),
        Host::Ipv6(v6) => unreachable_ip((*v6).into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_lowercase();
            let within = |ending: &str| {
                name == ending || name.strip_suffix(ending).is_some_and(|front| front.ends_with('.'))
            };
            if within("localhost") {
                return Some("is this machine's own (localhost)".into());
            }
            if let Some(ending) = PRIVATE_NAMES.into_iter().find(|ending| within(ending)) {
                return Some(format!("has a name that only a local network knows (.{ending})"));
            }
            if let Some(example) = EXAMPLES.into_iter().find(|example| within(example)) {
                return Some(format!("is the documentation's example ({example})"));
            }
            (!name.contains('.')).then(|| format!("has a name that only a local network knows ({name})"))
        }
    }
}

fn unreachable_ip(address: IpAddr) -> Option<String> {
    if is_public(address) {
        return None;
    }
    // An IPv4 address in IPv6's clothes is what it is.
    let address = address.to_canonical();
    let kind = match address {
        address if address.is_unspecified() => {
            return Some(format!(
                "is no address of a machine: {address} means \"all of this machine's addresses\" to a server"
            ))
        }
        address if address.is_loopback() => "this machine's own (loopback)",
        IpAddr::V4(v4) if v4.is_private() => "of a private network",
        IpAddr::V4(v4) if v4.is_link_local() => "link-local",
        IpAddr::V4(v4) if v4.is_documentation() => "for documentation",
        IpAddr::V4(v4) if v4.octets()[0] == 100 => "behind a provider's address translation (100.64.0.0/10)",
        IpAddr::V6(v6) if v6.is_unique_local() => "of a private network (fc00::/7)",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "link-local",
        _ => "not of the public internet",
    };
    Some(format!("is {kind}"))
}

/// An address for a message: what stands before an `@` could be a password.
fn without_credentials(text: &str) -> String {
    let shown = match text.rsplit_once('@') {
        Some((front, host)) => match front.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        },
        None => text.to_owned(),
    };
    printable(&shown)
}

/// Reads an address to listen at: an IP address of this machine, and a port.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn check_listen(text: &str) -> Result<SocketAddr, EndpointError> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let refuse = |problem: &str, advice: String| EndpointError {
        address: without_credentials(text),
        problem: problem.to_owned(),
        advice,
    };
    let form = "write an IP address of this machine and a port: 127.0.0.1:9955 for this machine alone, 0.0.0.0:9955 for all others";
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(refuse(
            "has a scheme, and a server listens at an address and port",
            format!("write {rest}"),
        ));
    }
    if text.parse::<IpAddr>().is_ok() {
        let shown = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        return Err(refuse("has no port", format!("write {shown}:9955")));
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return Err(refuse(
            "names no IP address",
            format!("write 0.0.0.0:{port} for all of this machine's addresses"),
        ));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(refuse("is a name and no IP address", format!("write 127.0.0.1:{port}")));
    }
    if text.parse::<u16>().is_ok() {
        return Err(refuse(
            "is a port without an IP address",
            format!("write 0.0.0.0:{text} for all of this machine's addresses"),
        ));
    }
    Err(refuse("is no IP address with a port", form.to_owned()))
}

/// What answered at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A blob server of the network.
    Answers {
        /// By how much its clock and this machine's differ, in milliseconds.
        clock_ms: u64,
    },
    /// A blob server of another contract, or of another chain's.
    OtherNetwork {
        /// The network that it serves, in hex.
        found: String,
    },
    /// A blob server that says that it cannot serve.
    Failing {
        /// The HTTP status.
        status: u16,
    },
    /// Something else.
    NoBlobServer {
        /// What it said.
        detail: String,
    },
    /// Nothing.
    Unreachable {
        /// Why.
        detail: String,
    },
}

impl Probe {
    /// Whether blobs can be fetched there.
    pub fn is_good(&self) -> bool {
        matches!(self, Probe::Answers { clock_ms } if *clock_ms <= CLOCK_MS)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Answers { clock_ms } if *clock_ms <= CLOCK_MS => {
                f.write_str("a blob server of this contract answers there")
            }
            Probe::Answers { clock_ms } => write!(
                f,
                "a blob server of this contract answers there, but its clock and this machine's differ by {} s, and requests are \
                 refused from {} s on: set the clocks (NTP)",
                clock_ms / 1_000,
                CLOCK_MS / 1_000
            ),
            Probe::OtherNetwork { found } => {
                write!(f, "a blob server of another contract or chain (network 0x{found}) answers there")
            }
            Probe::Failing { status } => {
                write!(f, "the blob server there says that it cannot serve (status {status}): see its log")
            }
            Probe::NoBlobServer { detail } => write!(f, "something answers there that is no blob server: {detail}"),
            Probe::Unreachable { detail } => write!(
                f,
                "nothing could be reached there from this machine: {detail}. Is the worker running, and is the port open and \
                 forwarded to it? (Some routers do not let a machine reach itself by its public address.)"
            ),
        }
    }
}

/// Asks the blob server at an address for its health, as its evaluators will meet it. `network` is the one that it should serve (the hash
/// of the chain's genesis and the contract), if that is known.
pub async fn probe(endpoint: &Endpoint, network: Option<&Hash>) -> Probe {
    #[derive(Deserialize)]
    struct Health {
        status: String,
        network: String,
        time: u64,
    }
    let unreachable = |detail: String| Probe::Unreachable { detail };
    let target = match below(&endpoint.0, "health") {
        Ok(target) => target,
        Err(error) => return unreachable(error.to_string()),
    };
    let client = Client::builder()
        .user_agent(concat!("poq/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(PROBE_CONNECT)
        .timeout(PROBE_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build();
    let response = match client {
        Ok(client) => client.get(target).send().await,
        Err(error) => return unreachable(explain(error)),
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return unreachable(explain(error)),
    };
    let status = response.status();
    let body = match read(response, MAX_HEALTH).await {
        Ok(body) => body.unwrap_or_default(),
        Err(error) => return unreachable(explain(error)),
    };
    let Ok(health) = serde_json::from_slice::<Health>(&body) else {
        return Probe::NoBlobServer { detail: format!("status {status}") };
    };
    if network.is_some_and(|network| hex::encode(network) != health.network) {
        return Probe::OtherNetwork { found: printable(&health.network) };
    }
    if !status.is_success() || health.status != "ok" {
        return Probe::Failing { status: status.as_u16() };
    }
    Probe::Answers { clock_ms: now_ms().abs_diff(health.time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_scheme_host_and_port() {
        for (text, says) in [
            ("", "empty"),
            ("0.0.0.0:9955", "write http://0.0.0.0:9955"),
            ("localhost:9955", "write http://localhost:9955"),
            ("node.example.net", "no scheme"),
            ("1.2.3.4", "no scheme"),
            ("//1.2.3.4:9955", "no scheme"),
            ("ws://1.1.1.1:9955", "scheme `ws`"),
            ("ftp://1.1.1.1", "scheme `ftp`"),
            ("http://", "is none"),
            ("http://:9955", "is none"),
            ("http://1.1.1.1:99999", "is none"),
            ("http://1.1.1.1:0", "port 0"),
            ("http://1.1.1.1:9955/?key=1", "query"),
            ("http://1.1.1.1:9955/#x", "fragment"),
            ("http://user:SECRET@1.1.1.1:9955", "password"),
            ("http://1.1.1.1 :9955", "space"),
            ("http://1.1.1.1:9955\n", ""),
        ] {
            match check(text, Audience::Development) {
                Ok(checked) => assert_eq!((says, checked.endpoint.as_str()), ("", "http://1.1.1.1:9955")),
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !says.is_empty() && error.contains(says) && !error.contains("SECRET"),
                        "{text}: {error}"
                    );
                }
            }
        }
        let long = format!("http://1.1.1.1/{}", "x".repeat(MAX_ENDPOINT));
        assert!(check(&long, Audience::Development).unwrap_err().to_string().contains("256"));
    }

    #[test]
    fn addresses_that_nobody_else_can_reach_are_refused_in_public_and_warned_about_at_home() {
        for (text, says) in [
            ("http://0.0.0.0:9955", "all of this machine's addresses"),
            ("http://[::]:9955", "all of this machine's addresses"),
            ("http://127.0.0.1:9955", "loopback"),
            ("http://127.8.9.1:9955", "loopback"),
            ("http://0x7f.1:9955", "loopback"),
            ("http://2130706433:9955", "loopback"),
            ("http://[::1]:9955", "loopback"),
            ("http://[::ffff:127.0.0.1]:9955", "loopback"),
            ("http://10.1.2.3:9955", "private"),
            ("http://172.16.0.1", "private"),
            ("http://192.168.1.7:9955", "private"),
            ("http://[::ffff:192.168.1.7]:9955", "private"),
            ("http://[fd00::1]:9955", "private"),
            ("http://169.254.1.1", "link-local"),
            ("http://[fe80::1]:9955", "link-local"),
            ("http://100.64.1.1:9955", "address translation"),
            ("http://203.0.113.5:9955", "documentation"),
            ("http://[2001:db8::1]:9955", "public internet"),
            ("http://224.0.0.1", "public internet"),
            ("http://localhost:9955", "localhost"),
            ("http://a.localhost:9955", "localhost"),
            ("http://LOCALHOST.:9955", "localhost"),
            ("http://worker.local:9955", ".local"),
            ("http://worker.lan", ".lan"),
            ("http://worker.home.arpa", ".home.arpa"),
            ("http://db.internal:9955", ".internal"),
            ("http://worker:9955", "local network"),
            ("https://node.example.org", "example"),
        ] {
            let error = check(text, Audience::Public).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("give the public name"), "{text}: {error}");
            let checked = check(text, Audience::Development).unwrap();
            assert!(checked.warning.unwrap().contains(says), "{text}");
        }
        for text in [
            "http://1.1.1.1:9955",
            "https://poq.operator.io",
            "http://[2606:4700::1111]:9955/",
            "https://operator.io/poq/",
            "http://localhost.operator.io",
            "http://mylocal.net:9955",
        ] {
            for audience in [Audience::Public, Audience::Development] {
                let checked = check(text, audience).unwrap();
                assert_eq!(checked.warning, None, "{text}");
                assert_eq!(checked.endpoint.as_str(), text.trim_end_matches('/'));
            }
        }
        assert_eq!(check("https://operator.io", Audience::Public).unwrap().endpoint.port(), 443);
        assert_eq!(check("http://operator.io:81", Audience::Public).unwrap().endpoint.port(), 81);
    }

    #[test]
    fn an_address_to_listen_at_is_an_ip_and_a_port() {
        for good in ["127.0.0.1:9955", "0.0.0.0:0", "[::]:9955", " 10.0.0.1:1 "] {
            check_listen(good).unwrap();
        }
        for (text, says) in [
            ("http://0.0.0.0:9955/", "write 0.0.0.0:9955"),
            (":9955", "write 0.0.0.0:9955"),
            ("*:9955", "write 0.0.0.0:9955"),
            ("localhost:9955", "write 127.0.0.1:9955"),
            ("0.0.0.0", "write 0.0.0.0:9955"),
            ("::", "write [::]:9955"),
            ("9955", "write 0.0.0.0:9955"),
            ("node.example.org:9955", "IP address"),
            ("0.0.0.0:99999", "IP address"),
            ("", "IP address"),
        ] {
            let error = check_listen(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
