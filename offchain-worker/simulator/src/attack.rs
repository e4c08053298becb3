//! What dishonest nodes do.
//!
//! The first four are the papers' (arXiv 2601.21189, abstract); their forms and strengths are ours, because the paper's
//! could not be read. Attackers know everything that is public when they act: the ring of past consensus values, the usual
//! quality, who answered, who sits on the panel. They see the answers as honest evaluators of their scoring model do, where
//! they look at all. They cannot see what others have committed to: commitments hide it.

use crate::rng::{normal, Rng};
use crate::world::World;
use poq_core::units::Millis;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What dishonest nodes do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attack {
    /// Adds normal noise of this standard deviation to every score (arXiv 2601.21189).
    Noise(f64),
    /// Adds this to every score (arXiv 2601.21189).
    Boosting(f64),
    /// Takes this from every score (arXiv 2601.21189).
    Sabotage(f64),
    /// With this probability per task boosts by 0.4, all colluders in the same tasks; else honest (arXiv 2601.21189).
    Intermittent(f64),
    /// Reports the consensus that was settled last: the only one that commit and reveal leave to be copied.
    CopyCat,
    /// Always reports the usual quality plus this, without looking.
    Constant(f64),
    /// With this probability per task does not look and reports the usual quality; else honest.
    Lazy(f64),
    /// Colluders agree on a number per output without looking: the usual quality plus this many times its deviations.
    SharedSignal(f64),
    /// One colluder on the panel looks, all report what it saw.
    FreeRide,
    /// Honest, but where colluders have the majority of a panel they add this to every score.
    PanelMajority(f64),
    /// Adds this to the scores of colluding inference nodes and takes it from all others'.
    BoostOwn(f64),
    /// Knows the ring that it will be compared with and reports what gains most against it; sees with noise of this
    /// standard deviation.
    Exaggerate(f64),
    /// Abstains on outputs that look ordinary: nearer to the usual quality than this.
    Selective(f64),
    /// Commits to honest scores and never reveals.
    NeverReveal,
    /// Commits to noisy scores (standard deviation 0.3), waits for the others' reveals and reveals only when its mean distance
    /// from their median is below this.
    RevealIfGood(f64),
    /// Never commits.
    NoShow,
    /// Honest, but commits its scores only after this many seconds.
    SlowScoring(f64),
    /// The same stake split over this many identities, each with an owner account of its own, that free-ride on one look.
    SybilSplit(f64),
    /// A constant scorer that registers anew whenever its trust falls below this share of a new evaluator's.
    Whitewash(f64),
    /// Inference nodes that deliver only after this many seconds.
    SlowDelivery(f64),
    /// Colluding inference nodes on one task run the model once and all deliver its output.
    OutputCopying,
    /// Inference nodes that claim their model and run the world's cheapest one, at this share of its effort.
    ModelSwap(f64),
    /// Inference nodes that commit and never open their outputs, so that no panel can be drawn.
    WithholdOpening,
    /// Inference nodes that decline whatever they are asked.
    Decline,
    /// Evaluators that say that the input could not be had.
    ClaimNoInput,
}

/// Whose nodes an attack corrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupts {
    /// Evaluators.
    Evaluators,
    /// Inference nodes.
    Inference,
    /// Both, as one coalition.
    Both,
}

impl Attack {
    /// Every attack at its usual strength.
    pub const ALL: [Attack; 25] = [
        Attack::Noise(0.3),
        Attack::Boosting(0.4),
        Attack::Sabotage(0.4),
        Attack::Intermittent(0.3),
        Attack::CopyCat,
        Attack::Constant(0.0),
        Attack::Lazy(0.5),
        Attack::SharedSignal(1.0),
        Attack::FreeRide,
        Attack::PanelMajority(0.4),
        Attack::BoostOwn(0.4),
        Attack::Exaggerate(0.08),
        Attack::Selective(0.08),
        Attack::NeverReveal,
        Attack::RevealIfGood(0.2),
        Attack::NoShow,
        Attack::SlowScoring(100.0),
        Attack::SybilSplit(4.0),
        Attack::Whitewash(0.9),
        Attack::SlowDelivery(100.0),
        Attack::OutputCopying,
        Attack::ModelSwap(0.25),
        Attack::WithholdOpening,
        Attack::Decline,
        Attack::ClaimNoInput,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Attack::Noise(_) => "noise",
            Attack::Boosting(_) => "boosting",
            Attack::Sabotage(_) => "sabotage",
            Attack::Intermittent(_) => "intermittent",
            Attack::CopyCat => "copy-cat",
            Attack::Constant(_) => "constant",
            Attack::Lazy(_) => "lazy",
            Attack::SharedSignal(_) => "shared-signal",
            Attack::FreeRide => "free-ride",
            Attack::PanelMajority(_) => "panel-majority",
            Attack::BoostOwn(_) => "boost-own",
            Attack::Exaggerate(_) => "exaggerate",
            Attack::Selective(_) => "selective",
            Attack::NeverReveal => "never-reveal",
            Attack::RevealIfGood(_) => "reveal-if-good",
            Attack::NoShow => "no-show",
            Attack::SlowScoring(_) => "slow-scoring",
            Attack::SybilSplit(_) => "sybil-split",
            Attack::Whitewash(_) => "whitewash",
            Attack::SlowDelivery(_) => "slow-delivery",
            Attack::OutputCopying => "output-copying",
            Attack::ModelSwap(_) => "model-swap",
            Attack::WithholdOpening => "withhold-opening",
            Attack::Decline => "decline",
            Attack::ClaimNoInput => "claim-no-input",
        }
    }

    /// Its strength, where it has one, and where that may lie.
    fn strength(&mut self) -> Option<(&mut f64, std::ops::RangeInclusive<f64>)> {
        match self {
            Attack::Noise(x) | Attack::Boosting(x) | Attack::Sabotage(x) => Some((x, 0.0..=1.0)),
            Attack::PanelMajority(x) | Attack::BoostOwn(x) => Some((x, 0.0..=1.0)),
            Attack::Intermittent(x) | Attack::Lazy(x) => Some((x, 0.0..=1.0)),
            Attack::Exaggerate(x) | Attack::Selective(x) => Some((x, 0.0..=1.0)),
            Attack::RevealIfGood(x) | Attack::Whitewash(x) | Attack::ModelSwap(x) => Some((x, 0.0..=1.0)),
            Attack::Constant(x) => Some((x, -1.0..=1.0)),
            Attack::SharedSignal(x) => Some((x, 0.0..=20.0)),
            Attack::SlowScoring(x) | Attack::SlowDelivery(x) => Some((x, 0.0..=86_400.0)),
            Attack::SybilSplit(x) => Some((x, 1.0..=10.0)),
            Attack::CopyCat
            | Attack::FreeRide
            | Attack::NeverReveal
            | Attack::NoShow
            | Attack::OutputCopying
            | Attack::WithholdOpening
            | Attack::Decline
            | Attack::ClaimNoInput => None,
        }
    }

    /// Its strength, where it has one.
    pub fn strength_of(self) -> Option<f64> {
        let mut copy = self;
        copy.strength().map(|(strength, _)| *strength)
    }

    /// Whose nodes it corrupts.
    pub const fn corrupts(self) -> Corrupts {
        match self {
            Attack::SlowDelivery(_)
            | Attack::OutputCopying
            | Attack::ModelSwap(_)
            | Attack::WithholdOpening
            | Attack::Decline => Corrupts::Inference,
            Attack::BoostOwn(_) => Corrupts::Both,
            _ => Corrupts::Evaluators,
        }
    }

    /// Whether it corrupts evaluators.
    pub const fn evaluators(self) -> bool {
        !matches!(self.corrupts(), Corrupts::Inference)
    }

    /// Whether it corrupts inference nodes.
    pub const fn inference(self) -> bool {
        !matches!(self.corrupts(), Corrupts::Evaluators)
    }

    /// Into how many identities an attacker splits its stake.
    pub fn identities(self) -> u32 {
        match self {
            Attack::SybilSplit(n) => n.round().clamp(1.0, 10.0) as u32,
            _ => 1,
        }
    }

    /// Whether an attacker runs its scoring model at all.
    const fn looks(self) -> bool {
        !matches!(
            self,
            Attack::CopyCat
                | Attack::Constant(_)
                | Attack::SharedSignal(_)
                | Attack::NoShow
                | Attack::Whitewash(_)
                | Attack::ClaimNoInput
        )
    }

    /// The share of a new evaluator's trust below which an attacker registers anew.
    pub const fn registers_anew_below(self) -> Option<f64> {
        match self {
            Attack::Whitewash(share) => Some(share),
            _ => None,
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.strength_of() {
            Some(x) => write!(f, "={x}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Attack {
    type Err = String;

    /// `boosting`, or `boosting=0.3`.
    fn from_str(text: &str) -> Result<Attack, String> {
        let (name, strength) = match text.split_once('=') {
            Some((name, strength)) => (name, Some(strength)),
            None => (text, None),
        };
        let mut attack = Attack::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Attack::ALL.iter().map(|a| a.name()).collect();
            format!("no attack is named `{name}`; there are: {}", known.join(", "))
        })?;
        if let Some(strength) = strength {
            let given: f64 =
                strength.parse().map_err(|_| format!("`{strength}` is no number (of {name}'s strength)"))?;
            let (own, range) = attack.strength().ok_or_else(|| format!("{name} has no strength"))?;
            if !range.contains(&given) {
                return Err(format!("{name}'s strength must be in [{}, {}]", range.start(), range.end()));
            }
            *own = given;
        }
        Ok(attack)
    }
}

/// What colluders share in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collusion {
    /// A number per output that nobody looked for.
    pub(crate) signal: Vec<f64>,
    /// What the first of them on the panel saw, where one has looked.
    pub(crate) seen: Vec<Option<f64>>,
    /// Whether this is one of the tasks that intermittent attackers attack.
    pub(crate) attacking: bool,
    /// Whether they have the majority of the panel.
    pub(crate) majority: bool,
}

impl Collusion {
    /// Prepares a round: tosses the coins that colluders share.
    pub(crate) fn prepare(&mut self, attack: Attack, world: &World, outputs: usize, rng: &mut Rng) {
        self.signal.clear();
        self.seen.clear();
        self.majority = false;
        self.attacking = match attack {
            Attack::Intermittent(probability) => rng.random::<f64>() < probability,
            _ => false,
        };
        if let Attack::SharedSignal(factor) = attack {
            let usual = world.usual_quality();
            self.signal.extend((0..outputs).map(|_| {
                let drawn = world.usual_draw(rng);
                (usual + factor * (drawn - usual)).clamp(0.0, 1.0)
            }));
        }
    }
}

/// What an evaluator knows when it decides on its scores.
pub(crate) struct View<'a> {
    /// What it sees of every answer; `None` where it could not be had. Not to be used by those who do not look.
    pub(crate) seen: &'a [Option<f64>],
    /// By output, whether a colluder's node wrote it.
    pub(crate) own: &'a [bool],
    /// The kind's past consensus values, in [0, 1].
    pub(crate) ring: &'a [f64],
    /// The one settled last.
    pub(crate) last: Option<f64>,
    /// The quality that everybody expects without looking.
    pub(crate) usual: f64,
}

/// When an evaluator that has committed reveals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reveal {
    /// As soon as it may.
    Always,
    /// Never.
    Never,
    /// Last, and only if its mean distance from the others' median is below this.
    IfWithin(f64),
}

/// What a dishonest evaluator does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Whether it commits at all.
    pub commits: bool,
    /// Whether it reveals.
    pub reveal: Reveal,
    /// How long it waits at least before it commits.
    pub at_least_ms: Millis,
    /// Whether it ran its scoring model, which costs.
    pub looked: bool,
    /// Whether it says that the input could not be had, instead of its scores.
    pub no_input: bool,
}

/// Plans a dishonest evaluator's duty: fills `scores`, one per output.
pub(crate) fn plan(
    attack: Attack,
    view: &View<'_>,
    collusion: &mut Collusion,
    rng: &mut Rng,
    scores: &mut Vec<Option<f64>>,
) -> Plan {
    let mut plan = Plan {
        commits: true,
        reveal: Reveal::Always,
        at_least_ms: 0,
        looked: attack.looks(),
        no_input: false,
    };
    let shifted = |by: f64| view.seen.iter().map(move |seen| seen.map(|s| s + by));
    scores.clear();
    match attack {
        Attack::Noise(sd) => scores.extend(view.seen.iter().map(|seen| seen.map(|s| s + sd * normal(rng)))),
        Attack::Boosting(by) => scores.extend(shifted(by)),
        Attack::Sabotage(by) => scores.extend(shifted(-by)),
        Attack::Intermittent(_) => scores.extend(shifted(if collusion.attacking { 0.4 } else { 0.0 })),
        Attack::PanelMajority(by) => scores.extend(shifted(if collusion.majority { by } else { 0.0 })),
        Attack::CopyCat => scores.extend(view.seen.iter().map(|_| Some(view.last.unwrap_or(view.usual)))),
        Attack::Constant(by) => scores.extend(view.seen.iter().map(|_| Some(view.usual + by))),
        Attack::Whitewash(_) => scores.extend(view.seen.iter().map(|_| Some(view.usual))),
        Attack::Lazy(probability) => {
            plan.looked = rng.random::<f64>() >= probability;
            let looked = plan.looked;
            scores.extend(view.seen.iter().map(|seen| if looked { *seen } else { Some(view.usual) }));
        }
        Attack::SharedSignal(_) => scores.extend(collusion.signal.iter().map(|s| Some(*s))),
        Attack::FreeRide | Attack::SybilSplit(_) => {
            if collusion.seen.is_empty() {
                collusion.seen.extend_from_slice(view.seen);
            } else {
                plan.looked = false;
            }
            scores.extend_from_slice(&collusion.seen);
        }
        Attack::BoostOwn(by) => scores.extend(
            view.seen
                .iter()
                .zip(view.own)
                .map(|(seen, own)| seen.map(|s| if *own { s + by } else { s - by })),
        ),
        Attack::Exaggerate(sd) => {
            scores.extend(view.seen.iter().map(|seen| seen.map(|s| exaggerate(s, sd, view.ring))));
        }
        Attack::Selective(within) => {
            scores.extend(view.seen.iter().map(|seen| seen.filter(|s| (s - view.usual).abs() >= within)))
        }
        Attack::NeverReveal => {
            scores.extend_from_slice(view.seen);
            plan.reveal = Reveal::Never;
        }
        Attack::RevealIfGood(within) => {
            scores.extend(view.seen.iter().map(|seen| seen.map(|s| s + 0.3 * normal(rng))));
            plan.reveal = Reveal::IfWithin(within);
        }
        Attack::NoShow => {
            scores.extend(view.seen.iter().map(|_| None));
            plan.commits = false;
        }
        Attack::SlowScoring(seconds) => {
            scores.extend_from_slice(view.seen);
            plan.at_least_ms = (seconds * 1_000.0) as Millis;
        }
        Attack::ClaimNoInput => {
            scores.extend(view.seen.iter().map(|_| None));
            plan.no_input = true;
        }
        Attack::SlowDelivery(_)
        | Attack::OutputCopying
        | Attack::ModelSwap(_)
        | Attack::WithholdOpening
        | Attack::Decline => {
            scores.extend_from_slice(view.seen);
        }
    }
    plan
}

/// The score whose expected information gain is highest for one that sees `seen`, where the panel's consensus is normal
/// around it with standard deviation `sd`: away from the ring, towards where the consensus may be.
fn exaggerate(seen: f64, sd: f64, ring: &[f64]) -> f64 {
    /// Quantiles of a standard normal number.
    const QUANTILES: [f64; 11] = [-1.73, -1.1, -0.75, -0.47, -0.23, 0.0, 0.23, 0.47, 0.75, 1.1, 1.73];
    if ring.is_empty() {
        return seen;
    }
    let gain = |x: f64| {
        let apart = ring.iter().map(|q| (x - q).abs()).sum::<f64>() / ring.len() as f64;
        let off = QUANTILES.iter().map(|z| (x - seen - z * sd).abs()).sum::<f64>() / QUANTILES.len() as f64;
        apart - off
    };
    let grid = (0..=50).map(|i| f64::from(i) / 50.0);
    grid.max_by(|a, b| gain(*a).total_cmp(&gain(*b))).unwrap_or(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};
    use crate::world::Spread;

    const SEEN: [Option<f64>; 3] = [Some(0.5), Some(0.7), None];
    const OWN: [bool; 3] = [true, false, false];
    const EARLIER: [f64; 4] = [0.6, 0.65, 0.7, 0.62];

    struct Given {
        scores: Vec<Option<f64>>,
        plan: Plan,
    }

    fn collusion(attack: Attack, seed: u64) -> (Collusion, Rng) {
        let world = World::standard(Spread::Wide).unwrap();
        let mut rng = Streams::new(seed, 0).round(0, Purpose::Attack);
        let mut collusion = Collusion::default();
        collusion.prepare(attack, &world, SEEN.len(), &mut rng);
        (collusion, rng)
    }

    fn act(attack: Attack, seen: &[Option<f64>], shared: &mut Collusion, rng: &mut Rng) -> Given {
        let view = View { seen, own: &OWN, ring: &EARLIER, last: Some(0.62), usual: 0.65 };
        let mut scores = Vec::new();
        let plan = plan(attack, &view, shared, rng, &mut scores);
        assert_eq!(scores.len(), seen.len());
        Given { scores, plan }
    }

    fn once(attack: Attack) -> Given {
        let (mut shared, mut rng) = collusion(attack, 1);
        act(attack, &SEEN, &mut shared, &mut rng)
    }

    fn near(scores: &[Option<f64>], expected: &[Option<f64>]) -> bool {
        scores.len() == expected.len()
            && scores.iter().zip(expected).all(|(a, b)| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                (a, b) => a == b,
            })
    }

    #[test]
    fn scores_are_shifted_as_the_names_say() {
        assert!(near(&once(Attack::Boosting(0.2)).scores, &[Some(0.7), Some(0.9), None]));
        assert!(near(&once(Attack::Sabotage(0.2)).scores, &[Some(0.3), Some(0.5), None]));
        assert!(near(&once(Attack::BoostOwn(0.2)).scores, &[Some(0.7), Some(0.5), None]));
        assert!(near(&once(Attack::SlowScoring(5.0)).scores, &SEEN));
        assert_eq!(once(Attack::SlowScoring(5.0)).plan.at_least_ms, 5_000);
    }

    #[test]
    fn noise_is_centred_on_what_was_seen() {
        let (mut shared, mut rng) = collusion(Attack::Noise(0.3), 3);
        let mut errors = Vec::new();
        for _ in 0..4_000 {
            let given = act(Attack::Noise(0.3), &[Some(0.5)], &mut shared, &mut rng);
            errors.push(given.scores[0].unwrap() - 0.5);
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let sd = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        assert!(mean.abs() < 0.02 && (sd - 0.3).abs() < 0.02);
    }

    #[test]
    fn those_who_do_not_look_do_not_depend_on_what_there_is_to_see() {
        for attack in
            [Attack::CopyCat, Attack::Constant(0.0), Attack::SharedSignal(1.0), Attack::Whitewash(0.4)]
        {
            let with = |seen: &[Option<f64>]| {
                let (mut shared, mut rng) = collusion(attack, 5);
                act(attack, seen, &mut shared, &mut rng)
            };
            let (one, other) = (with(&SEEN), with(&[Some(0.1), Some(0.2), Some(0.3)]));
            assert!(near(&one.scores, &other.scores) && !one.plan.looked);
        }
        assert!(near(&once(Attack::CopyCat).scores, &[Some(0.62); 3]));
        assert!(near(&once(Attack::Constant(-0.1)).scores, &[Some(0.55); 3]));
    }

    #[test]
    fn a_signal_is_the_same_for_all_and_differs_between_outputs_and_rounds() {
        let attack = Attack::SharedSignal(1.0);
        let (mut shared, mut rng) = collusion(attack, 7);
        let first = act(attack, &SEEN, &mut shared, &mut rng).scores;
        assert!(near(&first, &act(attack, &SEEN, &mut shared, &mut rng).scores));
        assert_ne!(first[0], first[1]);
        let (mut later, mut rng) = collusion(attack, 8);
        assert!(!near(&first, &act(attack, &SEEN, &mut later, &mut rng).scores));
    }

    #[test]
    fn free_riders_repeat_what_the_first_one_saw_and_only_it_pays_for_looking() {
        for attack in [Attack::FreeRide, Attack::SybilSplit(3.0)] {
            let (mut shared, mut rng) = collusion(attack, 9);
            let first = act(attack, &SEEN, &mut shared, &mut rng);
            let second = act(attack, &[Some(0.1); 3], &mut shared, &mut rng);
            assert!(near(&first.scores, &SEEN) && near(&second.scores, &SEEN));
            assert!(first.plan.looked && !second.plan.looked);
        }
        assert_eq!(Attack::SybilSplit(3.0).identities(), 3);
    }

    #[test]
    fn intermittent_attackers_attack_in_the_share_of_tasks_that_they_say() {
        let attack = Attack::Intermittent(0.3);
        let mut attacked = 0;
        for seed in 0..2_000 {
            let (mut shared, mut rng) = collusion(attack, seed);
            let scores = act(attack, &[Some(0.5)], &mut shared, &mut rng).scores;
            assert!(near(&scores, &[Some(0.5)]) || near(&scores, &[Some(0.9)]));
            attacked += u32::from(scores[0] > Some(0.7));
        }
        assert!((500..700).contains(&attacked));
    }

    #[test]
    fn the_lazy_look_and_pay_for_it_in_the_share_of_tasks_that_they_say() {
        let attack = Attack::Lazy(0.3);
        let mut looked = 0;
        for seed in 0..2_000 {
            let (mut shared, mut rng) = collusion(attack, seed);
            let acted = act(attack, &[Some(0.1)], &mut shared, &mut rng);
            assert_eq!(acted.plan.looked, near(&acted.scores, &[Some(0.1)]));
            looked += u32::from(acted.plan.looked);
        }
        assert!((1_300..1_500).contains(&looked));
    }

    #[test]
    fn a_majority_boosts_and_a_minority_is_honest() {
        let attack = Attack::PanelMajority(0.4);
        let (mut shared, mut rng) = collusion(attack, 1);
        assert!(near(&act(attack, &SEEN, &mut shared, &mut rng).scores, &SEEN));
        shared.majority = true;
        assert!(near(&act(attack, &SEEN, &mut shared, &mut rng).scores, &[Some(0.9), Some(1.1), None]));
    }

    #[test]
    fn exaggeration_goes_away_from_the_ring() {
        let given = once(Attack::Exaggerate(0.08)).scores;
        assert!(given[0] < Some(0.5) && given[1] > Some(0.7));
    }

    #[test]
    fn abstaining_withholding_and_staying_away() {
        assert!(near(&once(Attack::Selective(0.1)).scores, &[Some(0.5), None, None]));
        assert_eq!(once(Attack::NeverReveal).plan.reveal, Reveal::Never);
        assert_eq!(once(Attack::RevealIfGood(0.2)).plan.reveal, Reveal::IfWithin(0.2));
        assert!(!once(Attack::NoShow).plan.commits);
    }

    #[test]
    fn names_read_back() {
        for attack in Attack::ALL {
            assert_eq!(attack.to_string().parse::<Attack>().unwrap(), attack);
            assert_eq!(attack.name().parse::<Attack>().unwrap(), attack);
        }
        assert_eq!("boosting=0.25".parse::<Attack>().unwrap(), Attack::Boosting(0.25));
        assert!("bosting".parse::<Attack>().unwrap_err().contains("there are: noise"));
        assert!("boosting=7".parse::<Attack>().unwrap_err().contains("[0, 1]"));
        assert!("boosting=x".parse::<Attack>().unwrap_err().contains("no number"));
        assert!("copy-cat=1".parse::<Attack>().unwrap_err().contains("no strength"));
    }
}
