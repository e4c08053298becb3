//! Checks that the rules of docs/protocol.md point at what there is: every rule names code that implements it and a test that
//! would fail without it, and every test of an audit's finding is named on the page.
//!
//! A rule begins a line with `**R7**` and goes on to the next rule or heading. Code is cited as `` `poq-core/src/task/clock.rs::step` ``
//! (a path below contracts/, and a function), a test as `` `core:life::a_round_settles` `` or `` `chain:registry::…` `` (a file of
//! [`TESTS`]'s folder, and its function).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where tests are, by the prefix of a citation.
pub const TESTS: [(&str, &str); 2] =
    [("core", "contracts/poq-core/tests"), ("chain", "node-runtime-tests/tests/tests")];
/// What cited code is below.
const CODE: &str = "contracts";
/// The files whose tests answer an audit's findings: each must be on the page.
const FINDINGS: [(&str, &[&str]); 2] =
    [("core", &["life", "registry"]), ("chain", &["registry", "chain_findings"])];

/// A rule of the page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub number: u32,
    /// What it cites.
    pub cites: Cites,
}

/// What a part of the page cites.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cites {
    /// Path below contracts/, function.
    pub code: BTreeSet<(String, String)>,
    /// Prefix, file, function.
    pub tests: BTreeSet<(String, String, String)>,
}

fn cites(text: &str) -> Cites {
    let mut cites = Cites::default();
    // Every second part is between backquotes.
    for cited in text.split('`').skip(1).step_by(2) {
        let Some((place, function)) = cited.rsplit_once("::") else { continue };
        if let Some((prefix, file)) = place.split_once(':') {
            cites.tests.insert((prefix.into(), file.into(), function.into()));
        } else if place.ends_with(".rs") {
            cites.code.insert((place.into(), function.into()));
        }
    }
    cites
}

/// The page's rules in their order, and all that it cites anywhere.
///
/// # Errors
/// Where the rules are not numbered 1, 2, 3 …
pub fn rules(page: &str) -> Result<(Vec<Rule>, Cites), String> {
    let mut texts: Vec<(u32, String)> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        let number =
            line.strip_prefix("**R").and_then(|rest| rest.split_once("**")).map(|(number, _)| number);
        if let Some(number) = number {
            let number = number.parse().map_err(|_| format!("line {}: R{number} is no rule", index + 1))?;
            let expected = texts.last().map_or(1, |(last, _)| last + 1);
            if number != expected {
                return Err(format!("line {}: R{number} stands where R{expected} is due", index + 1));
            }
            texts.push((number, String::new()));
            inside = true;
        } else if line.starts_with('#') {
            inside = false;
        }
        if let (true, Some((_, text))) = (inside, texts.last_mut()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    let rules = texts.into_iter().map(|(number, text)| Rule { number, cites: cites(&text) }).collect();
    Ok((rules, cites(page)))
}

/// Whether there is a function of that name.
fn defines(source: &str, function: &str) -> bool {
    source.match_indices("fn ").any(|(at, found)| {
        let name = source.get(at + found.len()..).unwrap_or_default();
        name.strip_prefix(function).is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

/// Names of the functions that follow `#[test]`, in properties too.
fn tests_of(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut due = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            due = true;
        } else if let (true, Some(rest)) = (due, line.strip_prefix("fn ")) {
            found.extend(rest.split('(').next().map(str::to_owned));
            due = false;
        }
    }
    found
}

/// `h4_…`, `m3_…`, `l2_…`, `h1a_…`: named after a finding of an audit.
fn is_finding(test: &str) -> bool {
    let mut letters = test.chars();
    matches!(letters.next(), Some('h' | 'm' | 'l'))
        && letters.next().is_some_and(|digit| digit.is_ascii_digit())
        && test.split('_').next().is_some_and(|number| number.len() <= 3)
}

/// Everything that is wrong with the page, in words; `root` is the repository's.
///
/// # Errors
/// As [`rules`].
pub fn problems(page: &str, root: &Path) -> Result<Vec<String>, String> {
    let (rules, all) = rules(page)?;
    let mut problems = Vec::new();
    if rules.is_empty() {
        problems.push("there is no rule".to_owned());
    }
    for Rule { number, cites } in &rules {
        if cites.code.is_empty() {
            problems.push(format!("R{number} names no code"));
        }
        if cites.tests.is_empty() {
            problems.push(format!("R{number} names no test"));
        }
    }
    let mut sources: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut read = |path: String| {
        sources.entry(path.clone()).or_insert_with(|| fs::read_to_string(root.join(path)).ok()).clone()
    };
    for (path, function) in &all.code {
        match read(format!("{CODE}/{path}")) {
            None => problems.push(format!("there is no {CODE}/{path}")),
            Some(source) if !defines(&source, function) => {
                problems.push(format!("{CODE}/{path} has no function {function}"));
            }
            Some(_) => {}
        }
    }
    for (prefix, file, test) in &all.tests {
        let Some((_, folder)) = TESTS.iter().find(|(known, _)| known == prefix) else {
            problems.push(format!("{prefix}:{file}::{test}: no tests are called {prefix}"));
            continue;
        };
        match read(format!("{folder}/{file}.rs")) {
            None => problems.push(format!("there is no {folder}/{file}.rs")),
            Some(source) if !tests_of(&source).contains(test) => {
                problems.push(format!("{folder}/{file}.rs has no test {test}"));
            }
            Some(_) => {}
        }
    }
    for (prefix, files) in FINDINGS {
        let folder = TESTS.iter().find(|(known, _)| *known == prefix).map_or("", |(_, folder)| folder);
        for file in files {
            let path = format!("{folder}/{file}.rs");
            let source = read(path.clone()).unwrap_or_default();
            for test in tests_of(&source).into_iter().filter(|test| is_finding(test)) {
                if !all.tests.contains(&(prefix.into(), (*file).into(), test.clone())) {
                    problems.push(format!("{path}: {test} is not on the page"));
                }
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The repository.
    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn every_rule_of_the_protocol_names_its_code_and_its_tests() {
        let page = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
        let problems = problems(&page, root()).unwrap();
        assert!(problems.is_empty(), "docs/protocol.md:\n  {}", problems.join("\n  "));
    }

    #[test]
    fn rules_are_read_with_what_they_cite() {
        let page = "# x\n**R1** a `poq/lib.rs::new`\nand `core:life::t`, `other`.\n\n**R2** b\n## y\n`chain:registry::u`\n";
        let (rules, all) = rules(page).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].cites.code, [("poq/lib.rs".into(), "new".into())].into());
        assert_eq!(rules[0].cites.tests, [("core".into(), "life".into(), "t".into())].into());
        assert_eq!(rules[1].cites, Cites::default(), "a heading ends a rule");
        assert_eq!(all.tests.len(), 2);
        assert!(super::rules("**R1** a\n**R3** b\n").is_err());
        assert!(super::rules("**R2** a\n").is_err());
    }

    #[test]
    fn what_is_cited_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("contracts/poq/lib.rs", "pub fn new<T>(a: T) {}\nfn renewed() {}\n");
        write(
            "contracts/poq-core/tests/life.rs",
            "#[test]\nfn h1a_x() {}\nfn helper() {}\n#[test]\nfn lay_y(a in b()) {}\n",
        );
        let found = |page: &str| problems(page, folder.path()).unwrap();
        assert!(found("**R1** `poq/lib.rs::new` `core:life::h1a_x` `core:life::lay_y`").is_empty());
        let wrong =
            "**R1** `poq/lib.rs::renew` `poq/x.rs::new`\n**R2** `core:life::helper` `core:x::y` `net:x::y`";
        assert_eq!(
            found(wrong),
            [
                "R1 names no test",
                "R2 names no code",
                "contracts/poq/lib.rs has no function renew",
                "there is no contracts/poq/x.rs",
                "contracts/poq-core/tests/life.rs has no test helper",
                "there is no contracts/poq-core/tests/x.rs",
                "net:x::y: no tests are called net",
                "contracts/poq-core/tests/life.rs: h1a_x is not on the page",
            ]
        );
        assert_eq!(found("no rules")[0], "there is no rule");
    }
}
