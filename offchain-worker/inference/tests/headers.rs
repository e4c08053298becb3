//! Files that anybody may hand over: GGUF and safetensors headers, changed at random. None may make the program panic, and none may
//! make it allocate more at once than the file has bytes.
//!
//! A few thousand files each time; `scripts/bench.sh fuzz-models --cases N` runs as many as are wanted. Every case follows from its
//! number: POQ_FUZZ_FROM=N begins at one that failed.
#![allow(clippy::unwrap_used)]

use poq_inference::{
    engine::{check_gguf, check_safetensors, inspect_path},
    Error,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::File,
    io::{Cursor, Write},
    panic::{catch_unwind, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn grown(by: usize) {
    LARGEST.set(LARGEST.get().max(by));
    LIVE.set(LIVE.get() + by as isize);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn shrunk(by: usize) {
    LIVE.set(LIVE.get() - by as isize);
}

// SAFETY: everything is done by the system's allocator; what is counted are plain cells of the thread, which need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        shrunk(layout.size());
        grown(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a case allocated: the most at once, and the most that was in use at a time.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    LARGEST.set(0);
    LIVE.set(0);
    PEAK.set(0);
    let done = work();
    (done, LARGEST.get(), PEAK.get().max(0) as usize)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Numbers at which lengths, counts and offsets go wrong.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    255,
    256,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Changes a few things in the first `header` bytes.
fn mutate(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let header = header.min(bytes.len());
        if header < 16 {
            return;
        }
        let at = random.below(header - 8);
        match random.below(12) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            // Lengths, counts, offsets, types: words, wherever they begin.
            3..=5 => bytes[at..at + 8].copy_from_slice(&random.pick(&EDGES).to_le_bytes()),
            6 => bytes[at..at + 4].copy_from_slice(&(*random.pick(&EDGES) as u32).to_le_bytes()),
            7 => bytes.truncate(random.below(bytes.len())),
            8 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(header))),
            9 => {
                let piece: Vec<u8> = (0..=random.below(16)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, piece);
            }
            10 => {
                // A piece of the header once more.
                let length = 1 + random.below(64.min(header - at));
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(header);
                bytes.splice(to..to, piece);
            }
            _ => number(bytes, header, random),
        }
    }
}

/// Writes another number where one stands in text: what a JSON header is made of.
fn number(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    let start = random.below(header);
    let Some(at) = bytes[start..header].iter().position(u8::is_ascii_digit).map(|at| at + start) else {
        return;
    };
    let end =
        bytes[at..header].iter().position(|byte| !byte.is_ascii_digit()).map_or(header, |length| at + length);
    let other = ["-1", "1e9", "1.5", "null", "[]", "{}", "\"x\"", ""];
    let text = match random.below(3) {
        0 => random.pick(&other).to_string(),
        _ => random.pick(&EDGES).to_string(),
    };
    bytes.splice(at..end, text.into_bytes());
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is measured is not what telling of an error costs where somebody debugs. First thing in every test: it is looked at once.
fn without_backtraces() {
    std::env::set_var("RUST_LIB_BACKTRACE", "0");
}

/// Runs cases, and tells how many of them were good files still.
fn cases(name: &str, usual: u64, case: impl Fn(u64) -> bool) {
    // Panics of a library that are errors to everybody else: thousands of them need not be read.
    std::panic::set_hook(Box::new(|_| {}));
    let from = setting("POQ_FUZZ_FROM").unwrap_or(0);
    let count = setting("POQ_FUZZ_CASES").unwrap_or(usual);
    let limit = setting("POQ_FUZZ_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    let (mut done, mut good) = (0u64, 0u64);
    for number in from..from + count {
        match catch_unwind(AssertUnwindSafe(|| case(number))) {
            Ok(true) => good += 1,
            Ok(false) => {}
            Err(panic) => {
                let told = panic.downcast_ref::<String>().cloned();
                let told = told.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
                eprintln!("{name}: case {number}: {}", told.unwrap_or_default());
                eprintln!("POQ_FUZZ_FROM={number} POQ_FUZZ_CASES=1 repeats it");
                std::panic::resume_unwind(panic);
            }
        }
        done += 1;
        if done % 1024 == 0 && limit.is_some_and(|limit| started.elapsed() > limit) {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name}: {done} files in {seconds:.0} s, {good} of them good still; no panic, nothing too large"
    );
    // Files that are all refused at their first byte would show nothing.
    assert!(done < 1000 || good > 0, "{name}: not one file was good");
}

/// Beside what the file's size allows: buffers, tables of few entries, error messages.
const SLACK: usize = 16 * 1024;

fn within(name: &str, number: u64, size: usize, largest: usize, peak: usize) {
    assert!(
        largest <= size + SLACK,
        "{name}: case {number} allocated {largest} bytes at once, of a file of {size}"
    );
    assert!(
        peak <= 4 * size + 16 * SLACK,
        "{name}: case {number} had {peak} bytes in use, of a file of {size}"
    );
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The beginning of a file: its header, and a little of what follows.
fn header_of(bytes: &[u8]) -> usize {
    match bytes.starts_with(b"GGUF") {
        // The last name of a tensor stands near the end of the header.
        true => bytes.windows(4).rposition(|window| window == b"blk.").unwrap() + 64,
        false => 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize,
    }
}

const GGUF: [&str; 6] = [
    "llama3-gguf-q8_0",
    "qwen2-yarn-gguf-bf16",
    "phi3-longrope-gguf-bf16",
    "gemma3-gguf-q8_0",
    "mixtral-gguf-bf16",
    "qwen3-moe-gguf-q8_0",
];

#[test]
fn gguf_headers() {
    without_backtraces();
    let files: Vec<Vec<u8>> =
        GGUF.iter().map(|name| std::fs::read(fixture(name).join("model.gguf")).unwrap()).collect();
    for file in &files {
        check_gguf(&mut Cursor::new(file), 64).unwrap();
    }
    cases("GGUF headers", 8_000, |number| {
        let mut random = Random(number);
        let mut bytes = random.pick(&files).clone();
        let header = header_of(&bytes);
        mutate(&mut bytes, header, &mut random);
        let (result, largest, peak) = counted(|| check_gguf(&mut Cursor::new(&bytes), 64).map_err(drop));
        within("GGUF headers", number, bytes.len(), largest, peak);
        result.is_ok()
    });
}

/// A file that is written to once per case. In memory, where there is a file system for that.
fn scratch(name: &str) -> (tempfile::TempDir, PathBuf) {
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let dir = dir.unwrap();
    let path = dir.path().join(name);
    (dir, path)
}

/// Always a new file: what is mapped must not change under who maps it.
fn write(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    File::create(path).unwrap().write_all(bytes).unwrap();
}

const SAFETENSORS: [&str; 5] = ["llama", "mixtral", "gemma3", "phi3", "qwen3-moe"];

#[test]
fn safetensors_headers() {
    without_backtraces();
    let read = |name: &str, file: &str| std::fs::read(fixture(name).join(file)).unwrap();
    let models: Vec<_> =
        SAFETENSORS.iter().map(|name| (read(name, "config.json"), read(name, "model.safetensors"))).collect();
    let (_dir, path) = scratch("model.safetensors");
    for (config, weights) in &models {
        write(&path, weights);
        check_safetensors(config, std::slice::from_ref(&path), 64).unwrap();
    }
    cases("safetensors headers", 6_000, |number| {
        let mut random = Random(number);
        let (config, weights) = random.pick(&models);
        let (mut config, mut weights) = (config.clone(), weights.clone());
        // Half of the time the one, half of the time the other.
        if random.below(2) == 0 {
            let header = config.len();
            mutate(&mut config, header, &mut random);
        } else {
            let header = header_of(&weights);
            mutate(&mut weights, header, &mut random);
        }
        write(&path, &weights);
        let size = weights.len() + config.len();
        let (result, largest, peak) =
            counted(|| check_safetensors(&config, std::slice::from_ref(&path), 64).map_err(drop));
        within("safetensors headers", number, size, largest, peak);
        result.is_ok()
    });
}

/// Everything that `poq models add` looks at: tokenizers and templates too, whose libraries allocate as they like.
#[test]
fn whole_models() {
    without_backtraces();
    const MODELS: [&str; 8] = [
        "llama3-gguf-q8_0",
        "gemma2-gguf-bf16",
        "llama",
        "xlm-roberta-dense",
        "deberta-nli",
        "modernbert",
        "mpnet",
        "distilbert-cross",
    ];
    let (dir, _) = scratch("x");
    fn copy(from: &Path, to: &Path) -> Vec<PathBuf> {
        std::fs::create_dir_all(to).unwrap();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                files.extend(copy(&entry.path(), &to));
            } else if entry.file_name() != "expected.json" {
                std::fs::copy(entry.path(), &to).unwrap();
                files.push(to);
            }
        }
        files.sort();
        files
    }
    let models: Vec<_> = MODELS
        .iter()
        .map(|name| {
            let files = copy(&fixture(name), &dir.path().join(name));
            let contents: Vec<_> =
                files.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
            (dir.path().join(name), contents)
        })
        .collect();
    for (folder, _) in &models {
        inspect_path(folder).unwrap();
    }
    cases("whole models", 1_500, |number| {
        let mut random = Random(number);
        let (folder, contents) = random.pick(&models);
        let (good, path) = random.pick(contents);
        let mut bytes = good.clone();
        let binary = path.extension().is_some_and(|e| e == "gguf" || e == "safetensors");
        let header = if binary { header_of(&bytes) } else { bytes.len() };
        mutate(&mut bytes, header, &mut random);
        write(path, &bytes);
        let (result, _, peak) = counted(|| inspect_path(folder));
        write(path, good);
        assert!(peak < 64 << 20, "case {number} had {peak} bytes in use, of a file of {}", bytes.len());
        match result {
            Ok(_) => true,
            // It says where.
            Err(Error::NoModel { reason, .. }) => {
                assert!(!reason.is_empty(), "case {number}");
                false
            }
            Err(_) => false,
        }
    });
}
