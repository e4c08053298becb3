//! Replications: the same configuration with other luck, in parallel, in an order that does not depend on threads.

use crate::economy::{Economy, Setting};
use crate::error::Result;
use crate::measure::{Outcome, Recorder};
use crate::population::Crowd;
use crate::rng::Streams;
use crate::world::World;
use rayon::prelude::*;

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Tasks per replication.
    pub rounds: u64,
    /// Replications, each with random numbers of its own.
    pub replications: u32,
    /// What all random numbers come from.
    pub seed: u64,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// Where qualities and scores come from.
    pub world: &'a World,
    /// The rules.
    pub setting: Setting,
    /// Who takes part.
    pub crowd: Crowd,
}

impl Job<'_> {
    /// Runs one replication.
    ///
    /// # Errors
    /// A configuration that cannot be simulated, or a bug that the books found.
    pub fn replication(&self, effort: Effort, replication: u32) -> Result<Outcome> {
        let nodes = self.crowd.nodes(self.world)?;
        let streams = Streams::new(effort.seed, replication);
        let mut economy =
            Economy::new(self.world, &self.setting, nodes, self.crowd.attack, effort.rounds, streams)?;
        let mut recorder = Recorder::new(&economy, effort.rounds);
        for _ in 0..effort.rounds {
            economy.round()?;
            recorder.note(&economy);
        }
        economy.count()?;
        Ok(recorder.finish(&economy))
    }

    /// Runs all replications, in parallel.
    ///
    /// # Errors
    /// As [`Job::replication`].
    pub fn outcomes(&self, effort: Effort) -> Result<Vec<Outcome>> {
        (0..effort.replications).into_par_iter().map(|number| self.replication(effort, number)).collect()
    }
}

/// Runs many configurations in parallel and reduces each one's replications with `reduce`; the results are in the order of
/// the jobs. `done` is called once per job, from whatever thread finished it.
///
/// # Errors
/// The first job that fails.
pub fn run_all<T: Send>(
    jobs: &[Job<'_>],
    effort: Effort,
    reduce: impl Fn(&Job<'_>, Vec<Outcome>) -> T + Sync,
    done: impl Fn() + Sync,
) -> Result<Vec<T>> {
    jobs.par_iter()
        .map(|job| {
            let result = reduce(job, job.outcomes(effort)?);
            done();
            Ok(result)
        })
        .collect()
}
