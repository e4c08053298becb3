//! The contract at one block: every query, typed by the contract's own call builders.

use crate::account::{to_account32, to_ink};
use crate::client::{Block, Client};
use crate::error::{Error, Result};
use crate::messages::{contract, encode, Encoded};
use crate::types::{
    Auditor, Balances, Change, GlobalParams, Holding, KindId, KindParams, KindView, Liabilities, NodeId,
    NodeView, Overview, Pending, Quote, Solvency, TaskId, TaskView, NODES_PAGE, TASKS_PAGE, TASKS_SCAN,
};
use ink::primitives::LangError;
use ink::storage::traits::{Packed, StorageKey};
use ink::storage::Mapping;
use parity_scale_codec::{Decode, DecodeAll, Encode};
use subxt::utils::AccountId32;

/// The contract's state at one block. Needs no key: queries are dry runs.
#[derive(Clone, Debug)]
pub struct View {
    client: Client,
    contract: AccountId32,
    block: Block,
}

impl View {
    pub(crate) fn new(client: Client, contract: AccountId32, block: Block) -> View {
        View { client, contract, block }
    }

    /// The block that is looked at.
    pub fn block(&self) -> Block {
        self.block
    }

    async fn query<R: Decode>(&self, name: &'static str, encoded: Encoded<R>) -> Result<R> {
        self.query_of(&self.contract, name, encoded).await
    }

    /// The client that asks.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks a contract, this one or another.
    pub(crate) async fn query_of<R: Decode>(
        &self,
        contract: &AccountId32,
        name: &'static str,
        encoded: Encoded<R>,
    ) -> Result<R> {
        // Anybody may ask: the contract itself does, an account that surely exists where the contract does.
        let executed =
            self.client.dry_call(contract, contract, 0, &encoded.data, Some(self.block.hash)).await?;
        let returned = executed.result.map_err(|failure| {
            if failure.is("Contracts", "ContractNotFound") {
                self.client.absent(*contract)
            } else {
                Error::Dispatch { call: name, failure }
            }
        })?;
        decode_return(contract, name, returned.reverted, &returned.data)
    }

    /// What the contract is and owes at a glance.
    ///
    /// # Errors
    /// As of every query: `ContractAbsent`, `NotOurContract`, `Pruned`, or where the node cannot be asked.
    pub async fn overview(&self) -> Result<Overview> {
        self.query("overview", encode(contract().overview())).await
    }

    /// Who sets the parameters.
    ///
    /// # Errors
    /// As of every query.
    pub async fn owner(&self) -> Result<AccountId32> {
        Ok(to_account32(&self.overview().await?.owner))
    }

    /// Who may accept the ownership.
    ///
    /// # Errors
    /// As of every query.
    pub async fn proposed_owner(&self) -> Result<Option<AccountId32>> {
        Ok(self.overview().await?.proposed.as_ref().map(to_account32))
    }

    /// Whether new tasks are refused.
    ///
    /// # Errors
    /// As of every query.
    pub async fn paused(&self) -> Result<bool> {
        Ok(self.overview().await?.paused)
    }

    /// The global parameters.
    ///
    /// # Errors
    /// As of every query.
    pub async fn global_params(&self) -> Result<GlobalParams> {
        Ok(self.overview().await?.global)
    }

    /// A kind with its newest parameters, what its settlements have left behind, and the sizes of its pools.
    ///
    /// # Errors
    /// As of every query.
    pub async fn kind(&self, kind: KindId) -> Result<Option<KindView>> {
        self.query("kind", encode(contract().kind(kind))).await
    }

    /// The kinds that there are.
    ///
    /// # Errors
    /// As of every query.
    pub async fn kinds(&self) -> Result<Vec<KindId>> {
        Ok(self.overview().await?.kinds)
    }

    /// A version of a kind's parameters.
    ///
    /// # Errors
    /// As of every query.
    pub async fn params(&self, kind: KindId, version: u32) -> Result<Option<KindParams>> {
        self.query("params", encode(contract().params(kind, version))).await
    }

    /// The smallest fee for so many outputs and evaluators, and its split. `None` where the kind takes no such task.
    ///
    /// # Errors
    /// As of every query.
    pub async fn quote(&self, kind: KindId, outputs: u8, panel: u8) -> Result<Option<Quote>> {
        let Some(view) = self.kind(kind).await? else { return Ok(None) };
        let params = view.kind.params;
        let taken = (1..=params.outputs_max).contains(&outputs)
            && (params.panel_min..=params.panel_max).contains(&panel);
        Ok(taken.then(|| Quote::of(&params, outputs, panel)).flatten())
    }

    /// A node.
    ///
    /// # Errors
    /// As of every query.
    pub async fn node(&self, node: NodeId) -> Result<Option<NodeView>> {
        self.query("node", encode(contract().node(node))).await
    }

    /// What a node's stake and rewards are: small, and in a form that later versions keep.
    ///
    /// # Errors
    /// As of every query.
    pub async fn holding(&self, node: NodeId) -> Result<Option<Holding>> {
        self.query("holding", encode(contract().holding(node))).await
    }

    /// A page of nodes from number `from` on; the contract caps `limit`.
    ///
    /// # Errors
    /// As of every query.
    pub async fn nodes(&self, from: NodeId, limit: u32) -> Result<Vec<NodeView>> {
        self.query("nodes", encode(contract().nodes(from, limit))).await
    }

    /// All nodes, page by page.
    ///
    /// # Errors
    /// As of every query.
    pub async fn all_nodes(&self) -> Result<Vec<NodeView>> {
        let last = self.node_count().await?;
        let mut all: Vec<NodeView> = Vec::new();
        let mut from = 1;
        while from <= last {
            let page = self.nodes(from, NODES_PAGE).await?;
            // A page can be empty before the end only where the contract bounds how many numbers it looks at.
            let Some(end) = page.last().map(|node| node.id) else { break };
            from = end.saturating_add(1);
            all.extend(page);
        }
        Ok(all)
    }

    /// The highest node number given.
    ///
    /// # Errors
    /// As of every query.
    pub async fn node_count(&self) -> Result<NodeId> {
        Ok(self.overview().await?.nodes)
    }

    /// A task; `None` where it never was, or was collected.
    ///
    /// # Errors
    /// As of every query.
    pub async fn task(&self, task: TaskId) -> Result<Option<TaskView>> {
        self.query("task", encode(contract().task(task))).await
    }

    /// A page of tasks from number `from` on; the contract caps `limit`, and looks at 200 numbers at most.
    ///
    /// # Errors
    /// As of every query.
    pub async fn tasks(&self, from: TaskId, limit: u32) -> Result<Vec<TaskView>> {
        self.query("tasks", encode(contract().tasks(from, limit))).await
    }

    /// All tasks that have not been collected, from number `from` on, page by page.
    ///
    /// # Errors
    /// As of every query.
    pub async fn all_tasks(&self, from: TaskId) -> Result<Vec<TaskView>> {
        let last = self.task_count().await?;
        let mut all: Vec<TaskView> = Vec::new();
        let mut from = from.max(1);
        while from <= last {
            let page = self.tasks(from, TASKS_PAGE).await?;
            from = match page.last() {
                Some(task) => task.id.saturating_add(1),
                // Nothing among the numbers that one page looks at: all collected.
                None => from.saturating_add(TASKS_SCAN),
            };
            all.extend(page);
        }
        Ok(all)
    }

    /// The highest task number given.
    ///
    /// # Errors
    /// As of every query.
    pub async fn task_count(&self) -> Result<TaskId> {
        Ok(self.overview().await?.tasks)
    }

    /// The numbers of the tasks that a node has open duties or stake in.
    ///
    /// # Errors
    /// As of every query.
    pub async fn open_tasks(&self, node: NodeId) -> Result<Vec<TaskId>> {
        self.query("duties", encode(contract().duties(node))).await
    }

    /// The tasks that a node has open duties or stake in.
    ///
    /// # Errors
    /// As of every query.
    pub async fn duties(&self, node: NodeId) -> Result<Vec<TaskView>> {
        let mut tasks = Vec::new();
        for task in self.open_tasks(node).await? {
            tasks.extend(self.task(task).await?);
        }
        Ok(tasks)
    }

    /// An account's money in the contract.
    ///
    /// # Errors
    /// As of every query.
    pub async fn balances(&self, account: &AccountId32) -> Result<Balances> {
        self.query("balances", encode(contract().balances(to_ink(account)))).await
    }

    /// An auditor, appointed or still bonded; `None` for any other account.
    ///
    /// # Errors
    /// As of every query.
    pub async fn auditor(&self, account: &AccountId32) -> Result<Option<Auditor>> {
        self.query("auditor", encode(contract().auditor(to_ink(account)))).await
    }

    /// What the contract owes.
    ///
    /// # Errors
    /// As of every query.
    pub async fn liabilities(&self) -> Result<Liabilities> {
        Ok(self.overview().await?.liabilities)
    }

    /// Whether the contract can pay what it owes.
    ///
    /// # Errors
    /// As of every query.
    pub async fn solvency(&self) -> Result<Solvency> {
        Ok(self.overview().await?.solvency())
    }

    /// What the owner has announced, each with the block time from when anybody may enact it.
    ///
    /// # Errors
    /// As of every query.
    pub async fn pending(&self) -> Result<Vec<Pending<Change>>> {
        self.query("pending", encode(contract().pending())).await
    }

    /// A record as the contract stores it, in the mapping `M` that it declares: for what no query tells.
    pub(crate) async fn cell<M: Cells>(&self, key: M::Key) -> Result<Option<M::Value>> {
        let Some(bytes) = self.client.cell(&self.contract, M::key(key), self.block.hash).await? else {
            return Ok(None);
        };
        M::Value::decode_all(&mut &bytes[..])
            .map(Some)
            .map_err(|e| Error::decode("a record of the contract", e))
    }
}

/// A mapping of the contract's storage.
pub(crate) trait Cells {
    type Key;
    type Value: Decode;

    /// Where the record of a key is.
    fn key(key: Self::Key) -> Vec<u8>;
}

impl<K: Encode, V: Packed, S: StorageKey> Cells for Mapping<K, V, S> {
    type Key = K;
    type Value = V;

    fn key(key: K) -> Vec<u8> {
        (S::KEY, key).encode()
    }
}

/// Decodes what a message returned: its value within ink!'s own result.
pub(crate) fn decode_return<R: Decode>(
    address: &AccountId32,
    message: &'static str,
    reverted: bool,
    data: &[u8],
) -> Result<R> {
    let not_ours = |reason: String| Error::NotOurContract { address: *address, message, reason };
    match std::result::Result::<R, LangError>::decode_all(&mut &data[..]) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(LangError::CouldNotReadInput)) => {
            Err(not_ours("it does not know the message or its arguments".into()))
        }
        Ok(Err(other)) => Err(not_ours(format!("{other:?}"))),
        Err(_) if reverted && data.is_empty() => Err(not_ours("it trapped".into())),
        Err(error) => Err(not_ours(format!("its answer of {} bytes does not decode: {error}", data.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poq_contract::errors::Error as ContractError;

    #[test]
    fn returns_are_unwrapped_from_inks_result() {
        let at = AccountId32([1; 32]);
        let ok: std::result::Result<u32, LangError> = Ok(7);
        assert_eq!(decode_return::<u32>(&at, "node_count", false, &ok.encode()).unwrap(), 7);
        let refused: std::result::Result<std::result::Result<(), ContractError>, LangError> =
            Ok(Err(ContractError::NoNode));
        assert_eq!(
            decode_return::<std::result::Result<(), ContractError>>(&at, "stake", true, &refused.encode())
                .unwrap(),
            Err(ContractError::NoNode)
        );
        let unknown: std::result::Result<u32, LangError> = Err(LangError::CouldNotReadInput);
        let error = decode_return::<u32>(&at, "node_count", true, &unknown.encode()).unwrap_err();
        assert!(matches!(error, Error::NotOurContract { .. }), "{error}");
        assert!(decode_return::<u64>(&at, "task_count", false, &ok.encode()).is_err());
    }
}
