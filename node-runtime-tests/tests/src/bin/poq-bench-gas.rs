//! What every message and every whole round costs: ref_time, proof size, storage deposits per role, rounds per block, and the
//! cost of a draw against the size of the registry. Run by `scripts/bench.sh gas`.

use clap::Parser;
use poq_contract::types::{Commit, Draw, Opening, Registration, Request, Reveal, Role, MAX_BATCH};
use poq_core::commitment;
use poq_core::units::{NodeId, TaskId};
use poq_core::KindParams;
use poq_runtime_tests::{blake2, call, encode, ink_of, World, KIND, TEXT};
use poq_sandbox::{account_of, call_of, dev, runtime, ExtrinsicReport, RuntimeCall, Weight, UNIT};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

type Res<T> = Result<T, Box<dyn std::error::Error>>;

/// A block's weight for ordinary transactions, in ref_time: 75 % of two seconds.
const BLOCK: u64 = 1_500_000_000_000;
/// What is paid for a task.
const FEE: u128 = 10 * UNIT;
/// How many draws of every registry are measured: two inference nodes have places for so many tasks.
const DRAWS: u64 = 32;
/// How many rounds a batched message does at once: as many open tasks as a node may have.
const BATCH: usize = 16;

/// Measures gas and storage deposits on the in-process chain.
#[derive(Parser)]
struct Options {
    /// Write everything as JSON to this file.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// The largest registry that a draw is measured on.
    #[arg(long, default_value_t = 10_000)]
    registry: usize,
}

/// One measured message: what it weighs for how many rounds, and what deposit its sender paid.
#[derive(Clone, Copy, Default)]
struct Cost {
    ref_time: u64,
    proof_size: u64,
    deposit: i128,
    sent: u64,
}

impl Cost {
    fn of(report: &ExtrinsicReport, deposit: i128) -> Cost {
        Cost { ref_time: report.weight.ref_time(), proof_size: report.weight.proof_size(), deposit, sent: 1 }
    }

    fn add(&mut self, other: Cost) {
        self.ref_time += other.ref_time;
        self.proof_size += other.proof_size;
        self.deposit += other.deposit;
        self.sent += other.sent;
    }
}

/// Costs by message and by role.
#[derive(Default)]
struct Ledger {
    messages: BTreeMap<&'static str, Cost>,
    roles: BTreeMap<&'static str, i128>,
}

impl Ledger {
    fn note(&mut self, role: &'static str, message: &'static str, cost: Cost) {
        self.messages.entry(message).or_default().add(cost);
        *self.roles.entry(role).or_default() += cost.deposit;
    }

    fn ref_time(&self) -> u64 {
        self.messages.iter().filter(|(name, _)| **name != "collect").map(|(_, cost)| cost.ref_time).sum()
    }
}

fn main() -> std::process::ExitCode {
    match run(&Options::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Res<()> {
    let mut single = Map::new();
    let mut batched = Map::new();
    let mut rounds = Map::new();
    println!("block: {BLOCK} ref_time for ordinary transactions\n");
    for (name, outputs, panel) in [("n1k3", 1u8, 3u8), ("n3k5", 3, 5), ("n3k9", 3, 9)] {
        let one = measure(outputs, panel, 1)?;
        let many = measure(outputs, panel, BATCH)?;
        let per_round = many.ref_time() / BATCH as u64;
        single.insert(name.into(), (BLOCK / one.ref_time()).into());
        batched.insert(name.into(), (BLOCK / per_round).into());
        println!("round N={outputs} K={panel}");
        println!(
            "  {:<22} {:>5} {:>16} {:>12} {:>22}",
            "message", "sent", "ref_time each", "proof each", "deposit each (UNIT)"
        );
        let mut messages = Map::new();
        for (message, cost) in &one.messages {
            let sent = cost.sent.max(1);
            println!(
                "  {:<22} {:>5} {:>16} {:>12} {:>22}",
                message,
                cost.sent,
                cost.ref_time / sent,
                cost.proof_size / sent,
                units(cost.deposit / i128::from(sent)),
            );
            messages.insert(
                (*message).into(),
                json!({
                    "sent": cost.sent, "ref_time": cost.ref_time / sent, "proof_size": cost.proof_size / sent,
                    "deposit": (cost.deposit / i128::from(sent)).to_string(),
                }),
            );
        }
        let deposits: Map<String, Value> =
            one.roles.iter().map(|(role, sum)| ((*role).to_string(), sum.to_string().into())).collect();
        println!("  storage deposits over request to collect, per role (UNIT; 0 = all returned):");
        for (role, sum) in &one.roles {
            println!("    {role:<12} {}", units(*sum));
        }
        println!("  whole round: {} ref_time, {} rounds per block", one.ref_time(), BLOCK / one.ref_time());
        println!("  batched by {BATCH}: {per_round} ref_time, {} rounds per block\n", BLOCK / per_round);
        rounds.insert(
            name.into(),
            json!({
                "ref_time": one.ref_time(), "ref_time_batched": per_round, "messages": messages,
                "deposits_by_role": deposits,
            }),
        );
    }

    println!("opening a gold task's reference (3 evaluators, texts of a few dozen bytes)");
    let mut audits = Map::new();
    for (name, outputs) in [("n1k3", 1u8), ("n3k3", 3)] {
        let cost = audit(outputs)?;
        println!("  N={outputs}: {} ref_time, {} proof", cost.ref_time, cost.proof_size);
        audits.insert(name.into(), json!({ "ref_time": cost.ref_time, "proof_size": cost.proof_size }));
    }
    println!();

    println!("draw of a panel of 3 against the number of registered evaluators (mean of {DRAWS} draws)");
    let mut draws = Map::new();
    for size in [10usize, 1_000, 10_000].into_iter().filter(|size| *size <= options.registry) {
        let ref_time = draw_at(size)?;
        println!("  {size:>6} nodes: {ref_time} ref_time");
        draws.insert(size.to_string(), ref_time.into());
    }
    if let Some(path) = &options.json {
        let all = json!({
            "block_ref_time": BLOCK,
            "rounds_per_block": batched,
            "rounds_per_block_single": single,
            "batch": BATCH,
            "draw_ref_time": draws,
            "open_reference": audits,
            "rounds": rounds,
        });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("\nwritten to {}", path.display());
    }
    Ok(())
}

fn units(amount: i128) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let whole = amount.unsigned_abs();
    format!("{sign}{}.{:06}", whole / UNIT, whole % UNIT / 1_000_000)
}

/// `tasks` rounds, in messages of `tasks` items each, by those who send them: the requester draws its panels, collects the reveals
/// and sends them together, which settles.
fn measure(outputs: u8, panel: u8, tasks: usize) -> Res<Ledger> {
    let mut world = World::new()?;
    let nodes = world.nodes(outputs, panel)?;
    let requester = world.account()?;
    let mut ledger = Ledger::default();
    // Accounts, claims and the kind's memory have been written once before: a round is measured in its steady state.
    let first = world.round(&requester, &nodes, outputs, panel, |_| vec![500; usize::from(outputs)])?;
    world.send(&requester, 0, call().collect(vec![first]))??;

    let requests: Vec<Request> =
        (0..tasks).map(|_| world.request_of(&requester, outputs, panel, FEE)).collect();
    let sent = world.send(&requester, FEE * tasks as u128, call().request_tasks(requests))??;
    ledger.note("requester", "request_tasks", Cost::of(&sent.report, sent.deposit));
    let ids = sent.value;
    for node in &nodes.0 {
        let items =
            ids.iter().map(|id| commit(*id, node.id, world.output_commitment(*id, node.id))).collect();
        let sent = world.send(&node.operator, 0, call().commit_outputs(items))??;
        accepted(&sent.value)?;
        ledger.note("inference", "commit_outputs", Cost::of(&sent.report, sent.deposit));
    }
    let draws = ids.iter().map(|id| world.draw_of(*id)).collect::<Res<Vec<Draw>>>()?;
    let sent = world.send(&requester, 0, call().draw_panels(draws))??;
    if !sent.value.iter().all(|drawn| *drawn == Ok(true)) {
        return Err(format!("a panel was not drawn: {:?}", sent.value).into());
    }
    ledger.note("requester", "draw_panels", Cost::of(&sent.report, sent.deposit));
    let mut reveals: Vec<Reveal> = Vec::new();
    for node in &nodes.1 {
        let of_node: Vec<Reveal> = ids
            .iter()
            .map(|id| world.reveal_of(*id, node.id, &vec![400 + node.id; usize::from(outputs)]))
            .collect();
        let items = of_node
            .iter()
            .map(|reveal| commit(reveal.task, node.id, world.scores_commitment(reveal)))
            .collect();
        let sent = world.send(&node.operator, 0, call().commit_scores(items))??;
        accepted(&sent.value)?;
        ledger.note("evaluator", "commit_scores", Cost::of(&sent.report, sent.deposit));
        reveals.extend(of_node);
    }
    // By task, as many whole tasks in a message as it takes.
    reveals.sort_by_key(|reveal| reveal.task);
    let whole = MAX_BATCH / usize::from(panel) * usize::from(panel);
    for items in reveals.chunks(whole) {
        let sent = world.send(&requester, 0, call().reveal_scores(items.to_vec()))??;
        accepted(&sent.value)?;
        ledger.note("requester", "reveal_scores", Cost::of(&sent.report, sent.deposit));
    }
    let sent = world.send(&requester, 0, call().collect(ids))??;
    ledger.note("requester", "collect", Cost::of(&sent.report, sent.deposit));
    Ok(ledger)
}

fn commit(task: TaskId, node: NodeId, commitment: [u8; 32]) -> Commit {
    Commit { task, node, commitment }
}

fn accepted(results: &[Option<poq_contract::errors::Error>]) -> Res<()> {
    match results.iter().flatten().next() {
        Some(error) => Err(format!("a batched item was refused: {error:?}").into()),
        None => Ok(()),
    }
}

/// An auditor's opening of one task.
fn audit(outputs: u8) -> Res<Cost> {
    const REFERENCE: &[u8] = b"the Denver Broncos";
    const SALT: [u8; 32] = [6; 32];
    let mut world = World::with(&KindParams::default())?;
    let auditor = world.auditor()?;
    let nodes = world.nodes(outputs, 3)?;
    let requester = world.account()?;
    world.round(&requester, &nodes, outputs, 3, |_| vec![500; usize::from(outputs)])?;
    let account: [u8; 32] = *account_of(&auditor).as_ref();
    let committed = blake2(&commitment::reference(&world.network, &account, &blake2(REFERENCE), &SALT));
    let request = world.request_with(&requester, outputs, 3, FEE, committed);
    let sent = world.send(&requester, FEE, call().request_tasks(vec![request]))??;
    let id = *sent.value.first().ok_or("no task was requested")?;
    world.commit_outputs(id, &nodes.0)?;
    world.draw(id)?;
    world.score(id, &nodes.1, |_| vec![600; usize::from(outputs)])?;
    let outputs = vec![Some(TEXT.to_vec()); usize::from(outputs)];
    let opening = Opening { reference: REFERENCE.to_vec(), salt: SALT, outputs };
    let sent = world.send(&auditor, 0, call().open_reference(id, opening))??;
    Ok(Cost::of(&sent.report, sent.deposit))
}

/// The mean weight of drawing a panel of three out of `size` registered evaluators of different stakes.
fn draw_at(size: usize) -> Res<u64> {
    let mut world = World::new()?;
    let (inference, _) = world.nodes(2, 0)?;
    let contract = world.contract.clone();
    let mut registered = 0usize;
    let gas = Weight::from_parts(20_000_000_000, 4_000_000);
    while registered < size {
        let owner = dev::numbered(1_000_000 + registered as u64);
        world.chain.fund(&account_of(&owner), 100_000 * UNIT)?;
        // Small registries have an owner per node, or no panel of different owners could be drawn.
        let here = if size <= 10 { 1 } else { 32.min(size - registered) };
        let calls: Vec<RuntimeCall> = (0..here)
            .map(|index| {
                let number = registered + index;
                let stake = (200 + (number as u128 * 37) % 800) * UNIT;
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
                let registration = Registration {
                    role: Role::Evaluator,
                    kind: KIND,
                    operator: ink_of(&owner),
                    payee: ink_of(&owner),
                    model: "m".into(),
                    model_digest: digest,
                    endpoint: "http://127.0.0.1".into(),
                    price: 0,
                };
                call_of(&contract, stake, gas, None, encode(call().register(registration)))
            })
            .collect();
        let batch = RuntimeCall::Utility(runtime::UtilityCall::batch_all { calls });
        world.chain.submit_call(&owner, batch)?.ok()?;
        registered += here;
        if registered.is_multiple_of(2_048) {
            eprintln!("  registered {registered} of {size}");
        }
    }
    // What owners have done acts in the next epoch. A whole check of the books would read every node: the rest is sent without.
    world.next_epoch()?;
    let requester = world.account()?;
    let mut total = 0;
    for round in 0..DRAWS {
        let request = world.request_of(&requester, 1, 3, FEE);
        world.chain.call(&requester, &contract, FEE, encode(call().request_tasks(vec![request])))?;
        let id = round + 1;
        let assigned = world.task(id)?.task.outputs.first().ok_or("no node was assigned")?.node;
        let node = World::find(&inference, assigned)?.clone();
        let item = commit(id, node.id, world.output_commitment(id, node.id));
        world.chain.call(&node.operator, &contract, 0, encode(call().commit_outputs(vec![item])))?;
        let draw = world.draw_of(id)?;
        let drawn = world.chain.call(&requester, &contract, 0, encode(call().draw_panels(vec![draw])))?;
        total += drawn.report.weight.ref_time();
    }
    Ok(total / DRAWS)
}
