//! The largest batches of the largest tasks: a message takes as much of them as there is memory for and says so of the rest, and none
//! ends in a trap that nobody could send again in parts.
#![allow(clippy::unwrap_used, missing_docs)]

use parity_scale_codec::Decode;
use poq_contract::errors::Error;
use poq_contract::types::{Commit, Draw, Open, Registration, Request, Reveal, Role, Step, Task, MAX_BATCH};
use poq_core::units::{Balance, NodeId, TaskId};
use poq_runtime_tests::{call, encode, ink_of, Pair, World, KIND};
use poq_sandbox::{account_of, dev, UNIT};
use std::collections::BTreeMap;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The most answers, and the most evaluators.
const SHAPE: (u8, u8) = (4, 15);
/// So many tasks: more than a message has memory for. Batches are filled up with the same ones once more.
const TASKS: usize = 24;
const FEE: Balance = 9 * UNIT;

struct Crowd {
    world: World,
    operators: BTreeMap<NodeId, Pair>,
    requester: Pair,
    tasks: Vec<TaskId>,
}

impl Crowd {
    /// Nodes enough, each with an owner of its own.
    fn new() -> Res<Crowd> {
        let mut world = World::new()?;
        let requester = world.account()?;
        let mut operators = BTreeMap::new();
        for (role, count) in [(Role::Inference, 18), (Role::Evaluator, 40)] {
            for _ in 0..count {
                let owner = dev::numbered(70_000 + operators.len() as u64);
                world.chain.fund(&account_of(&owner), 100_000 * UNIT)?;
                let registration = Registration {
                    role,
                    kind: KIND,
                    operator: ink_of(&owner),
                    payee: ink_of(&owner),
                    model: "m".into(),
                    model_digest: [7; 32],
                    endpoint: "http://127.0.0.1:9".into(),
                    price: 0,
                };
                let contract = world.contract.clone();
                world.chain.call(&owner, &contract, 1_000 * UNIT, encode(call().register(registration)))?;
                operators.insert(operators.len() as NodeId + 1, owner);
            }
        }
        world.next_epoch()?;
        Ok(Crowd { world, operators, requester, tasks: (1..=TASKS as TaskId).collect() })
    }

    /// Sends without looking at all of the books.
    fn send(&mut self, by: &Pair, value: Balance, data: Vec<u8>) -> Res {
        let contract = self.world.contract.clone();
        self.world.chain.call(by, &contract, value, data)?;
        Ok(())
    }

    /// What a message says of its items.
    fn try_out<T: Decode>(&self, value: Balance, data: Vec<u8>) -> Res<Result<Vec<T>, Error>> {
        let by = account_of(&self.requester);
        let dry = self.world.chain.dry_call(&by, &self.world.contract, value, None, None, data)?;
        let answer = dry.result.map_err(|error| format!("{error:?}"))?;
        let [0, answer @ ..] = &answer.data[..] else { return Err("unreadable".into()) };
        Ok(Result::decode(&mut &answer[..])?)
    }

    /// Tries 64 items: some are taken, and for those that are not there was no memory, or they are there twice.
    fn try_steps<T: Decode + std::fmt::Debug>(&self, what: &str, least: usize, data: Vec<u8>) -> Res {
        let items: Vec<Result<T, Error>> = self.try_out(0, data)??;
        self.judge(what, least, items.into_iter().map(Result::err).collect())
    }

    fn judge(&self, what: &str, least: usize, errors: Vec<Option<Error>>) -> Res {
        let taken = errors.iter().filter(|error| error.is_none()).count();
        println!("{what}: {taken} of {TASKS}");
        assert!(taken >= least, "{what}: {taken} taken, {errors:?}");
        let first_out = errors.iter().position(|error| *error == Some(Error::BatchSize));
        if let Some(first) = first_out {
            assert!(
                errors[first..].iter().all(|error| *error == Some(Error::BatchSize)),
                "{what}: {errors:?}"
            );
        }
        Ok(())
    }

    fn task(&self, id: TaskId) -> Res<Task> {
        Ok(self.world.task(id)?.task)
    }
}

fn filled<T: Clone>(items: &[T]) -> Vec<T> {
    items.iter().cycle().take(MAX_BATCH).cloned().collect()
}

#[test]
fn a_batch_of_the_largest_tasks_stops_before_memory_runs_out() -> Res {
    let (n, k) = SHAPE;
    let mut crowd = Crowd::new()?;
    let requester = crowd.requester.clone();
    let requests: Vec<Request> =
        (0..MAX_BATCH).map(|_| crowd.world.request_of(&requester, n, k, FEE)).collect();
    // All or none: the whole batch is refused, and says why.
    let fees = FEE * MAX_BATCH as Balance;
    let all = crowd.try_out::<TaskId>(fees, encode(call().request_tasks(requests.clone())))?;
    assert_eq!(all, Err(Error::BatchSize));
    for part in requests[..TASKS].chunks(8) {
        crowd.send(&requester, FEE * part.len() as Balance, encode(call().request_tasks(part.to_vec())))?;
    }
    let tasks = crowd.tasks.clone();
    let mut commits: BTreeMap<NodeId, Vec<Commit>> = BTreeMap::new();
    let mut opens: Vec<Open> = Vec::new();
    for id in &tasks {
        for slot in crowd.task(*id)?.outputs {
            let commitment = crowd.world.output_commitment(*id, slot.node);
            commits.entry(slot.node).or_default().push(Commit { task: *id, node: slot.node, commitment });
            opens.push(Open { task: *id, node: slot.node, opened: crowd.world.opened(*id, slot.node) });
        }
    }
    for (node, items) in commits {
        let operator = crowd.operators[&node].clone();
        crowd.send(&operator, 0, encode(call().commit_outputs(items)))?;
    }
    let opened: Vec<Option<Error>> =
        crowd.try_out(0, encode(call().open_outputs(opens[..MAX_BATCH].to_vec())))??;
    crowd.judge("open_outputs", 48, opened)?;
    let draws: Vec<Draw> = tasks.iter().map(|id| crowd.world.draw_of(*id)).collect::<Res<_>>()?;
    // More openings do not fit into the 16 KiB that ink! reads of a call.
    crowd.try_steps::<bool>("draw_panels", 4, encode(call().draw_panels(filled(&draws)[..48].to_vec())))?;
    for part in draws.chunks(4) {
        crowd.send(&requester, 0, encode(call().draw_panels(part.to_vec())))?;
    }
    // Nobody scores: all seats are to be filled.
    let drawn = crowd.world.chain.snapshot();
    crowd.world.pass(121_000)?;
    crowd.try_steps::<Step>("advance, filling", 3, encode(call().advance(filled(&tasks))))?;
    crowd.world.chain.restore(&drawn);
    let mut commits: BTreeMap<NodeId, Vec<Commit>> = BTreeMap::new();
    let mut reveals: BTreeMap<TaskId, Vec<Reveal>> = BTreeMap::new();
    for id in &tasks {
        for seat in crowd.task(*id)?.panel {
            let reveal = crowd.world.reveal_of(*id, seat.node, &[500 + seat.node; 4]);
            let commitment = crowd.world.scores_commitment(&reveal);
            commits.entry(seat.node).or_default().push(Commit { task: *id, node: seat.node, commitment });
            reveals.entry(*id).or_default().push(reveal);
        }
    }
    for (node, items) in commits {
        let operator = crowd.operators[&node].clone();
        crowd.send(&operator, 0, encode(call().commit_scores(items)))?;
    }
    // All but the last one of each panel.
    let lasts: Vec<Reveal> = reveals.values_mut().filter_map(Vec::pop).collect();
    let others: Vec<Reveal> = reveals.into_values().flatten().collect();
    for part in others.chunks(28) {
        crowd.send(&requester, 0, encode(call().reveal_scores(part.to_vec())))?;
    }
    let settled: Vec<Option<Error>> = crowd.try_out(0, encode(call().reveal_scores(filled(&lasts))))??;
    crowd.judge("reveal_scores, settling", 4, settled)?;
    crowd.world.pass(61_000)?;
    crowd.try_steps::<Step>("advance, settling", 4, encode(call().advance(filled(&tasks))))?;
    for part in tasks.chunks(4) {
        crowd.send(&requester, 0, encode(call().advance(part.to_vec())))?;
    }
    crowd.send(&requester, 0, encode(call().collect(tasks)))?;
    Ok(())
}
