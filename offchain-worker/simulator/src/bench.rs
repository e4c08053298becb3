//! Timing: how long rounds take, and how that grows with rounds, panels and nodes. In processor time of one thread: what else
//! the machine is doing then matters little.

use crate::economy::Setting;
use crate::error::Result;
use crate::papers;
use crate::population::Crowd;
use crate::rules::RULE_SETS;
use crate::run::{Effort, Job};
use crate::world::{Spread, World};
use cpu_time::ThreadTime;
use serde::Serialize;

/// One point of the scaling.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// What grows: `rounds`, `panel` or `nodes`.
    pub axis: &'static str,
    /// Rounds.
    pub rounds: u64,
    /// K.
    pub panel: u8,
    /// Inference nodes and evaluators together.
    pub nodes: u32,
    /// Seconds of processor time.
    pub seconds: f64,
    /// Microseconds per round.
    pub per_round_us: f64,
}

/// What was timed.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// 5,000 rounds of the papers' setting, the best of several runs, in seconds of processor time.
    pub seconds_5000_rounds: f64,
    /// How the time grows.
    pub scaling: Vec<Point>,
}

fn seconds(job: &Job<'_>, rounds: u64) -> Result<f64> {
    let start = ThreadTime::now();
    job.replication(Effort { rounds, replications: 1, seed: 1 }, 0)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The papers' setting: five language models, three scoring models, closeness, multiplicative trust, the mean.
pub(crate) fn papers_job(world: &World) -> Job<'_> {
    let mut setting = RULE_SETS[0].setting();
    (setting.outputs, setting.panel) = (1, 3);
    Job { world, setting, crowd: Crowd { inference: 5, evaluators: 9, ..Crowd::default() } }
}

/// Times everything; `quick` goes up to 10⁵ rounds instead of 10⁶.
///
/// # Errors
/// Only bugs.
pub fn time(quick: bool) -> Result<Timing> {
    let paper = World::parametric(papers::cost_aware())?;
    let job = papers_job(&paper);
    let mut best = f64::MAX;
    for _ in 0..7 {
        best = best.min(seconds(&job, 5_000)?);
    }
    let world = World::standard(Spread::Wide)?;
    let shipped = Setting::default();
    let mut scaling = Vec::new();
    let mut point = |axis, rounds: u64, panel: u8, crowd: Crowd| -> Result<()> {
        let job = Job { world: &world, setting: Setting { panel, ..shipped.clone() }, crowd };
        // The shorter ones more than once: the best is the least disturbed.
        let mut best = f64::MAX;
        for _ in 0..if rounds <= 100_000 { 3 } else { 1 } {
            best = best.min(seconds(&job, rounds)?);
        }
        let seconds = best;
        let nodes = crowd.inference + crowd.evaluators;
        scaling.push(Point {
            axis,
            rounds,
            panel,
            nodes,
            seconds,
            per_round_us: seconds / rounds as f64 * 1e6,
        });
        Ok(())
    };
    let crowd = Crowd::default();
    for rounds in [1_000, 10_000, 100_000, 1_000_000] {
        if !quick || rounds <= 100_000 {
            point("rounds", rounds, shipped.panel, crowd)?;
        }
    }
    for panel in [3, 5, 7, 9, 11, 13, 15] {
        point("panel", 20_000, panel, crowd)?;
    }
    for evaluators in [50, 500, 5_000, 9_000] {
        let crowd = Crowd { inference: evaluators / 9, evaluators, ..crowd };
        point("nodes", 20_000, shipped.panel, crowd)?;
    }
    Ok(Timing { seconds_5000_rounds: best, scaling })
}

/// Seconds of processor time that so many rounds of the papers' setting take.
///
/// # Errors
/// Only bugs.
pub fn papers_setting(rounds: u64) -> Result<f64> {
    let world = World::parametric(papers::cost_aware())?;
    seconds(&papers_job(&world), rounds)
}
