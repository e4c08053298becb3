//! Scores → tables, plots and a calibrated rubric per kind.
//!
//! Every number is of the log and the seed alone: the same log gives the same report on every machine.

use crate::{
    calibrate::{
        best_single, composite_of, correlation, lessons, rubric, shared_weights, Chosen, Column, Method,
        STRUCTURE_GATE,
    },
    claims,
    cli::ReportArgs,
    dataset::{Dataset, Part, Row, JUDGE},
    error::{Error, Result},
    log::{
        read_json, read_lines, write_lines, OutputRecord, ScoreRecord, ScoredRecord, Settings, CHEATS, ITEMS,
        RUBRIC_SCORES, SCORES, SETTINGS,
    },
    plots,
    stats::{bootstrap, effective_votes, Interval},
    tables::{mean, median, models, table},
};
use comfy_table::Table;
use poq_inference::{
    quality::{
        calibration::{audit, gate, pearson, spearman, Sample},
        rubric::gate_factor,
        Family, Query, Rubric,
    },
    Item, ModelEntry, ModelStore, Role, TaskKind,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

/// A correlation of a column with a reference signal.
pub(crate) type Correlation = fn(&[f64], &[f64]) -> Option<f64>;

/// Writes tables, plots and rubrics.
///
/// # Errors
/// When there are no scores, none has a reference, or the folder cannot be written.
pub fn report(args: &ReportArgs) -> Result<()> {
    let folder = args.folder.path();
    let items: Vec<Item> = read_lines(&folder.join(ITEMS))?;
    let scores = folder.join(SCORES);
    if !scores.exists() {
        return Err(Error::Usage("there are no scores yet: `score` comes before `report`".to_string()));
    }
    let scored: Vec<ScoredRecord> = read_lines(&scores)?;
    let settings: Settings = read_json(&folder.join(SETTINGS))?;
    let store = args.store.open()?;
    let out = args.out.clone().unwrap_or_else(|| folder.join("report"));
    std::fs::create_dir_all(&out).map_err(|e| Error::io(&out, e))?;

    let outputs: Vec<OutputRecord> = scored.iter().map(|record| record.output.clone()).collect();
    let costs = evaluator_costs(&scored);
    let scoring_ms = scoring_ms(&scored);
    let cheats = folder.join(CHEATS);
    let cheats: Vec<ScoredRecord> = if cheats.exists() { read_lines(&cheats)? } else { Vec::new() };
    let data = Dataset::new(&items, scored, cheats, args.seed)?;
    let study = Study::new(&data, &items, &store, args.seed);

    let mut text = String::new();
    text.push_str(
        "# Results\n\nMade by `poq experiment report`; do not edit. `docs/experiments.md` says what they mean. Intervals are 95 % \
         percentile bootstrap intervals over prompts (1000 resamples). Correlations are with token F1 unless said otherwise.\n",
    );
    section(&mut text, "What was measured", &what(&data, &settings, args.seed));
    section(
        &mut text,
        "Models: quality and cost",
        &format!("{}\n\n{}", models(&outputs), per_latency(&data)),
    );
    section(&mut text, "Evaluators and dimensions, all prompts", &study.correlations());
    section(&mut text, "Evaluators: latency", &costs);
    section(&mut text, "Composites, held-out prompts", &study.composites());
    section(&mut text, "Rubrics, held-out prompts", &study.rubric_table());
    section(&mut text, "Cheats, held-out prompts", &study.cheats());
    section(&mut text, "What a panel is worth", &study.panel());
    section(&mut text, "The papers' claims", &claims::tabulate(&study));
    let path = out.join("results.md");
    std::fs::write(&path, text).map_err(|e| Error::io(&path, e))?;
    println!("tables are in {}", path.display());

    let path = folder.join(RUBRIC_SCORES);
    write_lines(&path, &study.scored_by_rubric(&scoring_ms))?;
    println!("held-out outputs as the rubrics score them, for `poq simulate --replay`: {}", path.display());

    plots::correlations(&study, &out.join("correlations.svg"))?;
    plots::quality_and_cost(&data, &out.join("quality-cost.svg"))?;
    plots::reliability(&study, &out.join("reliability.svg"))?;
    for (kind, fitted) in &study.rubrics {
        let path = out.join(format!("{kind}.toml"));
        std::fs::write(&path, fitted.rubric.to_toml()?).map_err(|e| Error::io(&path, e))?;
        println!("rubric {} is {}", fitted.rubric.hash()?, path.display());
        if let Some(dir) = &args.rubrics {
            std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
            let path = dir.join(format!("{kind}.toml"));
            std::fs::write(&path, fitted.rubric.to_toml()?).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}

/// The milliseconds on the wall that an output takes a worker with each evaluator, on average.
fn scoring_ms(scored: &[ScoredRecord]) -> BTreeMap<String, f64> {
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, score) in scored.iter().flat_map(|record| &record.scores) {
        if let Some(evaluator) = name.strip_prefix("worker/") {
            times.entry(evaluator.to_string()).or_default().push(score.wall_ms);
        }
    }
    times.into_iter().map(|(evaluator, times)| (evaluator, mean(times))).collect()
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = write!(text, "\n## {title}\n\n{}\n", body.trim_end());
}

fn what(data: &Dataset, settings: &Settings, seed: u64) -> String {
    let mut text = String::new();
    for kind in data.kinds() {
        let count = |part| data.clusters(Some(kind), part);
        let _ = writeln!(
            text,
            "- {kind}: {} prompts with {} outputs; {} prompts to learn from, {} held out",
            count(Part::Whole).len(),
            count(Part::Whole).iter().map(Vec::len).sum::<usize>(),
            count(Part::Training).len(),
            count(Part::HeldOut).len()
        );
    }
    let sampling = if settings.temperature == 0.0 {
        "greedy".to_string()
    } else {
        format!("sampled at temperature {}", settings.temperature)
    };
    let limits: Vec<String> = settings.max_tokens.iter().map(|(k, n)| format!("{n} ({k})")).collect();
    let _ = writeln!(
        text,
        "- decoding: {sampling}, at most {} tokens; prompts drawn with seed {}, split with seed {seed}",
        limits.join(", "),
        settings.seed
    );
    text
}

/// Quality per processor second, by model and kind, with intervals.
fn per_latency(data: &Dataset) -> String {
    let mut table = table(&["model", "kind", "token F1", "F1 per CPU s", "relative to the best"]);
    for kind in data.kinds() {
        let clusters = data.clusters(Some(kind), Part::Whole);
        let quotient = |name: &str, rows: &[usize]| {
            let rows: Vec<_> =
                rows.iter().map(|r| &data.rows[*r]).filter(|r| r.output.model == name).collect();
            let seconds = mean(rows.iter().map(|r| r.output.cpu_ms / 1e3));
            (seconds > 0.0).then(|| mean(rows.iter().map(|r| r.f1)) / seconds)
        };
        let intervals: Vec<_> = data
            .by_model(kind)
            .into_keys()
            .map(|name| {
                let f1 = bootstrap(&clusters, 1, |rows| {
                    let rows: Vec<_> =
                        rows.iter().map(|r| &data.rows[*r]).filter(|r| r.output.model == name).collect();
                    (!rows.is_empty()).then(|| mean(rows.iter().map(|r| r.f1)))
                });
                (name, f1, bootstrap(&clusters, 1, |rows| quotient(name, rows)))
            })
            .collect();
        let best = intervals.iter().filter_map(|(_, _, i)| Some(i.as_ref()?.estimate)).fold(0.0, f64::max);
        for (name, f1, quotient) in intervals {
            let relative = quotient.map_or(0.0, |i| i.estimate) / best.max(1e-12);
            table.add_row([
                name.to_string(),
                kind.to_string(),
                shown(f1),
                shown(quotient),
                format!("{relative:.2}"),
            ]);
        }
    }
    table.to_string()
}

/// An interval, or a dash.
pub(crate) fn shown(interval: Option<Interval>) -> String {
    interval.map_or_else(|| "–".to_string(), |interval| interval.to_string())
}

/// Milliseconds per output of every evaluator, and how many outputs a second that is.
fn evaluator_costs(scored: &[ScoredRecord]) -> String {
    let mut times: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (name, score) in scored.iter().flat_map(|record| &record.scores) {
        let entry = times.entry(name).or_default();
        entry.0.push(score.wall_ms);
        entry.1.extend(score.cpu_ms);
    }
    let mut table = table(&["evaluator", "median ms", "mean ms", "mean CPU ms", "outputs/s"]);
    for (name, (wall, cpu)) in times {
        let average = mean(wall.iter().copied());
        table.add_row([
            name.to_string(),
            format!("{:.2}", median(wall)),
            format!("{average:.2}"),
            if cpu.is_empty() { "–".to_string() } else { format!("{:.2}", mean(cpu)) },
            format!("{:.1}", 1e3 / average.max(1e-9)),
        ]);
    }
    format!(
        "Per output, each evaluator as if it were alone; a prompt's outputs are scored in one batch, and what several evaluators \
         look at is encoded once.\n\n{table}"
    )
}

/// A rubric as it was calibrated, with what it gives to every row of its kind.
pub(crate) struct FittedRubric {
    pub(crate) rubric: Rubric,
    pub(crate) choices: Vec<Chosen>,
    /// By profile, then by row; `None` for rows of other kinds.
    pub(crate) scores: Vec<Vec<Option<f64>>>,
}

impl FittedRubric {
    /// The median of all profiles' scores of a row.
    pub(crate) fn panel(&self, row: usize) -> Option<f64> {
        let votes: Vec<f64> = self.scores.iter().filter_map(|scores| scores[row]).collect();
        (!votes.is_empty()).then(|| median(votes))
    }
}

/// Everything that tables, plots and claims look at.
pub(crate) struct Study<'a> {
    pub(crate) data: &'a Dataset,
    pub(crate) seed: u64,
    pub(crate) rubrics: BTreeMap<TaskKind, FittedRubric>,
    /// As [`Study::rubrics`], had they never seen a cheat.
    naive: BTreeMap<TaskKind, FittedRubric>,
    pub(crate) evaluators: Vec<ModelEntry>,
}

/// With and without a reference answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regime {
    Reference,
    Free,
}

impl Regime {
    pub(crate) const ALL: [Self; 2] = [Self::Reference, Self::Free];
}

impl<'a> Study<'a> {
    fn new(data: &'a Dataset, items: &[Item], store: &ModelStore, seed: u64) -> Self {
        let evaluators: Vec<ModelEntry> = store
            .manifest()
            .models()
            .iter()
            .filter(|m| m.role != Role::Generator)
            .filter(|m| data.columns.keys().any(|column| column.ends_with(&format!("/{}", m.name))))
            .cloned()
            .collect();
        let mut this = Self { data, seed, rubrics: BTreeMap::new(), naive: BTreeMap::new(), evaluators };
        let queries: HashMap<&str, Query> = items
            .iter()
            .map(|item| {
                let query = Query { context: item.context.clone(), question: item.question.clone() };
                (item.id.as_str(), query)
            })
            .collect();
        for kind in data.kinds() {
            if let Some(fitted) = this.fit(kind, &queries, true) {
                this.rubrics.insert(kind, fitted);
            }
            if let Some(fitted) = this.fit(kind, &queries, false) {
                this.naive.insert(kind, fitted);
            }
        }
        this
    }

    fn fit(&self, kind: TaskKind, queries: &HashMap<&str, Query>, hardened: bool) -> Option<FittedRubric> {
        let data = self.data;
        let lessons = lessons(data, kind, hardened);
        let count =
            |cheat: bool| lessons.iter().flatten().filter(|row| data.rows[**row].cheat == cheat).count();
        let origin = format!(
            "token F1 of {} outputs and {} cheats to {} prompts",
            count(false),
            count(true),
            lessons.len()
        );
        let entries: Vec<&ModelEntry> = self.evaluators.iter().collect();
        let (rubric, choices) = rubric(data, kind, &entries, &origin, hardened)?;
        let scores = rubric
            .profile
            .iter()
            .map(|profile| {
                let entry = entries.iter().find(|entry| entry.name == profile.model);
                let columns: Vec<_> =
                    entry.map(|entry| crate::calibrate::live_columns(entry, false)).unwrap_or_default();
                let weights: Vec<f64> = columns
                    .iter()
                    .map(|(signal, _)| profile.weights.get(signal).copied().unwrap_or(0.0))
                    .collect();
                let columns: Vec<Column> = columns.into_iter().map(|(_, column)| column).collect();
                let score = |row: usize| {
                    let output = &data.rows[row].output;
                    if output.kind != kind {
                        return None;
                    }
                    let raw = composite_of(data, &columns, &weights, row)?;
                    let mapped = profile.calibration.as_ref().map_or(raw, |c| c.apply(raw));
                    let query = queries.get(output.item.as_str())?;
                    Some(mapped * gate_factor(query, &output.output, STRUCTURE_GATE))
                };
                (0..data.rows.len()).map(score).collect()
            })
            .collect();
        Some(FittedRubric { rubric, choices, scores })
    }

    /// What models answered to held-out prompts, with what every evaluator of the rubrics gives it; `scoring_ms` says how long an
    /// output takes one.
    fn scored_by_rubric(&self, scoring_ms: &BTreeMap<String, f64>) -> Vec<ScoredRecord> {
        let held_out = |row: &Row| !row.training && !row.cheat;
        let rows = self.data.rows.iter().enumerate().filter(|(_, row)| held_out(row));
        rows.filter_map(|(index, row)| {
            let fitted = self.rubrics.get(&row.output.kind)?;
            let profiles = fitted.rubric.profile.iter().zip(&fitted.scores);
            let scores = profiles.filter_map(|(profile, scores)| {
                let wall_ms = scoring_ms.get(&profile.model).copied().unwrap_or_default();
                let score = ScoreRecord { score: scores[index]?, wall_ms, cpu_ms: None };
                Some((profile.model.clone(), score))
            });
            Some(ScoredRecord { output: row.output.clone(), scores: scores.collect() })
        })
        .collect()
    }

    /// The interval of a column's correlation with token F1.
    pub(crate) fn of_column(
        &self,
        column: &str,
        kind: Option<TaskKind>,
        part: Part,
        of: Correlation,
    ) -> Option<Interval> {
        self.interval(kind, part, of, |row| self.data.value(column, row), |row| Some(self.data.rows[row].f1))
    }

    pub(crate) fn interval(
        &self,
        kind: Option<TaskKind>,
        part: Part,
        of: Correlation,
        score: impl Fn(usize) -> Option<f64> + Sync,
        target: impl Fn(usize) -> Option<f64> + Sync,
    ) -> Option<Interval> {
        let clusters = self.data.clusters(kind, part);
        bootstrap(&clusters, self.seed, |rows| correlation(self.data, rows, &score, &target, of))
    }

    /// The interval of how much better one score correlates than another, on the same resamples.
    pub(crate) fn difference(
        &self,
        kind: Option<TaskKind>,
        of: Correlation,
        one: impl Fn(usize) -> Option<f64> + Sync,
        other: impl Fn(usize) -> Option<f64> + Sync,
    ) -> Option<Interval> {
        let clusters = self.data.clusters(kind, Part::HeldOut);
        let f1 = |row: usize| Some(self.data.rows[row].f1);
        bootstrap(&clusters, self.seed, |rows| {
            Some(correlation(self.data, rows, &one, f1, of)? - correlation(self.data, rows, &other, f1, of)?)
        })
    }

    /// Each kind, and all together where there are several.
    pub(crate) fn groups(&self) -> Vec<Option<TaskKind>> {
        let kinds = self.data.kinds();
        let mut groups: Vec<_> = kinds.iter().copied().map(Some).collect();
        if kinds.len() > 1 {
            groups.push(None);
        }
        groups
    }

    /// The judge's column, if an LLM judge was asked.
    pub(crate) fn judge(&self) -> Option<&str> {
        self.data.columns.keys().find(|name| name.starts_with(JUDGE)).map(String::as_str)
    }

    fn correlations(&self) -> String {
        let mut text = String::new();
        for kind in self.groups() {
            let mut table =
                table(&["signal", "outputs", "Pearson", "Spearman", "ROUGE-L: Pearson", "judge: Pearson"]);
            let clusters = self.data.clusters(kind, Part::Whole);
            let mut rows = Vec::new();
            for (name, column) in &self.data.columns {
                let count = clusters.iter().flatten().filter(|row| column[**row].is_some()).count();
                let Some(with_f1) = self.of_column(name, kind, Part::Whole, pearson) else { continue };
                let rank = self.of_column(name, kind, Part::Whole, spearman);
                let score = |row: usize| column[row];
                let rouge =
                    self.interval(kind, Part::Whole, pearson, score, |row| Some(self.data.rows[row].rouge_l));
                let judge = self.judge().filter(|judge| judge != name).and_then(|judge| {
                    self.interval(kind, Part::Whole, pearson, score, |row| self.data.value(judge, row))
                });
                rows.push((
                    with_f1.estimate,
                    [
                        name.clone(),
                        count.to_string(),
                        with_f1.to_string(),
                        shown(rank),
                        shown(rouge),
                        shown(judge),
                    ],
                ));
            }
            rows.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (_, row) in rows {
                table.add_row(row);
            }
            let _ = write!(text, "### {}\n\n{table}\n\n", group_name(kind));
        }
        text
    }

    /// The families' columns in a regime, as the paper has them: one column each. The encoders that stand for the semantic
    /// and the alignment family are those that do best on training prompts.
    pub(crate) fn paper_columns(&self, regime: Regime, kind: Option<TaskKind>) -> Vec<Column> {
        let starting = |prefix: &str, family| -> Option<Column> {
            let columns: Vec<Column> = self
                .data
                .columns
                .keys()
                .filter(|name| name.starts_with(prefix))
                .map(|name| Column::new(name, family))
                .collect();
            best_single(self.data, &columns, kind).cloned().or_else(|| columns.into_iter().next())
        };
        let (semantic, agreement) = match regime {
            Regime::Reference => ("semantic-reference/", "agreement-reference"),
            Regime::Free => ("semantic-peers/", "agreement-evaluators"),
        };
        let mut columns = vec![
            Column::new("model-prior", Family::ModelPrior),
            Column::new("cost-prior", Family::CostPrior),
            Column::new("structure", Family::Structure),
        ];
        columns.extend(starting(semantic, Family::Semantic));
        columns.extend(starting("relevance/", Family::Alignment));
        columns.push(Column::new(agreement, Family::Agreement));
        columns
    }

    /// The columns of single evaluators in a regime: what a composite has to beat.
    pub(crate) fn single_columns(&self, regime: Regime) -> Vec<Column> {
        let wanted = |name: &str| match regime {
            Regime::Reference => {
                name.starts_with("semantic-reference/") || name.starts_with("relevance-reference/")
            }
            Regime::Free => ["semantic-peers/", "semantic-query/", "evidence/", "relevance/", "worker/"]
                .iter()
                .any(|prefix| name.starts_with(prefix)),
        };
        self.data
            .columns
            .keys()
            .filter(|name| wanted(name))
            .map(|name| Column::new(name, Family::Semantic))
            .collect()
    }

    /// The weights of a variant of the composite, learnt, where it learns, on training prompts.
    pub(crate) fn weights(&self, variant: Variant, columns: &[Column], kind: Option<TaskKind>) -> Vec<f64> {
        let default = shared_weights(columns);
        let without = |families: &[Family]| -> Vec<f64> {
            let weight = |(column, weight): (&Column, &f64)| {
                if families.contains(&column.family) {
                    0.0
                } else {
                    *weight
                }
            };
            columns.iter().zip(&default).map(weight).collect()
        };
        match variant {
            Variant::Default => default,
            Variant::Equal => vec![1.0; columns.len()],
            Variant::PriorHeavy => columns
                .iter()
                .zip(&default)
                .map(|(column, weight)| match column.family {
                    Family::ModelPrior | Family::CostPrior => weight * 3.0,
                    _ => *weight,
                })
                .collect(),
            Variant::NoPriors => without(&[Family::ModelPrior, Family::CostPrior]),
            Variant::NoStructure => without(&[Family::Structure]),
            Variant::NoAlignment => without(&[Family::Alignment]),
            Variant::NoAgreement => without(&[Family::Agreement]),
            Variant::PaperCalibrated => without(&[Family::Alignment, Family::Agreement]),
            Variant::SemanticOnly => without(&[
                Family::ModelPrior,
                Family::CostPrior,
                Family::Structure,
                Family::Alignment,
                Family::Agreement,
            ]),
            Variant::Calibrated => {
                let rows: Vec<usize> =
                    self.data.clusters(kind, Part::Training).into_iter().flatten().collect();
                let samples: Vec<Sample> = rows
                    .iter()
                    .map(|row| Sample {
                        values: columns.iter().map(|column| self.data.value(&column.name, *row)).collect(),
                        target: self.data.rows[*row].f1,
                    })
                    .collect();
                gate(&default, &audit(&samples), crate::calibrate::GATE)
            }
            Variant::Fitted => {
                let rows: Vec<usize> =
                    self.data.clusters(kind, Part::Training).into_iter().flatten().collect();
                Method::Fitted.weigh(self.data, columns, &rows)
            }
        }
    }

    /// A variant's composite as a score of rows.
    pub(crate) fn variant(
        &self,
        variant: Variant,
        regime: Regime,
        kind: Option<TaskKind>,
    ) -> impl Fn(usize) -> Option<f64> + Sync + '_ {
        let columns = self.paper_columns(regime, kind);
        let weights = self.weights(variant, &columns, kind);
        move |row| composite_of(self.data, &columns, &weights, row)
    }

    /// The middle, or mean, of all single evaluators of a regime.
    pub(crate) fn consensus(
        &self,
        regime: Regime,
        middle: fn(Vec<f64>) -> f64,
    ) -> impl Fn(usize) -> Option<f64> + Sync + '_ {
        let names: Vec<String> = match regime {
            Regime::Reference => self.single_columns(regime).into_iter().map(|column| column.name).collect(),
            // Those that a worker without a rubric runs.
            Regime::Free => {
                self.data.columns.keys().filter(|name| name.starts_with("worker/")).cloned().collect()
            }
        };
        move |row| {
            let values: Vec<f64> = names.iter().filter_map(|name| self.data.value(name, row)).collect();
            (!values.is_empty()).then(|| middle(values))
        }
    }

    fn composites(&self) -> String {
        let mut text = String::from(
            "*Calibrated* drops what does not correlate on the training prompts and renormalises; *fitted* is non-negative least \
             squares over the same six dimensions; the best single evaluator is the one that is best on the training prompts. The \
             last column is the difference to it in Pearson's correlation, on the same resamples.\n\n",
        );
        for regime in Regime::ALL {
            for kind in self.groups() {
                let singles = self.single_columns(regime);
                let Some(best) = best_single(self.data, &singles, kind) else { continue };
                let best_score = |row: usize| self.data.value(&best.name, row);
                let mut table = table(&["score", "Pearson", "Spearman", "minus best single"]);
                let f1 = |row: usize| Some(self.data.rows[row].f1);
                let mut add = |name: String, score: &(dyn Fn(usize) -> Option<f64> + Sync), is_best: bool| {
                    let r = self.interval(kind, Part::HeldOut, pearson, score, f1);
                    let rho = self.interval(kind, Part::HeldOut, spearman, score, f1);
                    let difference =
                        if is_best { None } else { self.difference(kind, pearson, score, best_score) };
                    table.add_row([name, shown(r), shown(rho), shown(difference)]);
                };
                add(format!("best single: {}", best.name), &best_score, true);
                add("median of evaluators".to_string(), &self.consensus(regime, median), false);
                add("mean of evaluators".to_string(), &self.consensus(regime, mean), false);
                for variant in Variant::ALL {
                    add(variant.as_str().to_string(), &self.variant(variant, regime, kind), false);
                }
                let names: Vec<String> =
                    self.paper_columns(regime, kind).into_iter().map(|column| column.name).collect();
                let _ = write!(
                    text,
                    "### {}, {} a reference\n\nDimensions: {}.\n\n{table}\n\n",
                    group_name(kind),
                    if regime == Regime::Reference { "with" } else { "without" },
                    names.join(", ")
                );
            }
        }
        text
    }

    fn rubric_table(&self) -> String {
        let mut text = String::from(
            "Without a reference, as a worker scores. Errors are of the score as an estimate of token F1. The raw score is what a \
             worker gives without a rubric.\n\n",
        );
        for (kind, fitted) in &self.rubrics {
            let kind = Some(*kind);
            let clusters = self.data.clusters(kind, Part::HeldOut);
            let error = |score: &(dyn Fn(usize) -> Option<f64> + Sync), power: i32| {
                bootstrap(&clusters, self.seed, |rows| {
                    let errors = rows
                        .iter()
                        .filter_map(|row| Some((score(*row)? - self.data.rows[*row].f1).abs().powi(power)));
                    Some(mean(errors))
                })
            };
            let mut table = table(&[
                "evaluator",
                "how weighed",
                "raw: Pearson",
                "rubric: Pearson",
                "minus raw",
                "minus best single",
                "raw: mean abs. error",
                "rubric: mean abs. error",
            ]);
            let singles = self.single_columns(Regime::Free);
            let best = best_single(self.data, &singles, kind).map(|column| column.name.clone());
            let best_score = |row: usize| self.data.value(best.as_deref()?, row);
            let mut add = |name: &str, method: &str, raw: Scorer<'_>, score: Scorer<'_>| {
                let f1 = |row: usize| Some(self.data.rows[row].f1);
                table.add_row([
                    name.to_string(),
                    method.to_string(),
                    shown(self.interval(kind, Part::HeldOut, pearson, raw, f1)),
                    shown(self.interval(kind, Part::HeldOut, pearson, score, f1)),
                    shown(self.difference(kind, pearson, score, raw)),
                    shown(self.difference(kind, pearson, score, best_score)),
                    shown(error(raw, 1)),
                    shown(error(score, 1)),
                ]);
            };
            let profiles = fitted.rubric.profile.iter().zip(&fitted.choices).zip(&fitted.scores);
            for ((profile, chosen), scores) in profiles {
                let raw = format!("worker/{}", profile.model);
                let raw = |row: usize| self.data.value(&raw, row);
                add(&profile.model, chosen.method.as_str(), &raw, &|row| scores[row]);
            }
            let raw = self.consensus(Regime::Free, median);
            add("median of the panel", "", &raw, &|row| fitted.panel(row));
            if let Some(naive) = kind.and_then(|kind| self.naive.get(&kind)) {
                add("the same, learnt without cheats", "", &raw, &|row| naive.panel(row));
            }
            let _ = write!(
                text,
                "### {}\n\nBest single signal on the training prompts: {}.\n\n{table}\n\n{}\n\n",
                group_name(kind),
                best.as_deref().unwrap_or("none"),
                weights_table(fitted)
            );
        }
        text
    }

    /// What answers that no model gave get, beside what models get.
    fn cheats(&self) -> String {
        let mut text = String::from(
            "Mean scores of the panel (median of its evaluators) for answers that cost nothing: words of the context that look like \
             an answer. A score above the mean token F1 is pay that was not earned. The rubric learns from cheats on the training \
             prompts; the column before it is the same rubric had it learnt from models' outputs alone.\n\n",
        );
        for (kind, fitted) in &self.rubrics {
            let naive = self.naive.get(kind);
            let clusters = self.data.clusters_where(Some(*kind), Part::HeldOut, |_| true);
            let mut groups: BTreeMap<(bool, &str), Vec<usize>> = BTreeMap::new();
            for row in clusters.into_iter().flatten() {
                let Row { output, cheat, .. } = &self.data.rows[row];
                groups.entry((*cheat, &output.model)).or_default().push(row);
            }
            let raw = self.consensus(Regime::Free, median);
            let mut table =
                table(&["who", "outputs", "token F1", "no rubric", "rubric without cheats", "rubric"]);
            for ((_, name), rows) in groups {
                let average = |score: &dyn Fn(usize) -> Option<f64>| {
                    format!("{:.3}", mean(rows.iter().filter_map(|row| score(*row))))
                };
                table.add_row([
                    name.to_string(),
                    rows.len().to_string(),
                    average(&|row| Some(self.data.rows[row].f1)),
                    average(&raw),
                    average(&|row| naive?.panel(row)),
                    average(&|row| fitted.panel(row)),
                ]);
            }
            let _ = write!(
                text,
                "### {}\n\n{table}\n\n{}\n\n",
                group_name(Some(*kind)),
                self.among_cheats(*kind, fitted)
            );
        }
        text
    }

    /// What each score is worth on held-out prompts where nobody cheats, and where some do.
    fn among_cheats(&self, kind: TaskKind, fitted: &FittedRubric) -> Table {
        let singles = self.single_columns(Regime::Free);
        let best = best_single(self.data, &singles, Some(kind)).map(|column| column.name.clone());
        let raw = self.consensus(Regime::Free, median);
        let naive = self.naive.get(&kind);
        let best_score = |row: usize| self.data.value(best.as_deref()?, row);
        let without_cheats = |row: usize| naive?.panel(row);
        let rubric = |row: usize| fitted.panel(row);
        let scores: [(String, Scorer<'_>); 4] = [
            ("no rubric, median".to_string(), &raw),
            (format!("best single: {}", best.as_deref().unwrap_or("none")), &best_score),
            ("rubric without cheats".to_string(), &without_cheats),
            ("rubric".to_string(), &rubric),
        ];
        let mut table = table(&[
            "score",
            "Pearson, models only",
            "Pearson, with cheats",
            "mean squared error, models only",
            "mean squared error, with cheats",
        ]);
        let f1 = |row: usize| Some(self.data.rows[row].f1);
        for (name, score) in scores {
            let mut correlations = Vec::new();
            let mut errors = Vec::new();
            for with_cheats in [false, true] {
                let clusters =
                    self.data.clusters_where(Some(kind), Part::HeldOut, |row| with_cheats || !row.cheat);
                correlations.push(bootstrap(&clusters, self.seed, |rows| {
                    correlation(self.data, rows, score, f1, pearson)
                }));
                errors.push(bootstrap(&clusters, self.seed, |rows| {
                    let error = |row: &usize| Some((score(*row)? - self.data.rows[*row].f1).powi(2));
                    Some(mean(rows.iter().filter_map(error)))
                }));
            }
            table.add_row(std::iter::once(name).chain(correlations.into_iter().chain(errors).map(shown)));
        }
        table
    }

    /// Errors of held-out outputs, evaluator by evaluator, where all have an opinion: the votes of a panel.
    pub(crate) fn errors(&self, kind: TaskKind, panel: Panel) -> Option<(Vec<String>, Vec<Vec<f64>>)> {
        let fitted = self.rubrics.get(&kind)?;
        let judge = self.judge().filter(|_| panel == Panel::WithJudge);
        let mut names: Vec<String> = fitted.rubric.profile.iter().map(|p| p.model.clone()).collect();
        names.extend(judge.map(str::to_string));
        let plain: Vec<String> = names.iter().map(|name| format!("worker/{name}")).collect();
        let rows: Vec<usize> = self.data.clusters(Some(kind), Part::HeldOut).into_iter().flatten().collect();
        let mut columns = vec![Vec::new(); names.len()];
        for row in rows {
            let mut votes: Vec<f64> = match panel {
                Panel::Plain => plain.iter().filter_map(|name| self.data.value(name, row)).collect(),
                _ => fitted.scores.iter().filter_map(|scores| scores[row]).collect(),
            };
            votes.extend(judge.and_then(|judge| self.data.value(judge, row)));
            if votes.len() == names.len() {
                for (column, vote) in columns.iter_mut().zip(votes) {
                    column.push(vote - self.data.rows[row].f1);
                }
            }
        }
        (columns[0].len() >= 3).then_some((names, columns))
    }

    fn panel(&self) -> String {
        let mut text = String::from(
            "How the evaluators' errors (score minus token F1, held-out prompts) go together. With a mean correlation ρ, k votes are \
             worth k / (1 + (k − 1)ρ) independent ones (Kish). The error left is the root mean square of the panel's mean score \
             minus token F1.\n\n",
        );
        for kind in self.data.kinds() {
            for panel in [Panel::Plain, Panel::Rubric, Panel::WithJudge] {
                if panel == Panel::WithJudge && self.judge().is_none() {
                    continue;
                }
                let Some((names, errors)) = self.errors(kind, panel) else { continue };
                let mut header = vec!["error of"];
                header.extend(names.iter().map(String::as_str));
                let mut table = table(&header);
                for (i, name) in names.iter().enumerate() {
                    let mut row = vec![name.clone()];
                    row.extend((0..names.len()).map(|j| {
                        pearson(&errors[i], &errors[j]).map_or_else(|| "–".to_string(), |r| format!("{r:.2}"))
                    }));
                    table.add_row(row);
                }
                let rho = mean_correlation(&errors);
                let outputs = errors[0].len();
                let panel_error = |row: usize| mean(errors.iter().map(|column| column[row]));
                let left = mean((0..outputs).map(|row| panel_error(row).powi(2))).sqrt();
                let _ = write!(
                    text,
                    "### {}, {}, {outputs} outputs\n\n{table}\n\nMean correlation {rho:.2}: {} votes are worth {:.2}; nine such \
                     votes would be worth {:.2}. Error left: {left:.3}.\n\n",
                    group_name(Some(kind)),
                    panel.as_str(),
                    names.len(),
                    effective_votes(names.len(), rho),
                    effective_votes(9, rho),
                );
            }
        }
        text
    }
}

/// Who votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Panel {
    /// Workers without a rubric.
    Plain,
    /// Workers with the rubric.
    Rubric,
    /// Those, and the judge.
    WithJudge,
}

impl Panel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "without a rubric",
            Self::Rubric => "with the rubric",
            Self::WithJudge => "with the rubric, and the judge",
        }
    }
}

/// A score of rows.
type Scorer<'a> = &'a (dyn Fn(usize) -> Option<f64> + Sync);

/// The mean of the correlations between different columns.
pub(crate) fn mean_correlation(columns: &[Vec<f64>]) -> f64 {
    let pairs = (0..columns.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    mean(pairs.filter_map(|(i, j)| pearson(&columns[i], &columns[j])))
}

fn weights_table(fitted: &FittedRubric) -> Table {
    let mut signals: Vec<_> = fitted.rubric.profile.iter().flat_map(|p| p.weights.keys().copied()).collect();
    signals.sort_unstable();
    signals.dedup();
    let mut header = vec!["weight"];
    header.extend(fitted.rubric.profile.iter().map(|p| p.model.as_str()));
    let mut table = table(&header);
    for signal in signals {
        let mut row = vec![signal.as_str().to_string()];
        row.extend(
            fitted
                .rubric
                .profile
                .iter()
                .map(|p| p.weights.get(&signal).map_or_else(String::new, |weight| format!("{weight:.3}"))),
        );
        table.add_row(row);
    }
    table
}

pub(crate) fn group_name(kind: Option<TaskKind>) -> &'static str {
    match kind {
        Some(TaskKind::Qa) => "Questions",
        Some(TaskKind::Summarisation) => "Summaries",
        None => "All",
    }
}

/// Ways to weigh the paper's six dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Default,
    Equal,
    PriorHeavy,
    NoPriors,
    NoStructure,
    NoAlignment,
    NoAgreement,
    SemanticOnly,
    PaperCalibrated,
    Calibrated,
    Fitted,
}

impl Variant {
    pub(crate) const ALL: [Self; 11] = [
        Self::Default,
        Self::Equal,
        Self::PriorHeavy,
        Self::NoPriors,
        Self::NoStructure,
        Self::NoAlignment,
        Self::NoAgreement,
        Self::SemanticOnly,
        Self::PaperCalibrated,
        Self::Calibrated,
        Self::Fitted,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default weights",
            Self::Equal => "equal weights",
            Self::PriorHeavy => "prior-heavy (priors three times)",
            Self::NoPriors => "no priors",
            Self::NoStructure => "no structure",
            Self::NoAlignment => "no alignment",
            Self::NoAgreement => "no agreement",
            Self::SemanticOnly => "semantic only",
            Self::PaperCalibrated => "the paper's calibrated weights",
            Self::Calibrated => "calibrated here",
            Self::Fitted => "fitted here",
        }
    }
}
