//! Points at which a test can kill the process.
//!
//! With the feature `failpoints`, the process aborts (as with kill −9: no destructor runs, nothing is flushed) when it comes
//! to the point that the variable `POQ_FAIL_AT` names. Without the feature [`hit`] is nothing at all.

/// Every point, in the order in which a task passes them.
pub const ALL: [&str; 16] = [
    "answer_fetched",
    "answer_generated",
    "answer_journalled",
    "answer_stored",
    "output_before_commit",
    "output_after_commit",
    "open_before",
    "open_after",
    "scores_fetched",
    "scores_computed",
    "scores_journalled",
    "scores_before_commit",
    "scores_after_commit",
    "reveal_before",
    "reveal_after",
    "settled_before_final",
];

/// Aborts the process if it is to die here.
#[cfg(feature = "failpoints")]
pub fn hit(point: &str) {
    debug_assert!(ALL.contains(&point), "{point} is not listed");
    if std::env::var("POQ_FAIL_AT").is_ok_and(|at| at == point) {
        // Straight to the file descriptor: buffers are lost with the process.
        eprintln!("failpoint {point}: aborting");
        std::process::abort();
    }
}

/// Does nothing: failpoints are not compiled in.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_point: &str) {}
