//! How near an output is to a reference answer: the signals that scores are calibrated against.
//!
//! Both are the field's own definitions, to the letter, so that numbers can be compared: token F1 as SQuAD's official
//! `evaluate-v1.1.py` computes it, ROUGE-L as Google's `rouge_score` does without stemming. `scripts/check-scores.sh`
//! compares them with those programs.
//!
//! Those programs know words between spaces and ASCII punctuation. Words of other scripts than Latin and Greek are compared
//! without any punctuation, and where a script has no spaces (or, in Korean, writes endings on to words) character by
//! character, as the evaluation of MLQA does (arXiv 1910.07475).

use super::text::{is_unspaced, is_western, words};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Words in [0, 1]: the best token F1 of `output` against any of `references`; 0 where there are none.
///
/// F1 = 2PR / (P + R), with P the share of the output's words that the reference has and R the share of the reference's
/// words that the output has, counted with multiplicity after [`normalise`]. Source: SQuAD v1.1 (arXiv 1606.05250, section
/// 6.1) and its official script.
pub fn token_f1(output: &str, references: &[String]) -> f64 {
    let output = normalise(output);
    best(references, |reference| f1_of_words(&output, &normalise(reference)))
}

/// Whether `output` equals one of `references` after [`normalise`].
pub fn exact_match(output: &str, references: &[String]) -> bool {
    let output = normalise(output);
    references.iter().any(|reference| normalise(reference) == output)
}

/// In [0, 1]: the best ROUGE-L F-measure of `output` against any of `references`; 0 where there are none.
///
/// F = 2PR / (P + R), with P and R the length of the longest common subsequence over the words of the output and of the
/// reference. Words are runs of `a`–`z` and `0`–`9` in lower case, not stemmed; letters of other scripts than Latin and Greek,
/// which `rouge_score` drops, are words as [`normalise`] has them. Source: Lin, "ROUGE: A Package for Automatic
/// Evaluation of Summaries" (2004), with β = 1 as in `rouge_score`.
pub fn rouge_l(output: &str, references: &[String]) -> f64 {
    let output = rouge_words(output);
    best(references, |reference| {
        let reference = rouge_words(reference);
        f_measure(longest_common_subsequence(&output, &reference), output.len(), reference.len())
    })
}

/// The words of an answer as SQuAD compares them: lower case, without ASCII punctuation and without `a`, `an`, `the`. Words of
/// other scripts are split and stripped as the module says.
pub fn normalise(text: &str) -> Vec<String> {
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // The script replaces `\b(a|an|the)\b` by a space: an article between a dash and a space goes, too.
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        let is_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (run, later) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = later;
    }
    let mut normal = Vec::new();
    for word in kept.split(is_python_space).filter(|word| !word.is_empty()) {
        if word.chars().any(is_of_another_script) {
            normal.extend(words(word));
        } else {
            normal.push(word.to_string());
        }
    }
    normal
}

fn is_of_another_script(c: char) -> bool {
    c.is_alphabetic() && !is_western(c)
}

/// Whether a reference answer says anything: it has a letter or a digit outside of `a`, `an` and `the`. Beside one that says
/// nothing every output scores 0.
pub fn says_something(reference: &str) -> bool {
    normalise(reference).iter().any(|word| word.chars().any(char::is_alphanumeric))
}

/// Checks a reference answer before anybody commits to it: whether outputs could be compared with it on chain.
///
/// The contract compares words between spaces, without ASCII punctuation and articles.
///
/// # Errors
/// [`Error::Reference`] where it has no word at all, so that every output would score 0 and honest nodes lose trust; and where
/// it is in a script that does not part words by spaces, so that only an output that is equal to the letter would score.
pub fn check_reference(reference: &str) -> Result<()> {
    let refuse = |reason: &str| {
        let shown: String = reference.trim().chars().take(80).collect();
        Err(Error::Reference { reference: shown, reason: reason.to_string() })
    };
    if !says_something(reference) {
        return refuse(
            "articles and punctuation do not count in the comparison and nothing else is there, so every answer would score 0",
        );
    }
    if reference.chars().any(|c| c.is_alphanumeric() && is_unspaced(c)) {
        return refuse(
            "the contract compares words between spaces, which this script does not write: a right answer in other words would score 0",
        );
    }
    Ok(())
}

/// White space as Python's `str.split` sees it.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn f1_of_words(output: &[String], reference: &[String]) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in reference {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in output {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    f_measure(common, output.len(), reference.len())
}

/// The harmonic mean of `common / a` and `common / b`.
fn f_measure(common: usize, a: usize, b: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / a as f64, common as f64 / b as f64);
    2.0 * precision * recall / (precision + recall)
}

fn best(references: &[String], score: impl Fn(&str) -> f64) -> f64 {
    references.iter().map(|reference| score(reference)).fold(0.0, f64::max)
}

fn rouge_words(text: &str) -> Vec<String> {
    let kept = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let lower = text.to_lowercase();
    if !lower.chars().any(is_of_another_script) {
        return lower.split(|c| !kept(c)).filter(|word| !word.is_empty()).map(str::to_string).collect();
    }
    // Latin letters as above, other scripts' words as they are.
    words(&lower)
        .iter()
        .flat_map(|word| {
            let other = word.chars().any(is_of_another_script);
            word.split(move |c| !other && !kept(c)).map(str::to_string).collect::<Vec<_>>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Its length; memory grows with the shorter text only.
fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut row = vec![0usize; short.len() + 1];
    for word in long {
        let mut diagonal = 0;
        for (j, other) in short.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[short.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f1(output: &str, reference: &str) -> f64 {
        token_f1(output, &[reference.to_string()])
    }

    fn rouge(output: &str, reference: &str) -> f64 {
        rouge_l(output, &[reference.to_string()])
    }

    #[test]
    fn f1_counts_words_with_multiplicity() {
        assert_eq!(f1("The Denver Broncos!", "denver broncos"), 1.0);
        assert_eq!(f1("a b b c", "b b d"), 2.0 * (2.0 / 3.0) * (2.0 / 3.0) / (4.0 / 3.0));
        assert_eq!(f1("", "x"), 0.0);
        assert_eq!(f1("", ""), 0.0);
        assert_eq!(f1("the", "a"), 0.0);
        assert_eq!(token_f1("x", &[]), 0.0);
    }

    #[test]
    fn the_best_reference_counts() {
        let references = ["one two three".to_string(), "two".to_string()];
        assert_eq!(token_f1("two", &references), 1.0);
        assert!(exact_match("Two.", &references));
        assert!(!exact_match("two three", &references));
    }

    #[test]
    fn normalising_is_the_official_scripts() {
        assert_eq!(normalise("The U.S.A. — a  nation"), ["usa", "—", "nation"]);
        assert_eq!(normalise("5½ sacks"), ["5½", "sacks"]);
        assert_eq!(normalise("–the–"), ["–", "–"]);
        assert_eq!(normalise("theatre an"), ["theatre"]);
        assert_eq!(normalise("x\u{1c}y"), ["x", "y"]);
    }

    #[test]
    fn scripts_without_spaces_are_compared_by_character() {
        assert_eq!(normalise("丹佛野马队。"), ["丹", "佛", "野", "马", "队"]);
        assert_eq!(normalise("iPhone手机 the 3.5万"), ["iphone", "手", "机", "35", "万"]);
        assert!((f1("丹佛野马队", "丹佛野马") - 8.0 / 9.0).abs() < 1e-12);
        assert_eq!(f1("「肖特」", "肖特"), 1.0);
        assert_eq!(f1("米勒", "肖特"), 0.0);
        assert!(f1("กรุงเทพมหานคร", "กรุงเทพ") > 0.6);
        assert!((f1("파리는", "파리") - 0.8).abs() < 1e-12);
        assert_eq!(f1("«Париж».", "париж"), 1.0);
        assert_eq!(f1("दिल्ली।", "दिल्ली"), 1.0);
        assert_eq!(f1("باريس؟", "باريس"), 1.0);
        assert!(exact_match("肖特。", &["肖特".to_string()]));
        assert!((rouge("肖特领先", "肖特领先全队") - 0.8).abs() < 1e-12);
        assert_eq!(rouge("Париж!", "париж"), 1.0);
    }

    #[test]
    fn a_reference_that_nothing_can_match_is_refused() {
        for nothing in
            ["A", "the", "An.", "…", "?!", " ", "", "“”", "—", "the a an", "。", "٪", "\u{200B}", "🦀"]
        {
            let error = check_reference(nothing).unwrap_err().to_string();
            assert!(error.contains("score 0"), "{nothing}: {error}");
            assert!(!says_something(nothing), "{nothing}");
        }
        for good in ["A4", "The Who", "0", "42%", "é", "Париж", "U.S.", "5½", "π"] {
            check_reference(good).unwrap();
        }
        for unspaced in ["肖特", "กรุงเทพ", "파리"] {
            let error = check_reference(unspaced).unwrap_err().to_string();
            assert!(error.contains("spaces") && error.contains(unspaced), "{error}");
            assert!(says_something(unspaced));
        }
    }

    #[test]
    fn rouge_l_is_of_the_subsequence() {
        // Lin's example: "police killed the gunman" against "police kill the gunman" shares three of four words.
        assert_eq!(rouge("police kill the gunman", "police killed the gunman"), 0.75);
        assert_eq!(rouge("the gunman kill police", "police killed the gunman"), 0.5);
        assert_eq!(rouge("?!", "police"), 0.0);
        assert_eq!(rouge("ÄB-c", "b c"), 1.0);
    }
}
