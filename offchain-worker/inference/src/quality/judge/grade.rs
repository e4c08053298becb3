//! The grade in what a judge said.
//!
//! A judge is asked for one number from 0 to 10 and says it in many ways. What it said is its grade, on the scale that it
//! states, else on the one it was asked for; where two readings are possible there is none. No grade is a gap in a table; a
//! wrong one is a wrong number in it.

use regex::Regex;
use std::sync::LazyLock;

/// The best grade of the scale that a judge is asked to use.
const ASKED: f64 = 10.0;

/// What is no grade's number: the names of what a judge may grade by.
const LABELS: &str = r"score|grade|grading|graded|rating|rated|rate|mark|marks|verdict|result|points|note|noten|bewertung|punktzahl|puntuación|puntuacion|calificación|nota|punteggio|voto|оценка|балл|评分|分数|得分|打分|評分|分數|点数|スコア|採点|評価|점수|평점|boxed";

/// Between a label and its number: a colon and such, and words that say nothing.
const LINK: &str = r#"(?:[\s:：=→"'`*_\[\](){}<>|#-]|\b(?:is|of|as|a|an|the|it|this|that|answer|output|would|be|i|give|assign|award|final|overall|at|about|for|and|total)\b)*"#;

fn regex(pattern: &str) -> Regex {
    match Regex::new(pattern) {
        Ok(regex) => regex,
        // The patterns are part of the program and every test uses them.
        Err(error) => unreachable!("{error}"),
    }
}

/// A number with a sign, and with what makes it a share: `/ 10`, `out of 10`, `%`.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?xi)
        (?P<sign>[-]\s?)? (?P<value>\d+(?:[.,]\d+)?)
        (?:
            \s* (?P<percent> % | \s?percent\b | \s?per\s?cent\b )
          | ["'\]\)]* \s* [\(]? \s*
            (?: / | \b(?:out\s+of|of|von|sur|de|su|из|aus)\b | 分?\s?[（(]?满分 ) \s*
            (?P<scale>\d+(?:\.\d+)?) \b
        )?
        "#,
    )
});

/// A scale that is stated beside the grade: `on a scale of 0 to 10`, `(0-10)`, `out of 10,`, `from 1 to 5`.
static SCALE: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?xi)
        (?: \b (?:on|using|in|with)? \s* (?:a|an|the)? \s* scale \s* (?: of | from | between | : | is )? \s* (?: from | between )? \s*
          | \b from \s+ | \b between \s+ | [\(\[] \s* )
        (?P<low>[01]) (?:\.0)? \s* (?: - | – | — | ~ | \.\. | \b(?:to|and|through|bis|à|a)\b ) \s* (?P<high>\d{1,3}) \b
      | \b (?: 10 | ten )-point \s scale
      | \b (?P<low2>[01]) \s* (?:-|–|—|~|\bto\b) \s* (?P<high2>\d{1,3}) \s* (?:\]|\)|:|scale\b)
      | (?:^|[^\d\s/.%]\s*) \b out \s+ of \s+ (?: a \s+ (?:possible|maximum|total) (?:\s+of)? \s+ )? (?P<only>\d{1,3}) \b
        ",
    )
});

static THOUGHT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?is)(?:<(think|thinking|thought|reasoning|reflection|analysis)>.*?</(?:think|thinking|thought|reasoning|reflection|analysis)>)|(?:\[THINK\].*?\[/THINK\])|(?:◁think▷.*?◁/think▷)",
    )
});

static THOUGHT_END: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)</(?:think|thinking|thought|reasoning|reflection|analysis)>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>|<channel\|>|<\|END_THINKING\|>",
    )
});

static THOUGHT_START: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)<(?:think|thinking|thought|reasoning|reflection|analysis)>|\[THINK\]|◁think▷|<\|channel\|>\s*analysis|<\|channel>thought|<\|START_THINKING\|>",
    )
});

/// What a model said after it had thought; `None` where it never came to that.
pub(super) fn without_thoughts(reply: &str) -> Option<String> {
    let mut rest = reply;
    // Some templates open the thoughts themselves, so that only their end is seen.
    if let Some(end) = THOUGHT_END.find_iter(reply).last() {
        rest = &reply[end.end()..];
    }
    let rest = THOUGHT.replace_all(rest, "");
    (!THOUGHT_START.is_match(&rest)).then(|| rest.trim().to_string())
}

/// One number of a reply.
struct Found {
    start: usize,
    end: usize,
    /// In [0, 1], or why it is no grade.
    grade: Result<f64, &'static str>,
    /// Whether it says of how much it is.
    of_scale: bool,
}

/// The grade in a reply, in [0, 1].
///
/// # Errors
/// Why there is none, in words.
pub fn parse_reply(reply: &str) -> Result<f64, &'static str> {
    let Some(said) = without_thoughts(reply) else {
        return Err("it was cut off while it thought");
    };
    if said.is_empty() {
        return Err("it said nothing");
    }
    let mut text = plain(&said);
    let scale = stated_scale(&mut text)?;
    let mut numbers = numbers(&text, scale);
    drop_markers(&text, &mut numbers);
    if numbers.is_empty() {
        return Err("it gave no number");
    }

    let labelled = labelled(&text, &numbers, scale.is_some());
    if !labelled.is_empty() {
        return agreed(&labelled);
    }
    let alone: Vec<_> = numbers.iter().filter(|n| has_a_line(&text, n)).collect();
    if !alone.is_empty() {
        return agreed(&alone);
    }
    let shares: Vec<_> = numbers.iter().filter(|n| n.of_scale && ends(&text, n)).collect();
    if !shares.is_empty() {
        return agreed(&shares);
    }
    let bare: Vec<_> = numbers.iter().filter(|n| !n.of_scale && says_a_grade(&text, n)).collect();
    match bare.as_slice() {
        [] => Err("it gave a number, but not as a grade"),
        bare if numbers.iter().filter(|n| !n.of_scale).count() == bare.len() => agreed(bare),
        _ => Err("it gave several numbers, and not which is the grade"),
    }
}

/// The one grade that all of them are.
fn agreed(found: &[&Found]) -> Result<f64, &'static str> {
    let (first, rest) = found.split_first().ok_or("it gave no number")?;
    let grade = first.grade?;
    for other in rest {
        if other.grade != Ok(grade) {
            return Err("it gave several grades");
        }
    }
    Ok(grade)
}

/// Without Markdown and LaTeX, in one kind of digits and dashes.
fn plain(text: &str) -> String {
    static FRACTION: LazyLock<Regex> = LazyLock::new(|| regex(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"));
    let text = FRACTION.replace_all(text, "$1/$2");
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' | '_' | '`' | '$' | '\u{200B}' | '\u{FEFF}' | '\\' => {}
            '−' | '–' | '—' | '‒' | '－' => out.push('-'),
            '⁄' | '∕' | '／' => out.push('/'),
            '％' => out.push('%'),
            '：' => out.push(':'),
            '\u{A0}' | '\u{202F}' => out.push(' '),
            '０'..='９' => out.push(char::from(b'0' + (c as u32 - '０' as u32) as u8)),
            '½' => out.push_str(".5"),
            c => out.push(c),
        }
    }
    out
}

/// The scale that is stated in words, taken out of the text.
fn stated_scale(text: &mut String) -> Result<Option<f64>, &'static str> {
    let mut scale = None;
    let mut at = 0;
    while let Some(found) = SCALE.captures_at(text, at) {
        let Some(whole) = found.get(0) else { break };
        let number = |name: &str| found.name(name).and_then(|m| m.as_str().parse::<f64>().ok());
        let high = number("high").or(number("high2")).or(number("only")).unwrap_or(ASKED);
        if high <= 1.0 && found.name("only").is_some() {
            at = whole.end();
            continue;
        }
        if scale.is_some_and(|known| known != high) {
            return Err("it stated two scales");
        }
        scale = Some(high);
        let range = whole.range();
        // Its place is kept; a mark there says that what follows may be the grade.
        let keep_colon = whole.as_str().ends_with(':');
        let blank = format!("{}{}", " ".repeat(range.len() - 1), if keep_colon { ':' } else { ' ' });
        text.replace_range(range.clone(), &blank);
        at = range.end;
    }
    Ok(scale)
}

fn numbers(text: &str, stated: Option<f64>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for captures in NUMBER.captures_iter(text) {
        let (Some(whole), Some(value)) = (captures.get(0), captures.name("value")) else { continue };
        let sign = captures.name("sign").is_some();
        let before = text[..whole.start()].chars().next_back();
        // A part of a word or of a longer number: H2O, GPT-4, 3.1.2.
        let part_of_a_word = before
            .is_some_and(|c| c.is_alphanumeric() && (!sign || c.is_alphabetic()) || c == '.')
            && !before.is_some_and(crate::quality::text::is_unspaced);
        let after = text[whole.end()..].chars().next();
        let goes_on = after.is_some_and(|c| c.is_alphabetic() && !crate::quality::text::is_unspaced(c));
        // 7-8: the sign is a dash.
        let is_range = sign
            && before.is_some_and(|c| c.is_ascii_digit() || c == '%' || c.is_whitespace())
            && found.last().is_some_and(|last| text[last.end..whole.start()].trim().is_empty());
        if is_range {
            if let Some(last) = found.last_mut() {
                last.grade = Err("it gave a range");
                last.end = whole.end();
            }
            continue;
        }
        if part_of_a_word || goes_on {
            continue;
        }
        let between = found.last().map(|last| text[last.end..whole.start()].trim().to_lowercase());
        let ranged = between.is_some_and(|b| matches!(b.as_str(), "to" | "or" | "~" | ".." | "/-" | "bis"));
        let number: f64 = match value.as_str().replace(',', ".").parse() {
            Ok(number) => number,
            Err(_) => continue,
        };
        let own: Option<f64> = captures.name("scale").and_then(|m| m.as_str().parse().ok());
        let percent = captures.name("percent").is_some();
        let scale = own.or(percent.then_some(100.0)).or(stated).unwrap_or(ASKED);
        let decimal = value.as_str().contains(['.', ',']);
        // "1,000": a comma between thousands.
        let thousands = value.as_str().split(',').nth(1).is_some_and(|rest| rest.len() > 2);
        let grade = if ranged {
            Err("it gave a range")
        } else if sign && number != 0.0 {
            Err("it gave a negative number")
        } else if thousands || !(scale > 0.0 && number <= scale) {
            Err("its number is beyond the scale")
        } else if own.is_none() && !percent && stated.is_none() && decimal && number > 0.0 && number <= 1.0 {
            Err("its number may be of a scale from 0 to 1 as well as from 0 to 10")
        } else {
            Ok(number / scale)
        };
        if ranged {
            if let Some(last) = found.last_mut() {
                last.grade = Err("it gave a range");
                last.end = whole.end();
            }
            continue;
        }
        found.push(Found {
            start: whole.start(),
            end: whole.end(),
            grade,
            of_scale: own.is_some() || percent,
        });
    }
    found
}

/// Drops the numbers of a list: `1.` at the start of a line, and `2.` after it.
fn drop_markers(text: &str, numbers: &mut Vec<Found>) {
    let mut next = 1u32;
    numbers.retain(|number| {
        let starts_line = text[..number.start].rsplit('\n').next().is_some_and(|l| l.trim().is_empty());
        let rest = &text[number.end..];
        let marker = rest.starts_with(['.', ')'])
            && rest[1..].starts_with(char::is_whitespace)
            && rest[1..].lines().next().is_some_and(|l| l.chars().any(char::is_alphabetic));
        let is_next = text[number.start..number.end].trim().parse() == Ok(next);
        if starts_line && marker && is_next {
            next += 1;
            return false;
        }
        true
    });
}

/// The numbers that are called a grade; only those that are called final, where some are.
fn labelled<'f>(text: &str, numbers: &'f [Found], scale_stated: bool) -> Vec<&'f Found> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| {
        regex(&format!(
            r"(?i)(?:^|[^\p{{L}}])(?:{LABELS})(?:[^\p{{L}}]|\b)\s*{LINK}$|(?:评分|分数|得分|打分|評分|分數|点数|スコア|採点|評価|점수|평점|оценка)\s*(?:[:=は是为為은는이가]|\s)*$"
        ))
    });
    static GIVEN: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"(?i)\b(?:i(?:'d|'ll| would| will)?(?: also)? (?:give|rate|grade|score|assign|award|say|mark|choose|go with))\b(?:\s+(?:it|this|that|the|a|an|answer|output|response|score|grade|rating|mark|of|as|at|be|is|about|with))*[\s:]*$|\b(?:deserves|earns|gets|receives|merits)(?:\s+(?:a|an|about))?\s*$",
        )
    });
    static FINAL: LazyLock<Regex> =
        LazyLock::new(|| regex(r"(?i)\b(?:final|overall|total|therefore|so)\b[^.\n]*$"));
    let own_line = |n: &Found| {
        let start = text[..n.start].rfind(['\n', ',', ';']).map_or(0, |i| i + 1);
        &text[start..n.start]
    };
    let found: Vec<_> = numbers
        .iter()
        .filter(|n| {
            let before = &text[..n.start];
            LABEL.is_match(before)
                || GIVEN.is_match(before)
                || (scale_stated && before.trim_end().ends_with(':') && !n.of_scale)
        })
        .collect();
    let last: Vec<_> = found.iter().copied().filter(|n| FINAL.is_match(own_line(n))).collect();
    if last.is_empty() {
        found
    } else {
        last
    }
}

/// Whether a number has a line of its own.
fn has_a_line(text: &str, number: &Found) -> bool {
    let nothing = |s: &str| s.chars().all(|c| !c.is_alphanumeric());
    let before = text[..number.start].rsplit('\n').next().unwrap_or_default();
    let after = text[number.end..].lines().next().unwrap_or_default();
    nothing(before) && (nothing(after) || matches!(after.trim(), "分" | "点" | "점" | "points" | "points."))
}

/// Whether nothing that it counts follows a number: `8, because`, not `3 mistakes`.
fn ends(text: &str, number: &Found) -> bool {
    let rest = text[number.end..].trim_start_matches(['"', '\'', ']', '}', ')', ' ']);
    let Some(first) = rest.chars().next() else { return true };
    let word = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default().to_lowercase();
    !first.is_alphanumeric()
        || matches!(
            word.as_str(),
            "because"
                | "since"
                | "as"
                | "for"
                | "points"
                | "stars"
                | "and"
                | "but"
                | "due"
                | "given"
                | "based"
                | "分"
                | "点"
                | "점"
        )
}

/// Whether a number stands where a grade stands: first, or as a sentence of its own, or after a colon.
fn says_a_grade(text: &str, number: &Found) -> bool {
    let before =
        text[..number.start].trim_end_matches(['"', '\'', '[', '{', '(', ' ', '\n', '<', '#', '~', '≈']);
    let placed = before.is_empty()
        || before.ends_with(['.', '!', '?', ';', ':', '=', '。', '！', '？', '>', '|'])
        || ["so", "about", "say", "an", "a", "it's", "around", "approximately", "therefore,", "so,", "hence"]
            .iter()
            .any(|word| before.to_lowercase().rsplit(char::is_whitespace).next() == Some(word));
    placed && ends(text, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_are_what_was_said() {
        for (reply, grade) in [
            ("7", 0.7),
            (" 10", 1.0),
            ("0", 0.0),
            ("7.", 0.7),
            ("6.5", 0.65),
            ("6,5", 0.65),
            ("7½", 0.75),
            ("Score: 8/10", 0.8),
            (r#"{"score": 3}"#, 0.3),
            (r#"{"score": "3", "reason": "2 of 4 facts"}"#, 0.3),
            ("```json\n{\n  \"grade\": 9\n}\n```", 0.9),
            ("0 out of 10", 0.0),
            ("On a scale of 0 to 10: 8", 0.8),
            ("On a scale from 0 to 10, I would give this answer a 7.", 0.7),
            ("On a scale of 1 to 5: 4", 0.8),
            ("On a scale of 0-100, I'd rate it 60", 0.6),
            ("Out of 10, I give 6", 0.6),
            ("Out of a possible 100, I give it 60.", 0.6),
            ("4/5", 0.8),
            ("8/10", 0.8),
            ("8 / 10", 0.8),
            ("8.5/10", 0.85),
            ("8 out of 10", 0.8),
            ("8 (out of 10)", 0.8),
            ("18/20", 0.9),
            ("80%", 0.8),
            ("80 %", 0.8),
            ("100%", 1.0),
            ("80/100", 0.8),
            ("1. Correct. 9", 0.9),
            ("1. Correct.\n2. Complete.\n3. Brief.\n\nScore: 9", 0.9),
            ("**Score: 7**", 0.7),
            ("**Score:** 7", 0.7),
            ("### Score\n7", 0.7),
            ("Score: **8**/10", 0.8),
            ("Rating: [[8]]", 0.8),
            ("Score (0-10): 7", 0.7),
            ("Grade from 0 to 10: 7", 0.7),
            (r"$\boxed{8}$", 0.8),
            (r"\frac{8}{10}", 0.8),
            ("<think>Maybe 3? No, 5.</think>\n\n8", 0.8),
            ("It is right, so 9 at first, but 3 in the end.</think>8", 0.8),
            ("<think>3</think><answer>8</answer>", 0.8),
            ("<|channel|>analysis<|message|>perhaps 2<|end|><|start|>assistant<|channel|>final<|message|>8", 0.8),
            ("[THINK]2[/THINK]8", 0.8),
            ("8, because it is right", 0.8),
            ("8 - correct and brief", 0.8),
            ("8\n\nThe answer gives 3 facts, of which 2 are right.", 0.8),
            ("The answer gives 3 facts.\n\n5", 0.5),
            ("The answer was given in 1945. Score: 6", 0.6),
            ("Accuracy is 9, brevity is 3. Overall score: 6", 0.6),
            ("Initial score: 5. Final score: 7", 0.7),
            ("Correct. 9", 0.9),
            ("I would say 8.", 0.8),
            ("The answer deserves a 7.", 0.7),
            ("７", 0.7),
            ("评分：8", 0.8),
            ("8分", 0.8),
            ("Note : 7/10", 0.7),
            ("Bewertung: 7 von 10", 0.7),
            ("Оценка: 7", 0.7),
            ("Score: 8/10 (accuracy 9/10)", 0.8),
            ("8/10. 8/10.", 0.8),
            ("Score: 0", 0.0),
            ("0.0", 0.0),
            ("Rate: 1", 0.1),
            ("0.8/1", 0.8),
            ("On a scale of 0 to 1: 0.8", 0.8),
        ] {
            match parse_reply(reply) {
                Ok(found) => assert!((found - grade).abs() < 1e-12, "{reply}: {found}, not {grade}"),
                Err(why) => panic!("{reply}: {why}"),
            }
        }
    }

    #[test]
    fn what_is_no_grade_or_could_be_two_is_none() {
        for reply in [
            "",
            " ",
            "ten",
            "11",
            "100",
            "-3",
            "−3",
            "Score: -3",
            "- 3/10 -4",
            "99999999999999999999999999",
            "Grade: B",
            "A+",
            "N/A",
            "0.8",
            "1.0",
            "7-8",
            "7–8",
            "7 to 8",
            "between 7 and 8",
            "Score: 7-8",
            "8 or 9",
            "0 to 10",
            "0-10",
            "1-5",
            "from 0 to 10",
            "On a scale of 0 to 10",
            "On a scale of 1 to 5, from 0 to 10: 4",
            "12/10",
            "120%",
            "I saw 3 mistakes.",
            "3 mistakes were made",
            "2 of 3 facts are right",
            "It happened in 1945.",
            "It happened on May 5",
            "H2O is right",
            "GPT-4 said so",
            "5 8",
            "8. No, 6.",
            "Score: 8, score: 6",
            "I cannot judge that",
            "1. Correct.",
            "1. Correct\n2. Complete",
            "<think>it may be an 8",
            "<think>8</think>",
            "<think>8</think>\n\n<think>and 7",
            "1,000",
            "Score: 1e3",
            "The score is between 6 and 8.",
            "★★★★☆",
            "I give 110%",
            "version 3.1.2",
            "8/0",
        ] {
            assert!(parse_reply(reply).is_err(), "{reply}: {:?}", parse_reply(reply));
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let pieces = [
            "8",
            "-",
            "/",
            " out of ",
            "10",
            ".",
            "%",
            "：",
            "<think>",
            "</think>",
            "\n",
            "scale of 0 to ",
            "½",
            "分",
            "é",
            "1,5",
            "(",
        ];
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += pieces[(state >> 33) as usize % pieces.len()];
            }
            if let Ok(grade) = parse_reply(&text) {
                assert!((0.0..=1.0).contains(&grade), "{text}: {grade}");
            }
        }
    }
}
