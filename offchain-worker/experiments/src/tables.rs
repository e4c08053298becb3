//! Tables for people.

use crate::log::OutputRecord;
use comfy_table::{presets, CellAlignment, Table};
use poq_inference::TaskKind;
use std::collections::BTreeMap;

/// A table in Markdown: the same text on a terminal and in a document. All columns but the first are numbers.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for (index, column) in table.column_iter_mut().enumerate() {
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The middle value; of an even number of values the mean of the two in the middle; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The arithmetic mean; 0 of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    if count == 0 {
        0.0
    } else {
        sum / count as f64
    }
}

/// Per model and kind: quality, and what it costs.
pub(crate) fn models(records: &[OutputRecord]) -> Table {
    let mut groups: BTreeMap<(TaskKind, &str), Vec<&OutputRecord>> = BTreeMap::new();
    for record in records {
        groups.entry((record.kind, &record.model)).or_default().push(record);
    }
    let mut table = table(&[
        "model",
        "kind",
        "outputs",
        "token F1",
        "ROUGE-L",
        "tokens in",
        "tokens out",
        "median s",
        "median CPU s",
        "peak MB",
    ]);
    for ((kind, model), group) in groups {
        let of = |field: fn(&OutputRecord) -> f64| group.iter().map(|r| field(r)).collect::<Vec<_>>();
        let reference = |field: fn(&OutputRecord) -> Option<f64>| {
            let known: Vec<_> = group.iter().filter_map(|r| field(r)).collect();
            if known.is_empty() {
                "–".to_string()
            } else {
                format!("{:.3}", mean(known))
            }
        };
        table.add_row([
            model.to_string(),
            kind.to_string(),
            group.len().to_string(),
            reference(|r| r.f1),
            reference(|r| r.rouge_l),
            format!("{:.0}", mean(of(|r| r.prompt_tokens as f64))),
            format!("{:.1}", mean(of(|r| r.completion_tokens as f64))),
            format!("{:.2}", median(of(|r| r.wall_ms)) / 1e3),
            format!("{:.2}", median(of(|r| r.cpu_ms)) / 1e3),
            format!(
                "{:.0}",
                group.iter().filter_map(|r| r.peak_memory_bytes).max().unwrap_or(0) as f64 / 1e6
            ),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
