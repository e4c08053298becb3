//! Prompts out of the files that people have: SQuAD 1.1, 2.0 and its kin (XQuAD, MLQA, MRQA), records as `datasets` exports
//! them, this project's own lines, CSV and TSV.
//!
//! One reader for all: it walks down `data`, `rows`, `paragraphs` and `qas` to records and knows the names that fields go by.
//! What it does not understand it refuses by line and field.

use super::{read_text, Item, TaskKind};
use crate::error::{Error, Result};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompts {
    /// The prompts, in the file's order, each with a name of its own.
    pub items: Vec<Item>,
    /// Questions that have no answer: nothing can be held against an output to them.
    pub left_out: Vec<LeftOut>,
}

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its line, from 1.
    pub line: usize,
    /// Its name.
    pub id: String,
}

impl Prompts {
    /// What was left out, in a sentence; `None` where nothing was.
    pub fn left_out_note(&self, path: &Path) -> Option<String> {
        let first = self.left_out.first()?;
        Some(format!(
            "{}: {} of {} questions have no answer (or an empty one) and are left out; the first is `{}` at line {}",
            path.display(),
            self.left_out.len(),
            self.left_out.len() + self.items.len(),
            first.id,
            first.line
        ))
    }
}

/// Reads a file of prompts in any of the forms above. `.csv` and `.tsv` are tables with a header; everything else is JSON: one
/// document, or one value after the other.
///
/// A record has a question (`question`, `query`, `instruction`), mostly a context (`context`, `passage`, `text`, `article`,
/// `document`, `input`), and right answers: `references`, `answers`, `answer`, `reference`, `summary` or `highlights`, as a text, a list of texts, a list of objects with `text`, or an object with a list `text`. Where it
/// says that there are none (an empty list, empty texts, `is_impossible`) it is left out and counted; where it says nothing,
/// nobody wrote one, and it is kept without.
///
/// # Errors
/// [`Error::NoFile`]; [`Error::Data`] with the line and the field that cannot be understood, also for a name that was given
/// twice.
pub fn load_prompts(path: &Path) -> Result<Prompts> {
    let text = read_text(path)?;
    let mut reader = Reader { path, stem: stem(path), known: HashMap::new(), found: Prompts::default() };
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    match extension.as_ref().and_then(|e| e.to_str()) {
        Some("csv") => reader.table(&text, b',')?,
        Some("tsv") => reader.table(&text, b'\t')?,
        _ => reader.json(&text)?,
    }
    if reader.found.items.is_empty() && reader.found.left_out.is_empty() {
        return Err(reader.wrong(1, "there is no question in it: none of `data`, `paragraphs`, `qas`, `rows` or a record with `question` was found"));
    }
    Ok(reader.found)
}

/// The first of the names that a record has.
fn name_of(fields: &Fields<'_>, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| fields.contains_key(*name))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What fields go by, in this project and in others' sets; of several in a record the first counts.
const IDS: &[&str] = &["id", "_id", "qid", "question_id"];
const CONTEXTS: &[&str] = &["context", "passage", "text", "article", "document", "input"];
const QUESTIONS: &[&str] = &["question", "query", "instruction", "prompt"];
const REFERENCES: &[&str] = &["references", "answers", "answer", "reference", "summary", "highlights"];

/// What is asked where a record has a summary and no question.
const SUM_UP: &str = "Sum up the text in a few sentences.";

/// Half of what JSON readers allow: no file of prompts is nested deeper.
const DEPTH: usize = 16;

/// What stands for NaN and the infinities, which Python writes and JSON does not have: a string of deletes, of the same length,
/// so that places in the text stay.
const NOT_A_NUMBER: char = '\u{7f}';

struct Reader<'a> {
    path: &'a Path,
    stem: String,
    /// The line of every name.
    known: HashMap<String, usize>,
    found: Prompts,
}

type Fields<'t> = BTreeMap<String, &'t RawValue>;

/// The value of a field, as far as this reader goes.
enum Value<'t> {
    Missing,
    Text(String),
    /// A number, as it is written.
    Number(&'t str),
    Truth(bool),
    List(Vec<&'t RawValue>),
    Object(Fields<'t>),
}

impl<'a> Reader<'a> {
    fn wrong(&self, line: usize, reason: impl std::fmt::Display) -> Error {
        Error::Data { path: self.path.to_path_buf(), line, reason: reason.to_string() }
    }

    fn json(&mut self, text: &str) -> Result<()> {
        let text = &without_nan(text);
        for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
            match value {
                Ok(value) => self.walk(text, value, None, 0)?,
                Err(e) => {
                    let line = e.line().max(1);
                    // serde's sentence ends with the place, which is said already.
                    let reason = e.to_string();
                    let reason = reason.split(" at line ").next().unwrap_or_default();
                    let column = e.column();
                    return Err(self.wrong(line, format!("not JSON at column {column}: {reason}")));
                }
            }
        }
        Ok(())
    }

    /// Goes down to records. `context` is that of the paragraph above.
    fn walk(&mut self, text: &str, value: &RawValue, context: Option<&str>, depth: usize) -> Result<()> {
        let line = line_of(text, value);
        if depth > DEPTH {
            return Err(self.wrong(line, "it is nested too deeply to be a file of prompts"));
        }
        let mut fields = match self.value(line, "", value)? {
            Value::List(values) => {
                for value in values {
                    self.walk(text, value, context, depth + 1)?;
                }
                return Ok(());
            }
            Value::Object(fields) => fields,
            _ => return Err(self.wrong(line, "an object was expected: a record with `question`, or `data`")),
        };
        // A row of the hub's viewer wraps the record.
        if let Some(row) = fields.get("row").filter(|_| !fields.contains_key("question")) {
            return self.walk(text, row, context, depth + 1);
        }
        let own_context = match name_of(&fields, CONTEXTS) {
            Some(name) => match self.text(text, &fields, name)? {
                Some(own) => Some(own),
                None => context.map(str::to_string),
            },
            None => context.map(str::to_string),
        };
        for name in ["data", "rows", "paragraphs", "qas"] {
            if let Some(inner) = fields.remove(name) {
                let at = line_of(text, inner);
                let Value::List(values) = self.value(at, name, inner)? else {
                    return Err(self.wrong(at, format!("field `{name}`: a list was expected")));
                };
                for value in values {
                    self.walk(text, value, own_context.as_deref(), depth + 1)?;
                }
                return Ok(());
            }
        }
        // MRQA's first line describes the set.
        if fields.contains_key("header") {
            return Ok(());
        }
        self.record(text, line, &fields, own_context.unwrap_or_default())
    }

    fn record(&mut self, text: &str, line: usize, fields: &Fields<'_>, context: String) -> Result<()> {
        let summary = name_of(fields, &["summary", "highlights"]).is_some();
        let question = match name_of(fields, QUESTIONS) {
            Some(name) => {
                if fields.get(name).is_some_and(|raw| raw.get().starts_with(['{', '['])) {
                    return Err(self.wrong(
                        line,
                        format!("field `{name}` is a column, not a text: write one record per question (pandas: orient='records')"),
                    ));
                }
                match self.text(text, fields, name)?.filter(|q| !q.trim().is_empty()) {
                    Some(question) => question,
                    None => return Err(self.wrong(line, format!("field `{name}` is empty"))),
                }
            }
            None if summary => SUM_UP.to_string(),
            None => {
                let known: Vec<_> = fields.keys().take(8).map(|name| format!("`{name}`")).collect();
                return Err(self.wrong(
                    line,
                    format!("field `question` is missing; the record has {}", known.join(", ")),
                ));
            }
        };
        let id_line = |name: &str| fields.get(name).map_or(line, |raw| line_of(text, raw));
        let id = match name_of(fields, IDS).and_then(|name| Some((name, fields.get(name)?))) {
            Some((name, raw)) => self.id(id_line(name), name, raw)?,
            None => None,
        };
        let kind = match self.text(text, fields, "kind")? {
            None if summary => TaskKind::Summarisation,
            None => TaskKind::Qa,
            Some(kind) => TaskKind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(|| {
                let kinds = TaskKind::ALL.map(TaskKind::as_str).join(" or ");
                self.wrong(id_line("kind"), format!("field `kind` is `{kind}`, not {kinds}"))
            })?,
        };
        let impossible = match fields.get("is_impossible") {
            Some(raw) => {
                matches!(self.value(id_line("is_impossible"), "is_impossible", raw)?, Value::Truth(true))
            }
            None => false,
        };
        let mut references = None;
        if let Some((name, raw)) =
            name_of(fields, REFERENCES).and_then(|name| Some((name, fields.get(name)?)))
        {
            let mut texts = Vec::new();
            self.answers(text, name, raw, &mut texts, 0)?;
            // This project's own lines have an empty list where nobody wrote an answer.
            references = (!(name == "references" && texts.is_empty())).then_some(texts);
        }
        self.add(line, id, kind, context, question, references.filter(|_| !impossible), impossible)
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        line: usize,
        id: Option<String>,
        kind: TaskKind,
        context: String,
        question: String,
        references: Option<Vec<String>>,
        impossible: bool,
    ) -> Result<()> {
        let id = id.unwrap_or_else(|| {
            format!("{}-{}", self.stem, self.found.items.len() + self.found.left_out.len() + 1)
        });
        if let Some(before) = self.known.insert(id.clone(), line) {
            return Err(self.wrong(
                line,
                format!("field `id`: `{id}` is the name of line {before}, too; names must be unique"),
            ));
        }
        let unanswered = impossible || references.is_some();
        let mut kept: Vec<String> = Vec::new();
        for reference in references.into_iter().flatten() {
            // An answer of articles and punctuation alone is none: everything scores 0 beside it.
            if crate::quality::reference::says_something(&reference) && !kept.contains(&reference) {
                kept.push(reference);
            }
        }
        if kept.is_empty() && unanswered {
            self.found.left_out.push(LeftOut { line, id });
        } else {
            self.found.items.push(Item { id, kind, context, question, references: kept });
        }
        Ok(())
    }

    fn value<'t>(&self, line: usize, field: &str, raw: &'t RawValue) -> Result<Value<'t>> {
        let raw = raw.get();
        let wrong = |e: serde_json::Error| self.wrong(line, format!("field `{field}`: {e}"));
        Ok(match raw.as_bytes().first() {
            Some(b'{') => Value::Object(serde_json::from_str(raw).map_err(wrong)?),
            Some(b'[') => Value::List(serde_json::from_str(raw).map_err(wrong)?),
            Some(b'"') => {
                let text: String = serde_json::from_str(raw).map_err(wrong)?;
                if text.chars().count() > 0 && text.chars().all(|c| c == NOT_A_NUMBER) {
                    let reason = format!(
                        "field `{field}` is not a number (NaN or infinite), which JSON does not have: write null for what is missing"
                    );
                    return Err(self.wrong(line, reason));
                }
                Value::Text(text)
            }
            Some(b'n') => Value::Missing,
            Some(b't') => Value::Truth(true),
            Some(b'f') => Value::Truth(false),
            _ => Value::Number(raw),
        })
    }

    /// A field that is a text or missing.
    fn text(&self, text: &str, fields: &Fields<'_>, name: &str) -> Result<Option<String>> {
        let Some(raw) = fields.get(name) else { return Ok(None) };
        let line = line_of(text, raw);
        match self.value(line, name, raw)? {
            Value::Missing => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(self.wrong(line, format!("field `{name}` is {}, not a text", other.what()))),
        }
    }

    /// A name: a text, or a number, as data sets have both. pandas makes 7.0 of 7 where another name is missing.
    fn id(&self, line: usize, field: &str, raw: &RawValue) -> Result<Option<String>> {
        match self.value(line, field, raw)? {
            Value::Missing => Ok(None),
            Value::Text(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Value::Number(number) => Ok(Some(number.strip_suffix(".0").unwrap_or(number).to_string())),
            other => {
                Err(self.wrong(line, format!("field `{field}` is {}, not a text or a number", other.what())))
            }
        }
    }

    /// Right answers, in whatever form they are.
    fn answers(
        &self,
        text: &str,
        field: &str,
        raw: &RawValue,
        out: &mut Vec<String>,
        depth: usize,
    ) -> Result<()> {
        let line = line_of(text, raw);
        match self.value(line, field, raw)? {
            Value::Missing => {}
            Value::Text(text) => out.push(text),
            // Answers that are numbers are written so in some sets.
            Value::Number(number) => out.push(number.to_string()),
            Value::List(values) if depth < 2 => {
                for value in values {
                    self.answers(text, field, value, out, depth + 1)?;
                }
            }
            Value::Object(fields) if depth < 2 => {
                // SQuAD has `text`; TriviaQA has `value` and `aliases`.
                let names = ["text", "value", "aliases"];
                if !names.iter().any(|name| fields.contains_key(*name)) {
                    return Err(self.wrong(line, format!("field `{field}`: an answer without `text`")));
                }
                for name in names {
                    if let Some(raw) = fields.get(name) {
                        self.answers(text, &format!("{field}.{name}"), raw, out, depth + 1)?;
                    }
                }
            }
            other => {
                return Err(self.wrong(line, format!("field `{field}` is {}, not answers", other.what())))
            }
        }
        Ok(())
    }

    /// A table with a header.
    fn table(&mut self, text: &str, delimiter: u8) -> Result<()> {
        let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
        let wrong = |this: &Self, e: csv::Error| {
            let line = e.position().map_or(1, |at| line_at(text, at.byte() as usize));
            this.wrong(line, format!("not a table: {e}"))
        };
        let header = match rows.headers() {
            Ok(header) => header.clone(),
            Err(e) => return Err(wrong(self, e)),
        };
        let column = |names: &[&str]| {
            names.iter().find_map(|n| header.iter().position(|name| name.trim().eq_ignore_ascii_case(n)))
        };
        let Some(question) = column(QUESTIONS) else {
            let known: Vec<_> = header.iter().take(8).map(|name| format!("`{name}`")).collect();
            return Err(
                self.wrong(1, format!("column `question` is missing; the header has {}", known.join(", ")))
            );
        };
        let id = column(IDS);
        let context = column(CONTEXTS);
        let kind_column = column(&["kind"]);
        let impossible = column(&["is_impossible"]);
        let references = column(REFERENCES);
        for row in rows.records() {
            let row = match row {
                Ok(row) => row,
                Err(e) => return Err(wrong(self, e)),
            };
            let line = row.position().map_or(1, |at| line_at(text, at.byte() as usize));
            let cell = |column: Option<usize>| column.and_then(|c| row.get(c)).map(str::to_string);
            let question = cell(Some(question)).unwrap_or_default();
            if question.trim().is_empty() || is_nan(&question) {
                return Err(self.wrong(line, "column `question` is empty"));
            }
            let kind = match cell(kind_column).filter(|kind| !kind.is_empty()) {
                None => TaskKind::Qa,
                Some(kind) => TaskKind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(|| {
                    let kinds = TaskKind::ALL.map(TaskKind::as_str).join(" or ");
                    self.wrong(line, format!("column `kind` is `{kind}`, not {kinds}"))
                })?,
            };
            let references = match cell(references) {
                None => None,
                // A table cannot tell an empty answer from none.
                Some(text) if text.trim().is_empty() || is_nan(&text) => Some(Vec::new()),
                Some(text) => Some(self.cell_answers(line, &text)?),
            };
            let id = cell(id).filter(|id| !id.is_empty());
            if id.as_deref().is_some_and(is_nan) {
                return Err(
                    self.wrong(line, "column `id` is not a number (NaN): leave it empty where it is missing")
                );
            }
            let id = id.map(|id| id.strip_suffix(".0").map(str::to_string).unwrap_or(id));
            let impossible = cell(impossible).is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
            let context = cell(context).filter(|text| !is_nan(text)).unwrap_or_default();
            self.add(line, id, kind, context, question, references.filter(|_| !impossible), impossible)?;
        }
        Ok(())
    }

    /// The answers in a table's cell: one text, or JSON.
    fn cell_answers(&self, line: usize, text: &str) -> Result<Vec<String>> {
        if !text.trim_start().starts_with(['{', '[']) {
            return Ok(vec![text.to_string()]);
        }
        let raw: &RawValue = serde_json::from_str(text.trim()).map_err(|_| {
            self.wrong(
                line,
                "column of answers: it looks like a Python object; write JSON (json.dumps), or one answer as it is",
            )
        })?;
        let mut out = Vec::new();
        self.answers(text, "answers", raw, &mut out, 0).map_err(|e| match e {
            Error::Data { reason, .. } => self.wrong(line, reason),
            other => other,
        })?;
        Ok(out)
    }
}

impl Value<'_> {
    fn what(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Truth(_) => "true or false",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// What pandas writes for a missing value.
fn is_nan(cell: &str) -> bool {
    matches!(cell.trim(), "nan" | "NaN")
}

/// The line, from 1, at which a value that lies in `text` begins.
fn line_of(text: &str, value: &RawValue) -> usize {
    let offset = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

/// The line, from 1, of the row that begins after `offset`, where the end of the row before may still lie.
fn line_at(text: &str, offset: usize) -> usize {
    let (before, after) = text.as_bytes().split_at(offset.min(text.len()));
    let ends = after.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    before.iter().chain(ends).filter(|b| **b == b'\n').count() + 1
}

/// The text with NaN, Infinity and -Infinity outside of strings replaced; see [`NOT_A_NUMBER`].
fn without_nan(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let word =
            (!quoted).then(|| ["NaN", "-Infinity", "Infinity"].into_iter().find(|w| rest.starts_with(w)));
        if let Some(Some(word)) = word {
            out.push('"');
            out.extend(std::iter::repeat_n(NOT_A_NUMBER, word.len() - 2));
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        let mut length = c.len_utf8();
        match c {
            '"' => quoted = !quoted,
            // The next character is no end, whatever it is.
            '\\' if quoted => length += rest[length..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, content: impl AsRef<[u8]>) -> Result<Prompts> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        load_prompts(&path)
    }

    fn refused(name: &str, content: &str, line: usize, words: &[&str]) {
        match load(name, content) {
            Err(Error::Data { line: found, reason, .. }) => {
                assert_eq!(found, line, "{reason}");
                assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn squad_and_its_kin_are_read_alike() {
        let qa = r#"{"id":7,"question":"q","answers":[{"answer_start":0,"text":"x"},{"answer_start":3,"text":"x"},{"answer_start":4,"text":"y"}]}"#;
        let nested = format!(
            r#"{{"version":"1.1","data":[{{"title":"t","paragraphs":[{{"context":"c","qas":[{qa}]}}]}}]}}"#
        );
        let flat = r#"{"id":7,"title":"t","context":"c","question":"q","answers":{"text":["x","x","y"],"answer_start":[0,3,4]}}"#;
        for (name, text) in [
            ("v1.json", nested.clone()),
            ("pretty.json", nested.replace('{', "{\n ").replace(',', ",\r\n ")),
            ("flat.json", format!("[{flat}]")),
            ("data.json", format!(r#"{{"version":"x","data":[{flat}]}}"#)),
            (
                "hub.json",
                format!(r#"{{"features":[],"rows":[{{"row_idx":0,"row":{flat},"truncated_cells":[]}}]}}"#),
            ),
            ("lines.jsonl", format!("{flat}\r\n\r\n")),
            (
                "mrqa.jsonl",
                format!("{{\"header\":{{\"dataset\":\"d\"}}}}\n{{\"context\":\"c\",\"qas\":[{qa}]}}\n"),
            ),
            (
                "own.jsonl",
                r#"{"id":"7","kind":"qa","context":"c","question":"q","references":["x","y"]}"#.into(),
            ),
            ("t.csv", "id,context,question,answers\r\n7,c,q,\"[\"\"x\"\",\"\"y\"\"]\"\r\n".into()),
            ("t.tsv", "question\tcontext\tid\tanswers\nq\tc\t7.0\t[\"x\",\"y\"]\n".into()),
        ] {
            for text in [text.clone().into_bytes(), [b"\xEF\xBB\xBF".as_slice(), text.as_bytes()].concat()] {
                let found = load(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(found.left_out, [], "{name}");
                let item = Item {
                    id: "7".into(),
                    kind: TaskKind::Qa,
                    context: "c".into(),
                    question: "q".into(),
                    references: vec!["x".into(), "y".into()],
                };
                assert_eq!(found.items, [item], "{name}");
            }
        }
        // What Windows programs write.
        let utf16: Vec<u8> =
            std::iter::once(0xFEFFu16).chain(flat.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        assert_eq!(load("utf16.json", utf16).unwrap().items[0].id, "7");
    }

    #[test]
    fn sets_of_summaries_and_instructions_are_read() {
        let text = r#"{"id":"cnn-1","kind":"summarisation","text":"c","summary":"s"}
            {"article":"c","highlights":"s","id":"2"}
            {"instruction":"q","input":"c","reference":"s"}"#;
        let items = load("s.jsonl", text).unwrap().items;
        let kinds = [TaskKind::Summarisation, TaskKind::Summarisation, TaskKind::Qa];
        for (item, kind) in items.iter().zip(kinds) {
            assert_eq!(
                (item.kind, item.context.as_str(), item.references.as_slice()),
                (kind, "c", ["s".to_string()].as_slice())
            );
            assert!(!item.question.is_empty());
        }
        assert_eq!(items.len(), 3);
    }

    #[test]
    fn a_question_without_an_answer_is_left_out_and_counted() {
        let question =
            |id: usize, answers: &str| format!(r#"{{"id":{id},"context":"c","question":"q",{answers}}}"#);
        let text = [
            question(1, r#""answers":[]"#),
            question(2, r#""answers":[{"text":"","answer_start":0}]"#),
            question(3, r#""answers":{"text":[],"answer_start":[]}"#),
            question(4, r#""answers":[{"text":"x"}],"is_impossible":true"#),
            question(5, r#""answers":[{"text":"…"},{"text":"The"}]"#),
            question(6, r#""references":[""]"#),
            question(7, r#""answers":[{"text":""},{"text":"x"}]"#),
            question(8, r#""references":[]"#),
            question(9, r#""answers":null"#),
            r#"{"question":"q"}"#.into(),
        ]
        .join("\n");
        let found = load("s.jsonl", text).unwrap();
        let ids: Vec<_> = found.items.iter().map(|i| (i.id.as_str(), i.references.len())).collect();
        assert_eq!(ids, [("7", 1), ("8", 0), ("s-10", 0)]);
        assert_eq!(found.left_out.len(), 7);
        assert_eq!(found.left_out[1], LeftOut { line: 2, id: "2".into() });
        let note = found.left_out_note(Path::new("s.jsonl")).unwrap();
        assert!(note.contains("7 of 10") && note.contains("line 1"), "{note}");
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_field() {
        let good = r#"{"id":"a","question":"q","answers":["x"]}"#;
        refused("d.jsonl", &format!("{good}\n\n{good}"), 3, &["`id`", "`a`", "line 1"]);
        refused("d.jsonl", &format!("{good}\n{{\"id\":NaN,\"question\":\"q\"}}"), 2, &["`id`", "NaN"]);
        refused("d.jsonl", &format!("{good}\n{{\"question\":-Infinity}}"), 2, &["`question`", "NaN"]);
        refused(
            "d.jsonl",
            "{\"question\":\"q\",\"answers\":{\"text\":[NaN]}}",
            1,
            &["`answers.text`", "NaN"],
        );
        // Where nothing is read, nothing is wrong; and a text may say NaN.
        assert_eq!(
            load("d.jsonl", r#"{"question":"NaN \" NaN?","score":NaN}"#).unwrap().items[0].question,
            "NaN \" NaN?"
        );
        refused("d.jsonl", &format!("{good}\n{{\"id\":\"b\",}}"), 2, &["not JSON", "column"]);
        refused("d.jsonl", "{\"context\":\"c\",\n\"q\":\"x\"}", 1, &["`question` is missing", "`context`"]);
        refused("d.json", "[\n{\"question\":\"q\",\n\"context\":[\"c\"]}]", 3, &["`context`", "a list"]);
        refused("d.json", "{\"question\":{\"0\":\"q\"}}", 1, &["column", "orient"]);
        refused("d.json", "{\"question\":\"q\",\"kind\":\"poem\"}", 1, &["`kind`", "poem"]);
        refused("d.json", "{\"question\":\"q\",\"answers\":[{\"start\":1}]}", 1, &["`answers`", "`text`"]);
        refused("d.json", "[]", 1, &["no question"]);
        refused("d.json", "7", 1, &["object"]);
        refused("d.csv", "id,answer\n1,x\n", 1, &["`question`", "`answer`"]);
        refused("d.csv", "id,question\r\n1,q\r\n1,q\r\n", 3, &["`id`", "line 2"]);
        refused("d.csv", "id,question,answers\n1,q,\"{'text': array(['x'])}\"\n", 2, &["Python", "json"]);
        refused("d.csv", "id,question\n1,\n", 2, &["`question`", "empty"]);
        refused("d.csv", "id,question\nnan,q\n", 2, &["`id`", "NaN"]);
        refused("d.csv", "id,question\n1\n", 2, &["not a table"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_no_model() {
        let error = load_prompts(Path::new("nowhere/x.json")).unwrap_err().to_string();
        assert!(error.contains("no such file") && !error.contains("model"), "{error}");
        match load("d.json", b"{\"question\":\n\"\xFF\"}") {
            Err(Error::Data { line: 2, reason, .. }) => assert!(reason.contains("UTF-8"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
