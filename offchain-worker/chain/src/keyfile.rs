//! What a key file holds, told by its content. Wallets and tools write secrets in many forms; what cannot be read is called by its
//! name. No text of a file is ever repeated, save names of JSON fields and addresses.
//!
//! | form | written by |
//! |---|---|
//! | a mnemonic, a 32-byte seed in hex, a development URI, each with derivations and a password | `subkey`, `poq keys`, people |
//! | JSON with `secretPhrase` or `secretSeed`, or the same as text | `subkey generate`, `subkey inspect` |
//! | a keystore: JSON with `encoded`, encrypted or of type `none` | polkadot.js, Talisman, SubWallet, Nova |
//! | a batch: JSON with `encoded` and `accounts` | "export all accounts" of the same |

use crate::signer::{parse_account, KeysError};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::path::Path;
use subxt::utils::AccountId32;
use subxt_signer::sr25519::Keypair;
use subxt_signer::{polkadot_js_compat, SecretUri};
use zeroize::Zeroizing;

/// The lengths of mnemonics (BIP-39), in words.
const WORDS: [usize; 5] = [12, 15, 18, 21, 24];
/// What precedes a secret in polkadot.js's form of PKCS 8, and what parts it from its public key.
const PKCS8_HEADER: [u8; 16] = [48, 83, 2, 1, 1, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
const PKCS8_DIVIDER: [u8; 5] = [161, 35, 3, 33, 0];
/// Salt, three parameters of scrypt, and nonce: what precedes the cipher text.
const PARAMETERS: usize = 32 + 3 * 4 + 24;
/// The parameters of scrypt that polkadot.js allows (N, p, r): others could be chosen to take all memory.
const SCRYPT: [(u32, u32, u32); 6] =
    [(1 << 13, 10, 8), (1 << 14, 5, 8), (1 << 15, 3, 8), (1 << 15, 1, 8), (1 << 16, 2, 8), (1 << 17, 1, 8)];
/// What to do with a key of another kind.
const OTHER_SCHEME: &str =
    "operators and owners sign with sr25519 here: make such a key with `poq keys generate`, or an sr25519 account in the wallet";
/// How to take a key out of a wallet.
const EXPORT: &str = "export the account again, or write its phrase into a text file of mode 0600";

/// What a key file holds.
pub(crate) enum Content {
    /// A secret URI, and the account that the file says it is of.
    Uri { uri: SecretString, says: Option<AccountId32> },
    /// A keystore of one account.
    Keystore(Keystore),
    /// Several keystores in one, encrypted together.
    Batch { encoded: SecretString, addresses: Vec<String> },
}

/// A keystore of one account.
pub(crate) struct Keystore {
    json: SecretString,
    encoded: SecretString,
    encrypted: bool,
}

impl Content {
    /// Whether a password opens it.
    pub(crate) fn is_encrypted(&self) -> bool {
        match self {
            Content::Uri { .. } => false,
            Content::Keystore(keystore) => keystore.encrypted,
            Content::Batch { .. } => true,
        }
    }
}

/// Names what is wrong with a file.
struct Refuse<'a>(&'a Path);

impl Refuse<'_> {
    fn format<T>(&self, found: impl Into<String>, advice: impl Into<String>) -> Result<T, KeysError> {
        Err(KeysError::Format { path: self.0.to_owned(), found: found.into(), advice: advice.into() })
    }

    fn uri(&self, reason: impl Into<String>) -> KeysError {
        KeysError::Uri { origin: self.0.display().to_string(), reason: reason.into() }
    }
}

/// The text of a key or password file: UTF-8 or, as Windows' tools write it, UTF-16; without a byte order mark.
pub(crate) fn text_of(path: &Path, bytes: &[u8]) -> Result<SecretString, KeysError> {
    let utf16 = |order: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let units: Zeroizing<Vec<u16>> = Zeroizing::new(
            bytes.chunks_exact(2).filter_map(|pair| Some(order(pair.try_into().ok()?))).collect(),
        );
        String::from_utf16(&units).ok()
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => utf16(u16::from_be_bytes, rest),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    let Some(text) = text.map(Zeroizing::new) else {
        let found = match bytes.len() {
            32 | 64 => format!("{} raw bytes, as a node's network key has them", bytes.len()),
            _ => "something else than text".to_owned(),
        };
        return Refuse(path)
            .format(found, "write a 32-byte seed as 0x and 64 hexadecimal digits, or a mnemonic");
    };
    Ok(SecretString::from(text.trim_start_matches('\u{feff}')))
}

/// What a file's text is.
///
/// # Errors
/// `Format` or `Uri` where it is nothing that can be read, by its name.
pub(crate) fn identify(path: &Path, text: &SecretString) -> Result<Content, KeysError> {
    let refuse = Refuse(path);
    let text = text.expose_secret().trim();
    if text.starts_with("-----BEGIN") {
        return refuse.format("a key in PEM or OpenSSH form", OTHER_SCHEME);
    }
    if !text.starts_with(['{', '[', '"']) {
        return phrase(&refuse, text);
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value) => json(&refuse, value, text),
        // A mnemonic in quotes is not always JSON.
        Err(_) if text.starts_with('"') => phrase(&refuse, text),
        // What serde_json says names a place, and could quote what is there.
        Err(error) => refuse.format(
            format!("broken JSON (line {}, column {})", error.line(), error.column()),
            "copy the whole file again",
        ),
    }
}

fn json(refuse: &Refuse<'_>, value: Value, text: &str) -> Result<Content, KeysError> {
    match &value {
        // A node's keystore holds a secret URI as a JSON string.
        Value::String(inner) => phrase(refuse, inner),
        Value::Array(list) if list.iter().all(Value::is_number) && !list.is_empty() => {
            refuse.format("a list of numbers, as Solana's tools write keys", OTHER_SCHEME)
        }
        Value::Array(list) => match list.as_slice() {
            [one @ Value::Object(_)] => json(refuse, one.clone(), &one.to_string()),
            _ => refuse.format(
                format!("a list of {} things", list.len()),
                "put one account's keystore into a file of its own",
            ),
        },
        Value::Object(fields) => {
            let text_at = |name: &str| value[name].as_str().map(str::trim).filter(|text| !text.is_empty());
            if text_at("encoded").is_some() {
                return keystore(refuse, &value, text);
            }
            // `n/a` is what subkey says where it knows none.
            let secret = ["secretPhrase", "secretKeyUri", "secretSeed", "mnemonic", "phrase", "suri", "seed"]
                .into_iter()
                .find_map(|name| text_at(name).filter(|text| *text != "n/a"));
            if let Some(secret) = secret {
                let says = ["accountId", "publicKey", "ss58Address", "address"]
                    .into_iter()
                    .find_map(|name| parse_account(text_at(name)?).ok());
                return match phrase(refuse, secret)? {
                    Content::Uri { uri, .. } => Ok(Content::Uri { uri, says }),
                    other => Ok(other),
                };
            }
            if fields.keys().any(|name| name.eq_ignore_ascii_case("crypto")) {
                return refuse.format("an Ethereum keystore", OTHER_SCHEME);
            }
            let names: Vec<&str> = fields.keys().map(String::as_str).take(8).collect();
            refuse.format(
                format!("a JSON object without a secret that is known here (its fields: {})", names.join(", ")),
                "give a keystore that polkadot.js exported, subkey's JSON with its secretPhrase, or a text file with the phrase",
            )
        }
        _ => refuse.format("JSON, and no key", EXPORT),
    }
}

fn keystore(refuse: &Refuse<'_>, value: &Value, text: &str) -> Result<Content, KeysError> {
    let words = |name: &str| -> Vec<String> {
        match &value["encoding"][name] {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    };
    let (content, kind) = (words("content"), words("type"));
    let has = |list: &[String], word: &str| list.iter().any(|one| one == word);
    for scheme in ["ed25519", "ecdsa", "ethereum"] {
        if has(&content, scheme) {
            return refuse.format(format!("a keystore of an {scheme} key"), OTHER_SCHEME);
        }
    }
    if let Some(hardware) =
        ["ledger", "qr", "external"].into_iter().find(|name| content.iter().any(|c| c == name))
    {
        return refuse.format(format!("an account without its key ({hardware})"), EXPORT);
    }
    let encoded = SecretString::from(value["encoded"].as_str().unwrap_or_default().trim());
    let batch = has(&content, "batch-pkcs8") || value["accounts"].is_array();
    let encrypted = !has(&kind, "none");
    if encrypted && !(has(&kind, "scrypt") && has(&kind, "xsalsa20-poly1305")) {
        let version = value["encoding"]["version"].as_str().unwrap_or("none");
        return refuse.format(
            format!("a keystore in an old or unknown form (version {version}, type [{}])", kind.join(", ")),
            "import it in polkadot.js and export it again there",
        );
    }
    if batch {
        if !encrypted {
            return refuse.format("a batch of keystores that is not encrypted", EXPORT);
        }
        let accounts = value["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let addresses =
            accounts.iter().filter_map(|one| one["address"].as_str().map(str::to_owned)).collect();
        return Ok(Content::Batch { encoded, addresses });
    }
    if !has(&content, "sr25519") {
        return refuse.format(
            format!("a keystore of an unknown kind of key ([{}])", content.join(", ")),
            OTHER_SCHEME,
        );
    }
    Ok(Content::Keystore(Keystore { json: SecretString::from(text), encoded, encrypted }))
}

/// A secret URI in a text: over several lines, with numbered words, in quotes, or as `subkey` prints it.
fn phrase(refuse: &Refuse<'_>, text: &str) -> Result<Content, KeysError> {
    let clean = |text: &str| -> String {
        text.trim_matches(|c: char| {
            c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '\u{feff}' | '\u{200b}')
        })
        .to_owned()
    };
    let text = Zeroizing::new(clean(text));
    // An empty text would be the development phrase itself, whose key everybody has.
    if text.is_empty() {
        return Err(refuse.uri("it is empty"));
    }
    let line = |label: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .map(str::trim)
            .filter(|rest| *rest != "n/a")
    };
    if let Some(printed) = line("Secret phrase:").or_else(|| line("Secret seed:")) {
        let says = line("Account ID:").or_else(|| line("SS58 Address:"));
        let says = says.and_then(|text| parse_account(text).ok());
        return Ok(Content::Uri { uri: tidy(refuse, printed)?, says });
    }
    Ok(Content::Uri { uri: tidy(refuse, &text)?, says: None })
}

/// One line of it: a phrase with single spaces, then derivations, then a password, of which only the line's end is not a part.
fn tidy(refuse: &Refuse<'_>, text: &str) -> Result<SecretString, KeysError> {
    let (front, password) = match text.split_once("///") {
        Some((front, password)) => (front, Some(password)),
        None => (text, None),
    };
    let (words, path) = front.split_at(front.find('/').unwrap_or(front.len()));
    // "1." or "1)", as a recovery sheet numbers them.
    let number = |word: &&str| {
        let digits = word.trim_end_matches(['.', ')', ':', ',']);
        !(digits.len() < word.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let words: Vec<&str> = words.split_whitespace().filter(number).collect();
    let mut uri = Zeroizing::new(String::with_capacity(text.len()));
    match words.as_slice() {
        [] => {}
        [one] => uri.push_str(&seed(refuse, one)?),
        many if WORDS.contains(&many.len()) => {
            for (place, word) in many.iter().enumerate() {
                if place > 0 {
                    uri.push(' ');
                }
                uri.push_str(&word.trim_end_matches(',').to_lowercase());
            }
        }
        many => {
            return Err(
                refuse.uri(format!("it has {} words, and a mnemonic has 12, 15, 18, 21 or 24", many.len()))
            )
        }
    }
    uri.push_str(path.trim());
    if let Some(password) = password {
        uri.push_str("///");
        uri.push_str(password.trim_end_matches(['\r', '\n']));
    }
    Ok(SecretString::from(uri.as_str()))
}

/// A single word: a seed in hex, or something that is taken for one.
fn seed(refuse: &Refuse<'_>, word: &str) -> Result<String, KeysError> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (hex, digits.len()) {
        (true, 64) => Ok(format!("0x{}", digits.to_lowercase())),
        (true, 128) => Err(refuse.uri(
            "it is 64 bytes in hex, an expanded secret key or a seed with its public key; give the 32-byte seed or the mnemonic",
        )),
        (true, length) => Err(refuse.uri(format!("it has {length} hexadecimal digits, and a seed has 64"))),
        (false, _) if parse_account(word).is_ok() => Err(refuse.uri("it is an account's address, which is public, and not its secret")),
        (false, _) => Err(refuse.uri("it is one word, and neither a seed in hex nor a path such as //Alice")),
    }
}

/// The key of a secret URI.
pub(crate) fn pair_of(
    uri: &SecretString,
    refuse: impl Fn(String) -> KeysError,
) -> Result<Keypair, KeysError> {
    let parsed: SecretUri =
        uri.expose_secret().parse().map_err(|e: subxt_signer::SecretUriError| refuse(e.to_string()))?;
    // bip39's errors name the place of a bad word, not the word.
    Keypair::from_uri(&parsed).map_err(|e| refuse(e.to_string()))
}

impl Keystore {
    /// Opens it; `password` is not looked at where it is not encrypted.
    pub(crate) fn open(&self, path: &Path, password: Option<&SecretString>) -> Result<Keypair, KeysError> {
        let refuse = |reason: String| KeysError::Encrypted { path: path.to_owned(), reason };
        if !self.encrypted {
            return self.plain().map_err(|reason| KeysError::Format {
                path: path.to_owned(),
                found: format!("a keystore that is not encrypted and cannot be read: {reason}"),
                advice: EXPORT.into(),
            });
        }
        let password = password.ok_or_else(|| KeysError::NeedsPassword { path: path.to_owned() })?;
        // The library slices what it decodes without looking.
        let length = STANDARD.decode(self.encoded.expose_secret()).map_err(|e| refuse(e.to_string()))?.len();
        if length <= PARAMETERS {
            return Err(refuse("its 'encoded' field is too short".into()));
        }
        polkadot_js_compat::decrypt_json(self.json.expose_secret(), password.expose_secret())
            .map_err(|e| refuse(e.to_string()))
    }

    /// The key in a keystore of type `none`.
    fn plain(&self) -> Result<Keypair, String> {
        let encoded = self.encoded.expose_secret();
        let bytes = Zeroizing::new(match encoded.strip_prefix("0x") {
            Some(digits) => hex::decode(digits).map_err(|_| "its 'encoded' field is no hex")?,
            None => STANDARD.decode(encoded).map_err(|_| "its 'encoded' field is no base64")?,
        });
        let body =
            bytes.strip_prefix(&PKCS8_HEADER[..]).ok_or("its 'encoded' field is no polkadot.js key")?;
        let parted = |length: usize| {
            let (secret, rest) = (body.get(..length)?, body.get(length..)?);
            let public = rest.strip_prefix(&PKCS8_DIVIDER[..])?;
            (public.len() == 32).then_some((secret, public))
        };
        if let Some((secret, public)) = parted(32) {
            let secret: [u8; 32] = secret.try_into().map_err(|_| "its key has another length")?;
            let pair = Keypair::from_secret_key(secret).map_err(|e| e.to_string())?;
            return if pair.public_key().0 == public {
                Ok(pair)
            } else {
                Err("its public key is another one than its secret's".into())
            };
        }
        parted(64).ok_or("its key has another length")?;
        // The one way in which the library takes an expanded key: out of a keystore with a password.
        let mut value: Value = serde_json::from_str(self.json.expose_secret()).map_err(|e| e.to_string())?;
        value["encoded"] = Value::String(seal(&bytes, "")?);
        value["encoding"] = serde_json::json!({
            "content": ["pkcs8", "sr25519"], "type": ["scrypt", "xsalsa20-poly1305"], "version": "3"
        });
        polkadot_js_compat::decrypt_json(&value.to_string(), "").map_err(|e| e.to_string())
    }
}

/// Takes one account's key out of a batch. Its keystores are encrypted once more, each with its account's own password.
pub(crate) fn open_batch(
    path: &Path,
    encoded: &SecretString,
    addresses: &[String],
    password: Option<&SecretString>,
    wanted: Option<&AccountId32>,
) -> Result<Keypair, KeysError> {
    let refuse = Refuse(path);
    let broken = |reason: String| KeysError::Encrypted { path: path.to_owned(), reason };
    let is_wanted = |address: &str| match wanted {
        Some(wanted) => parse_account(address).is_ok_and(|account| account == *wanted),
        None => true,
    };
    let chosen: Vec<&String> = addresses.iter().filter(|address| is_wanted(address)).collect();
    if chosen.len() != 1 {
        let found = match wanted {
            Some(wanted) => format!("a batch of {} accounts without {wanted}", addresses.len()),
            None => format!("a batch of {} accounts ({})", addresses.len(), addresses.join(", ")),
        };
        return refuse.format(found, "export the one account that signs here by itself");
    }
    let password = password.ok_or_else(|| KeysError::NeedsPassword { path: path.to_owned() })?;
    let opened = unseal(encoded.expose_secret(), password.expose_secret()).map_err(broken)?;
    let stores: Vec<Value> = serde_json::from_slice(&opened)
        .map_err(|_| broken("it opens, and holds no list of keystores".into()))?;
    let store = stores
        .into_iter()
        .find(|store| store["address"].as_str().is_some_and(is_wanted))
        .ok_or_else(|| broken("it opens, and the account is not in it".into()))?;
    let text = Zeroizing::new(store.to_string());
    match json(&refuse, store, &text)? {
        Content::Keystore(keystore) => keystore.open(path, Some(password)).map_err(|error| match error {
            KeysError::Encrypted { .. } => broken(format!(
                "the batch opens, but its account {} has a password of its own: export that account by itself",
                chosen.first().map_or("", |address| address.as_str())
            )),
            other => other,
        }),
        Content::Uri { .. } | Content::Batch { .. } => Err(broken("it opens, and holds something else".into())),
    }
}

/// Decrypts what polkadot.js has encrypted.
fn unseal(encoded: &str, password: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = STANDARD.decode(encoded).map_err(|_| "its 'encoded' field is no base64")?;
    let too_short = || "its 'encoded' field is too short".to_owned();
    let (head, cipher) = bytes.split_at_checked(PARAMETERS).ok_or_else(too_short)?;
    let number = |at: usize| {
        let four = head.get(at..at.saturating_add(4))?;
        Some(u32::from_le_bytes(four.try_into().ok()?))
    };
    let (n, p, r) = (
        number(32).ok_or_else(too_short)?,
        number(36).ok_or_else(too_short)?,
        number(40).ok_or_else(too_short)?,
    );
    if !SCRYPT.contains(&(n, p, r)) {
        return Err(format!("its parameters of scrypt are none that wallets use (N {n}, p {p}, r {r})"));
    }
    let (salt, nonce) = (head.get(..32).ok_or_else(too_short)?, head.get(44..).ok_or_else(too_short)?);
    let cipher_of = key_of(password, salt, (n, p, r))?;
    let plain = cipher_of.decrypt(Nonce::from_slice(nonce), cipher).map_err(|_| "it does not decrypt")?;
    Ok(Zeroizing::new(plain))
}

/// Encrypts as polkadot.js does, with the cheapest of its parameters: for what does not leave this process.
fn seal(plain: &[u8], password: &str) -> Result<String, String> {
    let (n, p, r) = (1u32 << 15, 1u32, 8u32);
    let (salt, nonce): ([u8; 32], [u8; 24]) = (rand::random(), rand::random());
    let sealed = key_of(password, &salt, (n, p, r))?
        .encrypt(Nonce::from_slice(&nonce), plain)
        .map_err(|_| "it does not encrypt")?;
    let numbers = [n, p, r].map(u32::to_le_bytes).concat();
    Ok(STANDARD.encode([&salt[..], &numbers, &nonce, &sealed].concat()))
}

fn key_of(password: &str, salt: &[u8], (n, p, r): (u32, u32, u32)) -> Result<XSalsa20Poly1305, String> {
    let log_n = u8::try_from(n.ilog2()).map_err(|e| e.to_string())?;
    let parameters = scrypt::Params::new(log_n, r, p, 32).map_err(|e| e.to_string())?;
    let mut key = Key::default();
    scrypt::scrypt(password.as_bytes(), salt, &parameters, &mut key).map_err(|e| e.to_string())?;
    Ok(XSalsa20Poly1305::new(&key))
}

/// For tests: a batch export of these keystores.
#[cfg(test)]
pub(crate) fn batch(stores: &[Value], password: &str) -> Value {
    let plain = Value::Array(stores.to_vec()).to_string();
    serde_json::json!({
        "encoded": seal(plain.as_bytes(), password).unwrap(),
        "encoding": { "content": ["batch-pkcs8"], "type": ["scrypt", "xsalsa20-poly1305"], "version": "3" },
        "accounts": stores.iter().map(|s| serde_json::json!({ "address": s["address"], "meta": {} })).collect::<Vec<_>>(),
    })
}

/// For tests: the keystore as one of type `none`.
#[cfg(test)]
pub(crate) fn unencrypted(store: &Value, password: &str) -> Value {
    let plain = unseal(store["encoded"].as_str().unwrap(), password).unwrap();
    let mut open = store.clone();
    open["encoded"] = Value::String(STANDARD.encode(&plain[..]));
    open["encoding"]["type"] = serde_json::json!(["none"]);
    open
}
