//! Indexes of made-up and of real histories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod made_up;
