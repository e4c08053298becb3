//! The shortest sequence of acts that still fails: pieces are taken away, larger ones first, as long as that goes (Zeller and
//! Hildebrandt: *Simplifying and isolating failure-inducing input*, 2002); then the numbers become small.

use super::act::{Act, Script};
use std::time::{Duration, Instant};

/// Shrinks a script. `fails` runs one and says whether it still fails; no more than `time` is spent.
pub fn shrink(script: &Script, time: Duration, fails: &mut dyn FnMut(&Script) -> bool) -> Script {
    let until = Instant::now() + time;
    let mut best = script.clone();
    let mut try_acts = |best: &mut Script, acts: Vec<Act>| {
        let other = Script { acts, ..*best };
        let shorter = Instant::now() < until && fails(&other);
        if shorter {
            *best = other;
        }
        shorter
    };
    // Most of what comes after the failure is not needed at all: the shortest beginning that fails.
    let (mut low, mut high) = (0, best.acts.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let acts = best.acts[..middle].to_vec();
        if try_acts(&mut best, acts) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let mut piece = best.acts.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let mut any = false;
        while at < best.acts.len() {
            let end = (at + piece).min(best.acts.len());
            let acts = [&best.acts[..at], &best.acts[end..]].concat();
            if try_acts(&mut best, acts) {
                any = true;
            } else {
                at = end;
            }
        }
        if !any || piece > 1 {
            piece /= 2;
        }
    }
    for at in 0..best.acts.len() {
        while let Some(simple) = best.acts[at].simpler().into_iter().find(|simple| {
            let mut acts = best.acts.clone();
            acts[at] = *simple;
            let other = Script { acts, ..best };
            Instant::now() < until && fails(&other)
        }) {
            best.acts[at] = simple;
        }
    }
    best
}
