//! Questions with a paragraph that answers them, out of OpenAI evals' `unsolvable_questions`.

use super::SampleError;
use crate::data::QaItem;
use serde::Deserialize;
use std::io::Write;

#[derive(Deserialize)]
struct Sample {
    input: Vec<Turn>,
    ideal: String,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

/// Keeps the questions marked as answerable ("Solveable") and writes one JSON object per line: `id`, `context`,
/// `question`. The set has no reference answers.
///
/// # Errors
/// When a sample has another form, or `out` cannot be written.
pub fn answerable(samples: &str, out: &mut impl Write) -> Result<(), SampleError> {
    for (index, line) in samples.lines().enumerate() {
        let fail = |reason: &str| SampleError::Sample { line: index + 1, reason: reason.to_string() };
        let sample: Sample = serde_json::from_str(line).map_err(|e| fail(&e.to_string()))?;
        if sample.ideal != "Solveable" {
            continue;
        }
        let user =
            sample.input.iter().find(|turn| turn.role == "user").ok_or_else(|| fail("no user turn"))?;
        let (question, context) = user
            .content
            .strip_prefix("Question:")
            .and_then(|rest| rest.split_once("\n Context:"))
            .ok_or_else(|| fail("no `Question: … Context: …`"))?;
        let item = QaItem {
            id: format!("evals-unsolvable-questions-{}", index + 1),
            context: context.trim().to_string(),
            question: question.trim().to_string(),
        };
        serde_json::to_writer(&mut *out, &item).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_answerable_ones() {
        let samples = concat!(
            r#"{"input":[{"role":"system","content":"s"},{"role":"user","content":"Question: Who?\n Context: Ann did."}],"ideal":"Solveable"}"#,
            "\n",
            r#"{"input":[{"role":"user","content":"Question: Why?\n Context: Ann did."}],"ideal":"Unsolveable"}"#,
        );
        let mut out = Vec::new();
        answerable(samples, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\":\"evals-unsolvable-questions-1\",\"context\":\"Ann did.\",\"question\":\"Who?\"}\n"
        );
        assert!(answerable("{}", &mut Vec::new()).is_err());
    }
}
