//! Support: whether what an answer says stands in the context, word by word. Needs no model.

use super::{
    text::{index, terms},
    Case, Dimension, Family,
};
use crate::error::Result;
use std::collections::HashSet;

/// The share of an answer's words that the context has, articles and question words not counted: those are no news. Without a context it
/// has nothing to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Support;

/// The most words of an answer that are looked at.
const LOOKED_AT: usize = 2000;

impl Dimension for Support {
    fn name(&self) -> &str {
        "support"
    }

    fn family(&self) -> Family {
        Family::Alignment
    }

    fn score(&mut self, case: &Case<'_>) -> Result<Vec<Option<f64>>> {
        let context = index(&case.query.context);
        if context.is_empty() {
            return Ok(vec![None; case.outputs.len()]);
        }
        let asked: HashSet<String> = terms(&case.query.question).into_iter().collect();
        Ok(case.outputs.iter().map(|output| Some(contained(&output.text, &context, &asked))).collect())
    }
}

/// Words that token F1 does not count either: every context has them, and an answer of them alone says nothing.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// The share of `text`'s [`terms`] that are among `known`; articles and words among `ignored` do not count. 0 where none count.
pub(super) fn contained(text: &str, known: &HashSet<String>, ignored: &HashSet<String>) -> f64 {
    let (mut found, mut counted) = (0usize, 0usize);
    let says_something = |word: &String| !ignored.contains(word) && !ARTICLES.contains(&word.as_str());
    for word in terms(text).into_iter().take(LOOKED_AT).filter(says_something) {
        counted += 1;
        found += usize::from(known.contains(&word));
    }
    if counted == 0 {
        0.0
    } else {
        found as f64 / counted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::TaskKind,
        quality::{Output, Query},
    };

    #[test]
    fn words_of_the_question_are_no_news() {
        let query = Query { context: "Short led the team with 11.".into(), question: "Who led?".into() };
        let outputs: Vec<_> =
            ["Short", "Short led", "who led", "Miller", "11 Miller", "", "the", "the Miller"]
                .map(|t| Output::from(t.to_string()))
                .into();
        let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
        let values = Support.score(&case).unwrap();
        assert_eq!(values, [1.0, 1.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0].map(Some));
        let query = Query::default();
        assert_eq!(Support.score(&Case { query: &query, ..case }).unwrap()[0], None);
    }
    /// The right answer stands in the context and the wrong one does not, whatever the script.
    #[test]
    fn a_right_answer_has_more_support_than_a_wrong_one_in_every_script() {
        for (context, question, right, wrong) in [
            ("肖特以11次擒杀领先全队。", "谁在擒杀中领先全队？", "肖特", "米勒"),
            ("清华大学位于北京市海淀区。", "清华大学位于哪个城市？", "北京", "京北"),
            ("ショートは11サックでチームをリードした。", "誰がリードしましたか。", "ショート", "ミラー"),
            ("팀에서 가장 많은 색을 기록한 선수는 쇼트였다.", "누가 기록했습니까?", "쇼트", "밀러"),
            ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "เมืองหลวงคืออะไร", "กรุงเทพ", "เชียงใหม่"),
            ("باريس هي عاصمة فرنسا.", "ما هي عاصمة فرنسا؟", "باريس", "لندن"),
            ("פריז היא בירת צרפת.", "מהי בירת צרפת?", "פריז", "לונדון"),
            ("दिल्ली भारत की राजधानी है।", "भारत की राजधानी क्या है?", "दिल्ली।", "मुंबई"),
            ("Столица Франции — Париж.", "Какая столица Франции?", "Париж", "Лондон"),
            ("Η πρωτεύουσα είναι η Αθήνα.", "Ποια είναι η πρωτεύουσα;", "Αθήνα", "Πάτρα"),
        ] {
            let query = Query { context: context.into(), question: question.into() };
            let outputs = [right, wrong].map(|t| Output::from(t.to_string()));
            let case = Case { kind: TaskKind::Qa, query: &query, outputs: &outputs, references: &[] };
            assert_eq!(Support.score(&case).unwrap(), [Some(1.0), Some(0.0)], "{right}");
        }
    }
}
