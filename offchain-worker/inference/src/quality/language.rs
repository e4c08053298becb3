//! Which language a text is in, as far as a rubric must know: its scores were calibrated for some languages and mean nothing
//! in others.

use super::{text::is_western, Query};
use crate::error::{Error, Result};
use whatlang::{Detector, Lang};

/// What rubrics are calibrated for that do not say: English, as ISO 639-3 has it.
pub(super) const ENGLISH: &str = "eng";

/// Letters below which nothing is said of a Latin text: names look like any language.
const ENOUGH_LETTERS: usize = 60;

/// Above this, `whatlang` was wrong about none of some thousand English paragraphs and questions.
const SURE: f64 = 0.9;

/// The share of a text's letters that may be of another script: names, terms and quotations.
const FOREIGN: f64 = 0.2;

/// The language's name in English where it is one that nothing was calibrated for; `None` where it is, or cannot be told.
fn foreign(text: &str, calibrated: &[String]) -> Option<String> {
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    let other = text.chars().filter(|c| c.is_alphabetic() && !is_western(*c)).count();
    let known = |lang: Lang| calibrated.iter().any(|code| code == lang.code());
    if other as f64 > FOREIGN * letters as f64 {
        // The script tells, however short the text is; which of the script's languages it is, rarely.
        let text: String = text.chars().filter(|c| !is_western(*c)).collect();
        let allowed: Vec<Lang> = calibrated.iter().filter_map(Lang::from_code).collect();
        // `whatlang` names a script's only language even where it is not on the list.
        if Detector::with_allowlist(allowed.clone()).detect_lang(&text).is_some_and(|l| allowed.contains(&l))
        {
            return None;
        }
        return Some(match whatlang::detect(&text) {
            Some(found) if found.is_reliable() => found.lang().eng_name().to_string(),
            Some(found) => format!("{} script", found.script().name()),
            None => "a script that is not Latin".to_string(),
        });
    }
    if letters < ENOUGH_LETTERS {
        return None;
    }
    let found = whatlang::detect(text)?;
    let sure = found.is_reliable() && found.confidence() > SURE;
    (sure && !known(found.lang())).then(|| found.lang().eng_name().to_string())
}

/// Refuses prompts in languages that nothing was calibrated for.
///
/// # Errors
/// [`Error::UnsupportedLanguage`], which names the language.
pub(super) fn check(scorer: &str, query: &Query, calibrated: &[String]) -> Result<()> {
    for (part, text) in [("question", &query.question), ("context", &query.context)] {
        if let Some(found) = foreign(text, calibrated) {
            let name = |code: &String| match Lang::from_code(code) {
                Some(lang) => lang.eng_name().to_string(),
                None => code.clone(),
            };
            return Err(Error::UnsupportedLanguage {
                rubric: scorer.to_string(),
                part,
                found,
                calibrated: calibrated.iter().map(name).collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok(())
}

/// Whether this is a language that can be told: ISO 639-3.
pub(super) fn is_known(code: &str) -> bool {
    Lang::from_code(code).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_that_nothing_was_calibrated_for_are_named() {
        let english = [ENGLISH.to_string()];
        let context = "The Panthers defense gave up just 308 points, ranking sixth in the league, while also leading the NFL in interceptions with 24.";
        for (question, context, part, name) in [
            ("谁在擒杀中领先？", "", "question", "Mandarin"),
            ("Who led?", "黑豹队的防守仅丢了308分，在联盟中排名第六。", "context", "Mandarin"),
            ("誰がサックでリードしましたか。", "", "question", "Japanese"),
            ("ใครเป็นผู้นำ", context, "question", "Thai"),
            ("من قاد الفريق؟", "", "question", "Arabic script"),
            ("מי הוביל?", "", "question", "Hebrew script"),
            ("टीम का नेतृत्व किसने किया?", "", "question", "Devanagari script"),
            ("Кто был лидером команды?", "", "question", "Cyrillic script"),
            ("팀을 이끈 사람은 누구입니까?", "", "question", "Korean"),
            ("Wer?", "Die Verteidigung der Panthers ließ nur 308 Punkte zu und belegte damit den sechsten Platz in der Liga, während sie mit 24 Interceptions die NFL anführte.", "context", "German"),
            ("Qui?", "La défense des Panthers n'a cédé que 308 points, se classant sixième de la ligue, tout en menant la NFL aux interceptions avec 24.", "context", "French"),
        ] {
            let query = Query { context: context.into(), question: question.into() };
            match check("qa-v1", &query, &english) {
                Err(Error::UnsupportedLanguage { part: found_part, found, .. }) => {
                    assert_eq!((found_part, found.as_str()), (part, name), "{question}");
                }
                other => panic!("{question}: {other:?}"),
            }
        }
        for (question, context) in [
            ("Who led the team in sacks?", context),
            ("Wer?", ""),
            ("What does 北京 mean?", "Beijing (Chinese: 北京; pinyin: Běijīng) is the capital of China; its name means northern capital."),
            ("¿?", "α + β = γ where Σ ranges over all terms"),
            ("42 + 17 = ?", ""),
            ("", ""),
            ("🦀🦀🦀", ""),
        ] {
            check("qa-v1", &Query { context: context.into(), question: question.into() }, &english).unwrap();
        }
        // A rubric that was calibrated for it takes it, also where the words could be of a language beside.
        let hebrew = Query { context: String::new(), question: "מי הוביל?".into() };
        check("he", &hebrew, &["heb".to_string()]).unwrap();
        let query = Query { context: String::new(), question: "谁在擒杀中领先？".into() };
        check("zh", &query, &["cmn".to_string()]).unwrap();
    }
}
