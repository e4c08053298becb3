//! Who takes part: nodes with their owners, operators and payees, a requester, a keeper, and the contract's owner.

use anyhow::Context;
use poq_chain::types::{Balance, KindParams, NodeId, Ratio, Role};
use poq_chain::{AccountId32, Keys};
use poq_core::params::UNIT;
use poq_simulator::Attack;
use std::path::{Path, PathBuf};

/// The kind of task that the demonstration sets.
pub(super) const KIND: u16 = 1;
/// Evaluators per task.
const PANEL: u8 = 3;
/// Evaluators per task where some of them are dishonest: fewer could not outvote two.
const ATTACKED_PANEL: u8 = 5;
/// Every so many questions are answered by all three models; the others by one that is drawn.
const ALL_ANSWER_EVERY: usize = 3;

/// A node's part: role, model, price and stake in thousandths of the chain's unit.
struct Part {
    role: Role,
    model: &'static str,
    price: u128,
    stake: u128,
}

/// Three language models of different sizes, three evaluators of different models. The larger a language model, the more it
/// asks, and the less it stakes here, so that it is drawn less often: on two processor cores it takes most of the time.
const PARTS: [Part; 6] = [
    Part { role: Role::Inference, model: "smollm2-135m-instruct", price: 20, stake: 400_000 },
    Part { role: Role::Inference, model: "qwen2.5-coder-0.5b-instruct", price: 50, stake: 400_000 },
    Part { role: Role::Inference, model: "qwen2.5-coder-1.5b-instruct", price: 100, stake: 200_000 },
    Part { role: Role::Evaluator, model: "all-minilm-l6-v2", price: 0, stake: 400_000 },
    Part { role: Role::Evaluator, model: "paraphrase-minilm-l3-v2", price: 0, stake: 400_000 },
    Part { role: Role::Evaluator, model: "ms-marco-minilm-l12-v2", price: 0, stake: 400_000 },
];

/// Who is added where evaluators are attacked, the dishonest ones last: no model of which half of the panel would be.
const ADDED: [Part; 2] = [
    Part { role: Role::Evaluator, model: "all-minilm-l6-v2", price: 0, stake: 400_000 },
    Part { role: Role::Evaluator, model: "paraphrase-minilm-l3-v2", price: 0, stake: 400_000 },
];
/// Whose node belongs to a pool.
const POOLED: &str = "all-minilm-l6-v2";
/// Which of the inference nodes is dishonest where those are attacked: colluders need two.
const CORRUPT: [&str; 2] = ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"];

/// The models that the demonstration needs.
pub(super) fn models() -> Vec<&'static str> {
    PARTS.iter().map(|part| part.model).collect()
}

/// How many evaluators score a task.
pub(super) fn panel(attack: Option<Attack>) -> u8 {
    match attack {
        Some(attack) if attack.evaluators() => ATTACKED_PANEL,
        _ => PANEL,
    }
}

/// How many inference nodes answer the question of this index.
pub(super) fn outputs(question: usize) -> u8 {
    if question % ALL_ANSWER_EVERY == ALL_ANSWER_EVERY - 1 {
        3
    } else {
        1
    }
}

/// The kind's parameters in a chain whose unit is `unit` of its smallest ones: the shipped rules, with windows wide enough
/// for models on a slow machine, and small slots.
pub(super) fn kind_params(unit: u128, panel: u8) -> KindParams {
    const MINUTE: u64 = 60_000;
    let shipped = KindParams::without_auditors();
    // The shipped amounts are those of a chain with twelve decimals.
    let scaled = |amount: Balance| amount * unit / UNIT;
    let mut params = KindParams {
        price_cap: unit / 5,
        inference_slot_min: unit / 5,
        evaluator_slot_min: unit / 10,
        fee_max: scaled(shipped.fee_max),
        keeper_fee: scaled(shipped.keeper_fee),
        ring_burn: scaled(shipped.ring_burn),
        stake_min: scaled(shipped.stake_min),
        stake_cap: 4 * scaled(shipped.stake_min),
        inference_ms: 15 * MINUTE,
        draw_ms: 5 * MINUTE,
        commit_ms: 10 * MINUTE,
        reveal_ms: 5 * MINUTE,
        panel_min: panel,
        panel_max: panel,
        quorum: Ratio::from_permille(600),
        ..shipped
    };
    // A queue of four tasks on two cores is no fault of a node's.
    params.inference_latency.max_ms = 2 * MINUTE;
    params.evaluator_latency.max_ms = 2 * MINUTE;
    params
}

/// The fee of a task: somewhat above the smallest.
pub(super) fn fee(unit: u128, outputs: u8, panel: u8) -> u128 {
    unit * u128::from(panel) / 6 + unit * u128::from(outputs) / 2
}

/// Somebody with a key.
#[derive(Clone)]
pub(super) struct Actor {
    /// Who it is, for the money check.
    pub(super) name: String,
    /// Its key.
    pub(super) keys: Keys,
    /// The key's file.
    pub(super) file: PathBuf,
    /// What it needs at the start, in the chain's smallest unit.
    pub(super) needs: u128,
}

impl Actor {
    fn new(folder: &Path, name: String, needs: u128) -> anyhow::Result<Actor> {
        let (keys, secret) = Keys::generate()?;
        let file = folder.join(format!("{}.key", name.replace(' ', "-")));
        Keys::write_new(&file, &secret)
            .with_context(|| format!("cannot write the key file {}", file.display()))?;
        Ok(Actor { name, keys, file, needs })
    }

    /// Its account.
    pub(super) fn account(&self) -> AccountId32 {
        self.keys.account()
    }
}

/// A node and its people.
pub(super) struct Player {
    /// What it does.
    pub(super) role: Role,
    /// The model that it runs.
    pub(super) model: &'static str,
    /// What it asks per task.
    pub(super) price: u128,
    /// What it stakes.
    pub(super) stake: u128,
    /// Stakes and claims; of a pool's node the manager.
    pub(super) owner: Actor,
    /// Does the duties.
    pub(super) operator: Actor,
    /// Is paid, and does nothing else: what it has at the end is what it was paid. A pool is its own node's.
    pub(super) payee: Option<Actor>,
    /// Where its worker serves blobs.
    pub(super) port: u16,
    /// Whether it is dishonest.
    pub(super) dishonest: bool,
    /// Its number, once it is registered.
    pub(super) id: NodeId,
}

impl Player {
    /// Whether its node belongs to a pool.
    pub(super) fn is_pooled(&self) -> bool {
        self.payee.is_none()
    }

    /// Where its outputs are served.
    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Everybody.
pub(super) struct Cast {
    /// Owns the contract.
    pub(super) deployer: Actor,
    /// Asks.
    pub(super) requester: Actor,
    /// Moves tasks on.
    pub(super) keeper: Actor,
    /// Has a part in the pool.
    pub(super) holder: Actor,
    /// Answer and score.
    pub(super) players: Vec<Player>,
}

impl Cast {
    /// With new keys, written to `folder`.
    pub(super) fn new(
        folder: &Path,
        questions: usize,
        unit: u128,
        attack: Option<Attack>,
        cheats: u8,
    ) -> anyhow::Result<Cast> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let fees: u128 = (0..questions).map(|question| fee(unit, outputs(question), panel(attack))).sum();
        // Transaction fees and storage deposits besides, with room to spare.
        let tasks = questions as u128;
        let mut players = Vec::new();
        let mut deposit = 0;
        let added: &[Part] = if attack.is_some_and(Attack::evaluators) { &ADDED } else { &[] };
        // One worker runs all dishonest nodes, and serves what they answer.
        let shared_port = super::chain::free_port()?;
        let honest = PARTS.len() + added.len().saturating_sub(cheats.into());
        for (place, part) in PARTS.iter().chain(added).enumerate() {
            let dishonest =
                place >= honest || (attack.is_some_and(Attack::inference) && CORRUPT.contains(&part.model));
            let stake = part.stake * unit / 1_000;
            let pooled = place < PARTS.len() && part.model == POOLED;
            let which = if place >= PARTS.len() { "another " } else { "" };
            let of = |who: &str| format!("{who} of {which}{}", part.model);
            if pooled {
                deposit = stake - stake / 2;
            }
            players.push(Player {
                role: part.role,
                model: part.model,
                price: part.price * unit / 1_000,
                stake,
                owner: Actor::new(folder, of(if pooled { "manager" } else { "owner" }), stake + 20 * unit)?,
                operator: Actor::new(folder, of("operator"), 5 * unit + tasks * unit / 4)?,
                payee: if pooled { None } else { Some(Actor::new(folder, of("payee"), 0)?) },
                port: if dishonest { shared_port } else { super::chain::free_port()? },
                dishonest,
                id: 0,
            });
        }
        Ok(Cast {
            deployer: Actor::new(folder, "contract owner".into(), 20 * unit)?,
            requester: Actor::new(folder, "requester".into(), fees + 5 * unit + tasks * unit)?,
            keeper: Actor::new(folder, "keeper".into(), 5 * unit + tasks * unit / 2)?,
            holder: Actor::new(folder, "pool holder".into(), deposit + 5 * unit)?,
            players,
        })
    }

    /// Everybody who has an account.
    pub(super) fn actors(&self) -> Vec<&Actor> {
        let players = self.players.iter().flat_map(|player| [&player.owner, &player.operator]);
        let payees = self.players.iter().filter_map(|player| player.payee.as_ref());
        let others = [&self.deployer, &self.requester, &self.keeper, &self.holder];
        others.into_iter().chain(players).chain(payees).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_parameters_are_valid_and_the_fees_fill_every_slot() {
        for unit in [10u128.pow(10), 10u128.pow(12), 10u128.pow(18)] {
            for (panel, outputs) in [(PANEL, 1), (PANEL, 3), (ATTACKED_PANEL, 1), (ATTACKED_PANEL, 3)] {
                let params = kind_params(unit, panel);
                params.validate().unwrap();
                params.fits_epoch(super::super::EPOCH.as_millis() as u64).unwrap();
                let global = super::super::global_params();
                assert!(global.is_valid(super::super::EPOCH.as_millis() as u64, params.life_ms()));
                let split = params.split(fee(unit, outputs, panel), outputs, panel).unwrap();
                for part in PARTS.iter().filter(|part| part.role == Role::Inference) {
                    assert!(
                        split.inference_slot >= part.price * unit / 1_000,
                        "nobody works below its price"
                    );
                    assert!(part.stake * unit / 1_000 >= params.stake_min);
                }
            }
        }
    }

    #[test]
    fn dishonest_nodes_are_found_at_the_one_worker_that_runs_them() {
        let folder = tempfile::tempdir().unwrap();
        for attack in [
            Attack::BoostOwn(0.4),
            Attack::OutputCopying,
            Attack::Boosting(0.4),
            Attack::WithholdOpening,
            Attack::ClaimNoInput,
        ] {
            let keys = folder.path().join(attack.to_string());
            let cast = Cast::new(&keys, 12, 1_000_000, Some(attack), 1).unwrap();
            let ports = |dishonest: bool| {
                let of = cast.players.iter().filter(move |player| player.dishonest == dishonest);
                of.map(|player| player.port).collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!(ports(true).len(), 1, "{attack}");
            assert!(ports(false).is_disjoint(&ports(true)), "{attack}");
        }
    }

    #[test]
    fn keys_are_written_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let cast = Cast::new(&folder.path().join("keys"), 12, 1_000_000, None, 0).unwrap();
        let accounts: std::collections::BTreeSet<_> = cast.actors().iter().map(|a| a.account().0).collect();
        assert_eq!(accounts.len(), 4 + 3 * PARTS.len() - 1, "a pool is its node's payee");
        assert!(cast.actors().iter().all(|actor| actor.file.is_file()));
    }
}
