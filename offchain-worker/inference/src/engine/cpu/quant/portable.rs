//! The product without any special instruction: what the other kernels must agree with.

use super::{pack::Lane, Scales, Sums, Task, BLOCK, ROWS};

pub(super) fn compute(task: &Task<'_>, out: &mut Sums) {
    let halves = task.format.scales() == Scales::SuperHalves;
    for (lane, b) in (0..ROWS).flat_map(|lane| (0..task.blocks).map(move |b| (lane, b))) {
        let row = Lane::read(task.format, lane, b, task.codes, task.scales);
        for (t, sums) in out.iter_mut().enumerate().take(task.count) {
            let at = b * task.count + t;
            let vector = &task.vectors[at * BLOCK..][..BLOCK];
            let dot = |half: usize| -> i32 {
                let range = half * BLOCK / 2..(half + 1) * BLOCK / 2;
                row.codes[range.clone()]
                    .iter()
                    .zip(&vector[range])
                    .map(|(w, x)| i32::from(*w) * i32::from(*x))
                    .sum()
            };
            let product = if halves {
                let start = |half: usize| task.starts[(2 * b + half) * task.count + t];
                row.scales[0] * (start(0) + dot(0)) as f32 + row.scales[1] * (start(1) + dot(1)) as f32
            } else {
                row.scales[0] * (task.starts[at] + dot(0) + dot(1)) as f32
            };
            let sum = &mut sums[lane];
            if b == 0 {
                *sum = 0.0;
            }
            *sum += product * task.vector_scales[at] + row.minimum * task.vector_sums[at];
        }
    }
}
