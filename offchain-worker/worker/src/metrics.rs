//! Every metric of the worker: its name, its meaning, and the one function that moves it.
//!
//! All names are here and nowhere else; `docs/metrics.md` has the same table. Counters are registered at zero when the
//! worker starts, because `increase()` over a series that is born with its first event misses that event.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use poq_chain::types::DeclineReason;

use crate::config::RoleName;
use crate::time::wall_ms;

/// Which part of a duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DutyStep {
    /// An inference node's commitment to its output.
    CommitOutput,
    /// An inference node's word that it will not deliver.
    Decline,
    /// The opening of an inference node's commitment on chain.
    OpenOutput,
    /// An evaluator's commitment to its scores.
    CommitScores,
    /// An evaluator's reveal.
    RevealScores,
}

impl DutyStep {
    /// Every step.
    pub const ALL: [DutyStep; 5] = [
        DutyStep::CommitOutput,
        DutyStep::Decline,
        DutyStep::OpenOutput,
        DutyStep::CommitScores,
        DutyStep::RevealScores,
    ];

    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            DutyStep::CommitOutput => "commit_output",
            DutyStep::Decline => "decline",
            DutyStep::OpenOutput => "open_output",
            DutyStep::CommitScores => "commit_scores",
            DutyStep::RevealScores => "reveal_scores",
        }
    }

    /// Whose step it is.
    pub const fn role(self) -> RoleName {
        match self {
            DutyStep::CommitOutput | DutyStep::Decline | DutyStep::OpenOutput => RoleName::Inference,
            DutyStep::CommitScores | DutyStep::RevealScores => RoleName::Evaluator,
        }
    }
}

/// Why a task was not worked on although a node was drawn for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Declined {
    /// Too little time was left.
    TooLate,
    /// The input could not be fetched, or is not what the task says.
    Input,
    /// The input is not a prompt.
    Prompt,
    /// The input is longer than this worker or its model takes.
    TooLong,
    /// The model failed.
    Model,
    /// The model produced nothing.
    Empty,
    /// The worker is stopping.
    Draining,
    /// It plays a dishonest node that stays away.
    Adversary,
    /// The task kind prescribes another rubric than the node scores by.
    Rubric,
}

impl Declined {
    /// Every reason.
    pub const ALL: [Declined; 9] = [
        Declined::TooLate,
        Declined::Input,
        Declined::Prompt,
        Declined::TooLong,
        Declined::Model,
        Declined::Empty,
        Declined::Draining,
        Declined::Adversary,
        Declined::Rubric,
    ];

    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            Declined::TooLate => "too_late",
            Declined::Input => "input",
            Declined::Prompt => "prompt",
            Declined::TooLong => "too_long",
            Declined::Model => "model",
            Declined::Empty => "empty",
            Declined::Draining => "draining",
            Declined::Adversary => "adversary",
            Declined::Rubric => "rubric",
        }
    }

    /// What an inference node tells the chain.
    pub const fn reason(self) -> DeclineReason {
        match self {
            Declined::TooLate => DeclineReason::TooLate,
            Declined::Input => DeclineReason::InputUnavailable,
            Declined::TooLong => DeclineReason::TooLong,
            _ => DeclineReason::Other,
        }
    }
}

/// The classes of failed calls, as labels.
pub const CALL_CLASSES: [&str; 4] = ["transient", "stale", "rejected", "fatal"];

/// The names, kinds and meanings of all metrics, in the order of the documentation's table.
pub const ALL: [(&str, &str, &str); 34] = [
    (INFO, "gauge", "Always 1; the label `version` tells the worker's version."),
    (READY, "gauge", "1 while the readiness probe answers 200, else 0."),
    (DUTIES_DONE, "counter", "Duties done and confirmed on chain, by role and step."),
    (DUTIES_MISSED, "counter", "Duties whose deadline passed without this node, by role and step."),
    (DECLINED, "counter", "Tasks that were given up before any commitment, by role and reason."),
    (OPEN_DUTIES, "gauge", "Tasks that the node is drawn for and that are not final."),
    (OUTPUTS_UNAVAILABLE, "counter", "Outputs scored as unavailable, by reason."),
    (CALLS, "counter", "Transactions included and successful, by message."),
    (CALL_ERRORS, "counter", "Calls that failed, by message and class."),
    (CALL_SECONDS, "histogram", "From dry run to confirmation, in seconds, by message."),
    (BATCH_SIZE, "histogram", "Items per duty transaction, by message."),
    (
        LAST_SUBMIT,
        "gauge",
        "When the account's last successful transaction was confirmed, in Unix seconds; 0 for never.",
    ),
    (
        LAST_SUBMIT_AGE,
        "gauge",
        "Seconds since the account's last successful transaction; since the start where there was none.",
    ),
    (OPERATOR_BALANCE, "gauge", "The operator account's free balance, in the chain's smallest unit."),
    (
        STAKE_FREE,
        "gauge",
        "The node's stake that a task could put at risk now, in the chain's smallest unit.",
    ),
    (STAKE_LOCKED, "gauge", "The node's stake at risk in open tasks, in the chain's smallest unit."),
    (CLAIMABLE, "gauge", "The node's rewards that can be claimed now, in the chain's smallest unit."),
    (WITHDRAWN, "gauge", "The node's rewards withdrawn so far, in the chain's smallest unit."),
    (SLASHED, "gauge", "The node's stake slashed so far, in the chain's smallest unit."),
    (TRUST, "gauge", "The node's trust, 0 to 1."),
    (SETTLED, "gauge", "Tasks that ended with the node in them so far."),
    (MODEL_SECONDS, "histogram", "Time a model took for one task, in seconds, by model and step."),
    (MODEL_TOKENS, "counter", "Tokens generated, by model."),
    (MODEL_HEALTHY, "gauge", "1 while the model's thread is healthy, else 0."),
    (FETCH_SECONDS, "histogram", "Time to fetch and verify a blob, in seconds, by what."),
    (FETCH_ERRORS, "counter", "Blob fetches that failed, by what and class."),
    (BEST_BLOCK, "gauge", "The best block's number."),
    (BLOCK_AGE, "gauge", "Seconds between this machine's clock and the best block's timestamp."),
    (CHAIN_SILENCE, "gauge", "Seconds since the chain last answered."),
    (CHAIN_STALLS, "counter", "Times that block announcements had stopped although the chain went on."),
    (KEEPER_STEPS, "counter", "Steps that this keeper moved tasks on by."),
    (JOURNAL_BYTES, "gauge", "The journal's size on disk, in bytes."),
    (JOURNAL_OPEN, "gauge", "Duties in the journal that are not final."),
    (RESTARTS, "counter", "Services started again after an error or a panic."),
];

const INFO: &str = "poq_worker_info";
const READY: &str = "poq_ready";
const DUTIES_DONE: &str = "poq_duties_done_total";
const DUTIES_MISSED: &str = "poq_duties_missed_total";
const DECLINED: &str = "poq_tasks_declined_total";
const OPEN_DUTIES: &str = "poq_open_duties";
const OUTPUTS_UNAVAILABLE: &str = "poq_outputs_unavailable_total";
const CALLS: &str = "poq_calls_total";
const CALL_ERRORS: &str = "poq_call_errors_total";
const CALL_SECONDS: &str = "poq_call_seconds";
const BATCH_SIZE: &str = "poq_batch_size";
const LAST_SUBMIT: &str = "poq_last_successful_submit_timestamp_seconds";
const LAST_SUBMIT_AGE: &str = "poq_last_successful_submit_age_seconds";
const OPERATOR_BALANCE: &str = "poq_operator_balance";
const STAKE_FREE: &str = "poq_node_stake_free";
const STAKE_LOCKED: &str = "poq_node_stake_locked";
const CLAIMABLE: &str = "poq_node_claimable";
const WITHDRAWN: &str = "poq_node_withdrawn";
const SLASHED: &str = "poq_node_slashed";
const TRUST: &str = "poq_node_trust";
const SETTLED: &str = "poq_node_tasks";
const MODEL_SECONDS: &str = "poq_model_seconds";
const MODEL_TOKENS: &str = "poq_model_tokens_total";
const MODEL_HEALTHY: &str = "poq_model_healthy";
const FETCH_SECONDS: &str = "poq_fetch_seconds";
const FETCH_ERRORS: &str = "poq_fetch_errors_total";
const BEST_BLOCK: &str = "poq_best_block";
const BLOCK_AGE: &str = "poq_best_block_age_seconds";
const CHAIN_SILENCE: &str = "poq_chain_silence_seconds";
const CHAIN_STALLS: &str = "poq_chain_stalls_total";
const KEEPER_STEPS: &str = "poq_keeper_steps_total";
const JOURNAL_BYTES: &str = "poq_journal_bytes";
const JOURNAL_OPEN: &str = "poq_journal_open_duties";
const RESTARTS: &str = "poq_service_restarts_total";

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
/// Nodes that the contract no longer knows. The recorder keeps every series for ever; theirs are not rendered.
static GONE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Installs the Prometheus recorder of the process, once, and registers every counter at zero.
///
/// `None` where the program that this library is part of has installed another recorder: metrics then go there.
pub fn install() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let handle = recorder();
            describe();
            register();
            handle
        })
        .as_ref()
}

fn recorder() -> Option<PrometheusHandle> {
    // From a fast evaluator on a warm cache to the slowest answer that still meets a deadline of two minutes.
    const SECONDS: [f64; 13] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
    const ITEMS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
    let built = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(BATCH_SIZE.into()), &ITEMS));
    match built.map(|builder| builder.install_recorder()) {
        Ok(Ok(handle)) => Some(handle),
        Ok(Err(error)) => {
            tracing::warn!(%error, "metrics go to another recorder; /metrics will be empty");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the metrics recorder cannot be built; /metrics will be empty");
            None
        }
    }
}

fn describe() {
    for (name, kind, meaning) in ALL {
        let unit = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        match kind {
            "counter" => describe_counter!(name, unit, meaning),
            "histogram" => describe_histogram!(name, unit, meaning),
            _ => describe_gauge!(name, unit, meaning),
        }
    }
}

fn register() {
    gauge!(INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for step in DutyStep::ALL {
        counter!(DUTIES_DONE, "role" => step.role().label(), "step" => step.label()).absolute(0);
        counter!(DUTIES_MISSED, "role" => step.role().label(), "step" => step.label()).absolute(0);
        for class in CALL_CLASSES {
            counter!(CALL_ERRORS, "call" => step.label(), "class" => class).absolute(0);
        }
    }
    for role in [RoleName::Inference, RoleName::Evaluator] {
        for reason in Declined::ALL {
            counter!(DECLINED, "role" => role.label(), "reason" => reason.label()).absolute(0);
        }
    }
    counter!(CHAIN_STALLS).absolute(0);
}

/// A duty was done.
pub fn duty_done(step: DutyStep) {
    counter!(DUTIES_DONE, "role" => step.role().label(), "step" => step.label()).increment(1);
}

/// A duty was missed.
pub fn duty_missed(step: DutyStep) {
    counter!(DUTIES_MISSED, "role" => step.role().label(), "step" => step.label()).increment(1);
}

/// A task was given up.
pub fn declined(role: RoleName, reason: Declined) {
    counter!(DECLINED, "role" => role.label(), "reason" => reason.label()).increment(1);
}

/// How many open duties a node has.
pub fn open_duties(node: u32, count: usize) {
    gauge!(OPEN_DUTIES, "node" => node.to_string()).set(count as f64);
}

/// An output was scored as unavailable.
pub fn output_unavailable(reason: &'static str) {
    counter!(OUTPUTS_UNAVAILABLE, "reason" => reason).increment(1);
}

/// A transaction was confirmed.
pub fn call_succeeded(call: &'static str, items: usize, took: Duration) {
    counter!(CALLS, "call" => call).increment(1);
    histogram!(CALL_SECONDS, "call" => call).record(took.as_secs_f64());
    histogram!(BATCH_SIZE, "call" => call).record(items as f64);
}

/// A call failed.
pub fn call_failed(call: &'static str, class: &'static str) {
    counter!(CALL_ERRORS, "call" => call, "class" => class).increment(1);
}

/// When an account last sent something with success, as Unix milliseconds, if ever; `age` since then or since the start.
pub fn last_submit(account: &str, at_ms: Option<u64>, age: Duration) {
    gauge!(LAST_SUBMIT, "account" => account.to_owned()).set(at_ms.unwrap_or(0) as f64 / 1_000.0);
    gauge!(LAST_SUBMIT_AGE, "account" => account.to_owned()).set(age.as_secs_f64());
}

/// An operator's free balance.
pub fn operator_balance(account: &str, free: u128) {
    gauge!(OPERATOR_BALANCE, "account" => account.to_owned()).set(free as f64);
}

/// The contract does not know the node: its gauges would tell of a stake that has been paid out.
pub fn node_gone(id: u32) {
    GONE.lock().insert(id);
}

/// What is scraped: all series but those of nodes that are gone.
pub fn render(recorder: &PrometheusHandle) -> String {
    recorder.run_upkeep();
    let text = recorder.render();
    let gone: Vec<String> = GONE.lock().iter().map(|id| format!("node=\"{id}\"")).collect();
    if gone.is_empty() {
        return text;
    }
    let is_gone = |line: &str| {
        let labels = line.split_once('{').and_then(|(name, rest)| Some((name, rest.split_once('}')?.0)));
        labels.is_some_and(|(name, labels)| {
            // Counters go on: what was missed was missed.
            !name.ends_with("_total") && labels.split(',').any(|label| gone.iter().any(|gone| gone == label))
        })
    };
    text.lines().filter(|line| !is_gone(line)).flat_map(|line| [line, "\n"]).collect()
}

/// What the contract says of a node.
pub fn node(id: u32, node: &poq_chain::types::Node) {
    GONE.lock().remove(&id);
    let id = id.to_string();
    gauge!(STAKE_FREE, "node" => id.clone()).set(node.stake.lockable() as f64);
    gauge!(STAKE_LOCKED, "node" => id.clone()).set(node.stake.locked as f64);
    gauge!(CLAIMABLE, "node" => id.clone()).set(node.claimable as f64);
    gauge!(WITHDRAWN, "node" => id.clone()).set(node.withdrawn as f64);
    gauge!(SLASHED, "node" => id.clone()).set(node.slashed as f64);
    gauge!(TRUST, "node" => id.clone()).set(node.trust.to_f64());
    gauge!(SETTLED, "node" => id).set(f64::from(node.record.tasks));
}

/// A model finished one task's work.
pub fn model_ran(model: &str, step: &'static str, took: Duration) {
    histogram!(MODEL_SECONDS, "model" => model.to_owned(), "step" => step).record(took.as_secs_f64());
}

/// A model generated tokens.
pub fn model_tokens(model: &str, tokens: usize) {
    counter!(MODEL_TOKENS, "model" => model.to_owned()).increment(tokens as u64);
}

/// Whether a model's thread is healthy.
pub fn model_healthy(model: &str, healthy: bool) {
    gauge!(MODEL_HEALTHY, "model" => model.to_owned()).set(if healthy { 1.0 } else { 0.0 });
}

/// A blob was fetched.
pub fn fetched(what: &'static str, took: Duration) {
    histogram!(FETCH_SECONDS, "what" => what).record(took.as_secs_f64());
}

/// A blob could not be fetched.
pub fn fetch_failed(what: &'static str, class: &'static str) {
    counter!(FETCH_ERRORS, "what" => what, "class" => class).increment(1);
}

/// The chain as last seen.
pub fn chain(number: u32, timestamp_ms: u64, silence: Duration) {
    gauge!(BEST_BLOCK).set(f64::from(number));
    gauge!(BLOCK_AGE).set(wall_ms().saturating_sub(timestamp_ms) as f64 / 1_000.0);
    gauge!(CHAIN_SILENCE).set(silence.as_secs_f64());
}

/// Block announcements had stopped.
pub fn chain_stalled() {
    counter!(CHAIN_STALLS).increment(1);
}

/// The keeper moved tasks on.
pub fn keeper_step(step: &'static str) {
    counter!(KEEPER_STEPS, "step" => step).increment(1);
}

/// The journal as last seen.
pub fn journal(bytes: u64, open: usize) {
    gauge!(JOURNAL_BYTES).set(bytes as f64);
    gauge!(JOURNAL_OPEN).set(open as f64);
}

/// A service was started again.
pub fn restarted(service: &str) {
    counter!(RESTARTS, "service" => service.to_owned()).increment(1);
}

/// Whether the worker is ready.
pub fn ready(ready: bool) {
    gauge!(READY).set(if ready { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_counters_end_in_total() {
        let names: BTreeSet<&str> = ALL.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names.len(), ALL.len());
        for (name, kind, meaning) in ALL {
            assert!(name.starts_with("poq_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(meaning.ends_with('.'), "{name}");
        }
    }

    /// The docs' table has every metric, in these words, and no other.
    #[test]
    fn the_docs_have_the_same_table() {
        let page = include_str!("../../../docs/metrics.md");
        let told: BTreeSet<&str> = page.lines().filter(|line| line.starts_with("| `poq_")).collect();
        let rows: Vec<String> =
            ALL.iter().map(|(name, kind, meaning)| format!("| `{name}` | {kind} | {meaning} |")).collect();
        assert_eq!(told, rows.iter().map(String::as_str).collect());
    }

    #[test]
    fn gauges_of_a_node_that_is_gone_are_gone_until_it_is_there_again() {
        let Some(handle) = install() else { panic!("no recorder") };
        open_duties(4_711, 2);
        open_duties(47_110, 3);
        assert!(render(handle).contains("poq_open_duties{node=\"4711\"} 2"));
        node_gone(4_711);
        let text = render(handle);
        assert!(
            !text.contains("node=\"4711\"") && text.contains("poq_open_duties{node=\"47110\"} 3"),
            "{text}"
        );
        assert!(text.contains("# TYPE poq_open_duties gauge\n"), "{text}");
        GONE.lock().remove(&4_711);
        assert!(render(handle).contains("poq_open_duties{node=\"4711\"} 2"));
    }

    #[test]
    fn counters_exist_before_anything_happens() {
        let Some(handle) = install() else { panic!("no recorder") };
        let text = handle.render();
        assert!(
            text.contains("poq_duties_missed_total{role=\"evaluator\",step=\"reveal_scores\"}"),
            "{text}"
        );
        assert!(text.contains("poq_chain_stalls_total 0"), "{text}");
    }
}
