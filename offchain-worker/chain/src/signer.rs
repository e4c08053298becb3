//! Keys: read from files that nobody else can read, never from arguments, never printed.
//!
//! Two forms of file:
//! - a polkadot-js account backup (JSON, encrypted; needs its password),
//! - a text file with a secret URI: a mnemonic, a `0x` seed, or a development URI such as `//Alice`. Refused when others on the
//!   machine can read it.

use crate::commit;
use crate::types::{NodeId, Purpose, Salt, TaskId};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use subxt::utils::AccountId32;
use subxt_signer::sr25519::{Keypair, PublicKey, Signature};
use subxt_signer::{bip39, polkadot_js_compat, sr25519, DeriveJunction, SecretUri};

/// Where the name of a password file is looked for when none is given.
pub const PASSWORD_FILE_ENV: &str = "POQ_PASSWORD_FILE";
/// A key or password file is a few hundred bytes; more is a mistake.
const MAX_FILE: u64 = 64 * 1024;
/// Characters of base64 that an encrypted key has at least; shorter ones are not handed to the decoder, which slices them
/// unchecked.
const MIN_ENCODED: usize = 112;

/// Why keys could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A secret in plain text can be read by others.
    #[error("{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is too long to be a key or a password.
    #[error("{path} is {size} bytes long: it is no key or password file")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// An encrypted key was given without its password.
    #[error(
        "{path} is encrypted: name a file with its password (--password-file, or {PASSWORD_FILE_ENV} in the environment)"
    )]
    NeedsPassword {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key could not be opened.
    #[error("{path} is no polkadot-js account backup of an sr25519 key, or the password is wrong: {reason}")]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A text is no secret URI. The text itself is never repeated.
    #[error("{origin} holds no mnemonic, 0x seed or secret URI: {reason}")]
    Uri {
        /// Where the text came from.
        origin: String,
        /// Why.
        reason: String,
    },
    /// A text is no account.
    #[error(
        "'{text}' is no account: give an SS58 address or 0x followed by 64 hexadecimal digits ({reason})"
    )]
    Account {
        /// The text.
        text: String,
        /// Why.
        reason: String,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness: {reason}")]
    Randomness {
        /// Why.
        reason: String,
    },
}

/// An account's secret: signs for it, and derives the salts of its commitments.
#[derive(Clone)]
pub struct Keys {
    pair: Arc<Keypair>,
    account: AccountId32,
    salt_secret: Arc<SecretBox<[u8; 32]>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("account", &self.account.to_string()).finish_non_exhaustive()
    }
}

impl Keys {
    fn new(pair: Keypair) -> Keys {
        let account = AccountId32(pair.public_key().0);
        // Works for every form of key file, unlike the seed: the public key of a hard-derived child, which nobody without the
        // secret can compute and which is never used as an account.
        let child = pair.derive([DeriveJunction::hard("poq/v1/salts")]);
        let secret = commit::blake2(&[b"poq/v1/salt-secret", &child.public_key().0[..]].concat());
        Keys { pair: Arc::new(pair), account, salt_secret: Arc::new(SecretBox::new(Box::new(secret))) }
    }

    /// Reads a key file of either form.
    ///
    /// # Errors
    /// `Exposed` for a plain secret that others can read; `NeedsPassword` and `Encrypted` for an account backup; `Uri` for
    /// a text that is none.
    pub fn load(path: &Path, password: Option<&SecretString>) -> Result<Keys, KeysError> {
        let text = read_secret(path)?;
        if is_backup(&text) {
            let password = password.ok_or_else(|| KeysError::NeedsPassword { path: path.to_owned() })?;
            return Keys::from_backup(path, text.expose_secret(), password);
        }
        check_mode(path)?;
        let uri = SecretString::from(text.expose_secret().trim());
        Keys::parse(&uri, &path.display().to_string())
    }

    fn from_backup(path: &Path, json: &str, password: &SecretString) -> Result<Keys, KeysError> {
        let refuse = |reason: String| KeysError::Encrypted { path: path.to_owned(), reason };
        let value: serde_json::Value = serde_json::from_str(json).map_err(|e| refuse(e.to_string()))?;
        let encoded = value["encoded"].as_str().unwrap_or_default();
        if encoded.len() < MIN_ENCODED {
            return Err(refuse("its 'encoded' field is too short".into()));
        }
        let pair = polkadot_js_compat::decrypt_json(json, password.expose_secret())
            .map_err(|e| refuse(e.to_string()))?;
        Ok(Keys::new(pair))
    }

    /// Whether a key file needs a password.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn needs_password(path: &Path) -> Result<bool, KeysError> {
        Ok(is_backup(&read_secret(path)?))
    }

    /// Reads a password: from `file`, else from the file named by `POQ_PASSWORD_FILE`; `None` where neither is given. Its last
    /// line break is not part of it.
    ///
    /// # Errors
    /// `Exposed` where others can read the file.
    pub fn password(file: Option<&Path>) -> Result<Option<SecretString>, KeysError> {
        let path = match file {
            Some(path) => path.to_owned(),
            None => match std::env::var_os(PASSWORD_FILE_ENV).filter(|name| !name.is_empty()) {
                Some(name) => PathBuf::from(name),
                None => return Ok(None),
            },
        };
        let text = read_secret(&path)?;
        check_mode(&path)?;
        Ok(Some(SecretString::from(text.expose_secret().trim_end_matches(['\r', '\n']))))
    }

    /// From a secret URI: a mnemonic, a 0x seed or a path of the development phrase, each with derivations.
    ///
    /// # Errors
    /// `Uri` where it is none.
    pub fn from_uri(uri: &SecretString) -> Result<Keys, KeysError> {
        Keys::parse(uri, "the text")
    }

    fn parse(uri: &SecretString, origin: &str) -> Result<Keys, KeysError> {
        let refuse = |reason: String| KeysError::Uri { origin: origin.to_owned(), reason };
        let text = uri.expose_secret();
        // An empty text would be the development phrase itself, whose key everybody has.
        if text.is_empty() {
            return Err(refuse("it is empty".into()));
        }
        let parsed = SecretUri::from_str(text).map_err(|e| refuse(e.to_string()))?;
        // bip39's errors name the place of a bad word, not the word.
        let pair = Keypair::from_uri(&parsed).map_err(|e| refuse(e.to_string()))?;
        Ok(Keys::new(pair))
    }

    /// A new key with its mnemonic of twelve words.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn generate() -> Result<(Keys, SecretString), KeysError> {
        use rand::TryRngCore;
        let no_randomness = |reason: String| KeysError::Randomness { reason };
        let mut entropy = zeroize::Zeroizing::new([0u8; 16]);
        rand::rngs::OsRng.try_fill_bytes(&mut entropy[..]).map_err(|e| no_randomness(e.to_string()))?;
        let mnemonic =
            bip39::Mnemonic::from_entropy(&entropy[..]).map_err(|e| no_randomness(e.to_string()))?;
        let phrase = SecretString::from(mnemonic.to_string());
        Ok((Keys::from_uri(&phrase)?, phrase))
    }

    /// Writes a secret into a new file that only its owner can read.
    ///
    /// # Errors
    /// `File` where there is a file already, or it cannot be written.
    pub fn write_new(path: &Path, secret: &SecretString) -> Result<(), KeysError> {
        let failed = |source| KeysError::File { path: path.to_owned(), source };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        file.write_all(secret.expose_secret().as_bytes()).map_err(failed)?;
        file.write_all(b"\n").map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// The account.
    pub fn account(&self) -> AccountId32 {
        self.account
    }

    /// Signs a message (sr25519).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).0
    }

    /// The salt of one commitment of this key's node. A node that lost everything but its key derives it again.
    pub fn salt(&self, contract: &AccountId32, task: TaskId, node: NodeId, purpose: Purpose) -> Salt {
        commit::salt(self.salt_secret.expose_secret(), contract, task, node, purpose)
    }

    pub(crate) fn signer(&self) -> &Keypair {
        &self.pair
    }
}

/// Whether `signature` is the account's under `message` (sr25519).
pub fn verify(account: &AccountId32, message: &[u8], signature: &[u8; 64]) -> bool {
    sr25519::verify(&Signature(*signature), message, &PublicKey(account.0))
}

/// An account from an SS58 address of any network, or from 0x and 64 hexadecimal digits.
///
/// # Errors
/// `Account` where it is neither.
pub fn parse_account(text: &str) -> Result<AccountId32, KeysError> {
    let refuse = |reason: String| KeysError::Account { text: text.to_owned(), reason };
    match text.strip_prefix("0x") {
        Some(digits) => {
            let mut bytes = [0; 32];
            hex::decode_to_slice(digits, &mut bytes).map_err(|e| refuse(e.to_string()))?;
            Ok(AccountId32(bytes))
        }
        None => AccountId32::from_str(text).map_err(|e| refuse(e.to_string())),
    }
}

/// An account's SS58 address on a network; prefixes above 16,383 do not exist and are cut.
pub fn ss58(account: &AccountId32, prefix: u16) -> String {
    use base58::ToBase58;
    let ident = prefix & 0b0011_1111_1111_1111;
    let mut bytes = if ident < 64 {
        vec![ident.to_le_bytes()[0]]
    } else {
        // The two-byte form: bits 2 to 7, then 8 to 13 with the two lowest on top.
        let [low, high] = ident.to_le_bytes();
        vec![((low & 0b1111_1100) >> 2) | 0b0100_0000, high | ((low & 0b11) << 6)]
    };
    bytes.extend(account.0);
    let checksum = sp_crypto_hashing::blake2_512(&[b"SS58PRE", &bytes[..]].concat());
    bytes.extend(&checksum[..2]);
    bytes.to_base58()
}

fn is_backup(text: &SecretString) -> bool {
    text.expose_secret().trim_start().starts_with('{')
}

fn read_secret(path: &Path) -> Result<SecretString, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(KeysError::TooLong { path: path.to_owned(), size });
    }
    std::fs::read_to_string(path).map(SecretString::from).map_err(failed)
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeysError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(path).map_err(|source| KeysError::File { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), KeysError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    /// An account backup as polkadot-js writes it (from the tests of subxt-signer); the password is "whoisalice".
    const BACKUP: &str = r#"{
        "encoded": "DumgApKCTqoCty1OZW/8WS+sgo6RdpHhCwAkA2IoDBMAgAAAAQAAAAgAAAB6IG/q24EeVf0JqWqcBd5m2tKq5BlyY84IQ8oamLn9DZe9Ouhgunr7i36J1XxUnTI801axqL/ym1gil0U8440Qvj0lFVKwGuxq38zuifgoj0B3Yru0CI6QKEvQPU5xxj4MpyxdSxP+2PnTzYao0HDH0fulaGvlAYXfqtU89xrx2/z9z7IjSwS3oDFPXRQ9kAdDebtyCVreZ9Otw9v3",
        "encoding": { "content": ["pkcs8", "sr25519"], "type": ["scrypt", "xsalsa20-poly1305"], "version": "3" },
        "address": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        "meta": { "genesisHash": "", "name": "Alice", "whenCreated": 1718265838755 }
    }"#;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let _ = mode;
        file
    }

    #[test]
    fn a_text_file_holds_a_uri() {
        let keys = Keys::load(file(" //Alice \n", 0o600).path(), None).unwrap();
        assert_eq!(keys.account().to_string(), ALICE);
        let phrase = "bottom drive obey lake curtain smoke basket hold race lonely fit walk//Alice";
        assert_eq!(Keys::load(file(phrase, 0o400).path(), None).unwrap().account(), keys.account());
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o644] {
            let error = Keys::load(file("//Alice", mode).path(), None).unwrap_err();
            assert!(matches!(error, KeysError::Exposed { mode: found, .. } if found == mode), "{error}");
            assert!(error.to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_backup_needs_its_password() {
        let backup = file(BACKUP, 0o644);
        assert!(Keys::needs_password(backup.path()).unwrap());
        assert!(matches!(Keys::load(backup.path(), None), Err(KeysError::NeedsPassword { .. })));
        let wrong = SecretString::from("whoisbob");
        assert!(matches!(Keys::load(backup.path(), Some(&wrong)), Err(KeysError::Encrypted { .. })));
        let right = SecretString::from("whoisalice");
        assert_eq!(Keys::load(backup.path(), Some(&right)).unwrap().account().to_string(), ALICE);
    }

    #[test]
    fn a_broken_backup_is_an_error_and_no_panic() {
        let short = BACKUP.replace("DumgApKCTqoCty1OZW", "").replace(&BACKUP[80..300], "");
        for text in ["{", "{}", r#"{"encoded":"AAAA"}"#, &short] {
            let error = Keys::load(file(text, 0o600).path(), Some(&SecretString::from("x"))).unwrap_err();
            assert!(matches!(error, KeysError::Encrypted { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        let secret = "correct horse battery staple and some more words that are none";
        let error = Keys::load(file(secret, 0o600).path(), None).unwrap_err().to_string();
        assert!(!error.contains("battery"), "{error}");
        assert!(Keys::load(file("", 0o600).path(), None).is_err());
        assert!(Keys::load(Path::new("/nonexistent/key"), None).is_err());
    }

    #[test]
    fn debug_shows_the_account_and_nothing_else() {
        let keys = Keys::from_uri(&SecretString::from("//Alice")).unwrap();
        assert_eq!(format!("{keys:?}"), format!("Keys {{ account: \"{ALICE}\", .. }}"));
    }

    #[test]
    fn salts_come_from_the_secret_alone() {
        let contract = AccountId32([1; 32]);
        let salt = |uri: &str, task, node, purpose| {
            Keys::from_uri(&SecretString::from(uri)).unwrap().salt(&contract, task, node, purpose)
        };
        let base = salt("//Alice", 1, 2, Purpose::Output);
        assert_eq!(base, salt("//Alice", 1, 2, Purpose::Output));
        assert_ne!(base, salt("//Alice", 1, 2, Purpose::Scores));
        assert_ne!(base, salt("//Alice", 2, 2, Purpose::Output));
        assert_ne!(base, salt("//Alice", 1, 3, Purpose::Output));
        assert_ne!(base, salt("//Bob", 1, 2, Purpose::Output));
        // The same key out of a backup derives the same salts.
        let backup = Keys::load(file(BACKUP, 0o600).path(), Some(&SecretString::from("whoisalice"))).unwrap();
        assert_eq!(base, backup.salt(&contract, 1, 2, Purpose::Output));
    }

    #[test]
    fn signatures_verify_for_their_account_and_message_only() {
        let keys = Keys::from_uri(&SecretString::from("//Alice")).unwrap();
        let signature = keys.sign(b"message");
        assert!(verify(&keys.account(), b"message", &signature));
        assert!(!verify(&keys.account(), b"massage", &signature));
        assert!(!verify(&AccountId32([9; 32]), b"message", &signature));
    }

    #[test]
    fn a_new_key_is_written_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (keys, phrase) = Keys::generate().unwrap();
        Keys::write_new(&path, &phrase).unwrap();
        assert_eq!(Keys::load(&path, None).unwrap().account(), keys.account());
        assert!(matches!(Keys::write_new(&path, &phrase), Err(KeysError::File { .. })));
    }

    #[test]
    fn passwords_lose_their_line_break() {
        let path = file("secret \n", 0o600);
        let password = Keys::password(Some(path.path())).unwrap().unwrap();
        assert_eq!(password.expose_secret(), "secret ");
    }

    #[test]
    fn addresses_are_read_in_both_forms_and_written_for_any_network() {
        let alice = parse_account(ALICE).unwrap();
        assert_eq!(parse_account(&format!("0x{}", hex::encode(alice.0))).unwrap(), alice);
        assert_eq!(ss58(&alice, 42), ALICE);
        // Polkadot's and a two-byte prefix, both read back.
        assert_eq!(ss58(&alice, 0), "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5");
        assert_eq!(parse_account(&ss58(&alice, 1_284)).unwrap(), alice);
        for bad in ["", "0x12", "5Grw", "0xzz"] {
            assert!(matches!(parse_account(bad), Err(KeysError::Account { .. })));
        }
    }
}
