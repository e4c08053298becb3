//! A sandbox that many clients share.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc, Weak,
    },
    time::{Duration, Instant},
};

use jsonrpsee::{types::ErrorObjectOwned, Methods};
use parking_lot::Mutex;
use subxt_rpcs::RpcClient;
use tokio::sync::{broadcast, watch};

use crate::{
    chain::{BlockInfo, ChainEvent, Sandbox, Snapshot},
    client::SandboxRpc,
    config::{Finality, SandboxConfig, Sealing},
    rpc, SandboxError,
};

/// Heads that a subscriber may fall behind by before it misses some, as with a real node.
const HEAD_BUFFER: usize = 4096;
/// How often delayed finality and interval sealing look at the clock.
const TICK: Duration = Duration::from_millis(10);

/// State shared between the handles, the RPC and the clock thread.
pub(crate) struct Shared {
    sandbox: Mutex<Sandbox>,
    heads: broadcast::Sender<ChainEvent>,
    /// Counts up when all subscriptions are to end.
    generation: watch::Sender<u64>,
    /// RPC methods that are to fail, and how often.
    failures: Mutex<HashMap<String, u32>>,
    /// Which share of all calls is to be refused.
    refusals: Mutex<Option<Refusals>>,
    /// Whether the chain plays dead to in-process clients.
    offline: AtomicBool,
}

/// A node that refuses some of its calls, as one with a rate limit does.
struct Refusals {
    every: u32,
    /// Calls since the last refusal.
    calls: u32,
    refused: u64,
    answer: ErrorObjectOwned,
}

impl Shared {
    /// How this call is to be refused, if it is.
    pub(crate) fn refusal(&self) -> Option<ErrorObjectOwned> {
        let mut refusals = self.refusals.lock();
        let refusals = refusals.as_mut()?;
        refusals.calls += 1;
        if refusals.calls < refusals.every {
            return None;
        }
        refusals.calls = 0;
        refusals.refused += 1;
        Some(refusals.answer.clone())
    }

    /// Runs `f` on the chain and tells subscribers what it did.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Sandbox) -> R) -> R {
        let mut sandbox = self.sandbox.lock();
        let result = f(&mut sandbox);
        // Under the lock, so that heads go out in the order in which they came to be.
        for event in sandbox.take_events() {
            // No receiver is no error: nobody has subscribed.
            let _ = self.heads.send(event);
        }
        result
    }

    /// Runs `f` on the chain and returns its result with a channel of all that comes after.
    pub(crate) fn with_heads<R>(
        &self,
        f: impl FnOnce(&mut Sandbox) -> R,
    ) -> (R, broadcast::Receiver<ChainEvent>) {
        let mut sandbox = self.sandbox.lock();
        let receiver = self.heads.subscribe();
        (f(&mut sandbox), receiver)
    }

    /// Changes when all live subscriptions are to end.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::SeqCst)
    }

    /// Whether this call of `method` is to fail.
    pub(crate) fn take_failure(&self, method: &str) -> bool {
        let mut failures = self.failures.lock();
        match failures.get_mut(method) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

/// A chain in this process that subxt clients, tests and a websocket can use at the same time. Clones are handles to the
/// same chain, which lives as long as a handle or a client does.
#[derive(Clone)]
pub struct SandboxNode {
    shared: Arc<Shared>,
    methods: Methods,
}

impl std::fmt::Debug for SandboxNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SandboxNode").field(&self.best()).finish()
    }
}

impl SandboxNode {
    /// Starts a chain. A thread of its own keeps time where the settings need one.
    pub fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        Self::from_sandbox(Sandbox::with_config(config)?)
    }

    /// Shares a chain that exists already.
    pub fn from_sandbox(sandbox: Sandbox) -> Result<Self, SandboxError> {
        let (sealing, finality) = (sandbox.config().sealing, sandbox.config().finality);
        let shared = Arc::new(Shared {
            sandbox: Mutex::new(sandbox),
            heads: broadcast::channel(HEAD_BUFFER).0,
            generation: watch::channel(0).0,
            failures: Mutex::default(),
            refusals: Mutex::default(),
            offline: AtomicBool::new(false),
        });
        if matches!(sealing, Sealing::Interval(_)) || matches!(finality, Finality::Delay(_)) {
            let weak = Arc::downgrade(&shared);
            std::thread::Builder::new()
                .name("poq-sandbox-clock".to_owned())
                .spawn(move || keep_time(&weak, sealing, finality))
                .map_err(SandboxError::Thread)?;
        }
        let methods = rpc::module(shared.clone())?;
        Ok(Self { shared, methods })
    }

    /// A client for subxt that talks to this chain without a socket:
    /// `OnlineClient::<PolkadotConfig>::from_rpc_client(node.rpc_client()).await?`. Must be used inside a tokio runtime.
    pub fn rpc_client(&self) -> RpcClient {
        RpcClient::new(SandboxRpc::new(self.shared.clone(), self.methods.clone()))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(crate) fn methods(&self) -> Methods {
        self.methods.clone()
    }

    /// Runs `f` on the chain; nobody else can use it meanwhile. Subscribers are told of new blocks afterwards.
    pub fn with<R>(&self, f: impl FnOnce(&mut Sandbox) -> R) -> R {
        self.shared.with(f)
    }

    /// The newest block.
    pub fn best(&self) -> BlockInfo {
        self.with(|sandbox| sandbox.best())
    }

    /// The newest final block.
    pub fn finalized(&self) -> BlockInfo {
        self.with(|sandbox| sandbox.finalized())
    }

    /// The best block's timestamp, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.with(|sandbox| sandbox.now_ms())
    }

    /// Moves the clock forward by `ms` and seals a block that carries the new time, so that clients see it.
    pub fn advance_ms(&self, ms: u64) -> Result<BlockInfo, SandboxError> {
        self.with(|sandbox| {
            sandbox.advance_ms(ms);
            sandbox.new_block()
        })
    }

    /// Moves the clock to `timestamp_ms` and seals a block that carries it. If the best block has that time already, it is
    /// returned and nothing is sealed.
    pub fn advance_to_ms(&self, timestamp_ms: u64) -> Result<BlockInfo, SandboxError> {
        self.with(|sandbox| {
            let best = sandbox.best();
            if best.number > 0 && best.timestamp_ms >= timestamp_ms {
                return Ok(best);
            }
            sandbox.advance_to_ms(timestamp_ms);
            sandbox.new_block()
        })
    }

    /// Seals a block.
    pub fn new_block(&self) -> Result<BlockInfo, SandboxError> {
        self.with(Sandbox::new_block)
    }

    /// A point to come back to.
    pub fn snapshot(&self) -> Snapshot {
        self.with(|sandbox| sandbox.snapshot())
    }

    /// Goes back to `snapshot`. Clients see the best block change to an older one.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.with(|sandbox| sandbox.restore(snapshot));
    }

    /// Ends every live subscription, as a lost connection does.
    pub fn drop_subscriptions(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Cuts all in-process clients off (`true`), or lets them through again: requests fail as they do when a node cannot be
    /// reached, and going offline ends every live subscription. Websocket clients are not affected.
    pub fn set_offline(&self, offline: bool) {
        self.shared.offline.store(offline, Ordering::SeqCst);
        if offline {
            self.drop_subscriptions();
        }
    }

    /// Refuses each `every`th call of any RPC method, of in-process and websocket clients alike, with this code and message; 1
    /// refuses all, 0 none any more. Says how many have been refused by the setting before.
    pub fn refuse_every(&self, every: u32, code: i32, message: &str) -> u64 {
        let refusals = (every > 0).then(|| Refusals {
            every,
            calls: 0,
            refused: 0,
            answer: ErrorObjectOwned::owned(code, message, None::<()>),
        });
        let before = std::mem::replace(&mut *self.shared.refusals.lock(), refusals);
        before.map_or(0, |before| before.refused)
    }

    /// Makes the next `times` calls of the RPC method `method` by in-process clients fail with an internal error.
    pub fn fail_next(&self, method: &str, times: u32) {
        self.shared.failures.lock().insert(method.to_owned(), times);
    }
}

/// Seals and finalises by the wall clock, until the chain is gone.
fn keep_time(shared: &Weak<Shared>, sealing: Sealing, finality: Finality) {
    let mut sealed = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let Some(shared) = shared.upgrade() else { return };
        let now = Instant::now();
        if let Sealing::Interval(interval) = sealing {
            if now.duration_since(sealed) >= interval {
                sealed = now;
                if let Err(error) = shared.with(Sandbox::new_block) {
                    tracing::error!(%error, "the sandbox could not seal a block");
                }
            }
        }
        if let Finality::Delay(delay) = finality {
            shared.with(|sandbox| sandbox.finalize_older_than(now, delay));
        }
    }
}
