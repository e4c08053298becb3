//! Puts the node together.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    time::Duration,
};

use futures::{channel::mpsc, future, stream, Stream, StreamExt};
use polkadot_sdk::{sp_io, sp_timestamp};
use poq_runtime::{apis::RuntimeApi, opaque::Block, Hash};
use sc_basic_authorship::ProposerFactory;
use sc_consensus::{DefaultImportQueue, LongestChain};
use sc_consensus_manual_seal::{
    import_queue, run_delayed_finalize, run_manual_seal, DelayedFinalizeParams, EngineCommand,
    ManualSealParams,
};
use sc_executor::WasmExecutor;
use sc_network::{config::FullNetworkConfiguration, NetworkBackend};
use sc_service::{error::Error as ServiceError, Configuration, PartialComponents, TaskManager};
use sc_telemetry::{Telemetry, TelemetryWorker};
use sc_transaction_pool::TransactionPoolHandle;
use sc_transaction_pool_api::TransactionPool;

use crate::{cli::Consensus, rpc};

pub(crate) type FullClient =
    sc_service::TFullClient<Block, RuntimeApi, WasmExecutor<sp_io::SubstrateHostFunctions>>;
type FullBackend = sc_service::TFullBackend<Block>;
type FullSelectChain = LongestChain<FullBackend, Block>;
type FullPool = TransactionPoolHandle<Block, FullClient>;

/// The parts of a node that work on its database.
pub(crate) type Parts = PartialComponents<
    FullClient,
    FullBackend,
    FullSelectChain,
    DefaultImportQueue<Block>,
    FullPool,
    Option<Telemetry>,
>;

/// The smallest step between two blocks' timestamps that the runtime accepts, milliseconds.
const MINIMUM_PERIOD_MS: u64 = 5;
/// How often instant seal looks for extrinsics that did not fit into the block that they caused.
const LEFTOVERS_PERIOD: Duration = Duration::from_millis(500);
/// Seal commands that may wait.
const SEAL_QUEUE: usize = 1024;

/// Opens the database and builds client, pool and import queue.
pub(crate) fn new_partial(config: &Configuration) -> Result<Parts, ServiceError> {
    let telemetry = config
        .telemetry_endpoints
        .clone()
        .filter(|endpoints| !endpoints.is_empty())
        .map(|endpoints| -> Result<_, sc_telemetry::Error> {
            let worker = TelemetryWorker::new(16)?;
            let telemetry = worker.handle().new_telemetry(endpoints);
            Ok((worker, telemetry))
        })
        .transpose()?;
    let executor = sc_service::new_wasm_executor(&config.executor);
    let (client, backend, keystore_container, task_manager) =
        sc_service::new_full_parts::<Block, RuntimeApi, _>(
            config,
            telemetry.as_ref().map(|(_, telemetry)| telemetry.handle()),
            executor,
            vec![],
        )?;
    let client = Arc::new(client);
    let telemetry = telemetry.map(|(worker, telemetry)| {
        task_manager.spawn_handle().spawn("telemetry", None, worker.run());
        telemetry
    });
    let select_chain = LongestChain::new(backend.clone());
    let transaction_pool = Arc::new(
        sc_transaction_pool::Builder::new(
            task_manager.spawn_essential_handle(),
            client.clone(),
            config.role.is_authority().into(),
        )
        .with_options(config.transaction_pool.clone())
        .with_prometheus(config.prometheus_registry())
        .build(),
    );
    let import_queue = import_queue(
        Box::new(client.clone()),
        &task_manager.spawn_essential_handle(),
        config.prometheus_registry(),
    );
    Ok(PartialComponents {
        client,
        backend,
        task_manager,
        import_queue,
        keystore_container,
        select_chain,
        transaction_pool,
        other: telemetry,
    })
}

/// Starts the node: RPC, sealing, and finality `finalize_delay_s` seconds behind.
pub(crate) fn new_full<Network: NetworkBackend<Block, Hash>>(
    config: Configuration,
    consensus: Consensus,
    finalize_delay_s: u64,
) -> Result<TaskManager, ServiceError> {
    let PartialComponents {
        client,
        backend,
        mut task_manager,
        import_queue,
        keystore_container,
        select_chain,
        transaction_pool,
        other: mut telemetry,
    } = new_partial(&config)?;

    let registry = config.prometheus_registry().cloned();
    let net_config = FullNetworkConfiguration::<Block, Hash, Network>::new(&config.network, registry.clone());
    let metrics = Network::register_notification_metrics(registry.as_ref());
    let (network, system_rpc_tx, tx_handler_controller, sync_service, _bitswap) =
        sc_service::build_network(sc_service::BuildNetworkParams {
            config: &config,
            net_config,
            client: client.clone(),
            transaction_pool: transaction_pool.clone(),
            spawn_handle: task_manager.spawn_handle(),
            spawn_essential_handle: task_manager.spawn_essential_handle(),
            import_queue,
            block_announce_validator_builder: None,
            warp_sync_config: None,
            block_relay: None,
            metrics,
            gap_sync_body_policy: None,
        })?;

    let (seal, by_hand) = mpsc::channel(SEAL_QUEUE);
    let rpc_builder = {
        let (client, pool) = (client.clone(), transaction_pool.clone());
        Box::new(move |_| rpc::module(client.clone(), pool.clone(), seal.clone()))
    };
    sc_service::spawn_tasks(sc_service::SpawnTasksParams {
        network,
        client: client.clone(),
        keystore: keystore_container.keystore(),
        task_manager: &mut task_manager,
        transaction_pool: transaction_pool.clone(),
        rpc_builder,
        backend,
        system_rpc_tx,
        tx_handler_controller,
        sync_service,
        config,
        telemetry: telemetry.as_mut(),
        tracing_execute_block: None,
    })?;

    let proposer = ProposerFactory::new(
        task_manager.spawn_handle(),
        client.clone(),
        transaction_pool.clone(),
        registry.as_ref(),
        telemetry.as_ref().map(Telemetry::handle),
    );
    let clock = Arc::new(AtomicU64::new(0));
    let authorship = run_manual_seal(ManualSealParams {
        block_import: client.clone(),
        env: proposer,
        client: client.clone(),
        pool: transaction_pool.clone(),
        commands_stream: Box::pin(stream::select(by_hand, seal_commands(consensus, transaction_pool))),
        select_chain,
        consensus_data_provider: None,
        create_inherent_data_providers: move |_, ()| {
            let timestamp = next_timestamp(&clock);
            async move { Ok(sp_timestamp::InherentDataProvider::new(timestamp)) }
        },
    });
    task_manager.spawn_essential_handle().spawn_blocking("manual-seal", None, authorship);
    task_manager.spawn_essential_handle().spawn_blocking(
        "delayed-finalize",
        None,
        run_delayed_finalize(DelayedFinalizeParams {
            client,
            spawn_handle: task_manager.spawn_handle(),
            delay_sec: finalize_delay_s,
        }),
    );
    Ok(task_manager)
}

/// The wall clock, but at least one period after the last block: bursts of extrinsics seal faster than the clock ticks.
fn next_timestamp(last: &AtomicU64) -> sp_timestamp::Timestamp {
    let now = sp_timestamp::Timestamp::current().as_millis();
    let mut next = now;
    // Only the authorship task calls this; the atomic is for the closure's sake.
    let _ = last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
        next = now.max(last + MINIMUM_PERIOD_MS);
        Some(next)
    });
    sp_timestamp::Timestamp::new(next)
}

/// When to seal, apart from the RPC.
fn seal_commands(
    consensus: Consensus,
    pool: Arc<FullPool>,
) -> Box<dyn Stream<Item = EngineCommand<Hash>> + Send + Unpin> {
    let seal = || EngineCommand::SealNewBlock {
        create_empty: true,
        finalize: false,
        parent_hash: None,
        sender: None,
    };
    match consensus {
        Consensus::InstantSeal => {
            let arrivals = pool.import_notification_stream().map(|_| ());
            let commands = stream::select(arrivals, ticks(LEFTOVERS_PERIOD)).filter_map(move |()| {
                // The extrinsic may be in a block already, together with one that arrived before it.
                future::ready((pool.status().ready > 0).then(seal))
            });
            Box::new(Box::pin(commands))
        }
        Consensus::ManualSeal(period_ms) => {
            Box::new(Box::pin(ticks(Duration::from_millis(period_ms)).map(move |()| seal())))
        }
        Consensus::None => Box::new(stream::pending()),
    }
}

fn ticks(period: Duration) -> impl Stream<Item = ()> + Send {
    stream::unfold((), move |()| async move {
        tokio::time::sleep(period).await;
        Some(((), ()))
    })
}
