//! Priors: what is known of a model before it has said anything.
//!
//! Both are lookups in tables made from earlier outcomes ([`rate`], [`cost_efficiency`]). They believe the model that a node
//! is *registered* with, which is a claim: a node that runs a smaller model than it says is paid for the larger one's name
//! as far as these weigh. Hence their small default weights, and hence a rubric may leave them out.

use super::{Case, Dimension, Family};
use crate::{error::Result, manifest::ModelDigest};
use skillratings::{
    elo::{elo, EloConfig, EloRating},
    Outcomes,
};
use std::collections::BTreeMap;

/// A table of values in [0, 1] by model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PriorTable(pub BTreeMap<[u8; 32], f64>);

impl PriorTable {
    fn get(&self, model: Option<ModelDigest>) -> Option<f64> {
        self.0.get(&model?.0).copied()
    }
}

/// A prior as a dimension.
pub struct Prior {
    family: Family,
    table: PriorTable,
}

impl Prior {
    /// How good models were, from [`rate`].
    pub fn model(table: PriorTable) -> Self {
        Self { family: Family::ModelPrior, table }
    }

    /// How much quality models gave for their cost, from [`cost_efficiency`].
    pub fn cost(table: PriorTable) -> Self {
        Self { family: Family::CostPrior, table }
    }
}

impl Dimension for Prior {
    fn name(&self) -> &str {
        match self.family {
            Family::CostPrior => "cost-prior",
            _ => "model-prior",
        }
    }

    fn family(&self) -> Family {
        self.family
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        Ok(case.outputs.iter().map(|output| self.table.get(output.model)).collect())
    }
}

/// Where ratings start; only differences matter.
const START: f64 = 1500.0;

/// Passes over the outcomes, so that a rating does not depend on which came first.
const PASSES: usize = 20;

/// The step of the first pass; later passes take smaller ones and the ratings settle.
const K: f64 = 16.0;

/// Elo ratings of `models` models from `outcomes`: (a, b, score of a), where 1 is a win, 0.5 a draw and 0 a loss.
///
/// Deterministic: the order of the outcomes decides the last digits only.
pub fn rate(models: usize, outcomes: &[(usize, usize, f64)]) -> Vec<f64> {
    let mut ratings = vec![EloRating { rating: START }; models];
    for pass in 0..PASSES {
        let config = EloConfig { k: K / (1.0 + pass as f64) };
        for (a, b, score) in outcomes {
            let outcome = if *score > 0.5 {
                Outcomes::WIN
            } else if *score < 0.5 {
                Outcomes::LOSS
            } else {
                Outcomes::DRAW
            };
            let (new_a, new_b) = elo(&ratings[*a], &ratings[*b], &outcome, &config);
            ratings[*a] = new_a;
            ratings[*b] = new_b;
        }
    }
    ratings.into_iter().map(|rating| rating.rating).collect()
}

/// A rating as a value in (0, 1): the chance of winning against a model with the mean rating, by Elo's formula
/// 1 / (1 + 10^((mean − r)/400)).
pub fn win_chance(ratings: &[f64]) -> Vec<f64> {
    let mean = ratings.iter().sum::<f64>() / ratings.len().max(1) as f64;
    ratings.iter().map(|rating| 1.0 / (1.0 + 10f64.powf((mean - rating) / 400.0))).collect()
}

/// Quality per cost as values in [0, 1], 1 for the most efficient: (quality / cost) relative to the best.
///
/// `quality` is a mean in [0, 1], `cost` anything proportional to what an answer costs (milliseconds, say), above 0.
pub fn cost_efficiency(models: &[(f64, f64)]) -> Vec<f64> {
    let ratio = |(quality, cost): &(f64, f64)| if *cost > 0.0 { quality / cost } else { 0.0 };
    let best = models.iter().map(ratio).fold(0.0, f64::max);
    models.iter().map(|model| if best > 0.0 { super::unit(ratio(model) / best) } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::TaskKind,
        quality::{Output, Query},
    };

    #[test]
    fn who_wins_is_rated_higher() {
        let mut outcomes = Vec::new();
        for i in 0..40 {
            // 0 beats 1 three times in four, 1 beats 2 always, 0 and 2 draw once.
            outcomes.push((0, 1, if i % 4 == 0 { 0.0 } else { 1.0 }));
            outcomes.push((1, 2, 1.0));
        }
        outcomes.push((0, 2, 0.5));
        let ratings = rate(3, &outcomes);
        assert!(ratings[0] > ratings[1] && ratings[1] > ratings[2], "{ratings:?}");
        let chances = win_chance(&ratings);
        assert!(chances[0] > 0.5 && chances[2] < 0.5, "{chances:?}");
        // Three wins in four are 191 points by Elo's formula.
        assert!((100.0..300.0).contains(&(ratings[0] - ratings[1])), "{ratings:?}");
        assert_eq!(rate(3, &outcomes), ratings);
    }

    #[test]
    fn the_cheapest_quality_is_one() {
        assert_eq!(cost_efficiency(&[(0.5, 10.0), (0.8, 32.0), (0.0, 1.0)]), [1.0, 0.5, 0.0]);
        assert_eq!(cost_efficiency(&[(0.5, 0.0)]), [0.0]);
    }

    #[test]
    fn an_unknown_model_has_no_prior() {
        let mut prior = Prior::model(PriorTable([([7; 32], 0.9)].into()));
        let outputs = [
            Output { text: String::new(), model: Some(ModelDigest([7; 32])) },
            Output { text: String::new(), model: Some(ModelDigest([8; 32])) },
            Output::from(String::new()),
        ];
        let case = Case { kind: TaskKind::Qa, query: &Query::default(), outputs: &outputs, references: &[] };
        assert_eq!(prior.score(&case).unwrap(), [Some(0.9), None, None]);
    }
}
