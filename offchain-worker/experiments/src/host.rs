//! What this process has used of its machine.

use rustix::time::{clock_gettime, ClockId};

/// Milliseconds of processor time that this process has used, all its threads together. On a busy machine this, and not the
/// time on the wall, says what work costs.
pub fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The most memory that was in use since [`reset_peak_memory`], in bytes, where the system tells.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Begins a new measurement of [`peak_memory_bytes`]. Where the system does not allow it the measurement goes on, and a model
/// is charged with what a larger one before it took.
pub fn reset_peak_memory() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the peak of memory cannot be reset");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let before = cpu_ms();
        let mut x = 1u64;
        while cpu_ms() - before < 5.0 {
            for i in 0..10_000u64 {
                x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
            }
        }
        assert!(cpu_ms() > before);
    }
}
