//! Sweeps: every combination of attack, ratio, panel size and rules, each with its measures.

use crate::attack::Attack;
use crate::economy::Setting;
use crate::error::{Error, Result};
use crate::measure::{Metric, Summary};
use crate::population::Crowd;
use crate::rules::{aggregation_name, merit_name, trust_name, Regime};
use crate::run::{run_all, Effort, Job};
use crate::world::{Spread, World};
use poq_core::{Aggregation, MeritRule};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What is swept over.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Worlds.
    pub spreads: Vec<Spread>,
    /// Attacks.
    pub attacks: Vec<Attack>,
    /// Shares of attackers.
    pub ratios: Vec<f64>,
    /// Panel sizes K.
    pub panels: Vec<u8>,
    /// Aggregations.
    pub aggregations: Vec<Aggregation>,
    /// Merit rules.
    pub merits: Vec<MeritRule>,
    /// Trust rules with their gold tasks.
    pub regimes: Vec<Regime>,
}

/// One combination.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The world.
    pub spread: Spread,
    /// The attack.
    pub attack: Attack,
    /// The share of attackers.
    pub ratio: f64,
    /// K.
    pub panel: u8,
    /// The aggregation.
    pub aggregation: Aggregation,
    /// The merit rule.
    pub merit: MeritRule,
    /// The trust rule with its gold tasks.
    pub regime: Regime,
}

/// A combination with what it came to.
#[derive(Clone, Debug)]
pub struct Row {
    /// The combination.
    pub cell: Cell,
    /// What it came to.
    pub summary: Summary,
}

impl Cell {
    /// The setting of this combination; everything else from `base`.
    pub fn setting(&self, base: &Setting) -> Setting {
        let mut setting = base.clone();
        setting.panel = self.panel;
        setting.params.aggregation = self.aggregation;
        setting.params.merit = self.merit;
        self.regime.apply(&mut setting);
        setting
    }
}

impl Grid {
    /// All combinations.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for spread in &self.spreads {
            for attack in &self.attacks {
                for ratio in &self.ratios {
                    for panel in &self.panels {
                        for aggregation in &self.aggregations {
                            for merit in &self.merits {
                                for regime in &self.regimes {
                                    cells.push(Cell {
                                        spread: *spread,
                                        attack: *attack,
                                        ratio: *ratio,
                                        panel: *panel,
                                        aggregation: *aggregation,
                                        merit: *merit,
                                        regime: *regime,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
        cells
    }

    /// Runs all combinations. `done` is called once per combination.
    ///
    /// # Errors
    /// A combination that the contract would refuse, or a bug that the books found.
    pub fn run(
        &self,
        base: &Setting,
        crowd: Crowd,
        effort: Effort,
        done: impl Fn() + Sync,
    ) -> Result<Vec<Row>> {
        let worlds: BTreeMap<Spread, World> = self
            .spreads
            .iter()
            .map(|spread| Ok((*spread, World::standard(*spread)?)))
            .collect::<Result<_>>()?;
        let cells = self.cells();
        let jobs: Vec<Job<'_>> = cells
            .iter()
            .map(|cell| Job {
                world: &worlds[&cell.spread],
                setting: cell.setting(base),
                crowd: crowd.attacked(cell.attack, cell.ratio),
            })
            .collect();
        let summaries = run_all(&jobs, effort, |_, outcomes| Summary::of(&outcomes), done)?;
        Ok(cells.into_iter().zip(summaries).map(|(cell, summary)| Row { cell, summary }).collect())
    }
}

/// A number with four significant digits: more would be noise, and tables are kept in the repository.
pub(crate) fn short(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() { String::new() } else { "inf".into() };
    }
    if x == 0.0 {
        return "0".into();
    }
    let digits = (3 - x.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{x:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

/// Writes a table.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write_table(path: &Path, header: &[String], rows: &[Vec<String>]) -> Result<()> {
    let failed = |e: csv::Error| Error::Io { path: path.into(), source: e.into() };
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(header).map_err(failed)?;
    for row in rows {
        writer.write_record(row).map_err(failed)?;
    }
    writer.flush().map_err(Error::io(path))
}

/// Writes rows as CSV: the combination, then of every metric in `metrics` its mean and confidence interval, of every one in
/// `means` its mean.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_csv(path: &Path, rows: &[Row], metrics: &[Metric], means: &[Metric]) -> Result<()> {
    let mut header: Vec<String> =
        ["spread", "attack", "ratio", "panel", "aggregation", "merit", "trust", "gold", "break_even_at_risk"]
            .map(String::from)
            .into();
    for metric in metrics {
        let name = metric.name();
        header.extend([name.to_string(), format!("{name}_low"), format!("{name}_high")]);
    }
    header.extend(means.iter().map(|metric| metric.name().to_string()));
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cell = &row.cell;
            let mut line = vec![
                cell.spread.name().to_string(),
                cell.attack.to_string(),
                short(cell.ratio),
                cell.panel.to_string(),
                aggregation_name(cell.aggregation).to_string(),
                merit_name(cell.merit).to_string(),
                trust_name(cell.regime.trust).to_string(),
                short(cell.regime.gold),
                row.summary.break_even.map_or(String::new(), |b| b.to_string()),
            ];
            for metric in metrics {
                match row.summary.get(*metric) {
                    Some(e) => line.extend([short(e.mean), short(e.low), short(e.high)]),
                    None => line.extend([String::new(), String::new(), String::new()]),
                }
            }
            line.extend(means.iter().map(|metric| short(row.summary.mean(*metric))));
            line
        })
        .collect();
    write_table(path, &header, &table)
}

/// How a set of rules holds against all attacks: its worst numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// K.
    pub panel: u8,
    /// The aggregation.
    pub aggregation: &'static str,
    /// The merit rule.
    pub merit: &'static str,
    /// The trust rule.
    pub trust: &'static str,
    /// The share of gold tasks.
    pub gold: f64,
    /// The highest profit of attackers relative to honest nodes, over all attacks on evaluators, and by which attack.
    pub worst_profit: f64,
    /// That attack, with its ratio and world.
    pub worst_profit_by: String,
    /// In how many combinations attackers earn more than honest nodes.
    pub profitable: usize,
    /// The highest mean absolute error of the consensus.
    pub worst_error: f64,
    /// By which attack.
    pub worst_error_by: String,
    /// The mean of the errors over all attacks.
    pub mean_error: f64,
    /// Of how many combinations of attack, ratio and world.
    pub combinations: usize,
}

/// Ranks the sets of rules by how they hold against attackers of up to `ratio`: fewest profitable attacks first, then the
/// lower worst error.
pub fn verdicts(rows: &[Row], ratio: f64) -> Vec<Verdict> {
    let mut sets: BTreeMap<(u8, &str, &str, &str, u64), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.cell.ratio <= ratio + 1e-9) {
        let cell = &row.cell;
        sets.entry((
            cell.panel,
            aggregation_name(cell.aggregation),
            merit_name(cell.merit),
            trust_name(cell.regime.trust),
            (cell.regime.gold * 1e6) as u64,
        ))
        .or_default()
        .push(row);
    }
    let mut verdicts: Vec<Verdict> = sets
        .into_iter()
        .filter_map(|((panel, aggregation, merit, trust, gold), rows)| {
            let by = |metric: Metric| {
                rows.iter()
                    .filter(|row| !row.summary.mean(metric).is_nan())
                    .max_by(|a, b| a.summary.mean(metric).total_cmp(&b.summary.mean(metric)))
                    .map(|row| {
                        let cell = &row.cell;
                        let name =
                            format!("{} at {} ({})", cell.attack, short(cell.ratio), cell.spread.name());
                        (row.summary.mean(metric), name)
                    })
            };
            let (worst_profit, worst_profit_by) = by(Metric::ProfitRatio)?;
            let (worst_error, worst_error_by) = by(Metric::AbsoluteError)?;
            let errors = rows.iter().map(|row| row.summary.mean(Metric::AbsoluteError)).sum::<f64>();
            Some(Verdict {
                panel,
                aggregation,
                merit,
                trust,
                gold: gold as f64 / 1e6,
                worst_profit,
                worst_profit_by,
                profitable: rows.iter().filter(|r| r.summary.mean(Metric::ProfitRatio) >= 1.0).count(),
                worst_error,
                worst_error_by,
                mean_error: errors / rows.len() as f64,
                combinations: rows.len(),
            })
        })
        .collect();
    verdicts.sort_by(|a, b| {
        a.profitable.cmp(&b.profitable).then_with(|| a.worst_error.total_cmp(&b.worst_error))
    });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        for (x, text) in [
            (0.0, "0"),
            (0.123_456, "0.1235"),
            (12.345_6, "12.35"),
            (1_234.5, "1234"),
            (123_456.0, "123456"),
            (-0.000_123_456, "-0.0001235"),
            (0.5, "0.5"),
            (100.0, "100"),
            (f64::INFINITY, "inf"),
            (f64::NAN, ""),
        ] {
            assert_eq!(short(x), text);
        }
    }
}
