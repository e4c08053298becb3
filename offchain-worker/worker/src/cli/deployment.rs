//! The file in which `poq deploy` writes where the contract is, and from which every other command reads it.

use anyhow::Context;
use poq_chain::{signer::parse_account, AccountId32};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::args::{DEFAULT_URL, DEPLOYMENT_FILE};
use crate::cli::exit::Usage;

/// A deployed contract. The file holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deployment {
    /// The contract's address (SS58).
    pub(crate) contract: String,
    /// The hash of its code, 0x-hex.
    pub(crate) code_hash: String,
    /// The account that deployed it and owns it until it hands it over.
    pub(crate) contract_owner: String,
    /// The task kinds that were set.
    pub(crate) kinds: Vec<u16>,
    /// The node that it was deployed through; not written down where its address has a key in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The chain's name.
    pub(crate) chain: String,
    /// The hash of the chain's first block, 0x-hex.
    pub(crate) genesis: String,
    /// The number of the block that has the contract.
    pub(crate) block: u32,
    /// That block's hash, 0x-hex: a development chain that was wiped has another block of that number.
    pub(crate) block_hash: String,
}

impl Deployment {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Deployment> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the deployment file {}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| {
            Usage(format!("{} is not a deployment file as `poq deploy` writes it: {e}", path.display()))
                .into()
        })
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, path: &Path, replace: bool) -> anyhow::Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let context = || format!("cannot write the deployment file {}", path.display());
        std::fs::create_dir_all(folder).with_context(context)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
        writeln!(file, "{}", serde_json::to_string_pretty(self)?).with_context(context)?;
        if replace {
            file.persist(path).map_err(|e| e.error).with_context(context)?;
        } else {
            file.persist_noclobber(path).map_err(|e| e.error).with_context(context)?;
        }
        Ok(())
    }

    /// The contract's account.
    pub(crate) fn account(&self) -> anyhow::Result<AccountId32> {
        parse_account(&self.contract)
            .with_context(|| format!("the deployment file's contract {}", self.contract))
    }
}

/// Which contract is meant.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// One by its address.
    Address(AccountId32),
    /// One by its deployment file.
    File(PathBuf, Box<Deployment>),
    /// None was named.
    Nothing,
}

impl Target {
    /// From what the flag says: an address, or a file's path; without it deployment.json in the current folder if it is
    /// there.
    pub(crate) fn resolve(flag: Option<&str>) -> anyhow::Result<Target> {
        let Some(flag) = flag else {
            let default = PathBuf::from(DEPLOYMENT_FILE);
            return Ok(if default.is_file() { Target::file(default)? } else { Target::Nothing });
        };
        if let Ok(account) = parse_account(flag) {
            return Ok(Target::Address(account));
        }
        let path = PathBuf::from(flag);
        if !path.is_file() {
            let text = format!(
                "--contract {flag} is neither an address (SS58, or 0x and 64 hexadecimal digits) nor a file that is there"
            );
            return Err(Usage(text).into());
        }
        Target::file(path)
    }

    fn file(path: PathBuf) -> anyhow::Result<Target> {
        let deployment = Deployment::read(&path)?;
        Ok(Target::File(path, Box::new(deployment)))
    }

    /// The contract's account, if one was named.
    pub(crate) fn account(&self) -> anyhow::Result<Option<AccountId32>> {
        match self {
            Target::Address(account) => Ok(Some(*account)),
            Target::File(_, deployment) => deployment.account().map(Some),
            Target::Nothing => Ok(None),
        }
    }

    /// The node that the deployment file names.
    pub(crate) fn written_url(&self) -> Option<&str> {
        match self {
            Target::File(_, deployment) => deployment.url.as_deref(),
            Target::Address(_) | Target::Nothing => None,
        }
    }

    /// The node to ask: the one that is given, else the deployment file's, else the one on this machine. Where the file has left
    /// out an address with a key in it, no other node is asked by chance.
    pub(crate) fn url<'a>(&'a self, given: Option<&'a str>) -> anyhow::Result<&'a str> {
        match (given.or(self.written_url()), self) {
            (Some(url), _) => Ok(url),
            (None, Target::File(path, _)) => {
                let path = path.display();
                let text = format!(
                    "{path} does not say where the chain is, because the node's address has a key in it: give the whole \
                     address with --url"
                );
                Err(Usage(text).into())
            }
            (None, Target::Address(_) | Target::Nothing) => Ok(DEFAULT_URL),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deployment.json");
        let deployment = Deployment {
            contract: "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".into(),
            code_hash: "0x12".into(),
            contract_owner: "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".into(),
            kinds: vec![1, 65_535],
            url: Some("ws://127.0.0.1:9944".into()),
            chain: "Development".into(),
            genesis: "0x34".into(),
            block: u32::MAX,
            block_hash: "0x56".into(),
        };
        deployment.write(&path, false).unwrap();
        assert_eq!(Deployment::read(&path).unwrap(), deployment);
        // Another program's view of the same file: plain numbers, whatever this build's serde_json is like inside.
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"block\": 4294967295") && text.contains("65535"), "{text}");
        assert!(deployment.write(&path, false).is_err(), "it is not replaced unasked");
    }
}
