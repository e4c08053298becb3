//! Signed requests.

use crate::id::signature_from_hex;
use crate::{AccountId32, Hash, ACCOUNT_HEADER, SIGNATURE_HEADER, TIME_HEADER};
use axum::http::{HeaderMap, Method};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;
use subxt_signer::sr25519;

/// How many signatures a server remembers. When more are used within twice the window, the oldest are forgotten early, and
/// only the window stands between them and a replay.
const REMEMBERED: usize = 65_536;

/// The bytes that a request's signature is over. `path_and_query` begins with `/v1/`.
pub fn message(method: &str, path_and_query: &str, time: u64, network: &Hash) -> Vec<u8> {
    format!("poq-blob-v2\n{method}\n{path_and_query}\n{time}\n{}", hex::encode(network)).into_bytes()
}

/// Signs requests. Implemented for subxt's sr25519 key pairs.
pub trait RequestSigner: Send + Sync + 'static {
    /// In whose name.
    fn account(&self) -> AccountId32;
    /// An sr25519 signature of these bytes.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl RequestSigner for sr25519::Keypair {
    fn account(&self) -> AccountId32 {
        AccountId32(self.public_key().0)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        sr25519::Keypair::sign(self, message).0
    }
}

/// Verifies signatures.
pub trait Verifier: Send + Sync + 'static {
    /// Whether `account` has signed `message`.
    fn verify(&self, account: &AccountId32, message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Accounts are sr25519 public keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sr25519Verifier;

impl Verifier for Sr25519Verifier {
    fn verify(&self, account: &AccountId32, message: &[u8], signature: &[u8; 64]) -> bool {
        sr25519::verify(&sr25519::Signature(*signature), message, &sr25519::PublicKey(account.0))
    }
}

/// Why a request is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    #[error("the request was signed at {signed} ms and it is {now} ms here; more than {} s apart are refused (is the clock right?)", window.as_secs())]
    Time { signed: u64, now: u64, window: Duration },
    #[error("the signature does not fit the account, this request and this network")]
    Signature,
    #[error("this signature has been used already: sign every request anew")]
    Replayed,
}

impl AuthError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            AuthError::Header(_) => "unsigned",
            AuthError::Time { .. } => "expired",
            AuthError::Signature => "bad_signature",
            AuthError::Replayed => "replayed",
        }
    }
}

/// What a server checks of every signed request.
pub(crate) struct Gate {
    network: Hash,
    window: Duration,
    verifier: Box<dyn Verifier>,
    used: Mutex<Used>,
}

impl Gate {
    pub(crate) fn new(network: Hash, window: Duration, verifier: Box<dyn Verifier>) -> Gate {
        Gate { network, window, verifier, used: Mutex::new(Used::default()) }
    }

    /// Who makes this request, at the time `now`.
    pub(crate) fn check(
        &self,
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        now: u64,
    ) -> Result<AccountId32, AuthError> {
        let account = header(headers, ACCOUNT_HEADER, account_from_text)?;
        let time = header(headers, TIME_HEADER, |text| text.parse::<u64>().ok())?;
        let signature = header(headers, SIGNATURE_HEADER, signature_from_hex)?;
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        if now.abs_diff(time) > window {
            return Err(AuthError::Time { signed: time, now, window: self.window });
        }
        let message = message(method.as_str(), path_and_query, time, &self.network);
        if !self.verifier.verify(&account, &message, &signature) {
            return Err(AuthError::Signature);
        }
        // Only good signatures are remembered, so that nobody can fill the memory without signing.
        if !self.used.lock().first_use(signature, time, now.saturating_sub(window)) {
            return Err(AuthError::Replayed);
        }
        Ok(account)
    }
}

fn header<T>(
    headers: &HeaderMap,
    name: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, AuthError> {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).ok_or(AuthError::Header(name))?;
    read(text.trim()).ok_or(AuthError::Header(name))
}

/// SS58 of any network (the address format names a network, the key does not), or 0x-hex.
fn account_from_text(text: &str) -> Option<AccountId32> {
    match text.strip_prefix("0x") {
        Some(_) => crate::id::hash_from_hex(text).map(AccountId32),
        None => text.parse().ok(),
    }
}

/// The signatures that were used lately, by the time that they bear.
#[derive(Default)]
struct Used {
    signatures: HashSet<[u8; 64]>,
    by_time: BTreeSet<(u64, [u8; 64])>,
}

impl Used {
    fn first_use(&mut self, signature: [u8; 64], time: u64, oldest: u64) -> bool {
        // What is older than the window is refused for that.
        while let Some((time, signature)) = self.by_time.first().copied() {
            if time >= oldest && self.by_time.len() < REMEMBERED {
                break;
            }
            self.by_time.remove(&(time, signature));
            self.signatures.remove(&signature);
        }
        if !self.signatures.insert(signature) {
            return false;
        }
        self.by_time.insert((time, signature));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use subxt_signer::sr25519::dev;

    const NETWORK: Hash = [7; 32];
    const PATH: &str = "/v1/tasks/7/outputs/3";
    const NOW: u64 = 1_700_000_000_000;

    fn gate() -> Gate {
        Gate::new(NETWORK, Duration::from_secs(60), Box::new(Sr25519Verifier))
    }

    fn headers(account: &str, time: u64, signature: [u8; 64]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCOUNT_HEADER, account.parse().unwrap());
        headers.insert(TIME_HEADER, time.into());
        headers.insert(SIGNATURE_HEADER, hex::encode(signature).parse().unwrap());
        headers
    }

    fn signed(time: u64) -> HeaderMap {
        let alice = dev::alice();
        let signature = RequestSigner::sign(&alice, &message("GET", PATH, time, &NETWORK));
        headers(&RequestSigner::account(&alice).to_string(), time, signature)
    }

    #[test]
    fn the_message_is_as_documented() {
        let text = String::from_utf8(message("GET", PATH, 12, &[0xab; 32])).unwrap();
        assert_eq!(text, format!("poq-blob-v2\nGET\n/v1/tasks/7/outputs/3\n12\n{}", "ab".repeat(32)));
    }

    #[test]
    fn a_good_signature_counts_once() {
        let gate = gate();
        let request = signed(NOW);
        assert_eq!(gate.check(&Method::GET, PATH, &request, NOW), Ok(RequestSigner::account(&dev::alice())));
        assert_eq!(gate.check(&Method::GET, PATH, &request, NOW), Err(AuthError::Replayed));
        // The same again, signed anew.
        assert!(gate.check(&Method::GET, PATH, &signed(NOW), NOW).is_ok());
    }

    #[test]
    fn accounts_come_in_hex_too() {
        let alice = dev::alice();
        let signature = RequestSigner::sign(&alice, &message("GET", PATH, NOW, &NETWORK));
        let account = format!("0x{}", hex::encode(alice.public_key().0));
        assert!(gate().check(&Method::GET, PATH, &headers(&account, NOW, signature), NOW).is_ok());
        let bare = hex::encode(alice.public_key().0);
        assert_eq!(
            gate().check(&Method::GET, PATH, &headers(&bare, NOW, signature), NOW),
            Err(AuthError::Header(ACCOUNT_HEADER))
        );
    }

    #[test]
    fn everything_that_is_signed_matters() {
        let request = signed(NOW);
        let refused = Err(AuthError::Signature);
        assert_eq!(gate().check(&Method::HEAD, PATH, &request, NOW), refused);
        assert_eq!(gate().check(&Method::GET, "/v1/tasks/7/outputs/4", &request, NOW), refused);
        assert_eq!(gate().check(&Method::GET, "/v1/tasks/7/outputs/3?x=1", &request, NOW), refused);
        let elsewhere = Gate::new([8; 32], Duration::from_secs(60), Box::new(Sr25519Verifier));
        assert_eq!(elsewhere.check(&Method::GET, PATH, &request, NOW), refused);
        let mut later = request.clone();
        later.insert(TIME_HEADER, (NOW + 1).into());
        assert_eq!(gate().check(&Method::GET, PATH, &later, NOW), refused);
        let mut other = request;
        other.insert(ACCOUNT_HEADER, RequestSigner::account(&dev::bob()).to_string().parse().unwrap());
        assert_eq!(gate().check(&Method::GET, PATH, &other, NOW), refused);
    }

    #[test]
    fn old_and_future_requests_are_refused() {
        for (time, good) in
            [(NOW - 60_000, true), (NOW + 60_000, true), (NOW - 60_001, false), (NOW + 60_001, false)]
        {
            let outcome = gate().check(&Method::GET, PATH, &signed(time), NOW);
            assert_eq!(outcome.is_ok(), good, "{outcome:?}");
            if let Err(error) = outcome {
                assert_eq!(error.code(), "expired");
            }
        }
    }

    #[test]
    fn missing_and_malformed_headers_are_named() {
        for name in [ACCOUNT_HEADER, TIME_HEADER, SIGNATURE_HEADER] {
            let mut request = signed(NOW);
            request.insert(name, "nonsense".parse().unwrap());
            assert_eq!(gate().check(&Method::GET, PATH, &request, NOW), Err(AuthError::Header(name)));
            request.remove(name);
            assert_eq!(gate().check(&Method::GET, PATH, &request, NOW), Err(AuthError::Header(name)));
        }
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut used = Used::default();
        let signature = |number: u64| {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        let count = REMEMBERED as u64 + 10;
        for number in 0..count {
            assert!(used.first_use(signature(number), number, 0));
        }
        assert!(used.by_time.len() <= REMEMBERED && used.by_time.len() == used.signatures.len());
        assert!(!used.first_use(signature(count - 1), count - 1, 0));
        // Everything before the window goes.
        assert!(used.first_use(signature(count), count, count));
        assert_eq!(used.signatures.len(), 1);
    }
}
