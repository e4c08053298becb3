//! From flags to a connected client of the contract.

use crate::cli::amount::{Amount, Unit};
use crate::cli::args::{Confirm, Connection, ReadArgs, Who};
use crate::cli::deployment::{Deployment, Target};
use crate::cli::exit::Usage;
use crate::cli::output::Printer;
use anyhow::Context;
use poq_chain::signer::{ss58, Keys};
use poq_chain::types::{epoch_of, Millis};
use poq_chain::{AccountId32, At, Client, Options};
use poq_worker::endpoint::{self, Audience, Checked, Endpoint, Probe};
use std::io::IsTerminal;
use std::path::Path;

/// A connection to a chain, and to a contract on it where one is needed.
#[derive(Clone)]
pub(crate) struct Session {
    /// The client.
    pub(crate) client: Client,
    /// The chain's display unit.
    pub(crate) unit: Unit,
}

impl Connection {
    /// The client's options as the flags ask for.
    pub(crate) fn options(&self) -> Options {
        let confirm = match self.confirm {
            Confirm::Best => poq_chain::Confirm::Best,
            Confirm::Finalized => poq_chain::Confirm::Finalized,
        };
        Options { confirm, connect_timeout: self.connect_timeout, ..Options::default() }
    }

    /// Connects to the chain alone: that of the deployment file where no other is named.
    pub(crate) async fn chain(&self) -> anyhow::Result<Session> {
        let target = match &self.contract {
            Some(contract) => Target::resolve(Some(contract))?,
            // A file that is there by chance and is none must not keep anybody from deploying.
            None => Target::resolve(None).unwrap_or(Target::Nothing),
        };
        let url = target.url(self.url.as_deref())?;
        Ok(Session::new(Client::connect(url, None, self.options()).await?))
    }

    /// Connects to the contract, and makes sure that it is there.
    pub(crate) async fn contract(&self) -> anyhow::Result<Session> {
        let target = Target::resolve(self.contract.as_deref())?;
        let url = target.url(self.url.as_deref())?;
        let contract = target.account()?.ok_or_else(|| {
            Usage(
                "no contract is named: give its address or its deployment file with --contract (or POQ_CONTRACT), or \
                 deploy one with `poq deploy`"
                    .into(),
            )
        })?;
        let client = Client::connect(url, Some(contract), self.options()).await?;
        if let Target::File(path, deployment) = &target {
            same_chain(&client, path, deployment).await?;
        }
        client.code_hash().await?;
        // That it is of this chain: it would take no commitment that is made for another one.
        client.network().await?;
        Ok(Session::new(client))
    }
}

impl ReadArgs {
    /// Connects to the contract.
    pub(crate) async fn contract(&self) -> anyhow::Result<Session> {
        self.connection.contract().await
    }

    /// Where results go.
    pub(crate) fn printer(&self) -> Printer {
        self.output.printer()
    }
}

impl Who {
    /// The account; a key file that is encrypted needs its password.
    pub(crate) fn account(&self, password_file: Option<&Path>) -> anyhow::Result<AccountId32> {
        match self {
            Who::Address(account) => Ok(*account),
            Who::File(path) => Ok(load_keys(path, password_file)?.account()),
        }
    }
}

/// Makes sure that the chain is the one that the deployment file is about.
async fn same_chain(client: &Client, path: &Path, deployment: &Deployment) -> anyhow::Result<()> {
    let genesis = format!("{:?}", client.chain().genesis_hash);
    anyhow::ensure!(
        genesis == deployment.genesis,
        "{} is about another chain ({}, genesis {}) than the one at {} ({}, genesis {genesis}); give that chain's node with \
         --url, or deploy here with `poq deploy`",
        path.display(),
        deployment.chain,
        deployment.genesis,
        client.endpoint(),
        client.chain().name,
    );
    // A wiped development chain has the same genesis block. A chain behind the deployment's block is a wiped one too, or a
    // node that still synchronises; then the contract's absence is reported, with the same advice.
    let found = client.block(At::Number(deployment.block)).await.map(|block| format!("{:?}", block.hash));
    if let Ok(found) = found {
        anyhow::ensure!(
            found == deployment.block_hash,
            "the chain at {} was wiped since {} was written: its block {} is another one; deploy again with `poq deploy \
             --force`",
            client.endpoint(),
            path.display(),
            deployment.block,
        );
    }
    Ok(())
}

impl Session {
    /// Of a client that is connected.
    pub(crate) fn new(client: Client) -> Session {
        let chain = client.chain();
        let unit = Unit { symbol: chain.symbol.clone(), decimals: chain.decimals };
        Session { client, unit }
    }

    /// An amount in the smallest unit.
    pub(crate) fn raw(&self, amount: &Amount) -> anyhow::Result<u128> {
        amount.resolve(self.unit.decimals).map_err(|e| Usage(e.to_string()).into())
    }

    /// An address under which others are to reach a blob server, as `flag` gives it.
    pub(crate) fn endpoint(&self, flag: &str, text: &str) -> anyhow::Result<Checked> {
        let audience = Audience::of(self.client.chain().is_development());
        endpoint::check(text, audience).with_context(|| flag.to_owned())
    }

    /// What answers there, for whoever is about to pay for its registration.
    pub(crate) async fn probe(&self, endpoint: &Endpoint) -> anyhow::Result<Probe> {
        Ok(endpoint::probe(endpoint, Some(&self.client.network().await?.hash)).await)
    }

    /// When the next epoch begins, as block time: what a node's owner does acts from then on.
    pub(crate) async fn next_epoch(&self) -> anyhow::Result<Millis> {
        let epoch_ms = self.client.network().await?.epoch_ms;
        let now = self.client.upcoming().timestamp_ms;
        Ok(Millis::from(epoch_of(now, epoch_ms)).saturating_add(1).saturating_mul(epoch_ms))
    }

    /// An address as this chain writes it.
    pub(crate) fn address(&self, account: &AccountId32) -> String {
        ss58(account, self.client.chain().ss58_prefix)
    }
}

/// Reads a key file, and asks for its password on the terminal where it needs one that no file gives.
pub(crate) fn load_keys(path: &Path, password_file: Option<&Path>) -> anyhow::Result<Keys> {
    let context = || format!("the key file {}", path.display());
    let mut password = Keys::password(password_file).context("the password file")?;
    if password.is_none() && Keys::needs_password(path).with_context(context)? {
        if !std::io::stdin().is_terminal() {
            let text = format!(
                "{} is a keystore with a password; give the password's file with --password-file (or POQ_PASSWORD_FILE)",
                path.display()
            );
            return Err(Usage(text).into());
        }
        let typed = rpassword::prompt_password(format!("password of {}: ", path.display()))?;
        password = Some(typed.into());
    }
    Keys::load(path, password.as_ref()).with_context(context)
}
