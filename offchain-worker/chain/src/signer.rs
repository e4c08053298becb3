//! Keys: read from files that nobody else can read, never from arguments, never printed. [`crate::keyfile`] says which forms of file
//! there are.

use crate::commit::{self, Network};
use crate::keyfile::{self, Content};
use crate::types::{Hash, NodeId, Purpose, Salt, TaskId};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use subxt::utils::AccountId32;
use subxt_signer::sr25519::{Keypair, PublicKey, Signature};
use subxt_signer::{bip39, sr25519, DeriveJunction};

/// Where the name of a password file is looked for when none is given.
pub const PASSWORD_FILE_ENV: &str = "POQ_PASSWORD_FILE";
/// A key or password file is a few hundred bytes; more is a mistake.
const MAX_FILE: u64 = 64 * 1024;
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
    #[error(
        "{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`. Of a secret that a container engine mounts, set the \
         mode where it is mounted: `defaultMode: 0400` in Kubernetes, `mode: 0400` in Compose"
    )]
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
    #[error("{path} does not open: the password is wrong, or the keystore is damaged ({reason})")]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file holds something that is no key that can be used here.
    #[error("{path} holds {found}; {advice}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What to do.
        advice: String,
    },
    /// A file's secret is another account's than the file says.
    #[error(
        "{path} says that it is the key of {says}, and its secret is that of {found}: it was made with a password (name its file with \
         --password-file), with derivations, or for another kind of key than sr25519"
    )]
    OtherAccount {
        /// The file.
        path: PathBuf,
        /// What the file says.
        says: AccountId32,
        /// Whose secret it is.
        found: AccountId32,
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

    /// Reads a key file of any form.
    ///
    /// # Errors
    /// `Exposed` for a secret in plain text that others can read; `NeedsPassword` and `Encrypted` for a keystore; `Format` and
    /// `Uri` for what is no key, by its name; `OtherAccount` where the file contradicts itself.
    pub fn load(path: &Path, password: Option<&SecretString>) -> Result<Keys, KeysError> {
        Keys::load_account(path, password, None)
    }

    /// Reads a key file of any form; of one with several accounts, the key of `account`.
    ///
    /// # Errors
    /// As of [`Keys::load`].
    pub fn load_account(
        path: &Path,
        password: Option<&SecretString>,
        account: Option<&AccountId32>,
    ) -> Result<Keys, KeysError> {
        let content = keyfile::identify(path, &read_secret(path)?)?;
        if !content.is_encrypted() {
            check_mode(path)?;
        }
        match content {
            Content::Uri { uri, says } => Keys::of_file(path, &uri, says, password),
            Content::Keystore(keystore) => Ok(Keys::new(keystore.open(path, password)?)),
            Content::Batch { encoded, addresses } => {
                keyfile::open_batch(path, &encoded, &addresses, password, account).map(Keys::new)
            }
        }
    }

    /// The key of a secret URI, which must be the account's that its file names, if it names one.
    fn of_file(
        path: &Path,
        uri: &SecretString,
        says: Option<AccountId32>,
        password: Option<&SecretString>,
    ) -> Result<Keys, KeysError> {
        let keys = Keys::parse(uri, &path.display().to_string())?;
        let Some(says) = says.filter(|says| *says != keys.account) else { return Ok(keys) };
        // subkey does not repeat the password that a phrase was made with.
        if let (Some(password), false) = (password, uri.expose_secret().contains("///")) {
            let with = format!("{}///{}", uri.expose_secret(), password.expose_secret());
            let keys = Keys::parse(&SecretString::from(with), &path.display().to_string())?;
            if keys.account == says {
                return Ok(keys);
            }
        }
        Err(KeysError::OtherAccount { path: path.to_owned(), says, found: keys.account })
    }

    /// Whether a key file needs a password.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no key.
    pub fn needs_password(path: &Path) -> Result<bool, KeysError> {
        Ok(keyfile::identify(path, &read_secret(path)?)?.is_encrypted())
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
        // An empty text would be the development phrase itself, whose key everybody has.
        if uri.expose_secret().is_empty() {
            return Err(refuse("it is empty".into()));
        }
        keyfile::pair_of(uri, refuse).map(Keys::new)
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
    pub fn salt(&self, network: &Network, task: TaskId, node: NodeId, purpose: Purpose) -> Salt {
        network.salt(self.salt_secret.expose_secret(), task, node, purpose)
    }

    /// The secret of this key's request with this reference commitment: its part of the seed of the panel. A requester that lost
    /// everything but its key derives it again. It must not leave this process before the task's outputs are sealed for good.
    pub fn request_secret(&self, network: &Network, reference_commitment: &Hash) -> Hash {
        network.request_secret(self.salt_secret.expose_secret(), reference_commitment)
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

fn read_secret(path: &Path) -> Result<SecretString, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(KeysError::TooLong { path: path.to_owned(), size });
    }
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(failed)?);
    keyfile::text_of(path, &bytes)
}

/// Whether a container engine has put the file there: then the container's wall, and not the file's mode, keeps others out. Docker
/// mounts secrets with mode 0444 below /run/secrets; Kubernetes swaps a volume's files by the link `..data`, and its modes are
/// widened where a pod has an fsGroup.
#[cfg(unix)]
fn is_mounted_secret(path: &Path) -> bool {
    let below = |folder: &str| path.canonicalize().is_ok_and(|full| full.starts_with(folder));
    let swapped = path.parent().is_some_and(|folder| folder.join("..data").is_symlink());
    swapped || below("/run/secrets") || below("/var/run/secrets")
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), KeysError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(path).map_err(|source| KeysError::File { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if mode & 0o022 == 0 && is_mounted_secret(path) {
        tracing::info!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "taken although its mode lets others read it: it is a secret that a container engine has mounted"
        );
        return Ok(());
    }
    Err(KeysError::Exposed { path: path.to_owned(), mode })
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
        let hex = BACKUP.replace("\"encoded\": \"Dumg", "\"encoded\": \"!!!!");
        for text in ["{", "{}", r#"{"encoded":"AAAA"}"#, &short, &hex] {
            let error = Keys::load(file(text, 0o600).path(), Some(&SecretString::from("x"))).unwrap_err();
            assert!(matches!(error, KeysError::Encrypted { .. } | KeysError::Format { .. }), "{error}");
        }
    }

    const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
    /// The development phrase's own account.
    const ROOT: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";

    fn load(text: &str) -> Result<Keys, KeysError> {
        Keys::load(file(text, 0o600).path(), None)
    }

    fn loads(text: &str, account: &str) {
        match load(text) {
            Ok(keys) => assert_eq!(keys.account().to_string(), account, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn a_phrase_is_read_however_it_is_laid_out() {
        let lines = PHRASE.replace(' ', "\r\n");
        let numbered: String =
            PHRASE.split(' ').enumerate().map(|(n, word)| format!("{}. {word}\n", n + 1)).collect();
        for text in [
            PHRASE.to_owned(),
            format!("\u{feff}{PHRASE}\r\n"),
            lines.clone(),
            format!("\u{feff}{lines}\r\n\r\n"),
            PHRASE.replace(' ', "\t"),
            PHRASE.replace(' ', "  \n "),
            PHRASE.replace(' ', "\u{a0}"),
            PHRASE.to_uppercase(),
            PHRASE.replace(' ', ", "),
            format!("\"{PHRASE}\""),
            format!("'{PHRASE}'\n"),
            numbered,
        ] {
            loads(&text, ROOT);
        }
        for text in [
            "//Alice".to_owned(),
            "\u{feff}//Alice\r\n".to_owned(),
            format!("{lines}//Alice\r\n"),
            "\"//Alice\"".to_owned(),
        ] {
            loads(&text, ALICE);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_windows_wrote_is_read() {
        for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            let bytes: Vec<u8> = "\u{feff}//Alice\r\n".encode_utf16().flat_map(order).collect();
            let key = file("", 0o600);
            std::fs::write(key.path(), bytes).unwrap();
            assert_eq!(Keys::load(key.path(), None).unwrap().account().to_string(), ALICE);
        }
    }

    #[test]
    fn a_seed_is_read_with_and_without_its_prefix() {
        // //Alice's own seed, as `subkey inspect //Alice` prints it.
        let seed = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
        for text in [seed.to_owned(), format!("0x{seed}\n"), format!("0X{}", seed.to_uppercase())] {
            loads(&text, ALICE);
        }
        let derived = load(&format!("{seed}//stash")).unwrap().account();
        assert_eq!(derived, load(&format!("0x{seed}//stash")).unwrap().account());
        assert_ne!(derived.to_string(), ALICE);
    }

    #[test]
    fn passwords_and_paths_of_a_phrase_count() {
        let with = |text: &str| load(text).unwrap().account();
        assert_ne!(with(&format!("{PHRASE}///secret")), with(PHRASE));
        assert_eq!(
            with(&format!("{}///secret\n", PHRASE.replace(' ', "\n"))),
            with(&format!("{PHRASE}///secret"))
        );
        // Spaces are a part of a password.
        assert_ne!(with(&format!("{PHRASE}///se  cret")), with(&format!("{PHRASE}///se cret")));
        assert_ne!(with("//Alice/soft"), with("//Alice"));
    }

    #[test]
    fn what_subkey_writes_is_read() {
        let account = format!("0x{}", hex::encode(parse_account(ALICE).unwrap().0));
        let root = format!("0x{}", hex::encode(parse_account(ROOT).unwrap().0));
        let json = |fields: &str, account: &str| {
            format!(
                r#"{{ {fields}, "accountId": "{account}", "networkId": "substrate", "ss58Address": "x" }}"#
            )
        };
        loads(&json(&format!(r#""secretPhrase": "{PHRASE}""#), &root), ROOT);
        loads(&json(r#""secretKeyUri": "//Alice""#, &account), ALICE);
        let seed = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
        loads(&json(&format!(r#""secretPhrase": "n/a", "secretSeed": "{seed}""#), &account), ALICE);
        let printed = format!(
            "Secret phrase:       {PHRASE}\n  Network ID:        substrate\n  Secret seed:       {seed}\n  \
             Account ID:        {root}\n  SS58 Address:      {ROOT}\n"
        );
        loads(&printed, ROOT);
        // It was made with a password, which subkey does not repeat.
        let with = load(&format!("{PHRASE}///pass")).unwrap();
        let text =
            json(&format!(r#""secretPhrase": "{PHRASE}""#), &format!("0x{}", hex::encode(with.account().0)));
        let error = load(&text).unwrap_err();
        assert!(matches!(error, KeysError::OtherAccount { .. }), "{error}");
        assert!(error.to_string().contains("--password-file"), "{error}");
        let password = SecretString::from("pass");
        let opened = Keys::load(file(&text, 0o600).path(), Some(&password)).unwrap();
        assert_eq!(opened.account(), with.account());
        assert!(!Keys::needs_password(file(&text, 0o600).path()).unwrap());
        // It is a secret in plain text like any other.
        #[cfg(unix)]
        assert!(matches!(Keys::load(file(&text, 0o644).path(), None), Err(KeysError::Exposed { .. })));
    }

    #[test]
    fn keystores_without_a_password_are_read() {
        let store: serde_json::Value = serde_json::from_str(BACKUP).unwrap();
        let open = keyfile::unencrypted(&store, "whoisalice").to_string();
        loads(&open, ALICE);
        let keys = load(&open).unwrap();
        assert!(verify(&keys.account(), b"m", &keys.sign(b"m")));
        assert!(!Keys::needs_password(file(&open, 0o600).path()).unwrap());
        #[cfg(unix)]
        assert!(matches!(Keys::load(file(&open, 0o644).path(), None), Err(KeysError::Exposed { .. })));
        // Old ones have a text for a type.
        loads(&open.replace("[\"none\"]", "\"none\""), ALICE);
        // Another account's address beside it.
        let wrong = open.replace(ALICE, "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty");
        assert!(matches!(load(&wrong), Err(KeysError::Format { .. })));
    }

    #[test]
    fn a_batch_gives_its_one_account() {
        let store: serde_json::Value = serde_json::from_str(BACKUP).unwrap();
        let batch = file(&keyfile::batch(std::slice::from_ref(&store), "whoisalice").to_string(), 0o644);
        assert!(Keys::needs_password(batch.path()).unwrap());
        assert!(matches!(Keys::load(batch.path(), None), Err(KeysError::NeedsPassword { .. })));
        let right = SecretString::from("whoisalice");
        assert_eq!(Keys::load(batch.path(), Some(&right)).unwrap().account().to_string(), ALICE);
        assert!(matches!(
            Keys::load(batch.path(), Some(&SecretString::from("x"))),
            Err(KeysError::Encrypted { .. })
        ));
        // The account has a password of its own.
        let other = file(&keyfile::batch(std::slice::from_ref(&store), "another").to_string(), 0o644);
        let error = Keys::load(other.path(), Some(&SecretString::from("another"))).unwrap_err();
        assert!(error.to_string().contains("password of its own"), "{error}");
        // Several: which one?
        let mut bob = store.clone();
        bob["address"] = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty".into();
        let both = file(&keyfile::batch(&[bob, store], "whoisalice").to_string(), 0o644);
        let error = Keys::load(both.path(), Some(&right)).unwrap_err().to_string();
        assert!(error.contains("2 accounts") && error.contains(ALICE), "{error}");
        let alice = parse_account(ALICE).unwrap();
        assert_eq!(Keys::load_account(both.path(), Some(&right), Some(&alice)).unwrap().account(), alice);
        let nobody = AccountId32([9; 32]);
        assert!(Keys::load_account(both.path(), Some(&right), Some(&nobody)).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_called_by_its_name() {
        let store = |content: &str| BACKUP.replace("\"sr25519\"", content);
        for (text, says) in [
            (store("\"ed25519\""), "ed25519"),
            (store("\"ecdsa\""), "ecdsa"),
            (store("\"ethereum\""), "ethereum"),
            (BACKUP.replace("\"scrypt\", ", ""), "old or unknown form"),
            (r#"{"version":3,"id":"x","crypto":{"cipher":"aes-128-ctr"}}"#.into(), "Ethereum"),
            ("[1, 2, 3]".into(), "Solana"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n".into(), "PEM"),
            (r#"{"hello": "world"}"#.into(), "hello"),
            (r#"{"encoded": "#.into(), "broken JSON"),
            (ALICE.into(), "address, which is public"),
            ("word".into(), "one word"),
            ("abandon abandon abandon".into(), "3 words"),
            ("0x1234".into(), "4 hexadecimal digits"),
            ("ab".repeat(64), "64 bytes in hex"),
            ("\u{feff}\r\n".into(), "empty"),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(
                !error.contains("world") && !error.contains("secret\n") && !error.contains("abandon"),
                "{error}"
            );
        }
        let raw = file("", 0o600);
        std::fs::write(raw.path(), [0x9f; 32]).unwrap();
        let error = Keys::load(raw.path(), None).unwrap_err().to_string();
        assert!(error.contains("32 raw bytes"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_a_container_engine_mounts_is_taken() {
        use std::os::unix::fs::PermissionsExt;
        let volume = tempfile::tempdir().unwrap();
        let data = volume.path().join("..2026");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("key"), "//Alice").unwrap();
        let set = |mode| {
            std::fs::set_permissions(data.join("key"), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o444);
        // The same file by its own name is one like any other, and the refusal says where its mode is set.
        let error = Keys::load(&data.join("key"), None).unwrap_err().to_string();
        assert!(error.contains("defaultMode: 0400") && error.contains("chmod 600"), "{error}");
        std::os::unix::fs::symlink("..2026", volume.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", volume.path().join("key")).unwrap();
        assert_eq!(Keys::load(&volume.path().join("key"), None).unwrap().account().to_string(), ALICE);
        // What others can write is nobody's secret.
        set(0o666);
        assert!(matches!(Keys::load(&volume.path().join("key"), None), Err(KeysError::Exposed { .. })));
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
        let network = Network::new(subxt::utils::H256([1; 32]), AccountId32([1; 32]), 1);
        let salt = |uri: &str, task, node, purpose| {
            Keys::from_uri(&SecretString::from(uri)).unwrap().salt(&network, task, node, purpose)
        };
        let base = salt("//Alice", 1, 2, Purpose::Output);
        assert_eq!(base, salt("//Alice", 1, 2, Purpose::Output));
        assert_ne!(base, salt("//Alice", 1, 2, Purpose::Scores));
        assert_ne!(base, salt("//Alice", 2, 2, Purpose::Output));
        assert_ne!(base, salt("//Alice", 1, 3, Purpose::Output));
        assert_ne!(base, salt("//Bob", 1, 2, Purpose::Output));
        // The same key out of a backup derives the same salts.
        let backup = Keys::load(file(BACKUP, 0o600).path(), Some(&SecretString::from("whoisalice"))).unwrap();
        assert_eq!(base, backup.salt(&network, 1, 2, Purpose::Output));
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
