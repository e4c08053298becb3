//! Learning a rubric from the training prompts.
//!
//! Everything here looks at training prompts only, choices included: between ways of weighing it chooses by
//! cross-validation over training prompts. So what the held-out prompts say about the result is not flattered.

use crate::dataset::{Dataset, Part};
use poq_inference::{
    quality::{
        calibration::{audit, fit_weights, gate, pearson, Audit, Calibration, Sample},
        composite::composite,
        rubric::{Profile, Signal},
        Family, Rubric,
    },
    ModelEntry, Role, TaskKind,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A dimension must correlate by more than this with token F1 on the training prompts to be kept.
pub const GATE: f64 = 0.0;

/// Against weights that only fit the training prompts; small beside the variance of a dimension, which is about 0.05.
const RIDGE: f64 = 0.005;

/// Parts that training prompts are divided into for cross-validation.
const FOLDS: usize = 5;

/// Of so many answers that a rubric learns from one is a cheat. It is a guess at how many there will be: the more, the less an
/// answer gets that only looks like one, right or not.
pub const ONE_IN: f64 = 4.0;

/// Outputs whose structure is below this get proportionally less, whatever the rest says.
pub const STRUCTURE_GATE: f64 = 0.5;

/// A way to weigh columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The papers' weights by family, a family's weight shared by its columns; what does not correlate is dropped.
    Gated,
    /// The one column that correlates best.
    Best,
    /// Non-negative least squares.
    Fitted,
}

impl Method {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Gated, Self::Best, Self::Fitted];

    /// Its name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gated => "gated",
            Self::Best => "best single",
            Self::Fitted => "fitted",
        }
    }

    /// The weights of the columns, from these rows.
    pub fn weigh(self, data: &Dataset, columns: &[Column], rows: &[usize]) -> Vec<f64> {
        let samples = samples(data, columns, rows);
        let audits = audit(&samples);
        match self {
            Self::Gated => gate(&shared_weights(columns), &audits, GATE),
            Self::Best => {
                let r = |audit: &Audit| audit.pearson.unwrap_or(0.0);
                let best = (0..columns.len()).max_by(|a, b| r(&audits[*a]).total_cmp(&r(&audits[*b])));
                (0..columns.len()).map(|k| f64::from(Some(k) == best && r(&audits[k]) > 0.0)).collect()
            }
            Self::Fitted => fit_weights(&samples, RIDGE),
        }
    }
}

/// A column with the family it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in the data set.
    pub name: String,
    /// Its family, which decides its default weight.
    pub family: Family,
}

impl Column {
    /// A column.
    pub fn new(name: impl Into<String>, family: Family) -> Self {
        Self { name: name.into(), family }
    }
}

/// Each family's default weight, divided equally between its columns.
pub fn shared_weights(columns: &[Column]) -> Vec<f64> {
    let mut counts: BTreeMap<Family, usize> = BTreeMap::new();
    for column in columns {
        *counts.entry(column.family).or_default() += 1;
    }
    columns.iter().map(|column| column.family.default_weight() / counts[&column.family] as f64).collect()
}

fn samples(data: &Dataset, columns: &[Column], rows: &[usize]) -> Vec<Sample> {
    let sample = |row: &usize| Sample {
        values: columns.iter().map(|column| data.value(&column.name, *row)).collect(),
        target: data.rows[*row].f1,
    };
    rows.iter().map(sample).collect()
}

/// The composite of columns in a row.
pub fn composite_of(data: &Dataset, columns: &[Column], weights: &[f64], row: usize) -> Option<f64> {
    composite(columns.iter().zip(weights).map(|(column, weight)| (*weight, data.value(&column.name, row))))
}

/// (composite, token F1) of rows that have both.
fn pairs(data: &Dataset, columns: &[Column], weights: &[f64], rows: &[usize]) -> Vec<(f64, f64)> {
    rows.iter()
        .filter_map(|row| Some((composite_of(data, columns, weights, *row)?, data.rows[*row].f1)))
        .collect()
}

/// What [`choose`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// How the columns are weighed.
    pub method: Method,
    /// Their weights.
    pub weights: Vec<f64>,
    /// The map onto token F1.
    pub calibration: Calibration,
    /// Mean squared error in cross-validation on the training prompts.
    pub cross_validated_mse: f64,
}

/// Weighs columns in every way, maps the composite onto token F1 by a line and by a monotone map, and takes what has the least
/// mean squared error on prompts left out in turn (squared: its minimum is the expected F1, whereas the least absolute error
/// of answers that are mostly all right or all wrong is reached by guessing 0 or 1). With
/// `hardened` it learns from cheats, too. `None` where no column helps.
pub fn choose(data: &Dataset, columns: &[Column], kind: TaskKind, hardened: bool) -> Option<Chosen> {
    type Fit = fn(&[(f64, f64)]) -> Option<Calibration>;
    let fits: [Fit; 2] = [Calibration::fit_linear, Calibration::fit_monotone];
    let clusters = lessons(data, kind, hardened);
    let all: Vec<usize> = clusters.iter().flatten().copied().collect();
    let mut best: Option<Chosen> = None;
    for method in Method::ALL {
        for fit in fits {
            let mut errors = Vec::new();
            for fold in 0..FOLDS {
                let part = |inside: bool| -> Vec<usize> {
                    let of = |(i, _): &(usize, _)| (i % FOLDS == fold) == inside;
                    clusters
                        .iter()
                        .enumerate()
                        .filter(of)
                        .flat_map(|(_, rows)| rows.iter().copied())
                        .collect()
                };
                let (learn, check) = (part(false), part(true));
                let weights = method.weigh(data, columns, &learn);
                let Some(map) = fit(&pairs(data, columns, &weights, &learn)) else { continue };
                errors.extend(
                    pairs(data, columns, &weights, &check).iter().map(|(x, y)| (map.apply(*x) - y).powi(2)),
                );
            }
            if errors.is_empty() {
                continue;
            }
            let mse = crate::tables::mean(errors);
            if best.as_ref().is_some_and(|best| best.cross_validated_mse <= mse) {
                continue;
            }
            let weights = method.weigh(data, columns, &all);
            if let Some(calibration) = fit(&pairs(data, columns, &weights, &all)) {
                best = Some(Chosen { method, weights, calibration, cross_validated_mse: mse });
            }
        }
    }
    best
}

/// The rows to learn from, by training prompt: all that models gave and, where `hardened`, so many cheats that one row in
/// [`ONE_IN`] is one. The prompts take turns with the strategies, so that each strategy comes up.
pub fn lessons(data: &Dataset, kind: TaskKind, hardened: bool) -> Vec<Vec<usize>> {
    let clusters = data.clusters_where(Some(kind), Part::Training, |row| hardened || !row.cheat);
    let mut turn = 0;
    let share = |rows: Vec<usize>| {
        let (mut cheats, mut kept): (Vec<usize>, Vec<usize>) =
            rows.into_iter().partition(|row| data.rows[*row].cheat);
        let wanted = (kept.len() as f64 / (ONE_IN - 1.0)).round() as usize;
        if !cheats.is_empty() {
            let first = turn % cheats.len();
            cheats.rotate_left(first);
            cheats.truncate(wanted);
            turn += cheats.len();
        }
        kept.extend(cheats);
        kept
    };
    clusters.into_iter().map(share).collect()
}

/// The columns that an evaluator of this model can measure on a live request. Priors, which believe what nodes say of
/// themselves, only where they are asked for.
pub fn live_columns(entry: &ModelEntry, with_priors: bool) -> Vec<(Signal, Column)> {
    let cross = entry.role == Role::CrossEncoder;
    Signal::ALL
        .into_iter()
        .filter(|signal| signal.fits(cross))
        .filter(|signal| with_priors || !matches!(signal, Signal::ModelPrior | Signal::CostPrior))
        .map(|signal| {
            let family = match signal {
                Signal::ModelPrior => Family::ModelPrior,
                Signal::CostPrior => Family::CostPrior,
                Signal::Structure | Signal::Length => Family::Structure,
                Signal::SemanticPeers => Family::Semantic,
                Signal::SemanticQuery | Signal::Relevance | Signal::Evidence | Signal::Support => {
                    Family::Alignment
                }
                Signal::AgreementOutputs => Family::Agreement,
            };
            let of_model = matches!(
                signal,
                Signal::SemanticPeers | Signal::SemanticQuery | Signal::Relevance | Signal::Evidence
            );
            let name = if of_model {
                format!("{}/{}", signal.as_str(), entry.name)
            } else {
                signal.as_str().to_string()
            };
            (signal, Column::new(name, family))
        })
        .collect()
}

/// A rubric for one kind, with a profile for each evaluator model; `None` where none could be calibrated.
pub fn rubric(
    data: &Dataset,
    kind: TaskKind,
    evaluators: &[&ModelEntry],
    origin: &str,
    hardened: bool,
) -> Option<(Rubric, Vec<Chosen>)> {
    // Six digits are more than the data knows, and read better.
    let round = |v: f64| (v * 1e6).round() / 1e6;
    let mut rubric = Rubric::new(format!("{kind}-v1"), kind);
    rubric.origin = origin.to_string();
    rubric.gate = STRUCTURE_GATE;
    rubric.usual_length = data.usual_length.get(&kind).copied();
    let mut choices = Vec::new();
    for entry in evaluators {
        let (signals, columns): (Vec<Signal>, Vec<Column>) = live_columns(entry, false).into_iter().unzip();
        let Some(mut chosen) = choose(data, &columns, kind, hardened) else { continue };
        chosen.weights.iter_mut().for_each(|weight| *weight = round(*weight));
        chosen.calibration = match chosen.calibration {
            Calibration::Linear { slope, intercept } => {
                Calibration::Linear { slope: round(slope), intercept: round(intercept) }
            }
            Calibration::Monotone { knots } => Calibration::Monotone {
                knots: knots.into_iter().map(|(x, y)| (round(x), round(y))).collect(),
            },
        };
        rubric.profile.push(Profile {
            model: entry.name.clone(),
            digest: entry.digest().to_string(),
            weights: signals
                .into_iter()
                .zip(chosen.weights.iter().copied())
                .filter(|(_, w)| *w > 0.0)
                .collect(),
            calibration: Some(chosen.calibration.clone()),
        });
        choices.push(chosen);
    }
    (!rubric.profile.is_empty()).then_some((rubric, choices))
}

/// Pearson's correlation of a score with token F1 over rows, where there is a score.
pub fn correlation(
    data: &Dataset,
    rows: &[usize],
    score: impl Fn(usize) -> Option<f64>,
    target: impl Fn(usize) -> Option<f64>,
    of: fn(&[f64], &[f64]) -> Option<f64>,
) -> Option<f64> {
    debug_assert!(rows.iter().all(|row| *row < data.rows.len()));
    let (x, y): (Vec<f64>, Vec<f64>) =
        rows.iter().filter_map(|row| Some((score(*row)?, target(*row)?))).unzip();
    of(&x, &y)
}

/// The column among `columns` that correlates best with token F1 on training prompts.
pub fn best_single<'a>(data: &Dataset, columns: &'a [Column], kind: Option<TaskKind>) -> Option<&'a Column> {
    let rows: Vec<usize> = data.clusters(kind, Part::Training).into_iter().flatten().collect();
    let r = |column: &Column| {
        correlation(data, &rows, |row| data.value(&column.name, row), |row| Some(data.rows[row].f1), pearson)
    };
    columns
        .iter()
        .filter_map(|column| Some((column, r(column)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(column, _)| column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::tests::example;

    fn columns() -> Vec<Column> {
        vec![
            Column::new("semantic-peers/e", Family::Semantic),
            Column::new("relevance/x", Family::Alignment),
            Column::new("structure", Family::Structure),
        ]
    }

    #[test]
    fn a_family_shares_its_weight() {
        let two = [Column::new("a", Family::Structure), Column::new("b", Family::Structure)];
        assert_eq!(shared_weights(&two), [0.1, 0.1]);
    }

    #[test]
    fn what_is_reversed_gets_no_weight_and_the_map_fits() {
        let (items, scored) = example();
        let data = Dataset::new(&items, scored, Vec::new(), 1).unwrap();
        let chosen = choose(&data, &columns(), TaskKind::Qa, true).unwrap();
        assert_eq!(chosen.weights[1], 0.0, "{chosen:?}");
        assert!(chosen.cross_validated_mse < 0.02, "{chosen:?}");
        let held_out: Vec<usize> = data.clusters(None, Part::HeldOut).into_iter().flatten().collect();
        let errors = held_out.iter().map(|row| {
            let raw = composite_of(&data, &columns(), &chosen.weights, *row).unwrap();
            (chosen.calibration.apply(raw) - data.rows[*row].f1).abs()
        });
        assert!(crate::tables::mean(errors) < 0.12);
    }

    #[test]
    fn one_lesson_in_four_is_a_cheat_and_every_strategy_comes_up() {
        let (items, mut scored) = example();
        // Three outputs of models a prompt, so one cheat.
        let third: Vec<_> = scored
            .iter()
            .filter(|record| record.output.model == "good")
            .cloned()
            .map(|mut record| {
                record.output.model = "third".to_string();
                record
            })
            .collect();
        scored.extend(third.clone());
        let cheats: Vec<_> = third
            .into_iter()
            .flat_map(|record| {
                ["cheat/x", "cheat/y"].map(|name| {
                    let mut cheat = record.clone();
                    cheat.output.model = name.to_string();
                    cheat
                })
            })
            .collect();
        let data = Dataset::new(&items, scored, cheats, 1).unwrap();
        let mut seen = BTreeMap::new();
        for rows in lessons(&data, TaskKind::Qa, true) {
            let cheats: Vec<_> = rows.iter().filter(|row| data.rows[**row].cheat).collect();
            assert_eq!((rows.len(), cheats.len()), (4, 1));
            *seen.entry(data.rows[*cheats[0]].output.model.clone()).or_insert(0) += 1;
        }
        assert_eq!(seen.values().copied().collect::<Vec<_>>(), [10, 10]);
        assert!(lessons(&data, TaskKind::Qa, false).iter().all(|rows| rows.len() == 3));
    }

    #[test]
    fn the_best_single_column_is_found() {
        let (items, scored) = example();
        let data = Dataset::new(&items, scored, Vec::new(), 1).unwrap();
        assert_eq!(best_single(&data, &columns(), None).unwrap().name, "semantic-peers/e");
    }
}
