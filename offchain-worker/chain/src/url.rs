//! Addresses of nodes. Providers put a customer's key into them: before the host (`wss://user:key@host`), in the path
//! (`wss://host/v3/KEY`) or in the query (`wss://host/?apikey=KEY`). So an address is shown without all of these, everywhere: what is
//! printed, logged, served or written down comes from [`NodeUrl`]'s `Display`.

use crate::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use url::Url;

/// What stands in the place of what is not shown.
const HIDDEN: &str = "***";
/// Parts of paths that are no keys. Whatever else stands in a path may be one.
const PLAIN: [&str; 12] =
    ["api", "ext", "mainnet", "public", "public-rpc", "public-ws", "rpc", "testnet", "v1", "v2", "v3", "ws"];
/// Shorter values are not looked for in other texts: they would be found everywhere.
const SCRUB_MIN: usize = 4;

/// An address as it may be shown: without user name, password, query, fragment, and without every part of the path that could be a
/// key. Of any scheme; of what is no address, as much as could not be a key.
pub fn redacted(text: &str) -> String {
    let text = text.trim();
    match Url::parse(text) {
        Ok(url) if url.has_host() => {
            let credentials = !url.username().is_empty() || url.password().is_some();
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            let place = format!(
                "{}://{}{}{port}",
                url.scheme(),
                if credentials { "***@" } else { "" },
                url.host_str().unwrap_or_default()
            );
            tail(place, url.path(), url.query().is_some(), url.fragment().is_some())
        }
        _ => {
            let (scheme, rest) = match text.split_once("://") {
                Some((scheme, rest)) => (format!("{scheme}://"), rest),
                None => (String::new(), text),
            };
            // A password may hold anything: all up to the last sign that could end one.
            let (credentials, rest) = match rest.rsplit_once('@') {
                Some((_, rest)) => ("***@", rest),
                None => ("", rest),
            };
            let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
            let (host, rest) = rest.split_at(end);
            let path = rest.split(['?', '#']).next().unwrap_or_default();
            tail(format!("{scheme}{credentials}{host}"), path, rest.contains('?'), rest.contains('#'))
        }
    }
}

fn tail(mut shown: String, path: &str, query: bool, fragment: bool) -> String {
    for part in path.split(['/', '\\']).filter(|part| !part.is_empty()) {
        shown.push('/');
        shown.push_str(if PLAIN.contains(&part) { part } else { HIDDEN });
    }
    if query {
        shown.push_str("?***");
    }
    if fragment {
        shown.push_str("#***");
    }
    shown
}

/// A node's websocket address. `Display`, `Debug` and serde's form are [`redacted`].
#[derive(Clone)]
pub struct NodeUrl {
    whole: SecretString,
    shown: String,
}

impl NodeUrl {
    /// The address as it was given, to connect to and for nothing else.
    pub fn expose(&self) -> &str {
        self.whole.expose_secret()
    }

    /// Whether something of it is not shown.
    pub fn has_secret(&self) -> bool {
        self.shown.contains(HIDDEN)
    }

    /// Another program's text without what is not shown of this address.
    pub(crate) fn scrub(&self, text: String) -> String {
        if !self.has_secret() {
            return text;
        }
        let whole = self.expose();
        let mut secrets = vec![whole.to_owned()];
        if let Ok(url) = Url::parse(whole) {
            secrets.push(url.as_str().to_owned());
            secrets.extend(url.query().map(str::to_owned));
            secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
            secrets.extend(url.password().map(str::to_owned));
            secrets.push(url.username().to_owned());
            secrets.extend(url.path().split('/').filter(|part| !PLAIN.contains(part)).map(str::to_owned));
        }
        secrets.retain(|secret| secret.len() >= SCRUB_MIN);
        // The longest first: the others are parts of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text, |text, secret| text.replace(&secret, HIDDEN))
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

impl PartialEq for NodeUrl {
    fn eq(&self, other: &NodeUrl) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for NodeUrl {}

impl FromStr for NodeUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<NodeUrl> {
        let text = text.trim();
        let refuse = |reason: &str| Error::Url { url: redacted(text), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        let Some(rest) = text.strip_prefix("ws://").or_else(|| text.strip_prefix("wss://")) else {
            return Err(refuse("it does not start with ws:// or wss://"));
        };
        if text.contains(HIDDEN) {
            return Err(refuse(
                "its secret part was left out where it was written down; give the whole address with --url, or in the \
                 configuration's chain.urls",
            ));
        }
        if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) {
            return Err(refuse("it names no host"));
        }
        // The parser's words name no part of the address.
        let url = Url::parse(text).map_err(|e| refuse(&e.to_string()))?;
        if url.port() == Some(0) {
            return Err(refuse("port 0 is no port to connect to"));
        }
        Ok(NodeUrl { whole: SecretString::from(text), shown: redacted(text) })
    }
}

impl Serialize for NodeUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Addresses of nodes of one chain, in order of preference; at least one. As a text they are separated by commas (a comma within an
/// address is `%2C`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrls(Vec<NodeUrl>);

impl NodeUrls {
    /// The addresses.
    pub fn iter(&self) -> std::slice::Iter<'_, NodeUrl> {
        self.0.iter()
    }

    pub(crate) fn as_slice(&self) -> &[NodeUrl] {
        &self.0
    }
}

impl fmt::Display for NodeUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, url) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            url.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for NodeUrls {
    type Err = Error;

    fn from_str(text: &str) -> Result<NodeUrls> {
        NodeUrls::of(text.split(','))
    }
}

impl NodeUrls {
    fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<NodeUrls> {
        let urls = texts
            .into_iter()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::parse)
            .collect::<Result<Vec<NodeUrl>>>()?;
        if urls.is_empty() {
            return Err(Error::Url { url: String::new(), reason: "it is empty".into() });
        }
        Ok(NodeUrls(urls))
    }
}

impl Serialize for NodeUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for url in &self.0 {
            list.serialize_element(url)?;
        }
        list.end()
    }
}

/// From a list of texts, or from one text with commas.
impl<'de> Deserialize<'de> for NodeUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<NodeUrls, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = NodeUrls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("websocket addresses, as a list or separated by commas")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<NodeUrls, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<NodeUrls, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    texts.push(text);
                }
                let parts = texts.iter().flat_map(|text| text.split(','));
                NodeUrls::of(parts).map_err(serde::de::Error::custom)
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_a_key_is_shown() {
        for (whole, shown) in [
            ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
            ("wss://rpc.example.org/", "wss://rpc.example.org"),
            ("wss://rpc.example.org/public-ws", "wss://rpc.example.org/public-ws"),
            ("ws://[::1]:9944/rpc", "ws://[::1]:9944/rpc"),
            ("ws://h:1/?apikey=SECRET", "ws://h:1?***"),
            ("wss://h/v3/SECRET", "wss://h/v3/***"),
            ("wss://h/SECRET/mainnet", "wss://h/***/mainnet"),
            ("wss://user:SECRET@h/", "wss://***@h"),
            ("wss://SECRET@h", "wss://***@h"),
            ("ws://h/ws#SECRET", "ws://h/ws#***"),
            ("https://h/v2/SECRET?x=SECRET", "https://h/v2/***?***"),
            // What is no address.
            ("h:9944/v3/SECRET", "h:9944/v3/***"),
            ("h:9944?key=SECRET", "h:9944?***"),
            ("ws://user:SECR/ET@h:1", "ws://***@h:1"),
            ("ws://user:SECRET@", "ws://***@"),
            ("", ""),
        ] {
            assert_eq!(redacted(whole), shown, "{whole}");
        }
    }

    #[test]
    fn no_form_of_an_address_holds_its_key() {
        for whole in ["ws://u:SECRET@h/SECRET?k=SECRET", "wss://h/v3/SECRET", "ws://h?apikey=SECRET"] {
            let url: NodeUrl = whole.parse().unwrap();
            let urls: NodeUrls = format!("ws://other:1,{whole}").parse().unwrap();
            assert!(url.has_secret());
            assert_eq!(url.expose(), whole);
            for text in [
                url.to_string(),
                format!("{url:?}"),
                format!("{url:#?}"),
                urls.to_string(),
                format!("{urls:?}"),
                serde_json::to_string(&url).unwrap(),
                serde_json::to_string(&urls).unwrap(),
                url.scrub(format!("cannot connect to {whole}: SECRET is unknown")),
            ] {
                assert!(!text.contains("SECRET"), "{text}");
            }
            // What was written down without its key says so, and is not connected to.
            let error = url.to_string().parse::<NodeUrl>().unwrap_err().to_string();
            assert!(error.contains("left out") && error.contains("--url"), "{error}");
        }
    }

    #[test]
    fn refusals_hold_no_key() {
        for bad in [
            "http://h/SECRET",
            "h:9944/?key=SECRET",
            "ws://u:SECRET@",
            "ws://u:SECRET@h:99999/",
            "ws://h:0/SECRET",
        ] {
            let error = bad.parse::<NodeUrl>().unwrap_err();
            assert!(matches!(error, Error::Url { .. }));
            assert!(
                !error.to_string().contains("SECRET") && !format!("{error:?}").contains("SECRET"),
                "{error}"
            );
        }
    }

    #[test]
    fn addresses_are_split_and_checked() {
        let urls: NodeUrls = "ws://a:1, wss://b ,".parse().unwrap();
        assert_eq!(urls.iter().map(NodeUrl::expose).collect::<Vec<_>>(), ["ws://a:1", "wss://b"]);
        for bad in ["", " , ", "http://a", "a:9944", "ws://", "ws:///x", "ws://:9944"] {
            let error = bad.parse::<NodeUrls>().unwrap_err();
            assert!(matches!(error, Error::Url { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn a_list_is_read_from_either_form() {
        let both: NodeUrls = "ws://a:1,ws://b:2".parse().unwrap();
        for text in [r#""ws://a:1,ws://b:2""#, r#"["ws://a:1", "ws://b:2"]"#, r#"["ws://a:1,ws://b:2"]"#] {
            assert_eq!(serde_json::from_str::<NodeUrls>(text).unwrap(), both);
        }
        assert!(serde_json::from_str::<NodeUrls>("[]").is_err());
        assert!(serde_json::from_str::<NodeUrls>("[1]").is_err());
    }
}
