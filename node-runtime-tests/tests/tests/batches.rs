//! The largest batches: a message says what it takes, and takes that.
#![allow(clippy::unwrap_used, missing_docs)]

use ink::primitives::AccountId;
use parity_scale_codec::Encode;
use poq_contract::types::{Commit, Draw, Open, OutputState, Request, Reveal, Role, Task, MAX_BATCH};
use poq_core::units::{NodeId, TaskId};
use poq_core::KindParams;
use poq_runtime_tests::{call, encode, Pair, TestNode, World, KIND};
use poq_sandbox::{account_of, dev, dispatch_error_name, UNIT};
use std::collections::BTreeMap;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;

struct Crowd {
    world: World,
    nodes: BTreeMap<NodeId, TestNode>,
    requester: Pair,
    tasks: Vec<TaskId>,
    n: u8,
    k: u8,
}

impl Crowd {
    /// 64 tasks of this shape and nodes enough for them, each with an owner of its own.
    fn new(n: u8, k: u8) -> Res<Crowd> {
        let mut world = World::with(&KindParams::without_auditors())?;
        let requester = world.account()?;
        let mut nodes = BTreeMap::new();
        for (role, count) in [(Role::Inference, 4 * u32::from(n) + 2), (Role::Evaluator, (5 * u32::from(k)).min(64))] {
            for number in 0..count {
                let owner = dev::numbered(70_000 + nodes.len() as u64);
                world.chain.fund(&account_of(&owner), 100_000 * UNIT)?;
                let registration = poq_contract::types::Registration {
                    role,
                    kind: KIND,
                    operator: poq_runtime_tests::ink_of(&owner),
                    payee: poq_runtime_tests::ink_of(&owner),
                    model: format!("model {number}"),
                    model_digest: [7; 32],
                    endpoint: "http://127.0.0.1:9".into(),
                    price: 0,
                };
                let contract = world.contract.clone();
                world.chain.call(&owner, &contract, 200 * UNIT, encode(call().register(registration)))?;
                let id = nodes.len() as NodeId + 1;
                let (operator, payee) = (owner.clone(), owner.clone());
                nodes.insert(id, TestNode { id, owner, operator, payee });
            }
        }
        world.next_epoch()?;
        Ok(Crowd { world, nodes, requester, tasks: Vec::new(), n, k })
    }

    fn send(&mut self, by: &Pair, value: u128, data: Vec<u8>) -> Res {
        let contract = self.world.contract.clone();
        self.world.chain.call(by, &contract, value, data)?;
        Ok(())
    }

    /// The most items that a message takes, and why it does not take one more.
    fn most(&self, by: &Pair, value: u128, of: &dyn Fn(usize) -> Vec<u8>, available: usize) -> Res<(usize, String)> {
        let works = |count: usize| -> Res<Result<u64, String>> {
            let value = value * count as u128;
            let dry =
                self.world.chain.dry_call(&account_of(by), &self.world.contract, value, None, None, of(count))?;
            Ok(match dry.result {
                Ok(answer) if !answer.did_revert() => Ok(dry.gas_consumed.ref_time()),
                Ok(answer) => Err(format!("refused {:?}", &answer.data[..answer.data.len().min(8)])),
                Err(error) => Err(dispatch_error_name(&error)),
            })
        };
        let (mut low, mut high) = (0, available.min(MAX_BATCH) + 1);
        let mut why = "more are not allowed".to_owned();
        while high - low > 1 {
            let middle = (low + high) / 2;
            match works(middle)? {
                Ok(_) => low = middle,
                Err(reason) => {
                    why = reason;
                    high = middle;
                }
            }
        }
        Ok((low, why))
    }

    fn requests(&mut self) -> Vec<Request> {
        (0..MAX_BATCH).map(|_| self.world.request_of(&self.requester.clone(), self.n, self.k, 19 * UNIT)).collect()
    }

    fn task(&self, id: TaskId) -> Res<Task> {
        Ok(self.world.task(id)?.task)
    }
}

fn say(shape: (u8, u8), message: &str, found: (usize, String)) {
    println!("n{}k{} {message}: {} ({})", shape.0, shape.1, found.0, found.1);
}

fn measure(n: u8, k: u8) -> Res {
    let shape = (n, k);
    let mut crowd = Crowd::new(n, k)?;
    let requester = crowd.requester.clone();
    let requests = crowd.requests();
    let of = |count: usize| encode(call().request_tasks(requests[..count].to_vec()));
    say(shape, "request_tasks", crowd.most(&requester, 19 * UNIT, &of, 64)?);
    for part in requests.chunks(8) {
        crowd.send(&requester, 19 * UNIT * part.len() as u128, encode(call().request_tasks(part.to_vec())))?;
    }
    crowd.tasks = (1..=MAX_BATCH as u64).collect();
    // Outputs: each node its own.
    let mut by_node: BTreeMap<NodeId, Vec<Commit>> = BTreeMap::new();
    for id in crowd.tasks.clone() {
        for slot in crowd.task(id)?.outputs {
            let commitment = crowd.world.output_commitment(id, slot.node);
            by_node.entry(slot.node).or_default().push(Commit { task: id, node: slot.node, commitment });
        }
    }
    for (node, items) in by_node {
        let operator = crowd.nodes[&node].operator.clone();
        crowd.send(&operator, 0, encode(call().commit_outputs(items)))?;
    }
    let draws: Vec<Draw> = crowd.tasks.iter().map(|id| crowd.world.draw_of(*id)).collect::<Res<_>>()?;
    let opens: Vec<Open> = crowd
        .tasks
        .iter()
        .map(|id| Ok((*id, crowd.task(*id)?)))
        .collect::<Res<Vec<_>>>()?
        .into_iter()
        .flat_map(|(id, task)| task.outputs.into_iter().map(move |slot| (id, slot)))
        .filter(|(_, slot)| slot.state == OutputState::Committed)
        .map(|(id, slot)| Open { task: id, node: slot.node, opened: crowd.world.opened(id, slot.node) })
        .take(64)
        .collect();
    say(shape, "open_outputs", crowd.most(&requester, 0, &|c| encode(call().open_outputs(opens[..c].to_vec())), 64)?);
    say(shape, "draw_panels", crowd.most(&requester, 0, &|c| encode(call().draw_panels(draws[..c].to_vec())), 64)?);
    for part in draws.chunks(4) {
        crowd.send(&requester, 0, encode(call().draw_panels(part.to_vec())))?;
    }
    // Nobody scores: seats are to be filled.
    let snapshot = crowd.world.chain.snapshot();
    crowd.world.pass(121_000)?;
    let ids = crowd.tasks.clone();
    say(shape, "advance, fill", crowd.most(&requester, 0, &|c| encode(call().advance(ids[..c].to_vec())), 64)?);
    crowd.world.chain.restore(&snapshot);
    let mut by_node: BTreeMap<NodeId, Vec<Commit>> = BTreeMap::new();
    let mut reveals: Vec<Reveal> = Vec::new();
    for id in crowd.tasks.clone() {
        for seat in crowd.task(id)?.panel.iter().filter(|seat| seat.node != 0) {
            let reveal = crowd.world.reveal_of(id, seat.node, &vec![500 + seat.node; usize::from(n)]);
            let commitment = crowd.world.scores_commitment(&reveal);
            by_node.entry(seat.node).or_default().push(Commit { task: id, node: seat.node, commitment });
            reveals.push(reveal);
        }
    }
    for (node, items) in by_node {
        let operator = crowd.nodes[&node].operator.clone();
        crowd.send(&operator, 0, encode(call().commit_scores(items)))?;
    }
    say(shape, "reveal_scores, settling", crowd.most(&requester, 0, &|c| encode(call().reveal_scores(reveals[..c].to_vec())), 64)?);
    // All but the last of each panel reveal; then it is late.
    for id in crowd.tasks.clone() {
        let of: Vec<Reveal> = reveals.iter().filter(|reveal| reveal.task == id).cloned().collect();
        let but_one = of[..of.len().saturating_sub(1)].to_vec();
        if !but_one.is_empty() {
            crowd.send(&requester, 0, encode(call().reveal_scores(but_one)))?;
        }
    }
    let lasts: Vec<Reveal> = crowd.tasks.iter().filter_map(|id| reveals.iter().rfind(|reveal| reveal.task == *id).cloned()).collect();
    say(shape, "reveal_scores, the last of each", crowd.most(&requester, 0, &|c| encode(call().reveal_scores(lasts[..c].to_vec())), lasts.len())?);
    crowd.world.pass(61_000)?;
    say(shape, "advance, settle", crowd.most(&requester, 0, &|c| encode(call().advance(ids[..c].to_vec())), 64)?);
    for part in ids.chunks(4) {
        crowd.send(&requester, 0, encode(call().advance(part.to_vec())))?;
    }
    say(shape, "collect", crowd.most(&requester, 0, &|c| encode(call().collect(ids[..c].to_vec())), 64)?);
    let nodes: Vec<NodeId> = crowd.nodes.keys().copied().take(64).collect();
    let all: Vec<NodeId> = nodes.iter().cycle().take(64).copied().collect();
    say(shape, "refresh", crowd.most(&requester, 0, &|c| encode(call().refresh(all[..c].to_vec())), 64)?);
    let _: Option<AccountId> = None;
    let _ = ().encode();
    Ok(())
}

#[test]
fn batches_small() -> Res {
    measure(1, 3)
}

#[test]
fn batches_large() -> Res {
    measure(4, 15)
}
