//! The registry on the chain: panels that nobody can change once outputs are sealed, exits that nobody can hold up, deposits that no
//! step moves. The numbers are those of an audit's findings.
#![allow(clippy::unwrap_used, missing_docs)]

use poq_contract::errors::Error;
use poq_contract::types::{Change, Counts, Node, PoolId, Registration, Role, Step, Ver};
use poq_core::registry::{draw, panel_seed, Draw, Registry};
use poq_core::settlement::Ending;
use poq_core::task::Refusal;
use poq_core::units::{NodeId, TaskId};
use poq_core::KindParams;
use poq_runtime_tests::{blake2, call, ink_of, Pair, TestNode, World, EPOCH_MS, KIND, UNBONDING_MS};
use poq_sandbox::{account_of, dev, UNIT};
use std::collections::BTreeMap;

type Res<T = ()> = Result<T, Box<dyn std::error::Error>>;

const EVALUATORS: PoolId = PoolId { kind: KIND, role: Role::Evaluator };

/// The registry as anybody can read it, in an epoch in which no owner has acted yet.
struct Seen {
    counts: Counts,
    members: BTreeMap<(u8, u32), NodeId>,
    nodes: BTreeMap<NodeId, Node>,
}

impl Seen {
    fn now(world: &World) -> Res<Seen> {
        let mut seen =
            Seen { counts: world.kind()?.evaluators, members: BTreeMap::new(), nodes: BTreeMap::new() };
        for view in world.all_nodes()? {
            let place = view.node.standing.place;
            if view.node.role == Role::Evaluator && place.class().is_some() {
                seen.members.insert((place.class, place.index), view.id);
            }
            seen.nodes.insert(view.id, view.node);
        }
        Ok(seen)
    }
}

impl Registry for Seen {
    type Node = Node;
    fn counts(&self, _: PoolId) -> Ver<Counts> {
        Ver::new(self.counts)
    }
    fn member(&self, _: PoolId, class: u8, index: u32) -> Ver<NodeId> {
        Ver::new(self.members.get(&(class, index)).copied().unwrap_or(0))
    }
    fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(&id).cloned()
    }
}

/// Inference nodes and evaluators.
type Nodes = (Vec<TestNode>, Vec<TestNode>);

/// Two inference nodes and twelve evaluators, known since the last epoch, and a task of theirs that is sealed half a minute before the
/// epoch ends.
fn sealed(world: &mut World, panel: u8) -> Res<(Nodes, Pair, TaskId)> {
    let nodes = world.nodes(2, 12)?;
    world.next_epoch()?;
    let left = EPOCH_MS - world.chain.now_ms() % EPOCH_MS;
    world.pass(left - 30_000)?;
    let requester = world.account()?;
    let id = world.request(&requester, 2, panel, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    Ok((nodes, requester, id))
}

/// What an attacker with four of the nodes does to them.
type Attack = fn(&mut World, &[TestNode]) -> Res;

#[test]
fn h4_nobody_can_change_the_panel_of_a_sealed_task() -> Res {
    let mut world = World::new()?;
    let (nodes, requester, id) = sealed(&mut world, 5)?;
    let epoch = u32::try_from(world.chain.now_ms() / EPOCH_MS)?;
    assert_eq!(world.task(id)?.task.sealed_epoch, epoch);
    let seen = Seen::now(&world)?;
    let (own, fork) = (nodes.1[..4].to_vec(), world.chain.snapshot());
    let panel = world.draw(id)?;

    // Anybody can tell it from the sealed epoch, the secret and the salts.
    let task = world.task(id)?.task;
    let salts: Vec<[u8; 32]> = task.outputs.iter().map(|slot| world.opened(id, slot.node).salt).collect();
    let seed = blake2(&panel_seed(&world.network, id, &world.secret(&task.reference_commitment), &salts));
    assert_eq!(task.seed, seed);
    let owners: Vec<[u8; 32]> = nodes.0.iter().map(|node| *account_of(&node.owner).as_ref()).collect();
    let excluded = [owners, vec![*account_of(&requester).as_ref()]].concat();
    let plan = Draw {
        pool: EVALUATORS,
        sealed: epoch,
        now: epoch,
        seed,
        round: 0,
        seats: 5,
        seated: &[],
        excluded: &excluded,
    };
    let at_risk = task.terms.evaluator_at_risk;
    let told = draw(&seen, &plan, blake2, |_, node| node.can_take(at_risk))?;
    assert_eq!(told.seats.iter().map(|(id, _)| *id).collect::<Vec<_>>(), panel);

    let attacks: [(&str, Attack); 8] = [
        ("a later block", |world, _| world.pass(1_000)),
        ("one drains", |world, own| world.send(&own[0].owner, 0, call().drain(own[0].id)).map(drop)),
        ("all drain", |world, own| {
            for node in own {
                world.send(&node.owner, 0, call().drain(node.id))??;
            }
            Ok(())
        }),
        ("drains and resumes", |world, own| {
            world.send(&own[1].owner, 0, call().drain(own[1].id))??;
            world.send(&own[2].owner, 0, call().drain(own[2].id))??;
            world.send(&own[1].owner, 0, call().resume(own[1].id))??;
            Ok(())
        }),
        ("stakes more", |world, own| {
            world.send(&own[0].owner, 800 * UNIT, call().stake(own[0].id)).map(drop)
        }),
        ("unstakes all", |world, own| {
            world.send(&own[3].owner, 0, call().unstake(own[3].id, 200 * UNIT)).map(drop)
        }),
        ("registers", |world, _| {
            for model in 0..3 {
                world.node(Role::Evaluator, 200 + model, 0, 1_000 * UNIT)?;
            }
            Ok(())
        }),
        ("all of it, in two epochs", |world, own| {
            world.send(&own[0].owner, 0, call().drain(own[0].id))??;
            world.send(&own[1].owner, 900 * UNIT, call().stake(own[1].id))??;
            world.pass(40_000)?;
            world.send(&own[0].owner, 0, call().resume(own[0].id))??;
            world.send(&own[2].owner, 0, call().unstake(own[2].id, 150 * UNIT))??;
            world.send(&dev::bob(), 0, call().refresh(own.iter().map(|node| node.id).collect()))??;
            world.node(Role::Evaluator, 210, 0, 1_000 * UNIT)?;
            Ok(())
        }),
    ];
    for (name, attack) in attacks {
        world.chain.restore(&fork);
        attack(&mut world, &own)?;
        assert_eq!(world.draw(id)?, panel, "{name}");
    }

    // What they did shows in tasks that are sealed later.
    world.chain.restore(&fork);
    for node in &nodes.1[..9] {
        world.send(&node.owner, 0, call().drain(node.id))??;
    }
    assert_eq!(world.draw(id)?, panel);
    world.next_epoch()?;
    let left = nodes.1[9..].iter().map(|node| node.id).collect::<Vec<_>>();
    let id = world.request(&requester, 2, 3, 10 * UNIT)??;
    world.commit_outputs(id, &nodes.0)?;
    let mut later = world.draw(id)?;
    later.sort_unstable();
    assert_eq!(later, left);
    Ok(())
}

/// An inference node that does not like the panel which all salts would give has no second one to choose: without its opening there
/// is none.
#[test]
fn h4_a_withheld_opening_is_no_second_try() -> Res {
    let mut world = World::new()?;
    let (nodes, _, id) = sealed(&mut world, 3)?;
    let mut plan = world.draw_of(id)?;
    plan.openings[1] = None;
    assert_eq!(
        world.one(&dev::bob(), call().draw_panels(vec![plan.clone()]))?.unwrap_err(),
        Error::Task(Refusal::NotOpened)
    );
    // In the second half neither.
    world.pass(60_001)?;
    assert!(world.one(&dev::bob(), call().draw_panels(vec![plan]))?.is_err());
    assert_eq!(world.task(id)?.step, Step::End(Ending::Unopened));
    assert_eq!(world.advance(id)??, Step::End(Ending::Unopened));
    assert!(world.panel(id)?.is_empty());
    assert!(nodes.1.iter().all(|node| world.view(node.id).unwrap().node.open_count() == 0));
    Ok(())
}

/// The same network twice, once with one model for all and once with one for each: the same panels.
#[test]
fn h5_declared_models_do_not_matter() -> Res {
    let drawn = |models: fn(u8) -> u8| -> Res<Vec<Vec<NodeId>>> {
        let mut world = World::new()?;
        let inference = vec![world.node(Role::Inference, 1, 0, 400 * UNIT)?];
        for number in 0..9 {
            world.node(Role::Evaluator, models(number), 0, 400 * UNIT)?;
        }
        world.next_epoch()?;
        let requester = world.account()?;
        let mut panels = Vec::new();
        for _ in 0..6 {
            let id = world.request(&requester, 1, 5, 10 * UNIT)??;
            world.commit_outputs(id, &inference)?;
            panels.push(world.draw(id)?);
        }
        Ok(panels)
    };
    let one = drawn(|_| 7)?;
    assert_eq!(one, drawn(|number| number)?);
    assert!(one.iter().any(|panel| *panel != one[0]), "the seeds differ from task to task");
    Ok(())
}

#[test]
fn m3_nobody_can_hold_up_an_exit() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    // It has an open task, and leaves.
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let leaver = nodes.0[0].clone();
    let stranger = world.account()?;
    assert_eq!(world.send(&stranger, 1, call().stake(leaver.id))?.unwrap_err(), Error::NotNodeOwner);
    assert_eq!(world.send(&leaver.operator, 1, call().stake(leaver.id))?.unwrap_err(), Error::NotNodeOwner);
    // Any amount, whatever the minimum: the rest follows in steps.
    let first = world.send(&leaver.owner, 0, call().unstake(leaver.id, 150 * UNIT))??.value;
    let asked = world.chain.now_ms();
    assert!((asked + UNBONDING_MS..asked + UNBONDING_MS * 5 / 4).contains(&first), "{first}");
    // A planck a quarter of an hour does not move it.
    let mut dust = 0;
    while world.chain.now_ms() + 900_000 < first {
        world.pass(900_000)?;
        let later = world.send(&leaver.owner, 0, call().unstake(leaver.id, 1))??.value;
        assert!(later > first || dust == 0);
        dust += 1;
        assert_eq!(
            world.send(&leaver.owner, 0, call().withdraw_unbonded(leaver.id))?.unwrap_err(),
            Error::StillUnbonding
        );
    }
    assert!(dust >= 2);
    world.pass(first - world.chain.now_ms())?;
    // The task is still open: its stake at risk is covered by what is still bonded.
    let before = world.view(leaver.id)?.node;
    assert_eq!(before.stake.locked, world.task(id)?.task.terms.inference_at_risk);
    let paid = world.send(&leaver.owner, 0, call().withdraw_unbonded(leaver.id))??.value;
    assert!(paid >= 150 * UNIT, "{paid}");

    // Nor the last of it, nor the end of its record.
    world.advance(id)??;
    let rest = world.view(leaver.id)?.node.stake.bonded;
    let until = world.send(&leaver.owner, 0, call().unstake(leaver.id, rest))??.value;
    assert_eq!(world.send(&stranger, 1, call().stake(leaver.id))?.unwrap_err(), Error::NotNodeOwner);
    assert_eq!(world.send(&leaver.owner, 0, call().deregister(leaver.id))?.unwrap_err(), Error::NodeInUse);
    world.pass(until - world.chain.now_ms())?;
    world.send(&leaver.owner, 0, call().withdraw_unbonded(leaver.id))??;
    assert_eq!(world.view(leaver.id)?.node.stake.total(), 0);
    world.send(&leaver.owner, 0, call().deregister(leaver.id))??;
    assert!(world.read(call().node(leaver.id))?.is_none());
    Ok(())
}

/// Whoever is drawn while it leaves still answers for it: what unbonds is lockable and can be slashed until no draw can meet it.
#[test]
fn m3_who_leaves_still_answers_for_what_it_was_drawn_for() -> Res {
    let mut world = World::new()?;
    let (nodes, _, id) = sealed(&mut world, 12)?;
    for node in &nodes.1 {
        world.send(&node.owner, 0, call().unstake(node.id, 200 * UNIT))??;
    }
    assert_eq!(world.draw(id)?.len(), 12);
    let at_risk = world.task(id)?.task.terms.evaluator_at_risk;
    let stake = world.view(nodes.1[0].id)?.node.stake;
    assert_eq!((stake.bonded, stake.unbonding(), stake.locked), (0, 200 * UNIT, at_risk));
    // Nobody commits: each loses what a missed duty costs, out of what was on its way out.
    world.pass(120_001)?;
    world.advance(id)?.ok();
    world.pass(EPOCH_MS)?;
    world.advance(id)?.ok();
    let stake = world.view(nodes.1[0].id)?.node.stake;
    assert!(stake.locked == 0 && stake.unbonding() < 200 * UNIT, "{stake:?}");
    Ok(())
}

/// Every step of tasks that fail in turn, slash, drain, and leave a node below the minimum: none moves a storage deposit, and neither
/// does anybody's `refresh` to their own good.
#[test]
fn h6_no_step_moves_a_deposit() -> Res {
    let mut world = World::new()?;
    let params = world.kind()?.kind.params;
    let inference = vec![world.node(Role::Inference, 1, 0, params.stake_min)?];
    let mut evaluators = Vec::new();
    for number in 0..4 {
        // At exactly the minimum: the first small slash leaves them below it.
        evaluators.push(world.node(Role::Evaluator, number, 0, params.stake_min)?);
    }
    world.next_epoch()?;
    let requester = world.account()?;
    let keeper = world.account()?;
    for round in 0..3 {
        let sent = {
            let request = world.request_of(&requester, 1, 3, 10 * UNIT);
            world.send(&requester, 10 * UNIT, call().request_tasks(vec![request]))??
        };
        let id = sent.value[0];
        if round > 0 {
            world.commit_outputs(id, &inference)?;
            let plan = world.draw_of(id)?;
            let sent = world.one(&keeper, call().draw_panels(vec![plan]))??;
            // Its own account's cell is the only thing a keeper ever pays for: its fees are kept there.
            assert!(sent.deposit >= 0);
        }
        let mut steps = 0;
        while !world.task(id)?.task.phase.is_final() {
            world.pass(130_000)?;
            let Ok(sent) = world.one(&keeper, call().advance(vec![id]))? else { continue };
            if steps > 0 || round > 0 {
                assert_eq!(sent.deposit, 0, "round {round}: {:?}", sent.value);
            }
            steps += 1;
        }
        assert!(steps > 0);
    }
    let slashed: Vec<Node> = evaluators.iter().map(|node| world.view(node.id).unwrap().node).collect();
    assert!(slashed.iter().any(|node| node.slashed > 0 && node.stake.bonded < params.stake_min));
    // A slash leaves a node in the draws: nobody is thrown out at once.
    let missed_once = slashed.iter().find(|node| node.slashed > 0 && node.misses < 2);
    if let Some(node) = missed_once {
        assert!(node.standing.weight.latest().ppb() > 0);
    }
    let all = [
        inference.iter().map(|node| node.id).collect(),
        evaluators.iter().map(|node| node.id).collect::<Vec<_>>(),
    ]
    .concat();
    let sent = world.send(&keeper, 0, call().refresh(all))??;
    assert!(sent.deposit >= 0, "a stranger got {} for a refresh", -sent.deposit);

    // The owner alone gets back what its node's record cost.
    let leaver = &evaluators[0];
    let bonded = world.view(leaver.id)?.node.stake.bonded;
    let until = world.send(&leaver.owner, 0, call().unstake(leaver.id, bonded))??.value;
    world.pass(until - world.chain.now_ms())?;
    world.send(&leaver.owner, 0, call().withdraw_unbonded(leaver.id))??;
    if world.view(leaver.id)?.node.claimable > 0 {
        world.send(&leaver.owner, 0, call().claim(leaver.id))??;
    }
    assert_eq!(world.send(&keeper, 0, call().deregister(leaver.id))?.unwrap_err(), Error::NotNodeOwner);
    let sent = world.send(&leaver.owner, 0, call().deregister(leaver.id))??;
    assert!(sent.deposit < 0, "its owner gets its deposit back");
    Ok(())
}

/// A slash of less than a half of the minimum leaves a node in the draws, whoever refreshes it and although its owner adds to it;
/// what takes it out is taking stake out.
#[test]
fn h6_a_small_slash_throws_nobody_out() -> Res {
    let mut world = World::new()?;
    let least = world.kind()?.kind.params.stake_min;
    let node = world.node(Role::Inference, 1, 0, least)?;
    world.nodes(0, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    world.pass(120_001)?;
    world.advance(id)??;
    let after = world.view(node.id)?.node;
    assert!(after.slashed > 0 && after.stake.bonded < least);
    let weight = |world: &World| -> Res<u32> { Ok(world.view(node.id)?.node.standing.weight.latest().ppb()) };
    assert!(weight(&world)? > 0);
    world.send(&dev::bob(), 0, call().refresh(vec![node.id]))??;
    assert!(weight(&world)? > 0);
    world.send(&node.owner, 1, call().stake(node.id))??;
    assert!(weight(&world)? > 0);
    world.send(&node.owner, 0, call().unstake(node.id, 1))??;
    assert_eq!(weight(&world)?, 0);
    Ok(())
}

/// A task that was requested under old parameters ends under new ones: its nodes weigh what the new ones say.
#[test]
fn l2_old_tasks_weigh_by_the_newest_parameters() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.request(&requester, 1, 3, 10 * UNIT)??;
    let old = world.kind()?.kind.params;
    let new = KindParams { stake_cap: old.stake_cap / 4, ..old.clone() };
    world.change(Change::Kind(KIND, new.clone()))?;
    world.send(&dev::bob(), 0, call().refresh(vec![nodes.0[0].id]))??;
    let place = world.view(nodes.0[0].id)?.node.standing.place;
    world.advance(id)??;
    let node = world.view(nodes.0[0].id)?.node;
    assert_eq!(world.task(id)?.task.terms.version, 1);
    assert!(node.slashed > 0);
    assert_eq!(*node.standing.weight.latest(), node.settled_weight(&new));
    assert_ne!(node.settled_weight(&new), node.settled_weight(&old));
    assert_eq!(node.standing.place, place, "a settlement moves no node");
    Ok(())
}

/// The first nodes of a network serve its first task in the epoch in which they register.
#[test]
fn a_new_network_starts_at_once() -> Res {
    let mut world = World::new()?;
    let nodes = world.nodes(1, 3)?;
    let requester = world.account()?;
    let id = world.round(&requester, &nodes, 1, 3, |_| vec![700])?;
    let task = world.task(id)?.task;
    assert!(task.phase.is_final() && task.ending == Ending::Consensus);
    Ok(())
}

/// A pool that is too small is refused before anything is paid.
#[test]
fn a_request_needs_a_panel() -> Res {
    let mut world = World::new()?;
    world.nodes(1, 2)?;
    let requester = world.account()?;
    assert_eq!(world.request(&requester, 1, 3, 10 * UNIT)?.unwrap_err(), Error::TooFewNodes);
    let registration = Registration {
        role: Role::Evaluator,
        kind: KIND + 1,
        operator: ink_of(&requester),
        payee: ink_of(&requester),
        model: "m".into(),
        model_digest: [1; 32],
        endpoint: "http://127.0.0.1:9".into(),
        price: 0,
    };
    assert_eq!(world.send(&requester, 0, call().register(registration))?.unwrap_err(), Error::NoKind);
    Ok(())
}
