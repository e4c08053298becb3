//! Compares what is configured with what the contract knows, and says what keeps a node from earning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use poq_blobs::endpoint::{self, Audience};
use poq_chain::types::{Kind, NodeStatus, NodeView, Role};
use poq_chain::{to_account32, View};
use poq_core::params::MISSES_MAX;

use super::evaluator::rubric_problem;
use super::operator::{NodeRun, Operator};
use super::{class_label, Ctx, Served};
use crate::config::RoleName;
use crate::health::About;
use crate::metrics;

pub(crate) const NAME: &str = "registry";

/// How often it looks. Registrations change by hand, money a few times a minute.
const EVERY: Duration = Duration::from_secs(15);
/// The transactions that an operator's balance should still pay for, by the fee of a plain transfer on a
/// `substrate-contracts-node`: below that a person has some hours to send money.
const LOW_FEES: u128 = 100;

/// Runs until told to stop.
pub(crate) async fn run(ctx: Arc<Ctx>, operators: Arc<Vec<Arc<Operator>>>) -> Served {
    loop {
        let begun = Instant::now();
        match look(&ctx, &operators).await {
            Ok(()) => ctx.board.clear(&About::Contract),
            Err(error) => {
                metrics::call_failed("registry", class_label(&error));
                match error {
                    poq_chain::Error::ContractAbsent { .. } | poq_chain::Error::NotOurContract { .. } => {
                        ctx.board.set(About::Contract, error.to_string());
                    }
                    error => tracing::warn!(%error, "the registry cannot be read"),
                }
            }
        }
        ctx.models.report(&ctx.board);
        // After the look: until the first one is over, nobody knows whether the nodes can earn.
        ctx.board.beat(NAME);
        tokio::select! {
            () = ctx.stop.now.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY.saturating_sub(begun.elapsed()).min(ctx.config.chain.poll_interval * 3)) => {}
        }
    }
}

async fn look(ctx: &Ctx, operators: &[Arc<Operator>]) -> poq_chain::error::Result<()> {
    // A contract that is not there answers no query; this tells so in words that help.
    ctx.client.code_hash().await?;
    let view = ctx.client.view().await?;
    for operator in operators {
        let account = operator.keys.account();
        let free = ctx.client.free_balance(&account).await?;
        metrics::operator_balance(&operator.name, free);
        let reserve = ctx.client.chain().existential_deposit.saturating_mul(LOW_FEES);
        let low = (free < reserve).then(|| {
            format!(
                "the operator {} has {free} left (smallest unit), below {reserve}: it will soon be unable to pay fees; \
                 send it money",
                operator.name
            )
        });
        ctx.board.put(About::Balance(operator.name.clone()), low);
        for run in &operator.nodes {
            let id = run.config.id;
            let problem = match view.node(id).await? {
                None => {
                    metrics::node_gone(id);
                    Some(format!(
                        "node {id} is not registered at this contract; `poq node register` registers one and prints its \
                         number"
                    ))
                }
                Some(found) => {
                    metrics::node(id, &found.node);
                    let kind = kind(&view, &found).await?;
                    check(ctx, operator, run, &found, kind.as_ref())
                }
            };
            ctx.board.put(About::Node(id), problem);
        }
    }
    Ok(())
}

async fn kind(view: &View, node: &NodeView) -> poq_chain::error::Result<Option<Kind>> {
    Ok(view.kind(node.node.kind).await?.map(|view| view.kind))
}

/// What keeps the node from being drawn or from doing its duty, if anything.
fn check(
    ctx: &Ctx,
    operator: &Operator,
    run: &NodeRun,
    found: &NodeView,
    kind: Option<&Kind>,
) -> Option<String> {
    let params = kind.map(|kind| &kind.params);
    let (id, node) = (run.config.id, &found.node);
    if let Some(address) = &ctx.config.blobs.public_url {
        if run.config.role == RoleName::Inference
            && found.info.endpoint.trim_end_matches('/') != address.trim_end_matches('/')
        {
            return Some(format!(
                "node {id} is registered with the endpoint `{}`, and blobs.public_url is `{address}`: evaluators ask the \
                 former; `poq node configure {id} --endpoint {address}` changes it",
                found.info.endpoint
            ));
        }
    }
    // Evaluators fetch outputs from there; a report is fetched by whoever doubts it.
    if run.config.role == RoleName::Inference {
        let audience = Audience::of(ctx.client.chain().is_development());
        if let Err(error) = endpoint::check(&found.info.endpoint, audience) {
            return Some(format!(
                "node {id} is registered with an endpoint that others cannot fetch from: {error} (`poq node configure {id} \
                 --endpoint ADDRESS`)"
            ));
        }
    }
    let registered = match node.role {
        Role::Inference => RoleName::Inference,
        Role::Evaluator => RoleName::Evaluator,
    };
    let registered_operator = to_account32(&node.operator);
    describe(&Facts {
        id,
        configured: run.config.role,
        registered,
        foreign_operator: (registered_operator != operator.keys.account())
            .then(|| registered_operator.to_string()),
        account: &operator.name,
        digest_fits: node.model_digest == run.loaded.digest,
        rubric_problem: params
            .filter(|_| registered == RoleName::Evaluator)
            .and_then(|params| rubric_problem(params.rubric_hash, run.loaded.rubric)),
        model: &run.config.model,
        registered_model: &found.info.model,
        draining: node.status == NodeStatus::Draining,
        misses: node.misses,
        bonded: node.stake.bonded,
        free: node.stake.lockable(),
        locked: node.stake.locked,
        stake_min: params.map_or(0, |params| params.stake_min),
        at_risk: params.map_or(0, |params| match registered {
            // Of the least slot: a task that pays more puts more at risk.
            RoleName::Inference => params.inference_at_risk(params.inference_slot_min),
            RoleName::Evaluator => params.evaluator_at_risk(params.evaluator_slot_min),
        }),
    })
}

struct Facts<'a> {
    id: u32,
    configured: RoleName,
    registered: RoleName,
    foreign_operator: Option<String>,
    account: &'a str,
    digest_fits: bool,
    rubric_problem: Option<String>,
    model: &'a str,
    registered_model: &'a str,
    draining: bool,
    misses: u8,
    bonded: u128,
    free: u128,
    locked: u128,
    stake_min: u128,
    at_risk: u128,
}

fn describe(facts: &Facts<'_>) -> Option<String> {
    let id = facts.id;
    if facts.configured != facts.registered {
        return Some(format!(
            "node {id} is configured as {} and registered as {}; correct [[nodes]] or register another node",
            facts.configured.label(),
            facts.registered.label()
        ));
    }
    if let Some(other) = &facts.foreign_operator {
        return Some(format!(
            "node {id}'s operator is {other}, and this worker has the key of {}; name the right key file, or have the \
             owner change it with `poq node configure {id} --operator {}`",
            facts.account, facts.account
        ));
    }
    if !facts.digest_fits {
        return Some(format!(
            "node {id} is registered with another model (`{}`) than this worker runs (`{}`), by its digest; configure \
             that one, or register a node for this one",
            facts.registered_model, facts.model
        ));
    }
    if let Some(problem) = &facts.rubric_problem {
        return Some(format!("node {id} cannot score: {problem}"));
    }
    if facts.draining {
        let why = match facts.misses {
            misses if misses >= MISSES_MAX => {
                format!(", for it missed {misses} duties in a row: find out why, then")
            }
            _ => ";".to_owned(),
        };
        return Some(format!(
            "node {id} is draining and is not drawn{why} `poq node resume {id}` brings it back"
        ));
    }
    if facts.bonded < facts.stake_min {
        return Some(format!(
            "node {id} has a stake of {} (smallest unit), below its kind's minimum of {}, and is not drawn; `poq node \
             stake {id}` adds to it",
            facts.bonded, facts.stake_min
        ));
    }
    // Free stake that is used up by open duties comes back by itself.
    if facts.free < facts.at_risk && facts.locked == 0 {
        return Some(format!(
            "node {id} has a free stake of {} (smallest unit), and a task puts {} at risk; `poq node stake {id}` adds to it",
            facts.free, facts.at_risk
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            id: 7,
            configured: RoleName::Inference,
            registered: RoleName::Inference,
            foreign_operator: None,
            account: "5F",
            digest_fits: true,
            rubric_problem: None,
            model: "a",
            registered_model: "a",
            draining: false,
            misses: 0,
            bonded: 10,
            free: 10,
            locked: 0,
            stake_min: 10,
            at_risk: 1,
        }
    }

    #[test]
    fn a_node_that_can_earn_has_no_problem() {
        assert_eq!(describe(&facts()), None);
        assert_eq!(describe(&Facts { free: 0, locked: 10, ..facts() }), None);
    }

    #[test]
    fn what_keeps_a_node_from_earning_is_told_with_what_to_do() {
        let cases = [
            (Facts { registered: RoleName::Evaluator, ..facts() }, "[[nodes]]"),
            (Facts { foreign_operator: Some("5G".into()), ..facts() }, "--operator 5F"),
            (Facts { digest_fits: false, ..facts() }, "another model"),
            (
                Facts { rubric_problem: rubric_problem([1; 32], Some([2; 32])), ..facts() },
                "prescribes the rubric 0x0101",
            ),
            (Facts { draining: true, ..facts() }, "poq node resume 7"),
            (Facts { draining: true, misses: 2, ..facts() }, "missed 2 duties"),
            (Facts { bonded: 9, ..facts() }, "poq node stake 7"),
            (Facts { free: 0, ..facts() }, "poq node stake 7"),
        ];
        for (facts, expected) in cases {
            let text = describe(&facts).unwrap_or_default();
            assert!(text.contains("node 7") && text.contains(expected), "{text}");
        }
    }
}
