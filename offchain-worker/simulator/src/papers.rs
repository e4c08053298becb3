//! The papers' published figures as worlds.
//!
//! Of arXiv 2512.16317 no table could be read, only the abstract and what the authors and reviewers write about it; of arXiv
//! 2603.04028 the text. What a world needs beyond those figures is assumed, and marked so here. A scenario on such a world
//! shows that the published findings follow from the published figures under our rules; it is no measurement of those models.

use crate::world::{EvaluatorSpec, Latency, ModelSpec, ParametricSpec};

/// The standard deviation of the assumed evaluators' scores.
const SCORE_SD: f64 = 0.2;

/// An evaluator whose scores correlate with the truth as published: slope and noise follow from the correlation, given the
/// standard deviation `truth_sd` of true quality. All its error is shared by the nodes that run it: such models are
/// deterministic.
pub fn evaluator(name: &str, correlation: f64, truth_sd: f64, median_ms: f64) -> EvaluatorSpec {
    EvaluatorSpec {
        name: name.into(),
        bias: 0.0,
        slope: correlation * SCORE_SD / truth_sd,
        noise: 0.0,
        shared_noise: SCORE_SD * (1.0 - correlation * correlation).sqrt(),
        latency: Latency { median_ms, sigma: 0.2 },
        effort: 0.1,
    }
}

/// The world of arXiv 2512.16317: five language models, three scoring models.
///
/// Published: the names; that Llama-3.2-3B and Gemma-2-2B have the best quality and the lowest latency, some seven times
/// Qwen2-1.5B's quality per time; that Phi-3-mini earns least; STS-DistilRoBERTa's correlation with token F1 (0.66) and
/// that those of CE-MiniLM and CE-DeBERTa are near zero or negative. Assumed: every other number, chosen to fit these.
pub fn cost_aware() -> ParametricSpec {
    // (name, Beta α, Beta β, median latency in ms): means 0.64, 0.60, 0.35, 0.30, 0.42.
    let models = [
        ("Llama-3.2-3B", 3.2, 1.8, 4_000.0),
        ("Gemma-2-2B", 3.0, 2.0, 4_300.0),
        ("Qwen2-1.5B", 1.75, 3.25, 16_000.0),
        ("TinyLlama-1.1B", 1.5, 3.5, 12_000.0),
        ("Phi-3-mini", 2.1, 2.9, 55_000.0),
    ];
    let truth_sd = 0.24;
    ParametricSpec {
        models: models
            .iter()
            .map(|(name, alpha, beta, median_ms)| ModelSpec {
                name: (*name).into(),
                alpha: *alpha,
                beta: *beta,
                skill: 0.0,
                latency: Latency { median_ms: *median_ms, sigma: 0.2 },
                effort: 0.2,
            })
            .collect(),
        evaluators: vec![
            evaluator("STS-DistilRoBERTa", 0.66, truth_sd, 2_000.0),
            evaluator("CE-MiniLM", 0.02, truth_sd, 2_500.0),
            evaluator("CE-DeBERTa", -0.05, truth_sd, 6_000.0),
        ],
        task_share: 0.3,
        common_noise: 0.0,
    }
}

/// Which quality signals the evaluators of [`signals`] report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Single dimensions side by side: semantic quality, structure, and two that have it backwards.
    Single,
    /// The composite with the default weights.
    Composite,
    /// The composite with the weights calibrated.
    Calibrated,
}

/// A world with the correlations of arXiv 2603.04028, tables 6 and 8 (Pearson, overall): semantic quality 0.733, structure
/// 0.466, query-output alignment −0.437, agreement −0.384, composite 0.513, calibrated 0.760. Assumed: everything else, and
/// that half of what a scoring model gets wrong is its nodes' own (other checkpoints, other prompts).
pub fn signals(signal: Signal) -> ParametricSpec {
    let base = cost_aware();
    let truth_sd = 0.24;
    let named: &[(&str, f64)] = match signal {
        Signal::Single => {
            &[("semantic", 0.733), ("structure", 0.466), ("alignment", -0.437), ("agreement", -0.384)]
        }
        Signal::Composite => &[("composite-a", 0.513), ("composite-b", 0.513), ("composite-c", 0.513)],
        Signal::Calibrated => &[("calibrated-a", 0.760), ("calibrated-b", 0.760), ("calibrated-c", 0.760)],
    };
    let evaluators = named
        .iter()
        .map(|(name, correlation)| {
            let all = evaluator(name, *correlation, truth_sd, 3_000.0);
            let half = all.shared_noise * std::f64::consts::FRAC_1_SQRT_2;
            EvaluatorSpec { noise: half, shared_noise: half, ..all }
        })
        .collect();
    ParametricSpec { evaluators, ..base }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};
    use crate::stats::Correlation;
    use crate::world::{SharedErrors, World};

    fn correlations(spec: ParametricSpec) -> Vec<f64> {
        let evaluators = spec.evaluators.len();
        let models = spec.models.len();
        let world = World::parametric(spec).unwrap();
        let mut rng = Streams::new(4, 0).round(0, Purpose::World);
        let mut all = vec![Correlation::default(); evaluators];
        let mut errors = SharedErrors::default();
        for round in 0..20_000 {
            let task = world.task(&mut rng);
            let answer = world.answer(&task, round % models, &mut rng);
            world.shared_errors(1, &mut rng, &mut errors);
            for (evaluator, correlation) in all.iter_mut().enumerate() {
                let score = world.perceive(&task, 0, &answer, evaluator, &errors, &mut rng).unwrap();
                correlation.add(answer.quality, score);
            }
        }
        all.iter().map(|c| c.pearson().unwrap()).collect()
    }

    /// Scores are clipped to [0, 1], which costs a little correlation.
    #[test]
    fn the_worlds_have_the_published_correlations() {
        for (spec, published) in [
            (cost_aware(), &[0.66, 0.02, -0.05][..]),
            (signals(Signal::Single), &[0.733, 0.466, -0.437, -0.384][..]),
            (signals(Signal::Composite), &[0.513; 3][..]),
            (signals(Signal::Calibrated), &[0.760; 3][..]),
        ] {
            for (found, published) in correlations(spec).iter().zip(published) {
                assert!((found - published).abs() < 0.05, "{found} {published}");
            }
        }
    }

    #[test]
    fn the_best_two_have_some_seven_times_the_quality_per_time_of_qwen2() {
        let spec = cost_aware();
        let per_time: Vec<f64> =
            spec.models.iter().map(|m| m.alpha / (m.alpha + m.beta) / m.latency.median_ms).collect();
        assert!((6.0..8.0).contains(&(per_time[0] / per_time[2])));
        assert!((6.0..8.0).contains(&(per_time[1] / per_time[2])));
    }
}
