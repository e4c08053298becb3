//! A parametric world fitted to a logged experiment, by moments.
//!
//! A replay knows only the logged items; a fit draws new ones with the same moments: the mean and variance of every model's
//! quality (Beta) and latency (log-normal), every evaluator's line through (quality, score) with the spread around it, and how
//! far the models' qualities go together over the items.

use crate::error::{Error, Result};
use crate::log::Log;
use crate::stats::{Correlation, Moments};
use crate::world::{EvaluatorSpec, Latency, ModelSpec, ParametricSpec};
use std::path::Path;

/// The fewest items that a fit takes: variances of fewer are noise.
pub const ITEMS_MIN: usize = 10;

/// The most that the parameters of a fitted Beta distribution may sum to, and the least: beyond, quality hardly varies, or is
/// all zeros and ones.
const CONCENTRATION: std::ops::RangeInclusive<f64> = 0.2..=200.0;

/// Fits a world to a log.
///
/// # Errors
/// [`Error::LogTooSmall`] for fewer than [`ITEMS_MIN`] complete items.
pub fn fit(log: &Log, path: &Path) -> Result<ParametricSpec> {
    if log.items.len() < ITEMS_MIN {
        return Err(Error::LogTooSmall {
            path: path.into(),
            problem: format!(
                "a fit needs at least {ITEMS_MIN} items that every model has answered, not {}",
                log.items.len()
            ),
        });
    }
    let answers = || log.items.iter().flat_map(|item| &item.answers);
    let mean = answers().map(|answer| answer.truth).sum::<f64>() / answers().count() as f64;
    let models = (0..log.models.len())
        .map(|model| {
            let of = || log.items.iter().map(|item| &item.answers[model]);
            let (alpha, beta) = beta(of().map(|answer| answer.truth));
            ModelSpec {
                name: log.models[model].clone(),
                alpha,
                beta,
                skill: 0.0,
                latency: latency(of().map(|answer| answer.wall_ms)),
                effort: log.model_effort[model],
            }
        })
        .collect();
    let evaluators = (0..log.evaluators.len())
        .map(|evaluator| {
            let pairs: Vec<(f64, f64)> = answers()
                .filter_map(|answer| Some((answer.truth, answer.scores[evaluator]?.score)))
                .collect();
            let (slope, at_mean, spread) = line(&pairs, mean);
            EvaluatorSpec {
                name: log.evaluators[evaluator].clone(),
                bias: at_mean - mean,
                slope,
                // A scoring model gives the same score wherever it runs, but for the last digits.
                noise: DEVICE_NOISE,
                shared_noise: spread,
                latency: latency(answers().filter_map(|answer| Some(answer.scores[evaluator]?.wall_ms))),
                effort: log.evaluator_effort[evaluator],
            }
        })
        .collect();
    Ok(ParametricSpec { models, evaluators, task_share: task_share(log), common_noise: 0.0 })
}

/// What the same model's scores differ by between devices: the contract's default tolerance is twice that.
const DEVICE_NOISE: f64 = 0.005;

/// α and β of a Beta distribution with the mean and variance of `values`.
fn beta(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut moments = Moments::default();
    values.for_each(|value| moments.add(value));
    let mean = moments.mean().unwrap_or(0.5).clamp(0.01, 0.99);
    let variance = moments.variance().unwrap_or(0.0).max(1e-9);
    let concentration =
        (mean * (1.0 - mean) / variance - 1.0).clamp(*CONCENTRATION.start(), *CONCENTRATION.end());
    (mean * concentration, (1.0 - mean) * concentration)
}

fn latency(times: impl Iterator<Item = f64>) -> Latency {
    let mut logarithms = Moments::default();
    times.for_each(|time| logarithms.add(time.max(0.1).ln()));
    Latency {
        median_ms: logarithms.mean().map_or(1.0, f64::exp),
        sigma: logarithms.variance().unwrap_or(0.0).sqrt().min(5.0),
    }
}

/// The least-squares line through the pairs: its slope, its height at `x`, and the standard deviation around it.
fn line(pairs: &[(f64, f64)], x: f64) -> (f64, f64, f64) {
    let count = pairs.len().max(1) as f64;
    let (mean_x, mean_y) =
        (pairs.iter().map(|p| p.0).sum::<f64>() / count, pairs.iter().map(|p| p.1).sum::<f64>() / count);
    let squares: f64 = pairs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let products: f64 = pairs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let slope = if squares > 0.0 { products / squares } else { 0.0 };
    let height = |at: f64| mean_y + slope * (at - mean_x);
    let left: f64 = pairs.iter().map(|p| (p.1 - height(p.0)).powi(2)).sum();
    (slope, height(x), (left / (count - 2.0).max(1.0)).sqrt())
}

/// The mean correlation of two models' qualities over the items; zero where there is only one model.
fn task_share(log: &Log) -> f64 {
    let mut all = Moments::default();
    for a in 0..log.models.len() {
        for b in a + 1..log.models.len() {
            let mut pair = Correlation::default();
            for item in &log.items {
                pair.add(item.answers[a].truth, item.answers[b].truth);
            }
            if let Some(r) = pair.pearson() {
                all.add(r);
            }
        }
    }
    all.mean().unwrap_or(0.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Item, LoggedAnswer, Scored, TaskKind};
    use crate::rng::{Purpose, Streams};
    use crate::world::{SharedErrors, World};

    /// A log written by a known world.
    fn log_of(spec: &ParametricSpec, items: usize) -> Log {
        let world = World::parametric(spec.clone()).unwrap();
        let mut rng = Streams::new(11, 0).round(0, Purpose::World);
        let mut errors = SharedErrors::default();
        let items = (0..items)
            .map(|index| {
                let task = world.task(&mut rng);
                world.shared_errors(spec.models.len(), &mut rng, &mut errors);
                let answers = (0..spec.models.len())
                    .map(|model| {
                        let answer = world.answer(&task, model, &mut rng);
                        let scores = (0..spec.evaluators.len())
                            .map(|e| {
                                let score = world.perceive(&task, model, &answer, e, &errors, &mut rng)?;
                                let wall_ms = world.scoring_ms(&task, &answer, e, &mut rng);
                                Some(Scored { score, wall_ms })
                            })
                            .collect();
                        LoggedAnswer {
                            truth: answer.quality,
                            wall_ms: answer.latency_ms,
                            cpu_ms: answer.latency_ms,
                            scores,
                        }
                    })
                    .collect();
                Item { name: format!("{index:05}"), kind: TaskKind::Qa, answers }
            })
            .collect();
        Log {
            models: spec.models.iter().map(|m| m.name.clone()).collect(),
            evaluators: spec.evaluators.iter().map(|m| m.name.clone()).collect(),
            items,
            incomplete: 0,
            model_effort: vec![0.2; spec.models.len()],
            evaluator_effort: vec![0.1; spec.evaluators.len()],
        }
    }

    #[test]
    fn a_fit_finds_the_world_that_wrote_the_log() {
        let written = crate::papers::cost_aware();
        let fitted = fit(&log_of(&written, 20_000), Path::new("log")).unwrap();
        for (a, b) in written.models.iter().zip(&fitted.models) {
            assert!((a.alpha / (a.alpha + a.beta) - b.alpha / (b.alpha + b.beta)).abs() < 0.02);
            assert!((a.alpha + a.beta - b.alpha - b.beta).abs() < 0.7, "{a:?} {b:?}");
            assert!((a.latency.median_ms / b.latency.median_ms - 1.0).abs() < 0.02);
            assert!((a.latency.sigma - b.latency.sigma).abs() < 0.01);
        }
        for (a, b) in written.evaluators.iter().zip(&fitted.evaluators) {
            // Clipping of scores to [0, 1] flattens the line a little.
            assert!((a.slope - b.slope).abs() < 0.1, "{a:?} {b:?}");
            assert!((a.shared_noise - b.shared_noise).abs() < 0.03, "{a:?} {b:?}");
            assert!((a.bias - b.bias).abs() < 0.02);
        }
        assert!((written.task_share - fitted.task_share).abs() < 0.05);
        World::parametric(fitted).unwrap();
    }

    #[test]
    fn too_few_items_are_refused() {
        let log = log_of(&crate::papers::cost_aware(), ITEMS_MIN - 1);
        assert!(fit(&log, Path::new("log")).unwrap_err().to_string().contains("at least 10 items"));
    }

    #[test]
    fn degenerate_qualities_still_give_a_world() {
        for truth in [0.0, 1.0, 0.5] {
            let mut log = log_of(&crate::papers::cost_aware(), 20);
            for answer in log.items.iter_mut().flat_map(|item| &mut item.answers) {
                answer.truth = truth;
                answer.wall_ms = 0.0;
            }
            World::parametric(fit(&log, Path::new("log")).unwrap()).unwrap();
        }
    }
}
