//! What a call will cost, told before anything is sent.

use crate::deploy::{Artifact, Construction, Instantiation, Setup};
use crate::dry_run::Deposit;
use crate::error::{Error, Result};
use crate::messages::Message;
use crate::options::Mortality;
use crate::submit::Submitter;
use crate::At;
use parity_scale_codec::{Decode, Encode};
use serde::{Deserialize, Serialize};
use subxt::ext::scale_encode::EncodeAsFields;
use subxt::utils::{AccountId32, MultiAddress};

/// What a call takes from its sender, in the chain's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// What it carries to the contract or to another account.
    pub value: u128,
    /// The most that the chain takes as its fee: what a contract call does not use of its gas comes back. `None` where it cannot
    /// be told before the call is due.
    pub fee: Option<u128>,
    /// What is put down for storage, or comes back from it, as the dry run has it.
    pub deposit: Deposit,
}

impl Cost {
    /// All that the sender must be able to spend.
    pub fn total(&self) -> u128 {
        self.value.saturating_add(self.fee.unwrap_or(0)).saturating_add(self.deposit.charge())
    }
}

/// What a message would return and cost.
#[derive(Clone, Debug)]
pub struct Quote<T> {
    /// What it would return at the best block; `None` where it is only too early for that block, and not for the next one.
    pub value: Option<T>,
    /// What it would cost.
    pub cost: Cost,
}

impl Submitter {
    /// What a message would return and cost. Nothing is sent.
    ///
    /// # Errors
    /// As of [`Submitter::dry_run`].
    pub async fn quote<T: Decode>(&self, message: &Message<T>) -> Result<Quote<T>> {
        let early = |error: &Error| error.rejection().is_some_and(|error| message.is_early(&Err(error)));
        let dry = match self.dry_run(message).await {
            Err(error) if early(&error) => {
                let cost = Cost { value: message.value(), fee: None, deposit: Deposit::Charge(0) };
                return Ok(Quote { value: None, cost });
            }
            dry => dry?,
        };
        let options = self.client().options();
        let limit =
            dry.deposit.limit(options.deposit_margin_percent, self.client().chain().existential_deposit);
        let args = (
            MultiAddress::<AccountId32, ()>::Id(message.to().map_or_else(|| self.client().contract(), Ok)?),
            message.value(),
            dry.gas.plus_percent(options.gas_margin_percent).to_value(),
            Some(limit),
            message.data().to_vec(),
        );
        let fee = self.fee(message.name(), ("Contracts", "call", args)).await?;
        Ok(Quote {
            value: Some(dry.value),
            cost: Cost { value: message.value(), fee: Some(fee), deposit: dry.deposit },
        })
    }

    /// What a transfer would cost. Whether the sender has that much is not looked at.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub async fn quote_transfer(&self, to: &AccountId32, amount: u128) -> Result<Cost> {
        let args = (MultiAddress::<AccountId32, ()>::Id(*to), amount);
        let fee = self.fee("transfer", ("Balances", "transfer_keep_alive", args)).await?;
        Ok(Cost { value: amount, fee: Some(fee), deposit: Deposit::Charge(0) })
    }

    /// What [`crate::deploy::deploy`] would cost: the fee and the deposits for code and storage.
    ///
    /// # Errors
    /// As of [`crate::deploy::deploy`], with nothing sent.
    pub async fn quote_deploy(&self, artifact: &Artifact, setup: &Setup, salt: &[u8]) -> Result<Cost> {
        let genesis = self.client().chain().genesis_hash;
        self.quote_construction(&Construction::of_poq(genesis, artifact, setup, salt)).await
    }

    pub(crate) async fn quote_construction(&self, construction: &Construction<'_>) -> Result<Cost> {
        let ready = Instantiation::prepare(self, construction).await?;
        let name = construction.name;
        let fee = match ready.call() {
            crate::deploy::Call::Existing(call, args) => self.fee(name, ("Contracts", call, args)).await?,
            crate::deploy::Call::Upload(call, args) => self.fee(name, ("Contracts", call, args)).await?,
        };
        Ok(Cost { value: construction.value, fee: Some(fee), deposit: ready.deposit })
    }

    /// The most that the chain takes as its fee for a call of this account.
    async fn fee<Args: EncodeAsFields>(
        &self,
        name: &'static str,
        call: (&'static str, &'static str, Args),
    ) -> Result<u128> {
        let client = self.client();
        let best = client.block(At::Best).await?;
        let runtime = client.runtime(best.hash).await?;
        let nonce = client.account(&self.account(), best).await?.nonce;
        // As long as the one that will be sent, to a byte or two of its mortality.
        let signed = runtime.sign(
            name,
            call,
            self.keys(),
            nonce.into(),
            Mortality::Blocks(64),
            (best.number, best.hash),
        )?;
        let length = u32::try_from(signed.bytes.len())
            .map_err(|_| Error::decode("a transaction's fee", "the transaction is longer than 4 GiB"))?;
        let args = [signed.bytes, length.encode()].concat();
        let answer = client.state_call("TransactionPaymentApi_query_info", &args, Some(best.hash)).await?;
        // RuntimeDispatchInfo: a weight (two compact numbers), a class (one byte), the fee.
        let (_, _, fee) = <(crate::Weight, u8, u128)>::decode(&mut &answer[..])
            .map_err(|e| Error::decode("a transaction's fee", e))?;
        Ok(fee)
    }
}
