//! Summarisation prompts with human reference summaries, out of the files that packages carry.

use super::SampleError;
use crate::data::{Item, TaskKind};
use serde::Deserialize;
use std::io::Write;

/// What is asked about a paper's abstract. The reference has one sentence for each of the three.
const ACLSUM_QUESTION: &str =
    "Summarise this abstract in three sentences: the challenge, the approach and the outcome.";

#[derive(Deserialize)]
struct Paper {
    id: String,
    summary: Summary,
    sentences: Sections,
}

#[derive(Deserialize)]
struct Summary {
    challenge: String,
    approach: String,
    outcome: String,
}

#[derive(Deserialize)]
struct Sections {
    r#abstract: Vec<String>,
}

/// ACLSum: abstracts of computational-linguistics papers, each with human sentences on challenge, approach and outcome,
/// which together are the reference. The introductions and conclusions that the set also has are left out: an abstract
/// is what a small model on a processor can read in seconds.
///
/// # Errors
/// When a line has another form, or `out` cannot be written.
pub fn aclsum(papers: &str, out: &mut impl Write) -> Result<(), SampleError> {
    for (index, line) in papers.lines().enumerate() {
        let paper: Paper = serde_json::from_str(line)
            .map_err(|e| SampleError::Sample { line: index + 1, reason: e.to_string() })?;
        let Summary { challenge, approach, outcome } = paper.summary;
        write_item(
            out,
            &Item {
                id: format!("aclsum-{}", paper.id),
                kind: TaskKind::Summarisation,
                context: paper.sentences.r#abstract.join(" ").trim().to_string(),
                question: ACLSUM_QUESTION.to_string(),
                references: vec![[challenge.trim(), approach.trim(), outcome.trim()].join(" ")],
            },
        )?;
    }
    Ok(())
}

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

/// OpenAI evals' `consensus_summary`: findings of several papers, and a human sentence on what they say about a question.
/// Questions that the findings do not answer ("N-A") are left out, and so are repeated prompts.
///
/// # Errors
/// When a line has another form, or `out` cannot be written.
pub fn evals_consensus(samples: &str, out: &mut impl Write) -> Result<(), SampleError> {
    let mut seen = std::collections::HashSet::new();
    for (index, line) in samples.lines().enumerate() {
        let fail = |reason: &str| SampleError::Sample { line: index + 1, reason: reason.to_string() };
        let sample: Sample = serde_json::from_str(line).map_err(|e| fail(&e.to_string()))?;
        let user =
            sample.input.into_iter().find(|turn| turn.role == "user").ok_or_else(|| fail("no user turn"))?;
        let (claims, question) =
            user.content.rsplit_once("question:").ok_or_else(|| fail("no `question: …`"))?;
        let ideal = sample.ideal.trim();
        let reference = ideal.strip_prefix("Summary:").unwrap_or(ideal).trim();
        if reference.contains("N-A") || !seen.insert(user.content.clone()) {
            continue;
        }
        let claims: Vec<_> =
            claims.lines().map(|claim| claim.trim().trim_start_matches("claim:").trim()).collect();
        write_item(
            out,
            &Item {
                id: format!("evals-consensus-summary-{}", index + 1),
                kind: TaskKind::Summarisation,
                context: claims.join("\n").trim().to_string(),
                question: format!("{} Sum up in one sentence what these findings say.", question.trim()),
                references: vec![reference.to_string()],
            },
        )?;
    }
    Ok(())
}

fn write_item(out: &mut impl Write, item: &Item) -> Result<(), SampleError> {
    serde_json::to_writer(&mut *out, item).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(bytes: &[u8]) -> Vec<Item> {
        std::str::from_utf8(bytes).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn an_abstract_becomes_the_context() {
        let paper = r#"{"id":"P1","summary":{"challenge":"C.","approach":"A.","outcome":"O. "},"sentences":{"abstract":["One .","Two ."],"introduction":["X"]}}"#;
        let mut out = Vec::new();
        aclsum(paper, &mut out).unwrap();
        let items = items(&out);
        assert_eq!(items[0].id, "aclsum-P1");
        assert_eq!(items[0].context, "One . Two .");
        assert_eq!(items[0].references, ["C. A. O."]);
        assert!(aclsum("{}", &mut Vec::new()).is_err());
    }

    #[test]
    fn claims_without_an_answer_and_repetitions_are_left_out() {
        let line = |claim: &str, ideal: &str| {
            format!(
                r#"{{"input":[{{"role":"user","content":"claim: {claim}\nclaim: b\nquestion: q?"}}],"ideal":"{ideal}"}}"#
            )
        };
        let samples = [line("a", "Summary: yes."), line("x", "Summary: N-A"), line("a", "Summary: no.")];
        let mut out = Vec::new();
        evals_consensus(&samples.join("\n"), &mut out).unwrap();
        let items = items(&out);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].context, "a\nb");
        assert!(items[0].question.starts_with("q? "), "{}", items[0].question);
        assert_eq!(items[0].references, ["yes."]);
    }
}
