//! Random people send random messages to the contract, and after each of them everything holds that must hold. Run by
//! `scripts/bench.sh fuzz`.

use clap::Parser;
use poq_runtime_tests::fuzz::act::Script;
use poq_runtime_tests::fuzz::run::{run, storm, Tally};
use poq_runtime_tests::fuzz::shrink::shrink;
use poq_runtime_tests::fuzz::{Chain, Failure, Machine, Native};
use serde_json::{json, Value};
use std::path::PathBuf;
use std::time::{Duration, Instant};

type Res<T> = Result<T, Box<dyn std::error::Error>>;

/// How often progress is told.
const TELL: Duration = Duration::from_secs(15);

/// Fuzzes the contract: its Wasm on the real runtime, and its own code in this process.
#[derive(Parser)]
struct Options {
    /// So many calls to the Wasm on the runtime.
    #[arg(long, default_value_t = 2_000)]
    calls: u64,
    /// So many calls to the contract's code in this process.
    #[arg(long, default_value_t = 50_000)]
    native: u64,
    /// Every selector gets so many calls of any bytes (on the Wasm).
    #[arg(long, default_value_t = 40)]
    raw: u32,
    /// Which random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many acts are the life of a network.
    #[arg(long, default_value_t = 1_500)]
    acts: usize,
    /// So many seconds are spent on shortening what fails, at most.
    #[arg(long, default_value_t = 300)]
    shrink: u64,
    /// Run a sequence that was printed instead, and print all of its calls.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Another Wasm than the built one.
    #[arg(long)]
    wasm: Option<PathBuf>,
    /// Give the contract's code each of its mutants, within the calls of `--native`: each must be found.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
    /// The Wasm must have a fault, and it must be found within the calls of `--calls`.
    #[arg(long)]
    must_fail: bool,
    /// Write everything as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    // A trap of the contract's code is reported with the call that led to it.
    std::panic::set_hook(Box::new(|_| {}));
    match fuzz(&Options::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn chain(options: &Options) -> Result<Chain, Failure> {
    options.wasm.as_ref().map_or_else(Chain::new, |path| Chain::of_file(path))
}

fn fuzz(options: &Options) -> Res<()> {
    if let Some(path) = &options.replay {
        let script: Script = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?
            .parse()
            .map_err(|error| format!("{}: {error}", path.display()))?;
        return replay(options, &script);
    }
    #[cfg(feature = "mutants")]
    if options.mutants {
        return mutants(options);
    }
    let mut report = serde_json::Map::new();
    report.insert("seed".into(), options.seed.into());
    if options.must_fail {
        let found = campaign(&mut chain(options)?, options, options.calls)?.1;
        let Some(failed) = found else {
            return Err(format!("nothing found in {} calls", options.calls).into());
        };
        return explain(options, &failed);
    }
    if options.native > 0 {
        let (tally, failed) = campaign(&mut Native::new()?, options, options.native)?;
        report.insert("native".into(), table(&tally));
        if let Some(failed) = failed {
            explain(options, &failed)?;
            return Err("a violation on the contract's own code".into());
        }
    }
    if options.calls > 0 || options.raw > 0 {
        let mut machine = chain(options)?;
        if options.raw > 0 {
            let script = Script::draw(options.seed, 400);
            let (tally, log, outcome) = storm(&mut machine, &script, options.raw);
            println!("any bytes to every selector, {} each", options.raw);
            report.insert("raw".into(), table(&tally));
            if let Err(error) = outcome {
                log.iter().for_each(|call| println!("  {call}"));
                return Err(format!("seed {}: {error}", options.seed).into());
            }
        }
        if options.calls > 0 {
            let (tally, failed) = campaign(&mut machine, options, options.calls)?;
            report.insert("wasm".into(), table(&tally));
            if let Some(failed) = failed {
                explain(options, &failed)?;
                return Err("a violation on the Wasm".into());
            }
        }
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&Value::Object(report))?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// A script that fails, and on what.
struct Failed {
    script: Script,
    error: Failure,
    on_chain: bool,
}

/// Runs networks until there were so many calls, or something fails.
fn campaign(machine: &mut dyn Machine, options: &Options, calls: u64) -> Res<(Tally, Option<Failed>)> {
    let started = Instant::now();
    let mut told = started;
    let mut all = Tally::default();
    let mut seed = options.seed;
    while all.calls < calls {
        let script = Script::draw(seed, options.acts);
        let (tally, log, outcome) = run(machine, &script, false);
        all.add(&tally);
        if let Err(error) = outcome {
            println!("{}, seed {seed}, after {} calls in all: {error}", machine.name(), all.calls);
            log.iter().for_each(|call| println!("  {call}"));
            let on_chain = machine.name() != "native";
            return Ok((all, Some(Failed { script, error, on_chain })));
        }
        seed += 1;
        if told.elapsed() > TELL {
            told = Instant::now();
            let per_second = all.calls as f64 / started.elapsed().as_secs_f64();
            eprintln!("  {}: {} of {calls} calls, {per_second:.0} a second", machine.name(), all.calls);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{}: {} calls in {} networks (seeds {} to {}), {seconds:.0} s, no violation",
        machine.name(),
        all.calls,
        all.runs,
        options.seed,
        seed - 1,
    );
    Ok((all, None))
}

/// Prints the table of a campaign; the same as JSON.
fn table(tally: &Tally) -> Value {
    println!(
        "  {:<20} {:>10} {:>10} {:>16}  refused most often for",
        "message", "accepted", "refused", "most ref_time"
    );
    for (name, count) in &tally.messages {
        let mut reasons: Vec<(&String, &u64)> = count.reasons.iter().collect();
        reasons.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let reasons: Vec<String> =
            reasons.iter().take(4).map(|(reason, times)| format!("{reason} {times}")).collect();
        println!(
            "  {name:<20} {:>10} {:>10} {:>16}  {}",
            count.accepted,
            count.refused,
            count.ref_time,
            reasons.join(", ")
        );
    }
    println!("  tasks");
    for (what, times) in &tally.tasks {
        println!("    {what:<30} {times:>10}");
    }
    println!();
    let messages: serde_json::Map<String, Value> = tally
        .messages
        .iter()
        .map(|(name, count)| {
            let value = json!({
                "accepted": count.accepted, "refused": count.refused, "reasons": count.reasons,
                "most_ref_time": count.ref_time,
            });
            ((*name).to_owned(), value)
        })
        .collect();
    json!({ "calls": tally.calls, "networks": tally.runs, "messages": messages, "tasks": tally.tasks })
}

/// Shortens what fails and prints what is left, as a script and as calls.
fn explain(options: &Options, failed: &Failed) -> Res<()> {
    let time = Duration::from_secs(options.shrink);
    let mut native = Native::new()?;
    // What fails on the contract's own code, too, is shortened there: that is a hundred times faster.
    let on_native = run(&mut native, &failed.script, false).2.is_err_and(|error| error.is_violation);
    let mut of_chain = if on_native || !failed.on_chain { None } else { Some(chain(options)?) };
    let machine: &mut dyn Machine = match &mut of_chain {
        Some(chain) => chain,
        None => &mut native,
    };
    eprintln!("shortening {} acts on {}", failed.script.acts.len(), machine.name());
    let same = failed.error.is_violation;
    let mut fails =
        |script: &Script| run(machine, script, false).2.is_err_and(|error| error.is_violation == same);
    let short = shrink(&failed.script, time, &mut fails);
    let (_, log, outcome) = run(machine, &short, true);
    println!("the shortest sequence that fails, {} acts; its calls after the set-up:", short.acts.len());
    let set_up = log.iter().rposition(|line| line.contains("Register")).map_or(0, |at| at + 1);
    let set_up = if log.len() - set_up.min(log.len()) < short.acts.len() { 0 } else { set_up };
    log.iter().skip(set_up).for_each(|call| println!("  {call}"));
    println!("{}", outcome.err().map_or_else(|| "it does not fail again".into(), |error| error.text));
    println!("run it again with --replay and this file:\n{short}");
    Ok(())
}

fn replay(options: &Options, script: &Script) -> Res<()> {
    let mut failed = false;
    let mut of_chain = if options.calls > 0 { Some(chain(options)?) } else { None };
    let mut native = if options.native > 0 { Some(Native::new()?) } else { None };
    let machines = of_chain
        .iter_mut()
        .map(|chain| chain as &mut dyn Machine)
        .chain(native.iter_mut().map(|native| native as &mut dyn Machine));
    for machine in machines {
        println!("on {}", machine.name());
        let (tally, log, outcome) = run(machine, script, true);
        log.iter().for_each(|call| println!("  {call}"));
        match outcome {
            Ok(()) => println!("{} calls, no violation", tally.calls),
            Err(error) => {
                failed = true;
                println!("{error}");
            }
        }
    }
    if failed {
        Err("a violation".into())
    } else {
        Ok(())
    }
}

/// Every mutant of the contract's code must be found.
#[cfg(feature = "mutants")]
fn mutants(options: &Options) -> Res<()> {
    use poq_contract::mutant::{set, Mutant};
    for (name, mutant) in Mutant::ALL {
        set(Some(mutant));
        println!("mutant '{name}'");
        let (_, failed) = campaign(&mut Native::new()?, options, options.native)?;
        let Some(failed) = failed else {
            return Err(format!("mutant '{name}' was not found in {} calls", options.native).into());
        };
        explain(options, &failed)?;
    }
    Ok(())
}
