//! What each failure costs whom, to the last unit: `poq-core`'s settlement of tasks in which one thing goes wrong.
//!
//! Everything else goes as it should: answers are of the mean quality of the *wide* world after ten seconds, evaluators agree with
//! the median of the others after three and earn all of their merit. What work costs off the chain is not counted here.

use crate::economy::{quantise, Setting};
use crate::error::{Error, Result};
use crate::sweep::{short, write_table};
use poq_core::merit::RingEntry;
use poq_core::params::{FeeSplit, UNIT};
use poq_core::settlement::{Answer, Conduct, Ending, EvaluatorInput, OutputInput};
use poq_core::units::{Balance, Millis};
use poq_core::{settle, KindParams, Population, Ratio, Score, Settlement, SettlementInput};
use serde::Serialize;
use std::path::Path;

/// The quality of an ordinary answer: the mean of Beta(4, 2).
const QUALITY: f64 = 2.0 / 3.0;
const ANSWERED_MS: Millis = 10_000;
const SCORED_MS: Millis = 3_000;

/// Who is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Nobody.
    Nobody,
    /// The requester.
    Requester,
    /// One inference node.
    Node,
    /// All inference nodes.
    Nodes,
    /// One evaluator.
    Evaluator,
    /// As many evaluators as it takes.
    Panel,
}

impl Who {
    /// How tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Who::Nobody => "nobody",
            Who::Requester => "requester",
            Who::Node => "a node",
            Who::Nodes => "all nodes",
            Who::Evaluator => "an evaluator",
            Who::Panel => "evaluators",
        }
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nothing.
    None,
    /// The requester never shows its secret.
    SecretWithheld,
    /// It serves the input to the nodes that answer and not to the panel, and nobody relays it.
    InputWithheld,
    /// It serves the input to nobody: every node declines.
    AllWithheld,
    /// A node commits to nothing.
    NodeMisses,
    /// A node says that it cannot.
    NodeDeclines,
    /// A node commits and does not open its output.
    NodeHides,
    /// A node delivers an output that is worth nothing.
    NodeAnswersBadly,
    /// No node commits to anything.
    NodesMiss,
    /// Too few evaluators can be drawn.
    NoPanel,
    /// An evaluator commits to nothing.
    EvaluatorMisses,
    /// An evaluator does not reveal.
    EvaluatorHides,
    /// An evaluator says that there was no input where there was.
    EvaluatorClaimsNoInput,
    /// An evaluator abstains on every output.
    EvaluatorAbstains,
    /// An evaluator scores everything zero.
    EvaluatorIsOutlier,
    /// So many evaluators commit to nothing, those who fill their seats too, that there is no quorum.
    PanelMisses,
    /// So many evaluators do not reveal that there is no quorum.
    PanelHides,
    /// Most of the panel says that there was no input where there was.
    PanelClaimsNoInput,
}

impl Failure {
    /// All, in the order of a task's life.
    pub const ALL: [Failure; 18] = [
        Failure::None,
        Failure::SecretWithheld,
        Failure::InputWithheld,
        Failure::AllWithheld,
        Failure::NodeMisses,
        Failure::NodeDeclines,
        Failure::NodeHides,
        Failure::NodeAnswersBadly,
        Failure::NodesMiss,
        Failure::NoPanel,
        Failure::EvaluatorMisses,
        Failure::EvaluatorHides,
        Failure::EvaluatorClaimsNoInput,
        Failure::EvaluatorAbstains,
        Failure::EvaluatorIsOutlier,
        Failure::PanelMisses,
        Failure::PanelHides,
        Failure::PanelClaimsNoInput,
    ];

    /// How tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::None => "nothing",
            Failure::SecretWithheld => "withholds the secret",
            Failure::InputWithheld => "withholds the input from the panel",
            Failure::AllWithheld => "withholds the input from all",
            Failure::NodeMisses => "does not answer",
            Failure::NodeDeclines => "declines",
            Failure::NodeHides => "does not open its output",
            Failure::NodeAnswersBadly => "answers with nothing of worth",
            Failure::NodesMiss => "do not answer",
            Failure::NoPanel => "too few evaluators can be drawn",
            Failure::EvaluatorMisses => "does not commit",
            Failure::EvaluatorHides => "does not reveal",
            Failure::EvaluatorClaimsNoInput => "says that there was no input",
            Failure::EvaluatorAbstains => "abstains on everything",
            Failure::EvaluatorIsOutlier => "scores everything zero",
            Failure::PanelMisses => "do not commit: no quorum",
            Failure::PanelHides => "do not reveal: no quorum",
            Failure::PanelClaimsNoInput => "say that there was no input: most",
        }
    }

    /// Who is to blame.
    pub const fn by(self) -> Who {
        match self {
            Failure::None | Failure::NoPanel => Who::Nobody,
            Failure::SecretWithheld | Failure::InputWithheld | Failure::AllWithheld => Who::Requester,
            Failure::NodeMisses | Failure::NodeDeclines | Failure::NodeHides | Failure::NodeAnswersBadly => {
                Who::Node
            }
            Failure::NodesMiss => Who::Nodes,
            Failure::EvaluatorMisses
            | Failure::EvaluatorHides
            | Failure::EvaluatorClaimsNoInput
            | Failure::EvaluatorAbstains
            | Failure::EvaluatorIsOutlier => Who::Evaluator,
            Failure::PanelMisses | Failure::PanelHides | Failure::PanelClaimsNoInput => Who::Panel,
        }
    }

    /// How many nodes of the role are to blame.
    fn culprits(self, params: &KindParams, outputs: usize, panel: usize) -> usize {
        match self {
            // One more than a quorum can spare.
            Failure::PanelMisses | Failure::PanelHides => {
                panel + 1 - usize::from(params.quorum_of(u8::try_from(panel).unwrap_or(u8::MAX)))
            }
            Failure::PanelClaimsNoInput => panel / 2 + 1,
            _ => match self.by() {
                Who::Nobody | Who::Requester => 0,
                Who::Nodes => outputs,
                Who::Node | Who::Evaluator | Who::Panel => 1,
            },
        }
    }

    /// What the chain sees of it.
    fn input(self, setting: &Setting, population: &Population) -> SettlementInput {
        let (outputs, panel) = (usize::from(setting.outputs), usize::from(setting.panel));
        let culprits = self.culprits(&setting.params, outputs, panel);
        let delivered = Answer::Delivered { latency_ms: ANSWERED_MS };
        let bad = match self {
            Failure::NodeMisses | Failure::NodesMiss => Answer::Missed,
            Failure::NodeDeclines => Answer::Declined,
            Failure::NodeHides => Answer::Unopened,
            _ => delivered,
        };
        let answers: Vec<Answer> = (0..outputs)
            .map(|node| match self {
                Failure::AllWithheld => Answer::Declined,
                _ if matches!(self.by(), Who::Node | Who::Nodes) && node < culprits => bad,
                _ => delivered,
            })
            .collect();
        let any = answers.contains(&delivered);
        let ending = match self {
            Failure::SecretWithheld => Ending::NoSecret,
            Failure::NodeHides => Ending::Unopened,
            Failure::NoPanel => Ending::NoPanel,
            Failure::PanelMisses | Failure::PanelHides => Ending::BelowQuorum,
            _ if !any => Ending::Undelivered,
            _ => Ending::Consensus,
        };
        let quality = |node: usize| match answers.get(node) {
            Some(Answer::Delivered { .. }) if self == Failure::NodeAnswersBadly && node < culprits => {
                Score::of(Ratio::ZERO)
            }
            Some(Answer::Delivered { .. }) => Score::of(quantise(QUALITY)),
            _ => Score::UNAVAILABLE,
        };
        let honest = || Conduct::Revealed((0..outputs).map(quality).collect());
        let all = |score: Score| Conduct::Revealed(vec![score; outputs]);
        let drawn = matches!(ending, Ending::Consensus | Ending::BelowQuorum | Ending::InputUnavailable);
        let conduct = |seat: usize| match self {
            _ if !drawn => Conduct::Vacant,
            Failure::InputWithheld => all(Score::NO_INPUT),
            Failure::PanelMisses if seat >= culprits => Conduct::Waited,
            _ if !matches!(self.by(), Who::Evaluator | Who::Panel) || seat >= culprits => honest(),
            Failure::EvaluatorMisses | Failure::PanelMisses => Conduct::Missed,
            Failure::EvaluatorHides | Failure::PanelHides => Conduct::Unrevealed,
            Failure::EvaluatorClaimsNoInput | Failure::PanelClaimsNoInput => all(Score::NO_INPUT),
            Failure::EvaluatorAbstains => all(Score::UNAVAILABLE),
            _ => all(Score::of(Ratio::ZERO)),
        };
        // Those who have earned their slots so far earn this one: an eighth of eight.
        let due = setting.split().map_or(0, |split| i128::try_from(7 * split.evaluator_slot).unwrap_or(0));
        SettlementInput {
            ending,
            fee: setting.fee,
            keepers: 0,
            early: false,
            inline: false,
            outputs: answers.iter().map(|answer| OutputInput { answer: *answer, price: 0 }).collect(),
            panel: (0..panel)
                .map(|seat| {
                    let conduct = conduct(seat);
                    let committed = !matches!(conduct, Conduct::Vacant | Conduct::Missed);
                    EvaluatorInput {
                        conduct,
                        latency_ms: if committed { SCORED_MS } else { 0 },
                        trust: setting.params.trust_initial,
                        due,
                    }
                })
                .collect(),
            population: population.clone(),
        }
    }
}

/// A kind whose past tasks were as good as those of the wide world, and whose x_ref is what a good evaluator gains.
fn population(params: &KindParams) -> Population {
    let mut population = Population::new(params);
    // Quantiles of Beta(4, 2).
    const QUANTILES: [f64; 16] = [
        0.301, 0.409, 0.474, 0.524, 0.566, 0.604, 0.638, 0.671, 0.701, 0.731, 0.761, 0.791, 0.822, 0.855,
        0.892, 0.941,
    ];
    for (entry, quality) in population.ring.entries.iter_mut().zip(QUANTILES) {
        *entry = RingEntry { settled_at: 1, quality: quantise(quality) };
    }
    // Below what a good evaluator gains on an answer of the usual quality: it earns all of its merit.
    population.reference = quantise(0.1);
    population
}

/// What one failure costs whom. Amounts are in the chain's smallest unit; what a node *gets* is what it is paid less what it is
/// slashed.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// What went wrong.
    pub failure: Failure,
    /// How the task ended.
    pub ending: Ending,
    /// How many are to blame, where they are nodes.
    pub culprits: usize,
    /// What the requester paid in the end.
    pub requester: i128,
    /// What each of those who are to blame gets, where they are nodes.
    pub culprit: Option<i128>,
    /// What it would have got.
    pub instead_of: Option<i128>,
    /// What an inference node gets that did its duty.
    pub node: Option<i128>,
    /// What an evaluator gets that did its duty or was never asked.
    pub evaluator: Option<i128>,
    /// What the treasury gets.
    pub treasury: i128,
    /// What is burned, of the fee and of stakes.
    pub burned: i128,
    /// What those who are to blame lose by it, all together: less pay, slashes, or for a requester what it pays more.
    pub cost: i128,
    /// What all nodes that are not to blame lose by it.
    pub harm: i128,
}

fn signed(amount: Balance) -> i128 {
    i128::try_from(amount).unwrap_or(i128::MAX)
}

/// What everybody gets, inference nodes first.
fn gets(settlement: &Settlement) -> (Vec<i128>, Vec<i128>) {
    (
        settlement.outputs.iter().map(|o| signed(o.payout) - signed(o.slashed)).collect(),
        settlement.panel.iter().map(|e| signed(e.payout) - signed(e.slashed)).collect(),
    )
}

/// What each failure costs whom under these rules; the first is the task in which nothing fails.
///
/// # Errors
/// A setting that the contract would refuse.
pub fn table(setting: &Setting) -> Result<Vec<Costs>> {
    let _: FeeSplit = setting.split()?;
    let params = &setting.params;
    let population = population(params);
    let refused = || Error::Unsettled { round: 0 };
    let end = |failure: Failure| settle(params, &failure.input(setting, &population)).ok_or_else(refused);
    let whole = end(Failure::None)?;
    let (nodes_whole, panel_whole) = gets(&whole);
    let paid_whole = signed(setting.fee) - signed(whole.refund);
    Failure::ALL
        .into_iter()
        // Of one node all and one are the same.
        .filter(|failure| *failure != Failure::NodesMiss || setting.outputs > 1)
        .map(|failure| {
            let ended = end(failure)?;
            let (nodes, panel) = gets(&ended);
            let culprits = failure.culprits(params, nodes.len(), panel.len());
            let requester = signed(setting.fee) - signed(ended.refund);
            let (bad_nodes, bad_seats) = match failure.by() {
                Who::Node | Who::Nodes => (culprits, 0),
                Who::Evaluator | Who::Panel => (0, culprits),
                Who::Nobody | Who::Requester => (0, 0),
            };
            let lost = |whole: &[i128], now: &[i128]| whole.iter().sum::<i128>() - now.iter().sum::<i128>();
            let (guilty_nodes, nodes_left) = nodes.split_at(bad_nodes);
            let (guilty_seats, seats_left) = panel.split_at(bad_seats);
            Ok(Costs {
                failure,
                ending: ended.ending,
                culprits,
                requester,
                culprit: guilty_nodes.first().or(guilty_seats.first()).copied(),
                instead_of: match (bad_nodes, bad_seats) {
                    (0, 0) => None,
                    (0, _) => panel_whole.first().copied(),
                    _ => nodes_whole.first().copied(),
                },
                node: nodes_left.first().copied(),
                evaluator: seats_left.first().copied(),
                treasury: signed(ended.treasury),
                burned: signed(ended.burned) + signed(ended.slashed),
                cost: match failure.by() {
                    Who::Requester => requester - paid_whole,
                    _ => {
                        lost(&nodes_whole[..bad_nodes], guilty_nodes)
                            + lost(&panel_whole[..bad_seats], guilty_seats)
                    }
                },
                harm: lost(&nodes_whole[bad_nodes..], nodes_left)
                    + lost(&panel_whole[bad_seats..], seats_left),
            })
        })
        .collect()
}

/// The columns of the table.
pub const HEADER: [&str; 10] = [
    "who",
    "what",
    "ends",
    "requester pays",
    "who failed gets",
    "instead of",
    "another node gets",
    "another evaluator gets",
    "treasury",
    "burned",
];

/// An amount in UNIT with four decimals.
fn unit(amount: i128) -> String {
    let amount = amount as f64 / UNIT as f64;
    let text = format!("{amount:.4}");
    match text.strip_prefix('-') {
        Some("0.0000") => "0".into(),
        Some(rest) => format!("−{}", rest.trim_end_matches('0').trim_end_matches('.')),
        None => text.trim_end_matches('0').trim_end_matches('.').into(),
    }
}

/// How an ending is called in the record of a task.
fn ending_name(ending: Ending) -> String {
    serde_json::to_value(ending).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
}

impl Costs {
    /// Its row of the table, amounts in UNIT.
    pub fn row(&self) -> Vec<String> {
        let or_none = |amount: Option<i128>| amount.map_or_else(|| "–".into(), unit);
        let who = match (self.failure.by(), self.culprits) {
            (Who::Panel, n) => format!("{n} evaluators"),
            (who, _) => who.name().into(),
        };
        vec![
            who,
            self.failure.name().into(),
            ending_name(self.ending),
            unit(self.requester),
            or_none(self.culprit),
            or_none(self.instead_of),
            or_none(self.node),
            or_none(self.evaluator),
            unit(self.treasury),
            unit(self.burned),
        ]
    }
}

/// The table as Markdown.
pub fn markdown(costs: &[Costs]) -> String {
    let mut text = format!("| {} |\n|{}\n", HEADER.join(" | "), "---|".repeat(HEADER.len()));
    for costs in costs {
        text += &format!("| {} |\n", costs.row().join(" | "));
    }
    text
}

/// Writes the tables of several settings as one CSV, amounts in UNIT, with what the failure costs those who are to blame and what
/// it costs the others.
///
/// # Errors
/// A setting that the contract would refuse; a file that cannot be written.
pub fn write(path: &Path, settings: &[Setting]) -> Result<()> {
    let header: Vec<String> = [
        "outputs",
        "panel",
        "fee",
        "failure",
        "by",
        "culprits",
        "ending",
        "requester_pays",
        "culprit_gets",
        "instead_of",
        "node_gets",
        "evaluator_gets",
        "treasury",
        "burned",
        "cost",
        "harm",
    ]
    .map(String::from)
    .into();
    let mut rows = Vec::new();
    for setting in settings {
        for costs in table(setting)? {
            let number = |amount: i128| short(amount as f64 / UNIT as f64);
            let or_none = |amount: Option<i128>| amount.map_or_else(String::new, number);
            rows.push(vec![
                setting.outputs.to_string(),
                setting.panel.to_string(),
                number(signed(setting.fee)),
                costs.failure.name().into(),
                costs.failure.by().name().into(),
                costs.culprits.to_string(),
                ending_name(costs.ending),
                number(costs.requester),
                or_none(costs.culprit),
                or_none(costs.instead_of),
                or_none(costs.node),
                or_none(costs.evaluator),
                number(costs.treasury),
                number(costs.burned),
                number(costs.cost),
                number(costs.harm),
            ]);
        }
    }
    write_table(path, &header, &rows)
}

/// The shapes of tasks that the report has: the usual one, one answer and the smallest panel at the largest and at the smallest
/// fee, and four answers.
///
/// # Errors
/// Parameters that allow none of them.
pub fn shapes(params: &KindParams) -> Result<Vec<Setting>> {
    let of = |outputs: u8, panel: u8, fee: Balance| Setting {
        params: params.clone(),
        outputs,
        panel,
        fee,
        ..Setting::default()
    };
    let least = params.fee_min(1, params.panel_min).unwrap_or(params.fee_max);
    let shapes = vec![
        of(2, 9, 10 * UNIT),
        of(1, params.panel_min, params.fee_max),
        of(1, params.panel_min, least),
        of(params.outputs_max, params.panel_max, params.fee_max),
    ];
    for shape in &shapes {
        shape.split()?;
    }
    Ok(shapes)
}
