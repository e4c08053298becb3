//! Compares the table of parameters in the docs with what the program ships.
//!
//! A parameter is a row whose first cell is its name in backquotes, as `poq params show` writes it (`inference_weights.alpha`);
//! the cell under the head `default` must be the shipped value, and no row may be about a parameter that there is not.

use std::collections::BTreeMap;

/// Every parameter of a file that `poq params show` writes, by name: `[kinds.1]` and `[global]` left out, tables joined by dots.
///
/// # Errors
/// Where the text is not TOML, or two kinds have the same parameter.
pub fn shipped(toml: &str) -> Result<BTreeMap<String, String>, String> {
    let table: toml::Table = toml.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut found = BTreeMap::new();
    let mut add = |prefix: &str, value: &toml::Value| flatten(prefix, value, &mut found);
    for (section, value) in &table {
        match (section.as_str(), value) {
            ("kinds", toml::Value::Table(kinds)) if kinds.len() == 1 => {
                kinds.values().for_each(|kind| add("", kind));
            }
            ("kinds", _) => return Err("one kind was expected".into()),
            ("global", value) => add("global", value),
            (other, _) => return Err(format!("unknown section {other}")),
        }
    }
    Ok(found)
}

fn flatten(name: &str, value: &toml::Value, found: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, found);
            }
        }
        toml::Value::String(text) => {
            found.insert(name.into(), text.clone());
        }
        other => {
            found.insert(name.into(), other.to_string());
        }
    }
}

/// The parameters that the page's tables tell, with their defaults.
///
/// # Errors
/// Where a table of parameters has no column `default`, or a name stands twice.
pub fn documented(page: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut column = None;
    for (index, line) in page.lines().enumerate() {
        let at = index + 1;
        let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            column = None;
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(first) = cells.first() else { continue };
        if *first == "parameter" {
            let default = cells.iter().position(|cell| *cell == "default");
            column = Some(default.ok_or_else(|| format!("line {at}: no column `default`"))?);
            continue;
        }
        let (Some(column), Some(name)) = (column, code(first)) else { continue };
        let value = cells.get(column).copied().unwrap_or_default();
        let value =
            code(value).ok_or_else(|| format!("line {at}: the default of {name} is not in backquotes"))?;
        if found.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("line {at}: {name} stands twice"));
        }
    }
    Ok(found)
}

fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

/// A value may be written with separators, and only its start where it ends with `…` (a hash).
fn same(told: &str, value: &str) -> bool {
    let (told, value) = (told.replace(['_', ','], ""), value.replace('_', ""));
    match told.strip_suffix('…') {
        Some(start) => !start.is_empty() && value.starts_with(start),
        None => told == value,
    }
}

/// Every difference, in words.
pub fn differences(shipped: &BTreeMap<String, String>, documented: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in shipped {
        match documented.get(name) {
            None => lines.push(format!("{name} = {value} has no row")),
            Some(told) if !same(told, value) => {
                lines.push(format!("{name} is {value}, and its row says {told}"));
            }
            Some(_) => {}
        }
    }
    let unknown = documented.keys().filter(|name| !shipped.contains_key(*name));
    lines.extend(unknown.map(|name| format!("there is no parameter {name}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str =
        "# note\n[global]\nunbonding_ms = 86400000\n[kinds.1]\ntolerance = 0.01\nstake_min = \"10\"\n\
                        [kinds.1.merit.information]\nstep = 0.02\n";

    #[test]
    fn names_and_values_are_read() {
        let found = shipped(TOML).unwrap();
        let pairs: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let expected = [
            ("global.unbonding_ms", "86400000"),
            ("merit.information.step", "0.02"),
            ("stake_min", "10"),
            ("tolerance", "0.01"),
        ];
        assert_eq!(pairs, expected);
        assert!(shipped("[kinds.1]\na=1\n[kinds.2]\na=2").is_err());
        assert!(shipped("[more]\na=1").is_err());
    }

    #[test]
    fn every_difference_is_told() {
        let page = "| parameter | default | meaning |\n|---|---|---|\n| `global.unbonding_ms` | `86,400,000` | a day |\n\
                    | `tolerance` | `0.02` | x |\n| `merit.information.step` | `0.02` | x |\n| `ghost` | `1` | x |\n\n\
                    | other | table |\n|---|---|\n| `stake_min` | `10` |\n";
        let lines = differences(&shipped(TOML).unwrap(), &documented(page).unwrap());
        let expected = [
            "stake_min = 10 has no row",
            "tolerance is 0.01, and its row says 0.02",
            "there is no parameter ghost",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_value_is_compared_without_its_separators() {
        for (told, value, expected) in [
            ("86,400,000", "86400000", true),
            ("1_000", "1000", true),
            ("0x…", "0xab12", true),
            ("…", "0xab12", false),
            ("0xac…", "0xab12", false),
            ("0.02", "0.2", false),
        ] {
            assert_eq!(same(told, value), expected, "{told} {value}");
        }
    }

    #[test]
    fn a_table_is_whole_or_refused() {
        assert!(documented("| parameter | meaning |\n").is_err());
        assert!(documented("| parameter | default |\n| `a` | 1 |\n").is_err());
        assert!(documented("| parameter | default |\n| `a` | `1` |\n| `a` | `2` |\n").is_err());
    }
}
