//! Measures an index: how fast events are written, how long questions take at different sizes, how fast settlements are computed again.
//! The histories are made up.

use poq_index::db::{Access, Conn, Target};
use poq_index::read::{HistoryFilter, LineFilter, NodeFilter, Reads, TaskFilter};
use poq_index::replay::replay;
use poq_index::synthetic::{birth, identity, Plan, Synthetic};
use poq_index::{Error, Result, Store};
use serde_json::{json, Value};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const HELP: &str = "poq-bench-index [--json FILE] [--sizes N,N,…] [--replay N] [--db FILE|URL]

Writes made-up histories of 10, 1,000 and 100,000 tasks (--sizes) into SQLite, in a temporary folder, or into an EMPTY database (--db, of
one size then); asks each every question of the read API a few hundred times; computes 10,000 settlements (--replay) again.";

struct Asked {
    json: Option<PathBuf>,
    sizes: Vec<u64>,
    replayed: u64,
    db: Option<Target>,
}

fn arguments() -> std::result::Result<Asked, String> {
    let mut asked = Asked { json: None, sizes: vec![10, 1_000, 100_000], replayed: 10_000, db: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &str| text.replace('_', "").parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match word.as_str() {
            "--json" => asked.json = Some(value()?.into()),
            "--sizes" => {
                asked.sizes = value()?.split(',').map(number).collect::<std::result::Result<_, _>>()?
            }
            "--replay" => asked.replayed = number(&value()?)?,
            "--db" => asked.db = Some(value()?.parse().map_err(|e: Error| e.to_string())?),
            _ => return Err(HELP.into()),
        }
    }
    if asked.db.is_some() && asked.sizes.len() != 1 {
        asked.sizes = vec![1_000];
    }
    Ok(asked)
}

fn main() -> std::process::ExitCode {
    let asked = match arguments() {
        Ok(asked) => asked,
        Err(text) => {
            eprintln!("{text}");
            return std::process::ExitCode::from(2);
        }
    };
    match measure(&asked) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn plan(tasks: u64) -> Plan {
    // Enough nodes that nobody is always busy; two groups of tasks an hour.
    let nodes = u32::try_from((tasks / 100).clamp(12, 400)).unwrap_or(12);
    Plan { tasks, inference: nodes, evaluators: nodes * 2, group: 16, every_ms: 1_800_000, ..Plan::default() }
}

fn measure(asked: &Asked) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("poq-bench-index-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|error| Error::Open { database: folder.display().to_string(), reason: error.to_string() })?;
    let result = measure_in(asked, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let report = result?;
    if let Some(path) = &asked.json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        std::fs::write(path, text).map_err(|error| Error::Open {
            database: path.display().to_string(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

fn measure_in(asked: &Asked, folder: &std::path::Path) -> Result<Value> {
    let mut sizes = Vec::new();
    for tasks in &asked.sizes {
        let target =
            asked.db.clone().unwrap_or_else(|| Target::Sqlite(folder.join(format!("{tasks}.sqlite"))));
        sizes.push(one_size(&target, *tasks)?);
    }
    let target = Target::Sqlite(folder.join("replay.sqlite"));
    write(&target, asked.replayed)?;
    let mut conn = Conn::open(&target, Access::Read)?;
    let begun = Instant::now();
    let (report, _) = replay(&mut conn, &identity(), 1, |_, _| {})?;
    let took = begun.elapsed();
    println!(
        "replay: {} settlements and {} references in {:.2} s, {} differences",
        report.settlements,
        report.references,
        took.as_secs_f64(),
        report.different
    );
    Ok(json!({
        "sizes": sizes,
        "replay": {
            "settlements": report.settlements,
            "references": report.references,
            "seconds": took.as_secs_f64(),
            "differences": report.different,
        },
    }))
}

/// What writing a history took: events, the time in the index, the time to make it up.
fn write(target: &Target, tasks: u64) -> Result<(u64, Duration)> {
    let mut store = Store::open(target, &identity())?;
    store.begin(&birth())?;
    let (mut events, mut took) = (0, Duration::ZERO);
    let mut history = Synthetic::new(plan(tasks)).peekable();
    while history.peek().is_some() {
        // As many blocks as the follower writes at a time.
        let batch: Vec<_> = history.by_ref().take(512).collect();
        let Some(tip) = batch.last().map(|facts| facts.block) else { break };
        events += batch.iter().map(|facts| facts.events.len() as u64).sum::<u64>();
        // Decoding what the chain said is part of it.
        let begun = Instant::now();
        let decoded: Vec<_> = batch.into_iter().map(decoded_again).collect();
        store.append(&decoded, tip)?;
        took += begun.elapsed();
    }
    Ok((events, took))
}

fn decoded_again(mut facts: poq_index::ledger::Facts) -> poq_index::ledger::Facts {
    let contract = identity().contract;
    for fact in &mut facts.events {
        let place = (fact.extrinsic, fact.index);
        let (topics, data) = (std::mem::take(&mut fact.topics), std::mem::take(&mut fact.data));
        *fact = poq_index::ledger::Fact::decode(&contract, fact.contract, place, topics, data);
    }
    facts
}

type Question<'a> = (&'a str, Box<dyn Fn(&mut Conn, u64) -> Result<usize> + 'a>);

fn one_size(target: &Target, tasks: u64) -> Result<Value> {
    let (events, took) = write(target, tasks)?;
    let rate = events as f64 / took.as_secs_f64();
    println!("{tasks} tasks: {events} events written in {:.2} s, {rate:.0} a second", took.as_secs_f64());
    let mut conn = Conn::open(target, Access::Read)?;
    let reads = Reads::of(&mut conn, "bench")?;
    let reads = &reads;
    let requester = |n: u64| Synthetic::account("requester", u32::try_from(n % 7).unwrap_or(0)).to_string();
    let owner =
        |n: u64| Synthetic::account("owner of nodes", u32::try_from(n % 9 + 1).unwrap_or(1)).to_string();
    let size = |value: &dyn erased::Json| value.size();
    let pick = move |n: u64| n.wrapping_mul(2_654_435_761) % tasks.max(1) + 1;
    let node = |n: u64| u32::try_from(n % 24 + 1).unwrap_or(1);
    let questions: Vec<Question<'_>> = vec![
        ("overview", Box::new(|c, _| Ok(size(&reads.overview(c, 90)?)))),
        ("leaderboard", Box::new(|c, _| Ok(size(&reads.leaderboard(c)?)))),
        (
            "tasks",
            Box::new(|c, n| {
                let filter = TaskFilter { before: Some(pick(n)), ..TaskFilter::default() };
                Ok(size(&reads.tasks(c, &filter)?))
            }),
        ),
        (
            "tasks of a requester",
            Box::new(move |c, n| {
                let filter = TaskFilter {
                    requester: Some(requester(n)),
                    before: Some(pick(n)),
                    ..TaskFilter::default()
                };
                Ok(size(&reads.tasks(c, &filter)?))
            }),
        ),
        (
            "open tasks",
            Box::new(|c, _| {
                let filter = TaskFilter { state: Some("open".into()), ..TaskFilter::default() };
                Ok(size(&reads.tasks(c, &filter)?))
            }),
        ),
        (
            "tasks that ended otherwise",
            Box::new(|c, n| {
                let filter = TaskFilter {
                    state: Some("refunded".into()),
                    before: Some(pick(n)),
                    ..TaskFilter::default()
                };
                Ok(size(&reads.tasks(c, &filter)?))
            }),
        ),
        ("a task", Box::new(|c, n| Ok(size(&reads.task_detail(c, pick(n))?)))),
        (
            "a task explained",
            Box::new(|c, n| match reads.explanation(c, pick(n)) {
                Ok(explanation) => Ok(size(&explanation)),
                Err(Error::Absent(_)) => Ok(0),
                Err(error) => Err(error),
            }),
        ),
        ("nodes", Box::new(|c, _| Ok(size(&reads.nodes(c, &NodeFilter::default())?)))),
        ("a node", Box::new(move |c, n| Ok(size(&reads.node_detail(c, node(n))?)))),
        (
            "a node's tasks",
            Box::new(move |c, n| {
                let filter = LineFilter { before: Some(pick(n)), ..LineFilter::default() };
                Ok(size(&reads.lines(c, node(n), &filter)?))
            }),
        ),
        (
            "a node's unpaid tasks",
            Box::new(move |c, n| {
                let filter = LineFilter { unpaid: Some(true), ..LineFilter::default() };
                Ok(size(&reads.lines(c, node(n), &filter)?))
            }),
        ),
        ("an account", Box::new(move |c, n| Ok(size(&reads.account_detail(c, &owner(n))?)))),
        (
            "an account's history",
            Box::new(move |c, n| Ok(size(&reads.history(c, &owner(n), &HistoryFilter::default())?))),
        ),
        ("a requester's account", Box::new(move |c, n| Ok(size(&reads.account_detail(c, &requester(n))?)))),
        ("kinds", Box::new(|c, _| Ok(size(&reads.kinds(c)?)))),
        ("changes", Box::new(|c, _| Ok(size(&reads.changes(c, false)?)))),
        ("pools", Box::new(|c, _| Ok(size(&reads.pools(c)?)))),
        ("search for a name", Box::new(|c, _| Ok(size(&reads.search(c, "llama")?)))),
        ("search for a number", Box::new(|c, n| Ok(size(&reads.search(c, &pick(n).to_string())?)))),
    ];
    let mut worst = Duration::ZERO;
    let mut measured = serde_json::Map::new();
    for (name, question) in &questions {
        let mut times = Vec::with_capacity(300);
        for n in 0..300 {
            let begun = Instant::now();
            question(&mut conn, n)?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
        let (middle, p99) = (at(500), at(990));
        worst = worst.max(p99);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("  {name:<28} p50 {:>8.3} ms   p99 {:>8.3} ms", ms(middle), ms(p99));
        measured.insert((*name).to_owned(), json!({ "p50_ms": ms(middle), "p99_ms": ms(p99) }));
    }
    println!("  slowest p99: {:.3} ms", worst.as_secs_f64() * 1e3);
    Ok(json!({
        "tasks": tasks,
        "events": events,
        "events_per_second": rate,
        "questions": measured,
        "slowest_p99_ms": worst.as_secs_f64() * 1e3,
    }))
}

/// Answers as they are sent: writing them is part of the time.
mod erased {
    pub(crate) trait Json {
        fn size(&self) -> usize;
    }

    impl<T: serde::Serialize> Json for T {
        fn size(&self) -> usize {
            serde_json::to_vec(self).map_or(0, |text| text.len())
        }
    }
}
