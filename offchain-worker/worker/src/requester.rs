//! The requester's side of a task: shows the secret and the openings so that a panel is drawn, relays the panel's reveals, fetches
//! the outputs when they may be had.
//!
//! ```no_run
//! # async fn example(submitter: poq_chain::Submitter, request: poq_chain::types::Request) -> poq_worker::Result<()> {
//! use poq_chain::messages;
//! use poq_worker::{Requester, RequesterOptions};
//!
//! let requester = Requester::new(submitter.clone(), RequesterOptions::default()).await?;
//! let task = submitter.send(messages::request_task(requester.sealed(request))).await?.value;
//! let seen = requester.see_through(&[task], |task, progress| println!("{task}: {progress:?}")).await?;
//! requester.collect(vec![task]).await?;
//! # Ok(()) }
//! ```
//!
//! Nothing has to be remembered between the request and the draw: the secret is derived from the key and the reference commitment
//! that is in the task's record. So it can be stopped at any time and started again anywhere. What it must not be is late: a task
//! whose panel is not drawn by its deadline pays everybody who delivered, and tells nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use poq_blobs::{BlobClient, FetchError};
use poq_chain::types::{
    Balance, Draw, Ending, Hash, Millis, NodeId, Opened, OutputSlot, OutputState, Phase, Request, Reveal,
    Seat, SeatState, Step, Task, TaskId, TaskView, MAX_BATCH,
};
use poq_chain::{messages, to_account32, Client, Network, Receipt, Submitter, View};

use crate::config::TimeSource;
use crate::duty::{closed, sealed};
use crate::error::{Error, Result};
use crate::services::fetch;
pub use crate::services::fetch::inline_input;
use crate::time::ChainClock;

/// How often tasks are looked at where no block is announced.
const LOOK: Duration = Duration::from_secs(1);
/// How long one node may take to answer: one that does not must not hold up the others.
const FETCH: Duration = Duration::from_secs(8);
/// The first pause before something that failed is tried again; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Several attempts must fit the half minute that is the least time for a draw.
const MAX_PAUSE: Duration = Duration::from_secs(4);
/// How long reveals of all the panel are waited for before those that are there are sent.
const WHOLE_PANEL: Duration = Duration::from_secs(5);

/// What a requester does, and how patiently.
#[derive(Clone, Debug, PartialEq)]
pub struct RequesterOptions {
    /// Whether nodes at addresses that are not on the public internet are asked.
    pub allow_private: bool,
    /// The largest output that is fetched, in bytes.
    pub max_blob_bytes: u64,
    /// Whether outputs are fetched.
    pub outputs: bool,
    /// Whether the panel's reveals are collected and sent in one transaction, which settles the task: as soon as they are there,
    /// instead of when the evaluators send them one after the other.
    pub relay: bool,
    /// How long outputs are asked for after a task's end.
    pub patience: Duration,
    /// What tells the time.
    pub time: TimeSource,
}

impl Default for RequesterOptions {
    fn default() -> Self {
        RequesterOptions {
            allow_private: true,
            max_blob_bytes: 256 * 1024,
            outputs: true,
            relay: true,
            patience: Duration::from_secs(120),
            time: TimeSource::System,
        }
    }
}

/// What there is to tell of a task, each once.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// No output can be committed to any more.
    Sealed {
        /// How many there are.
        delivered: usize,
        /// How many nodes declined.
        declined: usize,
    },
    /// There is a panel; again when empty seats were filled.
    Drawn {
        /// Its nodes.
        panel: Vec<NodeId>,
    },
    /// Too few evaluators could be drawn; it is tried again until the deadline.
    Short,
    /// The scores are committed.
    Committed,
    /// An output is there.
    Output {
        /// Whose.
        node: NodeId,
        /// It.
        bytes: Bytes,
    },
    /// It is over.
    Ended {
        /// How.
        ending: Ending,
    },
    /// Something fails that is tried again.
    Waiting {
        /// What, and why.
        why: String,
    },
}

/// A task that has been seen through.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number.
    pub task: TaskId,
    /// Its final state; `None` where somebody has collected it.
    pub view: Option<TaskView>,
    /// Its outputs, in the task's order; `None` for one that is not to be had.
    pub outputs: Vec<Option<Bytes>>,
}

/// What came of trying to draw a task's panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// It is drawn.
    Drawn,
    /// Too few evaluators could be drawn now.
    Short,
    /// It cannot be drawn now, and why.
    NotYet(String),
    /// It is no longer to be drawn.
    Over,
}

/// Random bytes for the `reference_commitment` of a request without a reference answer: nobody can tell them from a commitment.
pub fn random_commitment() -> Hash {
    rand::random()
}

/// A requester.
pub struct Requester {
    submitter: Submitter,
    network: Network,
    fetcher: BlobClient,
    clock: ChainClock,
    options: RequesterOptions,
}

impl Requester {
    /// With the key that requests.
    ///
    /// # Errors
    /// Where the contract cannot be asked which network it is of, or is of another chain.
    pub async fn new(submitter: Submitter, options: RequesterOptions) -> Result<Requester> {
        let client = submitter.client();
        let network = client.network().await?;
        let fetcher =
            fetch::client(&network, submitter.keys(), options.max_blob_bytes, options.allow_private)?;
        let clock = ChainClock::new(options.time, client.clone());
        Ok(Requester { network, fetcher, clock, options, submitter })
    }

    fn client(&self) -> &Client {
        self.submitter.client()
    }

    /// A request with the hash of this key's secret in it; and with a random reference commitment where it has none (all zero).
    pub fn sealed(&self, mut request: Request) -> Request {
        if request.reference_commitment == [0; 32] {
            request.reference_commitment = random_commitment();
        }
        request.secret_hash =
            self.network.secret(&self.submitter.account(), &self.secret(&request.reference_commitment));
        request
    }

    fn secret(&self, reference_commitment: &Hash) -> Hash {
        self.submitter.keys().request_secret(&self.network, reference_commitment)
    }

    /// Collects what is over: what was not spent comes back. Returns how much.
    ///
    /// # Errors
    /// As of every message.
    pub async fn collect(&self, tasks: Vec<TaskId>) -> Result<Receipt<Balance>> {
        Ok(self.submitter.send(messages::collect(tasks)).await?)
    }

    /// Tries once to draw the panels of tasks, in one transaction.
    ///
    /// # Errors
    /// Where the chain cannot be asked or the transaction fails.
    pub async fn draw(&self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Drawing)>> {
        let view = self.client().view().await?;
        let mut found = Vec::new();
        for id in tasks {
            found.push((*id, view.task(*id).await?));
        }
        let mut outcome = Vec::new();
        let mut draws = Vec::new();
        for (id, task) in found {
            match task {
                None => outcome.push((id, Drawing::Over)),
                Some(task) => match self.prepare(&view, &task, &BTreeMap::new()).await {
                    Ok((draw, _)) => draws.push(draw),
                    Err(drawing) => outcome.push((id, drawing)),
                },
            }
        }
        outcome.extend(self.send_draws(draws).await?);
        Ok(outcome)
    }

    /// What it takes to draw a task's panel now, or why that cannot be done. `known` are openings from earlier attempts; all
    /// that were fetched now are returned with it.
    async fn prepare(
        &self,
        view: &View,
        found: &TaskView,
        known: &BTreeMap<NodeId, Opened>,
    ) -> std::result::Result<(Draw, BTreeMap<NodeId, Opened>), Drawing> {
        let task = &found.task;
        let now = self.clock.now().max(view.block().timestamp_ms);
        let Step::Draw { until } = task.clock().step(now) else {
            return Err(match task.clock().at(now).0 {
                Phase::Inferring => Drawing::NotYet("the outputs are not sealed yet".into()),
                _ => Drawing::Over,
            });
        };
        // Shown before the seal is final, the secret could be used to choose another output after a reorganisation. That is the
        // lesser evil where the chain's finality stands still: without a draw the whole fee is lost.
        let hurry = now.saturating_add(task.terms.draw_ms / 8) >= until;
        let is_final = sealed(task, now).is_some_and(|closing| closing.is_final(self.clock.final_time()));
        if !is_final && !hurry {
            return Err(Drawing::NotYet("the block that sealed the outputs is not final yet".into()));
        }
        let secret = self.secret(&task.reference_commitment);
        let account = self.submitter.account();
        if to_account32(&task.requester) != account
            || self.network.secret(&account, &secret) != task.secret_hash
        {
            return Err(Drawing::NotYet(format!(
                "the secret of task {} is not this key's: it was requested with another key, or another program derived it",
                found.id
            )));
        }
        let mut openings = known.clone();
        let missing =
            |slot: &&OutputSlot| slot.state == OutputState::Committed && !known.contains_key(&slot.node);
        let fetched = task.outputs.iter().filter(missing).map(|slot| async move {
            let fetch = async {
                let endpoint = fetch::endpoint(view, slot.node).await?;
                self.fetcher.fetch_opening(&endpoint, found.id, slot.node, &slot.commitment).await
            };
            (slot.node, in_time(fetch).await)
        });
        let mut why = Vec::new();
        for (node, opened) in join_all(fetched).await {
            match opened {
                Ok(opened) => drop(openings.insert(node, opened)),
                Err(error) => why.push(format!("node {node} does not open its output: {error}")),
            }
        }
        if !why.is_empty() {
            return Err(Drawing::NotYet(why.join("; ")));
        }
        let of = |slot: &OutputSlot| match slot.state {
            OutputState::Committed => openings.get(&slot.node).copied(),
            _ => None,
        };
        let draw = Draw { task: found.id, secret, openings: task.outputs.iter().map(of).collect() };
        Ok((draw, openings))
    }

    /// Sends what a dry run does not refuse. One that is too early for the present block waits for the next.
    async fn send_draws(&self, draws: Vec<Draw>) -> Result<Vec<(TaskId, Drawing)>> {
        let mut outcome = Vec::new();
        let mut good = draws;
        if good.len() > 1 {
            let dry = match self.submitter.dry_run(&messages::draw_panels(good.clone())).await {
                Ok(dry) => dry.value,
                Err(error) if error.rejection().is_some() => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let mut dry = dry.into_iter();
            good.retain(|draw| match dry.next() {
                Some(Err(error)) => {
                    outcome.push((draw.task, Drawing::NotYet(error.to_string())));
                    false
                }
                _ => true,
            });
        }
        for chunk in good.chunks(MAX_BATCH) {
            match self.submitter.send(messages::draw_panels(chunk.to_vec())).await {
                Ok(receipt) => {
                    for (draw, told) in chunk.iter().zip(receipt.value) {
                        let drawing = match told {
                            Ok(true) => Drawing::Drawn,
                            Ok(false) => Drawing::Short,
                            Err(error) => Drawing::NotYet(error.to_string()),
                        };
                        outcome.push((draw.task, drawing));
                    }
                }
                Err(error) if error.rejection().is_some() => {
                    let why = error.to_string();
                    outcome.extend(chunk.iter().map(|draw| (draw.task, Drawing::NotYet(why.clone()))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(outcome)
    }

    /// Sees tasks through to their end: draws their panels, relays their reveals, fetches their outputs. `told` hears what
    /// happens. Returns when all are over, in the order of `tasks`; whoever cannot wait that long drops the future.
    ///
    /// # Errors
    /// What cannot get better by waiting: a contract of another chain, say. All else is told as [`Progress::Waiting`] and tried again.
    pub async fn see_through(
        &self,
        tasks: &[TaskId],
        mut told: impl FnMut(TaskId, Progress),
    ) -> Result<Vec<Seen>> {
        let mut followed: BTreeMap<TaskId, Followed> = BTreeMap::new();
        for task in tasks {
            followed.entry(*task).or_insert_with(|| Followed::new(*task));
        }
        let (mut best, mut finalized) = (self.client().best_watch(), self.client().finalized_watch());
        loop {
            if let Err(error) = self.round(&mut followed, &mut told).await {
                match error {
                    Error::Chain(error) if !is_hopeless(&error) => {
                        let why = error.to_string();
                        for task in followed.values_mut().filter(|task| !task.is_over()) {
                            task.wait(why.clone(), &mut told);
                        }
                    }
                    error => return Err(error),
                }
            }
            if followed.values().all(Followed::is_over) {
                break;
            }
            tokio::select! {
                _ = best.changed() => {}
                _ = finalized.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(tasks.iter().filter_map(|task| followed.get(task)).map(Followed::seen).collect())
    }

    async fn round(
        &self,
        followed: &mut BTreeMap<TaskId, Followed>,
        told: &mut impl FnMut(TaskId, Progress),
    ) -> Result<()> {
        let view = self.client().view().await?;
        let mut time = Time {
            block: view.block().timestamp_ms,
            now: self.clock.now().max(view.block().timestamp_ms),
            nudge: false,
        };
        let (mut draws, mut reveals, mut overdue) = (Vec::new(), Vec::new(), Vec::new());
        for task in followed.values_mut().filter(|task| !task.is_over()) {
            let Some(found) = view.task(task.id).await? else {
                task.gone = true;
                continue;
            };
            task.look(&found, &time, told);
            match found.task.clock().at(time.block).0 {
                Phase::Inferring => time.nudge |= time.now > found.task.deadline,
                Phase::Drawing if task.may_try() => {
                    draws.extend(self.draw_of(&view, &found, task, told).await);
                }
                Phase::Revealing if self.options.relay && task.may_try() => {
                    reveals.extend(self.reveals_of(&view, &found, task).await);
                }
                _ => {}
            }
            if is_overdue(&found.task, time.now) && task.may_try() {
                overdue.push(task.id);
            }
            if self.options.outputs {
                self.outputs_of(&view, &found, task, &time, told).await;
            }
            task.view = Some(found);
            if task.ended.is_some_and(|ended| ended.elapsed() >= self.options.patience) {
                task.done = true;
            }
        }
        if time.nudge && self.client().chain().seals_on_demand {
            // A deadline seals the outputs, and on such a chain nobody else may make the block that says so.
            self.submitter.next_block().await?;
        }
        self.act(followed, draws, reveals, overdue, told).await
    }

    /// Sends what a round has found.
    async fn act(
        &self,
        followed: &mut BTreeMap<TaskId, Followed>,
        draws: Vec<Draw>,
        reveals: Vec<Reveal>,
        overdue: Vec<TaskId>,
        told: &mut impl FnMut(TaskId, Progress),
    ) -> Result<()> {
        if !draws.is_empty() {
            for draw in &draws {
                // A failure of the transaction is one of each.
                followed.entry(draw.task).and_modify(Followed::failed);
            }
            for (id, drawing) in self.send_draws(draws).await? {
                let Some(task) = followed.get_mut(&id) else { continue };
                match drawing {
                    Drawing::Drawn | Drawing::Over => task.succeeded(),
                    Drawing::Short => {}
                    Drawing::NotYet(why) => task.wait(why, told),
                }
            }
        }
        if !reveals.is_empty() {
            let sent: BTreeSet<TaskId> = reveals.iter().map(|reveal| reveal.task).collect();
            for task in &sent {
                followed.entry(*task).and_modify(Followed::failed);
            }
            for chunk in reveals.chunks(MAX_BATCH) {
                match self.submitter.send(messages::reveal_scores(chunk.to_vec())).await {
                    Ok(receipt) => {
                        tracing::debug!(items = chunk.len(), block = receipt.block.number, "relayed")
                    }
                    // Somebody else was first, most likely: the next look tells.
                    Err(error) if error.rejection().is_some() => tracing::debug!(%error, "not relayed"),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for chunk in overdue.chunks(MAX_BATCH) {
            for task in chunk {
                followed.entry(*task).and_modify(Followed::failed);
            }
            match self.submitter.send(messages::advance(chunk.to_vec())).await {
                Ok(receipt) => {
                    tracing::info!(tasks = ?chunk, block = receipt.block.number, "no keeper had moved them on")
                }
                Err(error) if error.rejection().is_some() => tracing::debug!(%error, "not moved on"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn draw_of(
        &self,
        view: &View,
        found: &TaskView,
        task: &mut Followed,
        told: &mut impl FnMut(TaskId, Progress),
    ) -> Option<Draw> {
        match self.prepare(view, found, &task.openings).await {
            Ok((draw, openings)) => {
                task.openings = openings;
                if found.task.short && !self.would_draw(&draw).await {
                    // The secret is shown: only a panel is worth another transaction.
                    task.failed();
                    return None;
                }
                Some(draw)
            }
            Err(Drawing::NotYet(why)) => {
                task.failed();
                task.wait(why, told);
                None
            }
            Err(_) => None,
        }
    }

    async fn would_draw(&self, draw: &Draw) -> bool {
        let dry = self.submitter.dry_run(&messages::draw_panel(draw.clone())).await;
        dry.is_ok_and(|dry| dry.value)
    }

    /// The panel's reveals: once all are there, or some for long enough.
    async fn reveals_of(&self, view: &View, found: &TaskView, task: &mut Followed) -> Vec<Reveal> {
        let now = self.clock.now().max(view.block().timestamp_ms);
        let is_final =
            closed(&found.task, now).is_some_and(|closing| closing.is_final(self.clock.final_time()));
        let missing: Vec<&Seat> = found
            .task
            .panel
            .iter()
            .filter(|seat| seat.state == SeatState::Committed && seat.node != 0)
            .collect();
        if missing.is_empty() || !is_final {
            return Vec::new();
        }
        let since = *task.revealing.get_or_insert_with(Instant::now);
        let fetched =
            missing.iter().filter(|seat| !task.reveals.contains_key(&seat.node)).map(|seat| async move {
                let fetch = async {
                    let endpoint = fetch::endpoint(view, seat.node).await?;
                    self.fetcher.fetch_reveal(&endpoint, found.id, seat.node, &seat.commitment).await
                };
                (seat.node, in_time(fetch).await)
            });
        let fetched = join_all(fetched).await;
        for (node, reveal) in fetched {
            match reveal {
                Ok(reveal) => drop(task.reveals.insert(node, reveal)),
                Err(error) => tracing::debug!(task = found.id, node, %error, "its reveal is not served"),
            }
        }
        let reveals: Vec<Reveal> =
            missing.iter().filter_map(|seat| task.reveals.get(&seat.node).cloned()).collect();
        if reveals.len() < missing.len() && since.elapsed() < WHOLE_PANEL {
            return Vec::new();
        }
        reveals
    }

    async fn outputs_of(
        &self,
        view: &View,
        found: &TaskView,
        followed: &mut Followed,
        time: &Time,
        told: &mut impl FnMut(TaskId, Progress),
    ) {
        let task = &found.task;
        let (phase, _) = task.clock().at(time.block);
        let served = match phase {
            Phase::Inferring | Phase::Drawing => false,
            Phase::Scoring => task.early,
            Phase::Revealing | Phase::Settled | Phase::Refunded => true,
        };
        let missing = |slot: &&OutputSlot| {
            slot.state == OutputState::Opened && !followed.outputs.contains_key(&slot.node)
        };
        if !served || followed.fetch_after.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let fetched = task.outputs.iter().filter(missing).map(|slot| async move {
            let fetch = async {
                let endpoint = fetch::endpoint(view, slot.node).await?;
                self.fetcher.fetch_output(&endpoint, found.id, slot.node, &slot.hash).await
            };
            (slot.node, in_time(fetch).await)
        });
        for (node, output) in join_all(fetched).await {
            match output {
                Ok(bytes) => {
                    followed.outputs.insert(node, bytes.clone());
                    told(found.id, Progress::Output { node, bytes });
                }
                Err(error) => {
                    followed.fetch_after = Some(Instant::now() + LOOK);
                    followed.wait(format!("the output of node {node} cannot be had: {error}"), told);
                }
            }
        }
        let rest = task
            .outputs
            .iter()
            .any(|slot| slot.state == OutputState::Opened && !followed.outputs.contains_key(&slot.node));
        followed.done = phase.is_final() && !rest;
    }
}

/// Whether waiting cannot help: this is another chain, or another contract. A node's refusals, and an account that lacks money, can
/// be mended while this waits.
fn is_hopeless(error: &poq_chain::Error) -> bool {
    use poq_chain::Error as E;
    matches!(
        error,
        E::NoContract
            | E::ContractAbsent { .. }
            | E::NotOurContract { .. }
            | E::WrongNetwork { .. }
            | E::WrongChain { .. }
    )
}

/// Whether nobody else moves a task on whose step is due.
fn is_overdue(task: &Task, now: Millis) -> bool {
    let clock = task.clock();
    matches!(clock.step(now), Step::Fill | Step::Settle | Step::End(_))
        && now.saturating_sub(clock.due_since(now)) > task.terms.draw_ms / 2
}

async fn in_time<T>(
    fetch: impl std::future::Future<Output = std::result::Result<T, FetchError>>,
) -> std::result::Result<T, String> {
    match tokio::time::timeout(FETCH, fetch).await {
        Ok(fetched) => fetched.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", FETCH.as_secs())),
    }
}

/// The times of a round.
struct Time {
    /// Of the block that is looked at.
    block: Millis,
    /// Now.
    now: Millis,
    /// Whether a block is needed that nobody may make.
    nudge: bool,
}

/// A task that is seen through.
struct Followed {
    id: TaskId,
    view: Option<TaskView>,
    gone: bool,
    /// When it was first seen to be over.
    ended: Option<Instant>,
    done: bool,
    sealed: bool,
    panel: Vec<NodeId>,
    short: bool,
    committed: bool,
    openings: BTreeMap<NodeId, Opened>,
    reveals: BTreeMap<NodeId, Reveal>,
    revealing: Option<Instant>,
    outputs: BTreeMap<NodeId, Bytes>,
    fetch_after: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    waiting: HashSet<String>,
}

impl Followed {
    fn new(id: TaskId) -> Followed {
        Followed {
            id,
            view: None,
            gone: false,
            ended: None,
            done: false,
            sealed: false,
            panel: Vec::new(),
            short: false,
            committed: false,
            openings: BTreeMap::new(),
            reveals: BTreeMap::new(),
            revealing: None,
            outputs: BTreeMap::new(),
            fetch_after: None,
            failures: 0,
            not_before: None,
            waiting: HashSet::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.gone || self.done
    }

    fn may_try(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(8)).min(MAX_PAUSE);
        self.not_before = Some(Instant::now() + pause);
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// Tells why it does not go on, each reason once.
    fn wait(&mut self, why: String, told: &mut impl FnMut(TaskId, Progress)) {
        if self.waiting.insert(why.clone()) {
            told(self.id, Progress::Waiting { why });
        }
    }

    /// Tells what is new.
    fn look(&mut self, found: &TaskView, time: &Time, told: &mut impl FnMut(TaskId, Progress)) {
        let task = &found.task;
        let clock = task.clock();
        let (phase, _) = clock.at(time.block);
        if phase != Phase::Inferring && !self.sealed {
            self.sealed = true;
            self.succeeded();
            let (delivered, declined) = (usize::from(clock.delivered), usize::from(clock.declined));
            told(self.id, Progress::Sealed { delivered, declined });
        }
        if task.short && phase == Phase::Drawing && !self.short {
            self.short = true;
            told(self.id, Progress::Short);
        }
        let panel: Vec<NodeId> = task.panel.iter().map(|seat| seat.node).filter(|node| *node != 0).collect();
        if !panel.is_empty() && panel != self.panel && !matches!(phase, Phase::Refunded | Phase::Settled) {
            self.panel.clone_from(&panel);
            self.succeeded();
            told(self.id, Progress::Drawn { panel });
        }
        if matches!(phase, Phase::Revealing | Phase::Settled) && !self.committed {
            self.committed = true;
            self.succeeded();
            told(self.id, Progress::Committed);
        }
        if phase.is_final() && self.ended.is_none() {
            self.ended = Some(Instant::now());
            told(self.id, Progress::Ended { ending: task.ending });
        }
    }

    fn seen(&self) -> Seen {
        let outputs = match &self.view {
            Some(view) => {
                view.task.outputs.iter().map(|slot| self.outputs.get(&slot.node).cloned()).collect()
            }
            None => Vec::new(),
        };
        Seen { task: self.id, view: self.view.clone().filter(|_| !self.gone), outputs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duty::tests::{seat, slot, task};

    fn view(task: Task) -> TaskView {
        let step = task.clock().step(0);
        TaskView { id: 7, task, step }
    }

    #[test]
    fn everything_is_told_once_and_in_order() {
        let mut followed = Followed::new(7);
        let mut heard = Vec::new();
        let mut told = |_, progress| heard.push(progress);
        let time = Time { block: 150, now: 150, nudge: false };
        let opened = || vec![slot(1, OutputState::Opened), slot(2, OutputState::Declined)];
        let panel = |state| vec![seat(3, state), seat(4, state)];
        let drawing = task(Phase::Drawing, 200, opened(), vec![seat(0, SeatState::Drawn)]);
        let stages = [
            task(Phase::Inferring, 200, vec![slot(1, OutputState::Assigned)], vec![]),
            drawing.clone(),
            Task { short: true, ..drawing },
            task(Phase::Scoring, 200, opened(), panel(SeatState::Drawn)),
            task(Phase::Revealing, 200, opened(), panel(SeatState::Committed)),
            task(Phase::Settled, 200, opened(), panel(SeatState::Revealed)),
        ];
        for stage in stages {
            for _ in 0..2 {
                followed.look(&view(stage.clone()), &time, &mut told);
            }
        }
        let panel = vec![3, 4];
        let expected = [
            Progress::Sealed { delivered: 1, declined: 1 },
            Progress::Short,
            Progress::Drawn { panel },
            Progress::Committed,
            Progress::Ended { ending: Ending::Consensus },
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn a_step_is_left_to_keepers_for_half_of_the_time() {
        let panel =
            vec![seat(3, SeatState::Revealed), seat(4, SeatState::Revealed), seat(5, SeatState::Committed)];
        let revealing = task(Phase::Revealing, 200, vec![slot(1, OutputState::Opened)], panel);
        assert!(!is_overdue(&revealing, 200) && !is_overdue(&revealing, 240) && is_overdue(&revealing, 241));
        let drawing = task(Phase::Drawing, 200, vec![slot(1, OutputState::Committed)], vec![]);
        assert!(!is_overdue(&drawing, 150), "to be drawn");
        assert!(
            !is_overdue(&drawing, 170) && is_overdue(&drawing, 201),
            "an output was not opened by half time"
        );
    }
}
