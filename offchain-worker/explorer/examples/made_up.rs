//! Serves a made-up history, for working on the pages and for their tests: nobody needs a chain to see them.
//!
//! ```text
//! made_up [--listen ADDRESS] [--tasks N] [--open N] [--hostile] [--grow MS] [--away]
//! ```
//! With `--grow` the last blocks come one by one; with `--away` the chain has been silent for an hour; `--tasks 0` is an empty network.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use poq_explorer::{serve, Config};
use poq_index::db::Workers;
use poq_index::synthetic::{birth, identity, Plan, Synthetic};
use poq_index::{Store, Target};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).cloned();
    let number =
        |name: &str, otherwise: u64| value(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let has = |name: &str| words.iter().any(|word| word == name);
    let tasks = number("--tasks", 400);
    let plan = Plan {
        tasks,
        open: number("--open", 6),
        hostile: has("--hostile"),
        every_ms: 3_600_000,
        ..Plan::default()
    };
    let grow = value("--grow").map(|ms| Duration::from_millis(ms.parse().expect("a number")));
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Sqlite(folder.path().join("index.sqlite"));
    let path = target.clone();
    let store = Workers::start("made-up", 1, move || Store::open(&path, &identity())).await.unwrap();
    let mut blocks: Vec<_> = if tasks == 0 { Vec::new() } else { Synthetic::new(plan).collect() };
    // Shifted so that it ends now.
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let later = if grow.is_some() { blocks.split_off(blocks.len().saturating_sub(40)) } else { Vec::new() };
    store
        .run(move |store| {
            store.begin(&birth())?;
            for chunk in blocks.chunks(500) {
                if let Some(last) = chunk.last() {
                    store.append(chunk, last.block)?;
                }
            }
            Ok(())
        })
        .await
        .unwrap();
    let silent = if has("--away") { 3_600_000 } else { 0 };
    let heard = move |store: &mut Store| {
        let head = store.tip().map(|tip| (tip.number, tip.at));
        let error = (silent > 0).then_some("the node cannot be reached");
        store.heard(now() - silent, Some(head.unwrap_or_default()), error)
    };
    store.run(heard).await.unwrap();
    let growing = store.clone();
    tokio::spawn(async move {
        for facts in later {
            tokio::time::sleep(grow.unwrap_or_default()).await;
            growing
                .run(move |store| {
                    let tip = facts.block;
                    store.append(&[facts], tip)?;
                    heard(store)
                })
                .await
                .unwrap();
        }
        loop {
            growing.run(heard).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    let listener = TcpListener::bind(value("--listen").unwrap_or("127.0.0.1:8080".into())).await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    serve(Config::new(target), listener, async {
        tokio::signal::ctrl_c().await.unwrap();
    })
    .await
    .unwrap();
}
