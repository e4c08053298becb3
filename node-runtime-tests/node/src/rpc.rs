//! RPC methods beside those that sc-service brings (`author`, `chain`, `state`, `chainHead_v1`, …).

use std::sync::Arc;

use futures::channel::mpsc::Sender;
use jsonrpsee::RpcModule;
use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
use poq_runtime::Hash;
use sc_consensus_manual_seal::{
    rpc::{ManualSeal, ManualSealApiServer},
    EngineCommand,
};
use sc_rpc::dev::{Dev, DevApiServer};
use sc_transaction_pool::TransactionPoolHandle;
use substrate_frame_rpc_system::{System, SystemApiServer};

use crate::service::FullClient;
use poq_runtime::opaque::Block;

/// `system_accountNextIndex`, `system_dryRun`, `payment_*`, `dev_*` and `engine_*`.
pub(crate) fn module(
    client: Arc<FullClient>,
    pool: Arc<TransactionPoolHandle<Block, FullClient>>,
    seal: Sender<EngineCommand<Hash>>,
) -> Result<RpcModule<()>, sc_service::Error> {
    let mut module = RpcModule::new(());
    let mut merge = |methods: jsonrpsee::Methods| {
        module.merge(methods).map_err(|error| sc_service::Error::Application(Box::new(error)))
    };
    merge(System::new(client.clone(), pool).into_rpc().into())?;
    merge(TransactionPayment::new(client.clone()).into_rpc().into())?;
    merge(Dev::new(client).into_rpc().into())?;
    merge(ManualSeal::new(seal).into_rpc().into())?;
    Ok(module)
}
