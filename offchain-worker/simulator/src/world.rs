//! Where qualities, latencies and scores come from: a parametric model, or a logged experiment replayed.

use crate::error::{Error, Result};
use crate::log::{Item, Log};
use crate::rng::{normal, Rng};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF, Normal};

/// A latency: log-normal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The median in milliseconds; above zero.
    pub median_ms: f64,
    /// The standard deviation of the natural logarithm; at least zero.
    pub sigma: f64,
}

impl Latency {
    fn sample(&self, rng: &mut Rng) -> f64 {
        self.median_ms * (self.sigma * normal(rng)).exp()
    }

    fn check(&self, of: &str) -> Result<()> {
        let fits = self.median_ms.is_finite() && self.median_ms > 0.0 && (0.0..10.0).contains(&self.sigma);
        if fits {
            Ok(())
        } else {
            Err(Error::Setting(format!("{of}: a latency needs a median above 0 ms and a sigma in [0, 10)")))
        }
    }
}

/// A language model, as far as the protocol can tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Its name.
    pub name: String,
    /// The true quality of its answers is Beta(α, β) distributed: α, above zero.
    pub alpha: f64,
    /// β, above zero.
    pub beta: f64,
    /// Moves the model along that distribution, in standard deviations of a latent normal number: several models can share
    /// one distribution and still differ in skill.
    #[serde(default)]
    pub skill: f64,
    /// How long an answer takes.
    pub latency: Latency,
    /// What an answer costs its node off the chain, as a share of an inference node's slot.
    pub effort: f64,
}

/// An evaluator's scoring model: s = clip(m + bias + slope · (q − m) + errors), m the world's mean quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluatorSpec {
    /// Its name.
    pub name: String,
    /// The mean error.
    pub bias: f64,
    /// How strongly it reacts to quality: 1 for a faithful evaluator, 0 for one that sees nothing, negative for one that
    /// has it backwards.
    pub slope: f64,
    /// The standard deviation of the error that every node makes for itself.
    pub noise: f64,
    /// The standard deviation of the error that all nodes with this scoring model make together.
    pub shared_noise: f64,
    /// How long scoring takes.
    pub latency: Latency,
    /// What scoring a task costs its node off the chain, as a share of an evaluator's slot.
    pub effort: f64,
}

/// A parametric world. Serialised as JSON: `poq simulate fit` writes it, `--world` reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParametricSpec {
    /// The language models.
    pub models: Vec<ModelSpec>,
    /// The scoring models.
    pub evaluators: Vec<EvaluatorSpec>,
    /// How much of the variation of a model's quality comes from the task, and is shared by all answers to it. In [0, 1].
    pub task_share: f64,
    /// The standard deviation of the error that all evaluators make together on an output.
    pub common_noise: f64,
}

/// How much true quality varies in the standard worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Much: Beta(4, 2), mean 0.67, standard deviation 0.18.
    Wide,
    /// Little: Beta(18, 2), mean 0.9, standard deviation 0.07.
    Narrow,
}

impl Spread {
    /// Both.
    pub const ALL: [Spread; 2] = [Spread::Wide, Spread::Narrow];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Spread::Wide => "wide",
            Spread::Narrow => "narrow",
        }
    }
}

impl ParametricSpec {
    /// The standard world: six language models whose skills and speeds differ without following each other, six scoring
    /// models that see the truth with independent noise of standard deviation 0.08.
    pub fn standard(spread: Spread) -> ParametricSpec {
        let (alpha, beta) = match spread {
            Spread::Wide => (4.0, 2.0),
            Spread::Narrow => (18.0, 2.0),
        };
        let models = [
            ("quick-good", 0.6, 4_000.0),
            ("slow-good", 0.7, 25_000.0),
            ("quick-fair", 0.1, 3_000.0),
            ("slow-fair", 0.0, 20_000.0),
            ("quick-poor", -0.8, 2_000.0),
            ("slow-poor", -0.6, 15_000.0),
        ];
        ParametricSpec {
            models: models
                .iter()
                .map(|(name, skill, median_ms)| ModelSpec {
                    name: (*name).into(),
                    alpha,
                    beta,
                    skill: *skill,
                    latency: Latency { median_ms: *median_ms, sigma: 0.3 },
                    effort: 0.2,
                })
                .collect(),
            evaluators: (0..6)
                .map(|i| EvaluatorSpec {
                    name: format!("scorer-{i}"),
                    bias: 0.0,
                    slope: 1.0,
                    noise: 0.08,
                    shared_noise: 0.0,
                    latency: Latency { median_ms: 3_000.0, sigma: 0.4 },
                    effort: 0.1,
                })
                .collect(),
            task_share: 0.3,
            common_noise: 0.0,
        }
    }
}

/// A quantile function of a Beta distribution over a latent standard normal number, tabulated: exact at the knots.
#[derive(Clone, Debug)]
struct Quantiles {
    at: Vec<f64>,
}

/// Beyond this the latent normal number is taken as this.
const LATENT_MAX: f64 = 4.0;
const KNOTS: usize = 257;

impl Quantiles {
    fn of_beta(alpha: f64, beta: f64, name: &str) -> Result<Quantiles> {
        let problem = || Error::Setting(format!("model {name}: Beta({alpha}, {beta}) is no distribution"));
        let distribution = Beta::new(alpha, beta).map_err(|_| problem())?;
        let latent = Normal::standard();
        let step = 2.0 * LATENT_MAX / (KNOTS - 1) as f64;
        let at = (0..KNOTS)
            .map(|i| distribution.inverse_cdf(latent.cdf(-LATENT_MAX + step * i as f64)).clamp(0.0, 1.0))
            .collect();
        Ok(Quantiles { at })
    }

    fn at(&self, latent: f64) -> f64 {
        let last = KNOTS - 1;
        let place = (latent.clamp(-LATENT_MAX, LATENT_MAX) + LATENT_MAX) / (2.0 * LATENT_MAX) * last as f64;
        let knot = (place as usize).min(last - 1);
        let rest = place - knot as f64;
        self.at[knot] * (1.0 - rest) + self.at[knot + 1] * rest
    }
}

/// A parametric world, ready to draw from.
#[derive(Clone, Debug)]
pub struct Parametric {
    spec: ParametricSpec,
    quantiles: Vec<Quantiles>,
    /// What is left of the latent variance when the models' skills have had theirs.
    latent_sd: f64,
    mean: f64,
}

/// A logged experiment, replayed: every task is an item of the log.
#[derive(Clone, Debug)]
pub struct Replay {
    log: Log,
    mean: f64,
}

/// Where qualities, latencies and scores come from.
#[derive(Clone, Debug)]
pub enum World {
    /// A parametric model.
    Parametric(Parametric),
    /// A logged experiment.
    Replay(Replay),
}

/// A task, as the world sees it.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// The log's item, where one is replayed.
    item: usize,
    /// How easy it is: a standard normal number.
    ease: f64,
}

/// An answer to a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The model that wrote it.
    pub model: usize,
    /// Its true quality, in [0, 1].
    pub quality: f64,
    /// How long it took, in milliseconds.
    pub latency_ms: f64,
}

/// The errors that evaluators make together on the answers to one task.
#[derive(Clone, Debug, Default)]
pub struct SharedErrors {
    /// By output, then by scoring model.
    of: Vec<f64>,
    models: usize,
}

impl World {
    /// A parametric world.
    ///
    /// # Errors
    /// Names the number that is out of range.
    pub fn parametric(spec: ParametricSpec) -> Result<World> {
        let refuse = |problem: String| Err(Error::Setting(problem));
        if spec.models.is_empty() || spec.evaluators.is_empty() {
            return refuse("a world needs at least one language model and one scoring model".into());
        }
        if !(0.0..=1.0).contains(&spec.task_share) {
            return refuse(format!("task_share must be in [0, 1], not {}", spec.task_share));
        }
        for model in &spec.models {
            model.latency.check(&model.name)?;
            if !(0.0..=1.0).contains(&model.effort) {
                return refuse(format!(
                    "model {}: effort is a share of a slot: in [0, 1], not {}",
                    model.name, model.effort
                ));
            }
        }
        for evaluator in &spec.evaluators {
            evaluator.latency.check(&evaluator.name)?;
            let numbers = [evaluator.bias, evaluator.slope, evaluator.noise, evaluator.shared_noise];
            if numbers.iter().any(|x| !x.is_finite())
                || evaluator.noise < 0.0
                || evaluator.shared_noise < 0.0
                || !(0.0..=1.0).contains(&evaluator.effort)
            {
                return refuse(format!(
                    "scoring model {}: noises must be at least 0, effort in [0, 1]",
                    evaluator.name
                ));
            }
        }
        if !(spec.common_noise.is_finite() && spec.common_noise >= 0.0) {
            return refuse(format!("common_noise must be at least 0, not {}", spec.common_noise));
        }
        let skills: f64 = spec.models.iter().map(|m| m.skill * m.skill).sum::<f64>();
        let skill_variance = skills / spec.models.len() as f64;
        if !(0.0..1.0).contains(&skill_variance) {
            return refuse(format!(
                "the models' skills have a mean square of {skill_variance:.2}; it must be below 1, or nothing is left for the tasks"
            ));
        }
        let quantiles = spec
            .models
            .iter()
            .map(|model| Quantiles::of_beta(model.alpha, model.beta, &model.name))
            .collect::<Result<Vec<_>>>()?;
        let mut parametric =
            Parametric { spec, quantiles, latent_sd: (1.0 - skill_variance).sqrt(), mean: 0.0 };
        parametric.mean = parametric.mean_quality();
        Ok(World::Parametric(parametric))
    }

    /// The standard world; see [`ParametricSpec::standard`].
    ///
    /// # Errors
    /// None with the numbers that it has.
    pub fn standard(spread: Spread) -> Result<World> {
        World::parametric(ParametricSpec::standard(spread))
    }

    /// A world that replays a log.
    pub fn replay(log: Log) -> World {
        let qualities: Vec<f64> =
            log.items.iter().flat_map(|item| item.answers.iter().map(|answer| answer.truth)).collect();
        let mean = qualities.iter().sum::<f64>() / qualities.len().max(1) as f64;
        World::Replay(Replay { log, mean })
    }

    /// The language models' names.
    pub fn models(&self) -> Vec<&str> {
        match self {
            World::Parametric(world) => world.spec.models.iter().map(|m| m.name.as_str()).collect(),
            World::Replay(world) => world.log.models.iter().map(String::as_str).collect(),
        }
    }

    /// The scoring models' names.
    pub fn evaluators(&self) -> Vec<&str> {
        match self {
            World::Parametric(world) => world.spec.evaluators.iter().map(|m| m.name.as_str()).collect(),
            World::Replay(world) => world.log.evaluators.iter().map(String::as_str).collect(),
        }
    }

    /// The mean quality over all models and tasks: what everybody knows without looking.
    pub fn usual_quality(&self) -> f64 {
        match self {
            World::Parametric(world) => world.mean,
            World::Replay(world) => world.mean,
        }
    }

    /// A language model's mean quality.
    pub fn model_quality(&self, model: usize) -> f64 {
        match self {
            World::Parametric(world) => world.model_mean(model),
            World::Replay(world) => {
                let items = &world.log.items;
                items.iter().map(|item| item.answers[model].truth).sum::<f64>() / items.len().max(1) as f64
            }
        }
    }

    /// What an answer costs its node, as a share of an inference node's slot.
    pub fn model_effort(&self, model: usize) -> f64 {
        match self {
            World::Parametric(world) => world.spec.models[model].effort,
            World::Replay(world) => world.log.model_effort[model],
        }
    }

    /// What scoring costs a node, as a share of an evaluator's slot.
    pub fn evaluator_effort(&self, evaluator: usize) -> f64 {
        match self {
            World::Parametric(world) => world.spec.evaluators[evaluator].effort,
            World::Replay(world) => world.log.evaluator_effort[evaluator],
        }
    }

    /// Draws a task.
    pub fn task(&self, rng: &mut Rng) -> Task {
        match self {
            World::Parametric(_) => Task { item: 0, ease: normal(rng) },
            World::Replay(world) => Task { item: rng.random_range(0..world.log.items.len()), ease: 0.0 },
        }
    }

    /// Lets a model answer a task.
    pub fn answer(&self, task: &Task, model: usize, rng: &mut Rng) -> Answer {
        match self {
            World::Parametric(world) => {
                let spec = &world.spec.models[model];
                let own = normal(rng);
                Answer {
                    model,
                    quality: world.quality(model, task.ease, own),
                    latency_ms: spec.latency.sample(rng),
                }
            }
            World::Replay(world) => {
                let logged = &world.log.items[task.item].answers[model];
                Answer { model, quality: logged.truth, latency_ms: logged.wall_ms }
            }
        }
    }

    /// Draws the errors that evaluators make together on `outputs` answers. A log has its errors in its scores.
    pub fn shared_errors(&self, outputs: usize, rng: &mut Rng, errors: &mut SharedErrors) {
        errors.of.clear();
        let World::Parametric(world) = self else { return };
        errors.models = world.spec.evaluators.len();
        for _ in 0..outputs {
            let common = match world.spec.common_noise {
                0.0 => 0.0,
                sd => sd * normal(rng),
            };
            errors.of.extend(world.spec.evaluators.iter().map(|evaluator| match evaluator.shared_noise {
                0.0 => common,
                sd => common + sd * normal(rng),
            }));
        }
    }

    /// The score that a scoring model gives an answer, in [0, 1]; `None` where the log has none.
    pub fn perceive(
        &self,
        task: &Task,
        output: usize,
        answer: &Answer,
        evaluator: usize,
        errors: &SharedErrors,
        rng: &mut Rng,
    ) -> Option<f64> {
        match self {
            World::Parametric(world) => {
                let spec = &world.spec.evaluators[evaluator];
                let shared = errors.of.get(output * errors.models + evaluator).copied().unwrap_or(0.0);
                let own = if spec.noise > 0.0 { spec.noise * normal(rng) } else { 0.0 };
                let seen = world.mean + spec.bias + spec.slope * (answer.quality - world.mean);
                Some((seen + shared + own).clamp(0.0, 1.0))
            }
            World::Replay(world) => {
                world.log.items[task.item].answers[answer.model].scores[evaluator].map(|scored| scored.score)
            }
        }
    }

    /// How long scoring one answer takes a scoring model, in milliseconds.
    pub fn scoring_ms(&self, task: &Task, answer: &Answer, evaluator: usize, rng: &mut Rng) -> f64 {
        match self {
            World::Parametric(world) => world.spec.evaluators[evaluator].latency.sample(rng),
            World::Replay(world) => world.log.items[task.item].answers[answer.model].scores[evaluator]
                .map_or(0.0, |scored| scored.wall_ms),
        }
    }

    /// A quality as they usually are: what a colluder who does not look draws.
    pub fn usual_draw(&self, rng: &mut Rng) -> f64 {
        let task = self.task(rng);
        let model = rng.random_range(0..self.models_len());
        match self {
            World::Parametric(world) => world.quality(model, task.ease, normal(rng)),
            World::Replay(world) => world.log.items[task.item].answers[model].truth,
        }
    }

    fn models_len(&self) -> usize {
        match self {
            World::Parametric(world) => world.spec.models.len(),
            World::Replay(world) => world.log.models.len(),
        }
    }

    /// The log's items, where one is replayed.
    pub fn items(&self) -> &[Item] {
        match self {
            World::Parametric(_) => &[],
            World::Replay(world) => &world.log.items,
        }
    }
}

impl Parametric {
    fn quality(&self, model: usize, ease: f64, own: f64) -> f64 {
        let share = self.spec.task_share;
        let latent = share.sqrt() * ease + (1.0 - share).sqrt() * own;
        self.quantiles[model].at(self.spec.models[model].skill + self.latent_sd * latent)
    }

    /// The mean of a model's quality, by the midpoint rule over the latent normal number.
    fn model_mean(&self, model: usize) -> f64 {
        const STEPS: u32 = 400;
        let latent = Normal::standard();
        let table = &self.quantiles[model];
        (0..STEPS)
            .map(|i| latent.inverse_cdf((f64::from(i) + 0.5) / f64::from(STEPS)))
            .map(|z| table.at(self.spec.models[model].skill + self.latent_sd * z))
            .sum::<f64>()
            / f64::from(STEPS)
    }

    fn mean_quality(&self) -> f64 {
        let models = self.spec.models.len();
        (0..models).map(|model| self.model_mean(model)).sum::<f64>() / models as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Streams};

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn the_standard_worlds_have_the_distributions_that_they_are_named_after() {
        for (spread, mean, sd) in [(Spread::Wide, 2.0 / 3.0, 0.178), (Spread::Narrow, 0.9, 0.0655)] {
            let world = World::standard(spread).unwrap();
            let mut rng = Streams::new(1, 0).round(0, Purpose::World);
            let drawn: Vec<f64> = (0..60_000).map(|_| world.usual_draw(&mut rng)).collect();
            let (found_mean, found_sd) = moments(&drawn);
            println!("{spread:?}: {found_mean:.4} {found_sd:.4}, usual {:.4}", world.usual_quality());
            assert!((found_mean - mean).abs() < 0.01 && (found_sd - sd).abs() < 0.01);
            assert!((world.usual_quality() - found_mean).abs() < 0.005);
        }
    }

    #[test]
    fn skill_shows_and_evaluators_see_the_truth_with_noise() {
        let world = World::standard(Spread::Wide).unwrap();
        assert!(world.model_quality(0) > world.model_quality(2));
        assert!(world.model_quality(2) > world.model_quality(4));
        let mut rng = Streams::new(2, 0).round(0, Purpose::World);
        let errors = SharedErrors::default();
        let seen: Vec<f64> = (0..20_000)
            .map(|_| {
                let task = world.task(&mut rng);
                let answer = Answer { model: 0, quality: 0.6, latency_ms: 1.0 };
                world.perceive(&task, 0, &answer, 0, &errors, &mut rng).unwrap()
            })
            .collect();
        let (mean, sd) = moments(&seen);
        assert!((mean - 0.6).abs() < 0.005 && (sd - 0.08).abs() < 0.005);
    }

    #[test]
    fn errors_are_shared_where_they_are_said_to_be() {
        let mut spec = ParametricSpec::standard(Spread::Wide);
        for evaluator in &mut spec.evaluators {
            evaluator.noise = 0.0;
            evaluator.shared_noise = 0.05;
        }
        let world = World::parametric(spec).unwrap();
        let mut rng = Streams::new(3, 0).round(0, Purpose::World);
        let task = world.task(&mut rng);
        let answer = world.answer(&task, 0, &mut rng);
        let mut errors = SharedErrors::default();
        world.shared_errors(2, &mut rng, &mut errors);
        let mut score =
            |output, evaluator| world.perceive(&task, output, &answer, evaluator, &errors, &mut rng).unwrap();
        assert_eq!(score(0, 1), score(0, 1));
        assert_ne!(score(0, 1), score(0, 2));
        assert_ne!(score(0, 1), score(1, 1));
    }

    #[test]
    fn impossible_worlds_are_refused_with_what_is_wrong() {
        let refused = |change: fn(&mut ParametricSpec)| {
            let mut spec = ParametricSpec::standard(Spread::Wide);
            change(&mut spec);
            World::parametric(spec).unwrap_err().to_string()
        };
        assert!(refused(|s| s.models.clear()).contains("at least one language model"));
        assert!(refused(|s| s.models[1].alpha = 0.0).contains("slow-good"));
        assert!(refused(|s| s.models[0].skill = 9.0).contains("below 1"));
        assert!(refused(|s| s.models[0].latency.median_ms = 0.0).contains("median above 0"));
        assert!(refused(|s| s.evaluators[3].noise = -1.0).contains("scorer-3"));
        assert!(refused(|s| s.task_share = 1.5).contains("task_share"));
    }
}
