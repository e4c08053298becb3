//! One operator account's loop: what is due for its nodes, which work to start, what to send.
//!
//! At every best block (and on a timer) it reads its nodes' tasks, decides with [`crate::duty`], and acts. Work runs beside
//! the loop and ends in the journal; sending starts from the journal. So there is one path, whether a duty is new, was
//! interrupted by a crash, or was undone by a reorganisation.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use poq_blobs::{BlobClient, FetchError, RevealBlob};
use poq_chain::types::{
    DeclineReason, Hash, Millis, NodeId, Opened, Phase, Purpose, Refusal, Reveal, SeatState, TaskId,
    TaskView, MAX_BATCH,
};
use poq_chain::{ContractError, Keys, Submitter, View};
use poq_journal::{Duty, End, Payload, Record, State as Stage};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

use super::send::{self, Failure, Item, Ready, Sent};
use super::{class_label, evaluator, fetch, inference, journal_error, Ctx, Served};
use crate::config::{NodeConfig, RoleName};
use crate::duty::{due, Due, Window};
use crate::error::{Error, Result};
use crate::failpoint::hit;
use crate::health::About;
use crate::metrics::{self, Declined, DutyStep};
use crate::models::{Loaded, NodeModel};

/// Transactions of one operator under way at a time. More than one, because a confirmation can take longer than a duty's
/// window allows others to wait; few, because what waits meanwhile shares a batch.
const MAX_SENDS: usize = 4;
/// The first pause before a failed step is tried again; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Several attempts must fit a window of two minutes.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How often work on a duty is begun again before it is given up.
const MAX_ATTEMPTS: u32 = 5;
/// How long a lost answer's input is asked for: whoever waits for the answer waits about as long.
const RESTORE_MS: Millis = 60_000;

/// A node of this operator with its model.
pub(crate) struct NodeRun {
    pub(crate) config: NodeConfig,
    pub(crate) loaded: Loaded,
}

/// What became of a piece of work.
#[derive(Debug)]
pub(crate) enum Job {
    /// It is in the journal.
    Prepared,
    /// It will not be done.
    Declined(Declined, String),
    /// It failed in a way that may pass.
    Again(String),
    /// The worker is stopping.
    Stopped,
}

/// One operator account and its nodes.
pub(crate) struct Operator {
    pub(crate) ctx: Arc<Ctx>,
    pub(crate) keys: Keys,
    /// The account as people read it.
    pub(crate) name: String,
    pub(crate) submitter: Submitter,
    pub(crate) fetcher: BlobClient,
    pub(crate) nodes: Vec<NodeRun>,
}

/// When a step may be tried again.
#[derive(Debug)]
struct Retry {
    /// How often it failed.
    failures: u32,
    /// How often it could not be done for want of a chain that answers.
    tries: u32,
    not_before: Instant,
    /// A new block can change the answer, so that it is tried again with the next one.
    block: Option<u32>,
}

/// What the loop remembers between rounds. All of it can be lost.
struct Memory {
    jobs: JoinSet<Result<Job>>,
    job_of: HashMap<Id, (Duty, RoleName, bool)>,
    running: HashSet<Duty>,
    /// Duties that will not be done, with what an inference node tells the chain, if it does.
    given_up: HashMap<Duty, Option<DeclineReason>>,
    attempts: HashMap<Duty, Retry>,
    sends: JoinSet<Vec<Sent>>,
    sending: HashSet<(Duty, DutyStep)>,
    retries: HashMap<(Duty, DutyStep), Retry>,
    ready_since: Option<Instant>,
    missed: HashSet<(Duty, DutyStep)>,
    /// Duties that were due when last seen and have nothing in the journal: what becomes of them must be told all the same.
    unrecorded: HashSet<Duty>,
    stored: HashSet<Duty>,
    /// Reveals that are served.
    published: HashSet<Duty>,
    /// Whether something waits for a block to be final.
    awaits_final: bool,
    troubled: BTreeSet<(TaskId, NodeId)>,
    wake: Instant,
    /// Whether there is anything that a stopping worker should still do.
    busy: bool,
}

impl Memory {
    fn new() -> Self {
        Memory {
            jobs: JoinSet::new(),
            job_of: HashMap::new(),
            running: HashSet::new(),
            given_up: HashMap::new(),
            attempts: HashMap::new(),
            sends: JoinSet::new(),
            sending: HashSet::new(),
            retries: HashMap::new(),
            ready_since: None,
            missed: HashSet::new(),
            unrecorded: HashSet::new(),
            stored: HashSet::new(),
            published: HashSet::new(),
            awaits_final: false,
            troubled: BTreeSet::new(),
            wake: Instant::now(),
            busy: true,
        }
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake = self.wake.min(at);
    }

    /// Counts a missed step, once.
    fn miss(&mut self, duty: Duty, step: DutyStep) {
        if self.missed.insert((duty, step)) {
            tracing::warn!(%duty, step = step.label(), "missed: the deadline has passed");
            metrics::duty_missed(step);
        }
    }

    /// Forgets what concerns tasks that are over.
    fn keep_only(&mut self, open: &BTreeSet<(TaskId, NodeId)>) {
        let is_open = |duty: &Duty| open.contains(&(duty.task, duty.node));
        self.given_up.retain(|duty, _| is_open(duty));
        self.attempts.retain(|duty, _| is_open(duty));
        self.retries.retain(|(duty, _), _| is_open(duty));
        self.missed.retain(|(duty, _)| is_open(duty));
        self.stored.retain(is_open);
        self.published.retain(is_open);
    }
}

/// What a round has found to be sent.
#[derive(Default)]
struct Found {
    /// Now.
    ready: Vec<Ready>,
    /// Reveals that could be sent, but need not be yet: together with another one of their task.
    early: Vec<Ready>,
    /// How many are to be opened or revealed later.
    ahead: usize,
}

/// A task of a node.
struct Assigned<'a> {
    node: &'a NodeRun,
    view: TaskView,
}

impl Operator {
    /// The service's name.
    pub(crate) fn service(&self) -> String {
        format!("operator {}", self.name)
    }

    /// Runs until told to stop.
    pub(crate) async fn run(self: Arc<Self>) -> Served {
        let service = self.service();
        let mut memory = Memory::new();
        let mut head = self.ctx.head.clone();
        let mut finalized = self.ctx.client.finalized_watch();
        loop {
            memory.wake = Instant::now() + self.ctx.config.chain.poll_interval;
            self.round(&mut memory).await?;
            self.ctx.board.beat(&service);
            let draining = self.ctx.stop.drain.is_cancelled();
            if draining && !memory.busy {
                tracing::info!(operator = %self.name, "no duty is open");
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.ctx.stop.now.cancelled() => return Ok(()),
                () = self.ctx.stop.drain.cancelled(), if !draining => {}
                Some(ended) = memory.jobs.join_next_with_id() => self.job_ended(&mut memory, ended)?,
                Some(ended) = memory.sends.join_next() => self.send_ended(&mut memory, ended),
                changed = head.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                changed = finalized.changed(), if memory.awaits_final => {
                if changed.is_err() {
                    return Ok(());
                }
            }
                () = tokio::time::sleep_until(memory.wake.into()) => {}
            }
            // What has ended meanwhile is taken in before the chain is read again.
            while let Some(ended) = memory.jobs.try_join_next_with_id() {
                self.job_ended(&mut memory, ended)?;
            }
            while let Some(ended) = memory.sends.try_join_next() {
                self.send_ended(&mut memory, ended);
            }
        }
    }

    /// Reads, decides, acts. A chain that cannot be read is no error of the service: the next round tries again.
    async fn round(self: &Arc<Self>, memory: &mut Memory) -> Served {
        let read = async {
            let view = self.ctx.client.view().await?;
            let assigned = self.assigned(&view).await?;
            Ok::<_, poq_chain::Error>((view, assigned))
        };
        let (view, assigned) = match read.await {
            Ok(read) => read,
            Err(error) => {
                metrics::call_failed("duties", class_label(&error));
                tracing::warn!(operator = %self.name, %error, "the duties cannot be read");
                memory.wake_by(Instant::now() + FIRST_PAUSE * 4);
                return Ok(());
            }
        };
        let now = self.ctx.clock.now().max(view.block().timestamp_ms);
        let block = view.block().number;
        let open: BTreeSet<(TaskId, NodeId)> =
            assigned.iter().map(|assigned| (assigned.view.id, assigned.node.config.id)).collect();

        self.finish(memory, &view, &open).await?;
        memory.keep_only(&open);
        memory.troubled.retain(|key| {
            let keep = open.contains(key);
            if !keep {
                self.ctx.board.clear(&About::Duty(key.0, key.1));
            }
            keep
        });

        let mut found = Found::default();
        memory.awaits_final = false;
        for assigned in &assigned {
            let config = &assigned.node.config;
            let Some((duty, due)) = due(assigned.view.id, &assigned.view.task, config.id, config.role, now)
            else {
                continue;
            };
            self.act(memory, assigned, duty, due, &mut found).await?;
        }
        // One transaction brings all of a task's that are here.
        let revealing: BTreeSet<TaskId> = found
            .ready
            .iter()
            .filter(|ready| ready.step() == DutyStep::RevealScores)
            .map(|ready| ready.duty.task)
            .collect();
        let (along, later): (Vec<_>, Vec<_>) =
            found.early.into_iter().partition(|ready| revealing.contains(&ready.duty.task));
        found.ready.extend(along);
        let waiting = self.flush(memory, found.ready, block) || !later.is_empty();
        memory.busy = waiting || found.ahead > 0 || !memory.jobs.is_empty() || !memory.sends.is_empty();
        Ok(())
    }

    /// Comes round again when the chain's time has come to `at`.
    fn wake_at(&self, memory: &mut Memory, at: Millis) {
        memory.wake_by(Instant::now() + self.ctx.clock.until(at) + Duration::from_millis(50));
    }

    /// Where a node serves its blobs.
    pub(super) async fn endpoint(&self, node: NodeId) -> std::result::Result<String, FetchError> {
        let view = self.ctx.client.view().await.map_err(|error| FetchError::Unreachable {
            url: format!("the endpoint of node {node}"),
            detail: error.to_string(),
        })?;
        fetch::endpoint(&view, node).await
    }

    /// The tasks that this operator's nodes are drawn for.
    async fn assigned(&self, view: &View) -> std::result::Result<Vec<Assigned<'_>>, poq_chain::Error> {
        let lists = try_join_all(self.nodes.iter().map(|node| view.open_tasks(node.config.id))).await?;
        let wanted: BTreeSet<TaskId> = lists.iter().flatten().copied().collect();
        let tasks = try_join_all(wanted.iter().map(|task| view.task(*task))).await?;
        let tasks: BTreeMap<TaskId, TaskView> =
            tasks.into_iter().flatten().map(|task| (task.id, task)).collect();
        let mut assigned = Vec::new();
        for (node, list) in self.nodes.iter().zip(lists) {
            metrics::open_duties(node.config.id, list.len());
            for task in list {
                if let Some(view) = tasks.get(&task) {
                    assigned.push(Assigned { node, view: view.clone() });
                }
            }
        }
        Ok(assigned)
    }

    async fn act(
        self: &Arc<Self>,
        memory: &mut Memory,
        assigned: &Assigned<'_>,
        duty: Duty,
        due: Due,
        found: &mut Found,
    ) -> Served {
        if matches!(due, Due::Answer { .. } | Due::Score { .. }) {
            memory.unrecorded.insert(duty);
        }
        match due {
            Due::Answer { deadline } => match self.record(duty)? {
                Some(record) => {
                    self.ensure_stored(memory, &record).await;
                    found.ready.push(Ready { duty, deadline, item: Item::Output(record.commitment) });
                }
                None => match memory.given_up.get(&duty).copied().flatten() {
                    // Cheaper for all than silence: the task goes on, or ends, at once.
                    Some(reason) => found.ready.push(Ready { duty, deadline, item: Item::Decline(reason) }),
                    None => self.begin(memory, assigned, duty, (0, deadline), None),
                },
            },
            Due::Open { commitment, window } => {
                found.ahead += 1;
                if let Some(record) =
                    self.opening(memory, assigned, duty, commitment, window.deadline).await?
                {
                    if self.ctx.adversary.as_ref().is_some_and(|adversary| adversary.withholds(duty.node)) {
                        return Ok(());
                    }
                    let Payload::Output { hash, salt, .. } = record.payload else { return Ok(()) };
                    if self.is_due(memory, &window) {
                        let item = Item::Open(Opened { hash, salt });
                        found.ready.push(Ready { duty, deadline: window.deadline, item });
                    }
                }
            }
            Due::Score { drawn_at, deadline } => match self.record(duty)? {
                Some(record) => {
                    self.ensure_stored(memory, &record).await;
                    found.ready.push(Ready { duty, deadline, item: Item::Scores(record.commitment) });
                }
                None => self.begin(memory, assigned, duty, (drawn_at, deadline), None),
            },
            Due::Reveal { commitment, window } => {
                found.ahead += 1;
                if let Some(record) =
                    self.opening(memory, assigned, duty, commitment, window.deadline).await?
                {
                    self.reveal(memory, assigned, duty, record.payload, &window, found).await;
                }
            }
            Due::Keep { commitment, ahead } => {
                if ahead {
                    found.ahead += 1;
                    // It may fall due by the mere passing of time.
                    self.wake_at(memory, assigned.view.task.deadline);
                }
                let deadline = self.ctx.clock.now().saturating_add(RESTORE_MS);
                let kept = self.opening(memory, assigned, duty, commitment, deadline).await?;
                // An answer that is opened is only to be served from now on.
                if kept.is_some() && !ahead && duty.purpose == Purpose::Output {
                    self.note(duty, Stage::Revealed).await?;
                }
            }
            Due::Done => self.note(duty, Stage::Revealed).await?,
            Due::Declined => {
                if memory.unrecorded.remove(&duty) {
                    metrics::duty_done(DutyStep::Decline);
                    tracing::info!(%duty, "declined");
                }
            }
            Due::Missed(step) => memory.miss(duty, step),
        }
        Ok(())
    }

    /// Whether it is to be sent now; else when to look again.
    fn is_due(&self, memory: &mut Memory, window: &Window) -> bool {
        let (now, finalized) = (self.ctx.clock.now(), self.ctx.clock.final_time());
        if window.is_due(now, finalized) {
            return true;
        }
        memory.awaits_final |= !window.closing.is_final(finalized);
        let next = if now < window.send_at { window.send_at } else { window.at_the_latest };
        self.wake_at(memory, next);
        false
    }

    /// Serves a reveal once nobody can commit any more, and sends it when its turn comes.
    async fn reveal(
        &self,
        memory: &mut Memory,
        assigned: &Assigned<'_>,
        duty: Duty,
        payload: Payload,
        window: &Window,
        found: &mut Found,
    ) {
        let Payload::Scores { scores, report_hash, salt, .. } = payload else { return };
        let task = &assigned.view.task;
        if let Some(adversary) = &self.ctx.adversary {
            match adversary.reveals(duty.node, task, &scores, self.ctx.clock.now()) {
                Some(true) => {}
                Some(false) => return,
                None => {
                    memory.wake_by(Instant::now() + FIRST_PAUSE);
                    return;
                }
            }
        }
        let reveal = Reveal { task: duty.task, node: duty.node, scores, report_hash, salt };
        let is_final = window.closing.is_final(self.ctx.clock.final_time());
        if is_final && !memory.published.contains(&duty) {
            let stored = match RevealBlob::new(&reveal).encode() {
                Ok(bytes) => {
                    self.ctx.store.put_reveal(&self.ctx.slot(&duty), bytes).await.map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match stored {
                Ok(_) => drop(memory.published.insert(duty)),
                // It is sent all the same.
                Err(error) => tracing::warn!(%duty, error, "the reveal cannot be served"),
            }
        }
        let others =
            task.panel.iter().filter(|seat| seat.node != duty.node && seat.state == SeatState::Committed);
        let others = others.map(|seat| (seat.node, seat.commitment)).collect();
        let ready = Ready { duty, deadline: window.deadline, item: Item::Reveal { reveal, others } };
        if self.is_due(memory, window) {
            found.ready.push(ready);
        } else if is_final {
            found.early.push(ready);
        }
    }

    /// The journal's record of what the chain shows. Where there is none, the work is done again, to open the commitment.
    async fn opening(
        self: &Arc<Self>,
        memory: &mut Memory,
        assigned: &Assigned<'_>,
        duty: Duty,
        commitment: Hash,
        deadline: Millis,
    ) -> Result<Option<Record>> {
        let Some(record) = self.record(duty)? else {
            let window = (
                self.ctx.clock.now(),
                deadline.saturating_add(inference::millis(self.ctx.config.limits.submit_margin)),
            );
            self.begin(memory, assigned, duty, window, Some(commitment));
            return Ok(None);
        };
        if record.commitment != commitment {
            let text = format!(
                "{duty}: the chain shows another commitment than this worker's journal; does another process run this \
                 node, or was the journal restored from an old backup?"
            );
            self.trouble(memory, duty, text);
            return Ok(None);
        }
        self.note(duty, Stage::Committed).await?;
        self.ensure_stored(memory, &record).await;
        Ok(Some(record))
    }

    fn record(&self, duty: Duty) -> Result<Option<Record>> {
        // A read of a file in memory: microseconds.
        self.ctx.journal.get(&duty).map_err(|error| journal_error(&self.ctx.board, error))
    }

    /// The chain shows that a step is done: counts it, once, and writes it down.
    async fn note(&self, duty: Duty, stage: Stage) -> Served {
        let Some(record) = self.record(duty)? else { return Ok(()) };
        if record.state >= stage {
            return Ok(());
        }
        self.advance(duty, stage).await?;
        let (commits, opens) = steps(duty);
        if record.state < Stage::Committed {
            metrics::duty_done(commits);
            tracing::info!(%duty, step = commits.label(), "done");
        }
        if stage == Stage::Revealed {
            metrics::duty_done(opens);
            tracing::info!(%duty, step = opens.label(), "done");
        }
        Ok(())
    }

    async fn advance(&self, duty: Duty, stage: Stage) -> Served {
        let advanced = self.ctx.journal(move |journal| journal.advance(&duty, stage)).await;
        advanced.map(drop).map_err(|error| journal_error(&self.ctx.board, error))
    }

    /// Puts what the journal has where the blob server finds it, once per process: a crash may have come between the two.
    async fn ensure_stored(&self, memory: &mut Memory, record: &Record) {
        if memory.stored.contains(&record.duty) {
            return;
        }
        let stored = match record.payload {
            Payload::Output { .. } => inference::store(&self.ctx, record).await,
            Payload::Scores { .. } => evaluator::store(&self.ctx, record).await,
        };
        match stored {
            Ok(()) => {
                memory.stored.insert(record.duty);
            }
            // The commitment matters more, and this is tried again in the next round.
            Err(error) => tracing::error!(duty = %record.duty, %error, "cannot be stored for serving"),
        }
    }

    /// Starts work on a duty, unless it runs, has been given up, or is to wait.
    fn begin(
        self: &Arc<Self>,
        memory: &mut Memory,
        assigned: &Assigned<'_>,
        duty: Duty,
        window: (Millis, Millis),
        expected: Option<Hash>,
    ) {
        if memory.running.contains(&duty) || memory.given_up.contains_key(&duty) {
            return;
        }
        if let Some(retry) = memory.attempts.get(&duty) {
            if retry.not_before > Instant::now() {
                let at = retry.not_before;
                memory.wake_by(at);
                return;
            }
        }
        let role = assigned.node.config.role;
        if self.ctx.stop.drain.is_cancelled() {
            // Not declined: a worker that starts again in time does it.
            memory.given_up.insert(duty, None);
            metrics::declined(role, Declined::Draining);
            tracing::warn!(%duty, "not begun: the worker is stopping");
            return;
        }
        let (operator, view, loaded) = (self.clone(), assigned.view.clone(), assigned.node.loaded.clone());
        let span = tracing::info_span!("work", %duty);
        let work = async move {
            match &loaded.model {
                NodeModel::Generator(model) => {
                    inference::answer(&operator, model, duty, &view, window.1, expected).await
                }
                NodeModel::Scorer(model) => {
                    evaluator::score(&operator, &loaded, model, duty, &view, window, expected).await
                }
            }
        };
        let id = memory.jobs.spawn(work.instrument(span)).id();
        memory.job_of.insert(id, (duty, role, expected.is_some()));
        memory.running.insert(duty);
    }

    fn job_ended(
        &self,
        memory: &mut Memory,
        ended: std::result::Result<(Id, Result<Job>), JoinError>,
    ) -> Served {
        let (id, job) = match ended {
            Ok((id, job)) => (id, job),
            Err(error) => (error.id(), Ok(Job::Again(format!("the work panicked: {error}")))),
        };
        let Some((duty, role, restoring)) = memory.job_of.remove(&id) else { return Ok(()) };
        memory.running.remove(&duty);
        match job {
            Ok(Job::Prepared) => {
                memory.attempts.remove(&duty);
            }
            Ok(Job::Stopped) => {}
            Ok(Job::Declined(reason, text)) => {
                memory.given_up.insert(duty, Some(reason.reason()));
                metrics::declined(role, reason);
                tracing::warn!(%duty, reason = reason.label(), "given up: {text}");
                if restoring {
                    self.trouble(memory, duty, format!("{duty}: {text}"));
                }
            }
            Ok(Job::Again(text)) => self.again(memory, duty, role, &text),
            // A chain that could not be read says nothing of the work, whatever it said: to give up would cost the stake, and
            // to end would cost that of every other duty. The work itself looks how much time is left.
            Err(Error::Chain(error)) => self.later(memory, duty, &error),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => self.again(memory, duty, role, &error.to_string()),
        }
        Ok(())
    }

    /// Work that stopped at the chain is begun again, as often as there is time for.
    fn later(&self, memory: &mut Memory, duty: Duty, error: &poq_chain::Error) {
        metrics::call_failed("work", class_label(error));
        let (failures, tries) =
            memory.attempts.get(&duty).map_or((0, 0), |retry| (retry.failures, retry.tries));
        tracing::warn!(%duty, %error, "the chain could not be read");
        let tries = tries.saturating_add(1);
        let retry = Retry { failures, tries, not_before: Instant::now() + pause(tries), block: None };
        memory.wake_by(retry.not_before);
        memory.attempts.insert(duty, retry);
    }

    fn again(&self, memory: &mut Memory, duty: Duty, role: RoleName, text: &str) {
        let failures = memory.attempts.get(&duty).map_or(0, |retry| retry.failures) + 1;
        tracing::error!(%duty, failures, "failed: {text}");
        if failures >= MAX_ATTEMPTS {
            memory.given_up.insert(duty, Some(Declined::Model.reason()));
            metrics::declined(role, Declined::Model);
            self.trouble(memory, duty, format!("{duty}: given up after {failures} attempts: {text}"));
            return;
        }
        let retry = Retry { failures, tries: 0, not_before: Instant::now() + pause(failures), block: None };
        memory.attempts.insert(duty, retry);
    }

    /// Sends what is ready, as soon as waiting for more would not make a batch larger. Whether anything still waits.
    fn flush(self: &Arc<Self>, memory: &mut Memory, ready: Vec<Ready>, block: u32) -> bool {
        let instant = Instant::now();
        let (now, mut later): (Vec<Ready>, Vec<Ready>) = ready.into_iter().partition(|ready| {
            let key = (ready.duty, ready.step());
            let may = memory.retries.get(&key).is_none_or(|retry| {
                retry.not_before <= instant || retry.block.is_some_and(|seen| seen != block)
            });
            may && !memory.sending.contains(&key)
        });
        for ready in &later {
            if let Some(retry) = memory.retries.get(&(ready.duty, ready.step())) {
                memory.wake = memory.wake.min(retry.not_before);
            }
        }
        later.retain(|ready| !memory.sending.contains(&(ready.duty, ready.step())));
        if now.is_empty() {
            memory.ready_since = None;
            return !later.is_empty();
        }
        let since = *memory.ready_since.get_or_insert(instant);
        let linger = self.ctx.config.limits.batch_linger;
        let full = now.len() >= MAX_BATCH || memory.running.is_empty();
        if !full && since.elapsed() < linger {
            memory.wake_by(since + linger);
            return true;
        }
        memory.ready_since = None;
        let mut by_step: BTreeMap<&'static str, Vec<Ready>> = BTreeMap::new();
        for ready in now {
            by_step.entry(ready.step().label()).or_default().push(ready);
        }
        let mut waiting = !later.is_empty();
        for mut ready in by_step.into_values() {
            // The most urgent first.
            ready.sort_by_key(|ready| ready.deadline);
            for chunk in ready.chunks(MAX_BATCH) {
                if memory.sends.len() >= MAX_SENDS {
                    waiting = true;
                    break;
                }
                let Some(step) = chunk.first().map(Ready::step) else { continue };
                memory.sending.extend(chunk.iter().map(|ready| (ready.duty, step)));
                let (operator, chunk) = (self.clone(), chunk.to_vec());
                memory.sends.spawn(async move { send::send(&operator, step, chunk).await });
            }
        }
        waiting
    }

    fn send_ended(&self, memory: &mut Memory, ended: std::result::Result<Vec<Sent>, JoinError>) {
        let sent = match ended {
            Ok(sent) => sent,
            Err(error) => {
                // Which ones is not known; all that were under way are looked at again, and sent again where the chain
                // does not show them.
                tracing::error!(%error, "a sending task failed");
                memory.sending.clear();
                return;
            }
        };
        for Sent { duty, step, failure } in sent {
            memory.sending.remove(&(duty, step));
            let Some(failure) = failure else {
                memory.retries.remove(&(duty, step));
                self.ctx.board.submitted(&self.name);
                self.ctx.board.clear(&About::Balance(self.name.clone()));
                continue;
            };
            let failures = memory.retries.get(&(duty, step)).map_or(0, |retry| retry.failures) + 1;
            let block = self.report(memory, duty, step, &failure);
            memory.retries.insert(
                (duty, step),
                Retry { failures, tries: 0, not_before: Instant::now() + pause(failures), block },
            );
        }
    }

    /// Tells a failure where it belongs. Returns the block that must pass before it is tried again at once, where a new
    /// block can change the answer.
    fn report(&self, memory: &mut Memory, duty: Duty, step: DutyStep, failure: &Failure) -> Option<u32> {
        let head = self.ctx.head.borrow().number;
        match failure {
            // The state or the chain's time was not what was thought: the next block tells.
            Failure::Rejected(
                error @ (ContractError::Task(
                    Refusal::WrongPhase | Refusal::TooEarly | Refusal::AlreadyRevealed | Refusal::NotAssigned,
                )
                | ContractError::NoTask),
            ) => {
                tracing::debug!(%duty, step = step.label(), %error, "not now");
                Some(head)
            }
            Failure::Rejected(ContractError::Task(Refusal::AlreadyCommitted)) => {
                let text = format!(
                    "{duty}: the contract has another commitment of this node; does another process run it?"
                );
                self.trouble(memory, duty, text);
                Some(head)
            }
            Failure::Rejected(error) => {
                let text = format!("{}: {} of {duty} was refused: {error}", self.name, step.label());
                self.ctx.board.set(About::Submit(self.name.clone()), text);
                Some(head)
            }
            Failure::Call { text, lacks_funds } => {
                tracing::warn!(%duty, step = step.label(), "not sent: {text}");
                let about = if *lacks_funds { About::Balance } else { About::Submit };
                let text = format!("the last transaction of the operator {} failed: {text}", self.name);
                self.ctx.board.set(about(self.name.clone()), text);
                None
            }
        }
    }

    fn trouble(&self, memory: &mut Memory, duty: Duty, text: String) {
        memory.troubled.insert((duty.task, duty.node));
        self.ctx.board.set(About::Duty(duty.task, duty.node), text);
    }

    /// Tells how the duties ended whose tasks are over, and closes the journal's records of them.
    async fn finish(&self, memory: &mut Memory, view: &View, open: &BTreeSet<(TaskId, NodeId)>) -> Served {
        let records =
            self.ctx.journal.open_duties().map_err(|error| journal_error(&self.ctx.board, error))?;
        let recorded: BTreeMap<Duty, Stage> =
            records.into_iter().map(|record| (record.duty, record.state)).collect();
        let unrecorded = memory.unrecorded.iter().filter(|duty| !recorded.contains_key(*duty));
        let over: Vec<(Duty, Option<Stage>)> = recorded
            .iter()
            .map(|(duty, state)| (*duty, Some(*state)))
            .chain(unrecorded.map(|duty| (*duty, None)))
            .filter(|(duty, _)| {
                self.nodes.iter().any(|run| run.config.id == duty.node)
                    && !open.contains(&(duty.task, duty.node))
            })
            .collect();
        for (duty, state) in over {
            let Duty { task, node, .. } = duty;
            let found = match view.task(task).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, task, "cannot be read; what became of it stays open");
                    continue;
                }
            };
            let role = match duty.purpose {
                Purpose::Output => RoleName::Inference,
                Purpose::Scores => RoleName::Evaluator,
            };
            let last =
                found.as_ref().and_then(|found| due(task, &found.task, node, role, found.task.deadline));
            let last = last.map(|(_, due)| due);
            match last {
                // The last step may have been seen only in the final state.
                Some(Due::Done) => self.note(duty, Stage::Revealed).await?,
                Some(Due::Missed(step)) => memory.miss(duty, step),
                Some(Due::Declined) => {}
                // The record is gone or the seat is another's, and this worker had committed to nothing.
                _ if state.is_none() => memory.miss(duty, steps(duty).0),
                _ => {}
            }
            memory.unrecorded.remove(&duty);
            let Some(state) = state else { continue };
            let end = end(state, last, found.map(|found| found.task.phase));
            hit("settled_before_final");
            self.advance(duty, Stage::Final(end)).await?;
            tracing::info!(%duty, ?end, "over");
        }
        Ok(())
    }
}

/// The two steps of a duty: to commit, and to show what was committed to.
const fn steps(duty: Duty) -> (DutyStep, DutyStep) {
    match duty.purpose {
        Purpose::Output => (DutyStep::CommitOutput, DutyStep::OpenOutput),
        Purpose::Scores => (DutyStep::CommitScores, DutyStep::RevealScores),
    }
}

/// How a duty ended whose task is over for its node: `last` is what was due in the end, where the task can still be read and
/// the node is still in it.
fn end(state: Stage, last: Option<Due>, phase: Option<Phase>) -> End {
    match (last, phase) {
        (Some(Due::Missed(_)), _) => End::Missed,
        (Some(Due::Declined), _) => End::Abandoned,
        (Some(Due::Done), Some(Phase::Settled)) => End::Settled,
        (Some(_), Some(Phase::Refunded)) => End::Refunded,
        // The task has been collected: what the node itself knows is all there is.
        (_, None) if state >= Stage::Committed => End::Settled,
        // Its seat is another's.
        _ => End::Missed,
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_ends_as_the_chain_shows_it() {
        let missed = Some(Due::Missed(DutyStep::RevealScores));
        assert_eq!(end(Stage::Committed, missed, Some(Phase::Settled)), End::Missed);
        assert_eq!(end(Stage::Revealed, Some(Due::Done), Some(Phase::Settled)), End::Settled);
        assert_eq!(end(Stage::Revealed, Some(Due::Done), Some(Phase::Refunded)), End::Refunded);
        // Waited below the quorum: nothing was to be revealed.
        let waited = Some(Due::Keep { commitment: [1; 32], ahead: false });
        assert_eq!(end(Stage::Committed, waited, Some(Phase::Refunded)), End::Refunded);
        // Its seat was given to another.
        assert_eq!(end(Stage::Sent, None, Some(Phase::Scoring)), End::Missed);
        assert_eq!(end(Stage::Sent, None, Some(Phase::Refunded)), End::Missed);
        assert_eq!(end(Stage::Sent, Some(Due::Declined), Some(Phase::Settled)), End::Abandoned);
        // Collected before this worker looked.
        assert_eq!(end(Stage::Revealed, None, None), End::Settled);
        assert_eq!(end(Stage::Prepared, None, None), End::Missed);
    }

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!(pause(1), Duration::from_millis(500));
        assert_eq!(pause(2), Duration::from_secs(1));
        assert_eq!(pause(50), MAX_PAUSE);
    }
}
