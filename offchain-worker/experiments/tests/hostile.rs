//! Hostile outputs on the real evaluators. `scripts/install-models.sh` installs them; without it these tests fail and say so.

use poq_experiments::hostile::{outputs, panel, scorers, HONEST};
use poq_inference::{quality::Rubric, ModelStore, TaskKind};
use std::{sync::Arc, time::Instant};

/// What the panel of a rubric gives, by the median.
fn median(mut scores: Vec<f64>) -> f64 {
    scores.sort_by(f64::total_cmp);
    (scores[(scores.len() - 1) / 2] + scores[scores.len() / 2]) / 2.0
}

#[test]
fn what_is_no_answer_scores_low_and_stalls_nobody() {
    let rubric = Arc::new(Rubric::builtin(TaskKind::Qa));
    let mut scorers =
        scorers(&ModelStore::open_default(), &rubric, None).unwrap_or_else(|error| panic!("{error}"));
    let honest = median(panel(&mut scorers.by_rubric, HONEST[0]).unwrap());
    assert!(honest > 0.5, "an honest answer gets {honest:.2}");
    for hostile in outputs() {
        let started = Instant::now();
        let scores = panel(&mut scorers.by_rubric, &hostile.text()).unwrap();
        let plain = panel(&mut scorers.plain, &hostile.text()).unwrap();
        // Generous: the machine may be busy. A text that stalled an evaluator would take minutes.
        assert!(started.elapsed().as_secs() < 60, "{}: {:?}", hostile.name, started.elapsed());
        for score in scores.iter().chain(&plain) {
            assert!((0.0..=1.0).contains(score), "{}: {scores:?} {plain:?}", hostile.name);
        }
        if hostile.worthless {
            let score = median(scores.clone());
            assert!(score < honest / 2.0, "{}: {score:.2} beside {honest:.2} ({scores:?})", hostile.name);
        }
    }
}
