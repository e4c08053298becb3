//! Words, in scripts with spaces and without.
//!
//! In scripts that write words with spaces a word is a run of letters and digits with the marks on them. Where words are not
//! parted by spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan), or where endings that change with the sentence are
//! written on to them (Korean), every character is a word, as the evaluations of MLQA (arXiv 1910.07475), KorQuAD and JaQuAD
//! count them.

use std::collections::HashSet;
use unicode_normalization::{char::is_combining_mark, UnicodeNormalization};

/// Whether this character's script is compared character by character.
pub(crate) fn is_unspaced(c: char) -> bool {
    let ranges = [
        ('\u{0E00}', '\u{0FFF}'),   // Thai, Lao, Tibetan
        ('\u{1000}', '\u{109F}'),   // Myanmar
        ('\u{1100}', '\u{11FF}'),   // Hangul
        ('\u{1780}', '\u{17FF}'),   // Khmer
        ('\u{19E0}', '\u{19FF}'),   // Khmer
        ('\u{2E80}', '\u{2FDF}'),   // Han radicals
        ('\u{3005}', '\u{3007}'),   // Han
        ('\u{3040}', '\u{31FF}'),   // kana, Bopomofo, Hangul
        ('\u{3400}', '\u{4DBF}'),   // Han
        ('\u{4E00}', '\u{9FFF}'),   // Han
        ('\u{A960}', '\u{A97F}'),   // Hangul
        ('\u{A9E0}', '\u{A9FF}'),   // Myanmar
        ('\u{AA60}', '\u{AA7F}'),   // Myanmar
        ('\u{AC00}', '\u{D7FF}'),   // Hangul
        ('\u{F900}', '\u{FAFF}'),   // Han
        ('\u{FF66}', '\u{FFDC}'),   // half-width kana and Hangul
        ('\u{1AFF0}', '\u{1B16F}'), // kana
        ('\u{20000}', '\u{3FFFF}'), // Han
    ];
    c >= '\u{0E00}' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c))
}

/// Whether a letter is Latin or Greek: the scripts that English texts are written in, formulas and all.
pub(crate) fn is_western(c: char) -> bool {
    c.is_ascii()
        || matches!(c,
            '\u{80}'..='\u{3FF}' | '\u{1D00}'..='\u{1DBF}' | '\u{1E00}'..='\u{1FFF}' | '\u{2C60}'..='\u{2C7F}'
            | '\u{A720}'..='\u{A7FF}' | '\u{FB00}'..='\u{FB06}' | '\u{FF21}'..='\u{FF5A}')
}

/// A word, and whether it stands for one character of a run of them.
struct Word {
    text: String,
    unspaced: bool,
    /// Whether it follows the word before without anything between.
    joined: bool,
}

fn split(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut open = false;
    // Whether the last character was part of a word.
    for c in text.nfc() {
        let c = match c {
            // Latin letters and digits of the width of Chinese ones.
            '\u{FF10}'..='\u{FF5A}' => char::from_u32(c as u32 - 0xFEE0).unwrap_or(c),
            c => c,
        };
        if is_combining_mark(c) || matches!(c, '\u{200C}' | '\u{200D}') {
            match words.last_mut() {
                Some(word) if open && is_combining_mark(c) => word.text.push(c),
                _ => {}
            }
        } else if !c.is_alphanumeric() {
            open = false;
        } else if is_unspaced(c) {
            let joined = open && words.last().is_some_and(|word| word.unspaced);
            words.push(Word { text: c.to_string(), unspaced: true, joined });
            open = true;
        } else {
            match words.last_mut() {
                Some(word) if open && !word.unspaced => word.text.push(c),
                _ => words.push(Word { text: c.to_string(), unspaced: false, joined: false }),
            }
            open = true;
        }
    }
    words.iter_mut().for_each(|word| word.text = word.text.to_lowercase());
    words
}

/// The words of a text, in lower case.
pub(crate) fn words(text: &str) -> Vec<String> {
    split(text).into_iter().map(|word| word.text).collect()
}

/// What a text is searched by: its words; of runs of characters, every two neighbours. A single Chinese character stands in
/// any long text, two neighbours rarely do.
pub(crate) fn terms(text: &str) -> Vec<String> {
    let words = split(text);
    let mut terms = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        if word.joined {
            terms.push(format!("{}{}", words[i - 1].text, word.text));
        } else if !words.get(i + 1).is_some_and(|next| next.joined) {
            terms.push(word.text.clone());
        }
    }
    terms
}

/// Everything that the [`terms`] of another text can be found in.
pub(crate) fn index(text: &str) -> HashSet<String> {
    let mut index: HashSet<String> = terms(text).into_iter().collect();
    index.extend(words(text));
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_script() {
        for (text, expected) in [
            ("It's 3.5 m–wide, isn't it?", vec!["it", "s", "3", "5", "m", "wide", "isn", "t", "it"]),
            // The same word however it is composed.
            ("cafe\u{301} Café", vec!["café", "café"]),
            ("Kawann在2016年，", vec!["kawann", "在", "2016", "年"]),
            ("２０１６年", vec!["2016", "年"]),
            ("パリ、東京", vec!["パ", "リ", "東", "京"]),
            ("파리는", vec!["파", "리", "는"]),
            ("กรุงเทพ", vec!["ก", "รุ", "ง", "เ", "ท", "พ"]),
            ("हिन्दी में", vec!["हिन्दी", "में"]),
            ("مُحَمَّد، باريس؟", vec!["مُحَمَّد", "باريس"]),
            ("שָׁלוֹם עולם", vec!["שָׁלוֹם", "עולם"]),
            ("«Париж» — столица", vec!["париж", "столица"]),
            ("می\u{200C}خواهم", vec!["میخواهم"]),
        ] {
            assert_eq!(words(text), expected.iter().map(|w| w.nfc().collect::<String>()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn runs_of_characters_are_searched_by_pairs() {
        assert_eq!(terms("北京大学 A 人"), ["北京", "京大", "大学", "a", "人"]);
        assert!(index("他在北京").contains("京") && index("他在北京").contains("北京"));
    }
}
