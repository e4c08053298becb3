//! Golden vectors: `vectors/*.json`, which the workers and the simulator read too. See `vectors/README.md`.
//!
//! `hand.json` was computed by hand and is only ever compared with. The others are generated here, deterministically, and
//! compared with what is on disk; with `POQ_BLESS=1` they are written instead.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod common;

use common::{blake2, Rng};
use poq_core::aggregate::{aggregate, Weighted};
use poq_core::commitment::{self, Purpose};
use poq_core::cost::{inference_cost, LatencyRange};
use poq_core::formulas::settlement::{
    audit, Answer, Audit, AuditInput, Conduct, EvaluatorInput, OutputInput, TrustState,
};
use poq_core::kind::Ring;
use poq_core::merit::{self, Comparison, RingEntry};
use poq_core::registry::pool::By;
use poq_core::registry::{class_of, inference_seed, panel_seed, Counts, Stream, CLASSES};
use poq_core::reward::RewardWeights;
use poq_core::units::ONE;
use poq_core::{
    settle, text, trust, Aggregation, Ending, KindParams, MeritRule, Population, Ratio, Score, Settlement,
    SettlementInput, TrustRule,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(format!("{name}.json"))
}

fn read(name: &str) -> Value {
    let path = path(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; POQ_BLESS=1 generates it", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn blessing() -> bool {
    std::env::var_os("POQ_BLESS").is_some_and(|v| v == "1")
}

/// Compares `cases` with the file, or writes them: one case per line, so that a change shows as one.
fn golden(name: &str, cases: Vec<Value>) {
    if blessing() {
        let lines: Vec<String> = cases.iter().map(Value::to_string).collect();
        std::fs::write(path(name), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let on_disk = read(name);
    let on_disk = on_disk.as_array().unwrap();
    for (number, (expected, got)) in on_disk.iter().zip(&cases).enumerate() {
        assert_eq!(expected, got, "{name}.json, case {number}");
    }
    assert_eq!(on_disk.len(), cases.len(), "{name}.json");
}

/// Compares what `answer` says of every hand-computed case of a section with what was computed.
fn by_hand(section: &str, least: usize, answer: impl Fn(&Value) -> Value) {
    let file = read("hand");
    let cases = file["cases"][section].as_array().unwrap();
    assert!(cases.len() >= least, "{section}: cases went missing");
    for case in cases {
        assert_eq!(answer(case), case["expected"], "{section}: {}", case["working"]);
    }
}

fn get<T: DeserializeOwned>(case: &Value, key: &str) -> T {
    serde_json::from_value(case[key].clone()).unwrap_or_else(|e| panic!("{key} of {case}: {e}"))
}

fn amount(case: &Value, key: &str) -> u128 {
    get::<String>(case, key).parse().unwrap()
}

/// Adds the answer to a case.
fn with(mut case: Value, answer: impl Fn(&Value) -> Value) -> Value {
    let expected = answer(&case);
    case["expected"] = expected;
    case
}

// ---- what every file's cases mean

fn ratio_case(case: &Value) -> Value {
    match case["of"].as_str().unwrap() {
        "share" => json!(get::<Ratio>(case, "share").of(amount(case, "amount")).to_string()),
        _ => json!(Ratio::from_fraction(amount(case, "part"), amount(case, "whole"))),
    }
}

/// What the vectors' parameters are where a case says nothing else. Not the shipped defaults: those may change, vectors may not.
fn vector_params() -> KindParams {
    KindParams { trust_initial: Ratio::from_permille(500), ..KindParams::without_auditors() }
}

fn split_case(case: &Value) -> Value {
    let params = KindParams {
        protocol_fee: get(case, "protocol_fee"),
        inference_share: get(case, "inference_share"),
        keeper_fee: amount(case, "keeper_fee"),
        fee_max: amount(case, "fee_max"),
        inference_slot_min: amount(case, "inference_slot_min"),
        evaluator_slot_min: amount(case, "evaluator_slot_min"),
        ..vector_params()
    };
    let split = params.split(amount(case, "fee"), get(case, "outputs"), get(case, "panel"));
    json!(
        split.map(|s| [s.protocol_fee, s.keepers, s.inference_slot, s.evaluator_slot].map(|m| m.to_string()))
    )
}

fn aggregate_case(case: &Value) -> Value {
    let scores: Vec<(Ratio, Ratio)> = get(case, "scores");
    let scores: Vec<Weighted> = scores.into_iter().map(|(score, trust)| Weighted { score, trust }).collect();
    json!(aggregate(get(case, "rule"), &scores))
}

fn cost_case(case: &Value) -> Value {
    json!(inference_cost(
        get(case, "latency_ms"),
        &get::<LatencyRange>(case, "range"),
        get(case, "latency_weight"),
        amount(case, "price"),
        amount(case, "price_cap"),
        get(case, "price_weight"),
    ))
}

fn reward_case(case: &Value) -> Value {
    let weights: RewardWeights = get(case, "weights");
    let net = weights.net(get(case, "quality"), get(case, "cost"));
    let money = weights.outcome(net, amount(case, "slot"), amount(case, "penalty_cap"));
    json!({"net": net, "payout": money.payout.to_string(), "penalty": money.penalty.to_string()})
}

fn merit_case(case: &Value) -> Value {
    let pairs: Vec<(Ratio, Ratio)> = get(case, "comparisons");
    let comparisons: Vec<Comparison> =
        pairs.into_iter().map(|(own, others)| Comparison { own, others }).collect();
    let gain =
        merit::information_gain(&comparisons, get(case, "tolerance"), &get::<Vec<RingEntry>>(case, "ring"));
    let due: i128 = get::<String>(case, "due").parse().unwrap();
    let earned = gain.map(|gain| merit::spread(gain, get(case, "reference"), due, amount(case, "slot")));
    json!({"gain": gain, "merit": earned.map(|e| e.0), "due": earned.map(|e| e.1.to_string())})
}

fn trust_case(case: &Value) -> Value {
    let ratio = |key| get::<Ratio>(case, key);
    match case["of"].as_str().unwrap() {
        "multiplicative" => {
            json!(trust::multiplicative(ratio("trust"), ratio("deviation"), ratio("eta"), ratio("floor")))
        }
        "centred" => json!(trust::centred(
            ratio("trust"),
            ratio("deviation"),
            ratio("median_deviation"),
            ratio("up"),
            ratio("down"),
            ratio("floor")
        )),
        "relative_merit" => {
            json!(trust::relative_merit(
                ratio("trust"),
                get(case, "own"),
                get(case, "population"),
                ratio("floor")
            ))
        }
        "moving_average" => {
            json!(trust::moving_average(get(case, "average"), get(case, "gain"), ratio("rate")))
        }
        _ => json!(trust::starting_average(ratio("trust"), get(case, "population"))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(case: &Value, key: &str) -> [u8; 32] {
    let text: String = get(case, key);
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
    }
    bytes
}

/// The heaviest weight that a pick refuses.
fn refused(accepts: impl Fn(Ratio) -> bool) -> u32 {
    let (mut low, mut high) = (0, ONE);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if accepts(Ratio::from_ppb(middle)) {
            high = middle - 1;
        } else {
            low = middle;
        }
    }
    low
}

fn draw_case(case: &Value) -> Value {
    match case["of"].as_str().unwrap() {
        "class" => json!(class_of(get(case, "weight"))),
        "pick" => {
            let counts = Counts(get::<Vec<u32>>(case, "counts").try_into().unwrap());
            let by = if case["by"] == "weight" { By::Weight } else { By::Square };
            let pick = counts.pick(amount(case, "random"), by);
            json!(pick.map(|p| [u32::from(p.class), p.index, refused(|weight| p.accepts(weight))]))
        }
        _ => {
            let mut stream = Stream::new(unhex(case, "seed"), get(case, "round"));
            json!((0..get(case, "count")).map(|_: u32| stream.next(blake2).to_string()).collect::<Vec<_>>())
        }
    }
}

fn commitment_case(case: &Value) -> Value {
    let bytes = |key| unhex(case, key);
    let network = || bytes("network");
    let task = || get(case, "task");
    let node = || get(case, "node");
    let preimage = match case["of"].as_str().unwrap() {
        "network" => commitment::network(&bytes("genesis"), &bytes("contract")),
        "output" => commitment::output(&network(), task(), node(), &bytes("output_hash"), &bytes("salt")),
        "scores" => commitment::scores(
            &network(),
            task(),
            node(),
            &get::<Vec<Score>>(case, "scores"),
            &bytes("report_hash"),
            &bytes("salt"),
        ),
        "reference" => {
            commitment::reference(&network(), &bytes("auditor"), &bytes("reference_hash"), &bytes("salt"))
        }
        "secret" => commitment::secret(&network(), &bytes("requester"), &bytes("secret")),
        "request_secret" => {
            commitment::request_secret(&bytes("key"), &network(), &bytes("reference_commitment"))
        }
        "panel_seed" => {
            let salts: Vec<Value> = get(case, "salts");
            let salts: Vec<_> = salts.iter().map(|salt| unhex(&json!({"salt": salt}), "salt")).collect();
            panel_seed(&network(), task(), &bytes("secret"), &salts)
        }
        "inference_seed" => inference_seed(&network(), task(), &bytes("secret_hash")),
        _ => commitment::salt(
            &bytes("secret"),
            &network(),
            task(),
            node(),
            if case["purpose"] == "output" { Purpose::Output } else { Purpose::Scores },
        ),
    };
    json!({"preimage": hex(&preimage), "hash": hex(&blake2(&preimage))})
}

/// A case of `settlement.json`, as the workers and the simulator read it.
#[derive(Serialize, Deserialize)]
struct SettlementCase {
    name: String,
    params: KindParams,
    input: SettlementInput,
    expected: Option<Settlement>,
}

/// A case of `audit.json`.
#[derive(Serialize, Deserialize)]
struct AuditCase {
    name: String,
    params: KindParams,
    input: AuditInput,
    expected: Audit,
}

// ---- by hand

#[test]
fn hand_computed_functions() {
    by_hand("ratio", 6, ratio_case);
    by_hand("split", 4, split_case);
    by_hand("aggregate", 8, aggregate_case);
    by_hand("cost", 3, cost_case);
    by_hand("reward", 4, reward_case);
    by_hand("merit", 4, merit_case);
    by_hand("trust", 10, trust_case);
    by_hand("draw", 6, draw_case);
}

/// The parameters of a hand-computed case.
fn changed(case: &Value) -> KindParams {
    let mut params: Map<String, Value> = get(&read("hand"), "params");
    params.extend(get::<Map<String, Value>>(case, "change"));
    let params: KindParams = serde_json::from_value(Value::Object(params)).unwrap();
    assert_eq!(params.validate(), Ok(()));
    params
}

#[test]
fn hand_computed_settlements() {
    by_hand("settlement", 19, |case| json!(settle(&changed(case), &get(case, "input"))));
}

#[test]
fn hand_computed_audits() {
    by_hand("audit", 5, |case| json!(audit(&changed(case), &get(case, "input"))));
}

// ---- generated

fn any_ratio(rng: &mut Rng) -> Ratio {
    Ratio::from_ppb((rng.next() % u64::from(ONE + 1)) as u32)
}

fn rules() -> [Aggregation; 5] {
    [
        Aggregation::Mean,
        Aggregation::Median,
        Aggregation::TrimmedMean { trim: Ratio::from_permille(200) },
        Aggregation::TrustWeightedMean,
        Aggregation::TrustWeightedMedian,
    ]
}

#[test]
fn aggregations() {
    let mut rng = Rng(1);
    let mut cases = Vec::new();
    for rule in rules() {
        for len in [0, 1, 2, 3, 4, 5, 7, 10, 15] {
            let mut scores: Vec<(Ratio, Ratio)> =
                (0..len).map(|_| (any_ratio(&mut rng), any_ratio(&mut rng))).collect();
            // Ties, in scores and in trust, and one without any.
            if len > 2 {
                scores[1].0 = scores[0].0;
                scores[2].1 = scores[0].1;
            }
            if len > 4 {
                scores[3].1 = Ratio::ZERO;
            }
            cases.push(with(json!({"rule": rule, "scores": scores}), aggregate_case));
        }
        let nobody = [(Ratio::ONE, Ratio::ZERO), (Ratio::ZERO, Ratio::ZERO)];
        cases.push(with(json!({"rule": rule, "scores": nobody}), aggregate_case));
    }
    golden("aggregate", cases);
}

#[test]
fn costs() {
    let mut rng = Rng(2);
    let mut cases = Vec::new();
    for i in 0..40u32 {
        let min_ms = rng.next() % 5_000;
        let range = LatencyRange { min_ms, max_ms: min_ms + 1 + rng.next() % 60_000 };
        let latency_weight = any_ratio(&mut rng);
        let case = json!({
            "latency_ms": if i.is_multiple_of(8) { u64::MAX >> 12 } else { rng.next() % 70_000 },
            "range": range,
            "latency_weight": latency_weight,
            "price": (u128::from(rng.next()) << (i * 3 / 2)).to_string(),
            "price_cap": (u128::from(rng.next() | 1) << (i * 3 / 2)).to_string(),
            "price_weight": any_ratio(&mut rng).min(latency_weight.complement()),
        });
        cases.push(with(case, cost_case));
    }
    golden("cost", cases);
}

#[test]
fn rewards() {
    let mut rng = Rng(3);
    let mut cases = Vec::new();
    for i in 0..40u32 {
        let weights =
            RewardWeights { alpha: any_ratio(&mut rng).max(Ratio::from_ppb(1)), beta: any_ratio(&mut rng) };
        let case = json!({
            "weights": weights,
            "quality": any_ratio(&mut rng),
            "cost": any_ratio(&mut rng),
            "slot": (u128::from(rng.next()) << i).to_string(),
            "penalty_cap": (u128::from(rng.next()) >> i).to_string(),
        });
        cases.push(with(case, reward_case));
    }
    golden("reward", cases);
}

#[test]
fn merits() {
    let mut rng = Rng(4);
    let mut cases = Vec::new();
    for i in 0..40 {
        let comparisons: Vec<(Ratio, Ratio)> =
            (0..i % 5).map(|_| (any_ratio(&mut rng), any_ratio(&mut rng))).collect();
        let ring: Vec<RingEntry> = (0..3 + i % 14)
            .map(|_| RingEntry { settled_at: rng.next() % 9, quality: any_ratio(&mut rng) })
            .collect();
        let case = json!({
            "comparisons": comparisons,
            "tolerance": Ratio::from_ppb(any_ratio(&mut rng).ppb() / 10),
            "ring": ring,
            "reference": Ratio::from_ppb(any_ratio(&mut rng).ppb() / 4 + 1),
            "due": (i128::from(rng.next() % 20_000) - 8_000).to_string(),
            "slot": (1 + rng.next() % 1_000).to_string(),
        });
        cases.push(with(case, merit_case));
    }
    golden("merit", cases);
}

#[test]
fn trusts() {
    let mut rng = Rng(5);
    let mut cases = Vec::new();
    for i in 0..12 {
        let floor = Ratio::from_permille(50);
        let trust = any_ratio(&mut rng).max(floor);
        let (a, b, c, d) =
            (any_ratio(&mut rng), any_ratio(&mut rng), any_ratio(&mut rng), any_ratio(&mut rng));
        let mut signed = || any_ratio(&mut rng).signed() - any_ratio(&mut rng).signed();
        let (gain, average) = (signed(), signed());
        let population = if i % 3 == 0 { average } else { average.abs() };
        cases.extend([
            json!({"of": "multiplicative", "trust": trust, "deviation": a, "eta": b, "floor": floor}),
            json!({"of": "centred", "trust": trust, "deviation": a, "median_deviation": b, "up": c.min(d),
                "down": c.max(d), "floor": floor}),
            json!({"of": "relative_merit", "trust": trust, "own": gain, "population": population, "floor": floor}),
            json!({"of": "moving_average", "average": average, "gain": gain, "rate": c}),
            json!({"of": "starting_average", "trust": trust, "population": population}),
        ]);
    }
    golden("trust", cases.into_iter().map(|case| with(case, trust_case)).collect());
}

#[test]
fn draws() {
    let mut rng = Rng(6);
    let mut cases = Vec::new();
    for ppb in [0, 1, 15_258, 30_517, 30_518, 61_035, 61_036, 500_000_000, 500_000_001, ONE] {
        cases.push(json!({"of": "class", "weight": ppb}));
    }
    cases.push(json!({"of": "pick", "by": "weight", "counts": vec![0; CLASSES], "random": "1"}));
    for i in 0..20 {
        let counts: Vec<u64> = (0..CLASSES).map(|c| rng.next() % (1 << (c * i / 10).min(31))).collect();
        let random = u128::from(rng.next()) << 64 | u128::from(rng.next());
        for by in ["weight", "square"] {
            cases.push(json!({"of": "pick", "by": by, "counts": counts, "random": random.to_string()}));
        }
    }
    for byte in [0, 7, 255] {
        for round in [0, 1] {
            cases.push(json!({"of": "stream", "seed": hex(&[byte; 32]), "round": round, "count": 5}));
        }
    }
    golden("draw", cases.into_iter().map(|case| with(case, draw_case)).collect());
}

fn text_case(case: &Value) -> Value {
    let (reference, output): (String, String) = (get(case, "reference"), get(case, "output"));
    json!(text::token_f1(reference.as_bytes(), output.as_bytes()))
}

#[test]
fn texts() {
    let mut cases: Vec<(String, String)> = [
        ("Denver Broncos", "Denver Broncos"),
        ("Denver Broncos", "The Denver Broncos won."),
        ("the Amazon rainforest", "It's the (Amazon) rain-forest!"),
        ("a an the", "a an the"),
        ("", ""),
        ("", "something"),
        ("308", "308 308 308"),
        ("one one two", "one two two"),
        ("tabs\tand\u{b}old\u{1c}separators", "tabs and old separators"),
        ("UPPER lower", "upper LOWER"),
        ("snake_case", "snakecase"),
        ("x", "y"),
        ("caf\u{e9}", "caf\u{e9} noir"),
    ]
    .map(|(a, b)| (a.to_string(), b.to_string()))
    .to_vec();
    let mut rng = Rng(10);
    let words = ["a", "The", "an", "cat", "sat", "on", "mat,", "dog's", "42", "--", "Cat"];
    for _ in 0..40 {
        let mut text = || {
            let count = rng.next() % 12;
            let words: Vec<&str> = (0..count).map(|_| words[rng.next() as usize % words.len()]).collect();
            words.join([" ", "  ", "\n", " "][rng.next() as usize % 4])
        };
        cases.push((text(), text()));
    }
    let case = |(reference, output)| with(json!({"reference": reference, "output": output}), text_case);
    golden("text", cases.into_iter().map(case).collect());
}

#[test]
fn commitments() {
    let mut rng = Rng(7);
    let mut hash = || hex(&std::array::from_fn::<u8, 32, _>(|_| rng.next() as u8));
    let network = hash();
    let q = |permille| Score::of(Ratio::from_permille(permille));
    let (unavailable, no_input) = (Score::UNAVAILABLE, Score::NO_INPUT);
    let mut cases = vec![
        json!({"of": "network", "genesis": hash(), "contract": hash()}),
        json!({"of": "secret", "network": network, "requester": hash(), "secret": hash()}),
        json!({"of": "request_secret", "key": hash(), "network": network, "reference_commitment": hash()}),
    ];
    for (task, node) in [(1u64, 1u32), (1, 2), (2, 1), (u64::MAX, u32::MAX)] {
        cases.push(
            json!({"of": "output", "network": network, "task": task, "node": node, "output_hash": hash(),
            "salt": hash()}),
        );
        for scores in [
            vec![],
            vec![q(0)],
            vec![unavailable],
            vec![no_input; 2],
            vec![q(1000), q(500)],
            vec![q(1), unavailable, q(999), q(0)],
        ] {
            cases.push(
                json!({"of": "scores", "network": network, "task": task, "node": node, "scores": scores,
                "report_hash": hash(), "salt": hash()}),
            );
        }
        for purpose in ["output", "scores"] {
            cases
                .push(json!({"of": "salt", "secret": hash(), "network": network, "task": task, "node": node,
                "purpose": purpose}));
        }
        cases
            .push(json!({"of": "reference", "network": network, "auditor": hash(), "reference_hash": hash(),
            "salt": hash()}));
        for salts in 0..=4 {
            let salts: Vec<String> = (0..salts).map(|_| hash()).collect();
            cases.push(
                json!({"of": "panel_seed", "network": network, "task": task, "secret": hash(), "salts": salts}),
            );
        }
        cases.push(json!({"of": "inference_seed", "network": network, "task": task, "secret_hash": hash()}));
    }
    golden("commitments", cases.into_iter().map(|case| with(case, commitment_case)).collect());
}

/// What the kind remembers: some of a ring, some of averages.
fn population(rng: &mut Rng, number: usize) -> Population {
    let mut ring = Ring::default();
    for entry in &mut ring.entries {
        if !rng.next().is_multiple_of(4) {
            *entry = RingEntry { settled_at: 1 + rng.next() % 9_999, quality: any_ratio(rng) };
        }
    }
    Population {
        ring,
        reference: Ratio::from_ppb(any_ratio(rng).ppb() / 5),
        gain_average: if number.is_multiple_of(5) { 0 } else { any_ratio(rng).signed() / 5 },
    }
}

/// Scores of somebody who looks at the outputs, with noise; of one who says the opposite.
fn scores(rng: &mut Rng, truth: &[f64], behaviour: u64) -> Vec<Score> {
    let mut score = |q: &f64| match (behaviour, rng.next() % 9) {
        (_, 0) => Score::UNAVAILABLE,
        (2, _) => Score::of(Ratio::from_f64(1.0 - q)),
        _ => Score::of(Ratio::from_f64(q + 0.1 * rng.normal())),
    };
    truth.iter().map(&mut score).collect()
}

/// A task that something happens in: honest noise, an outlier, duties missed, outputs and inputs withheld.
fn task(rng: &mut Rng, number: usize, ending: Ending) -> SettlementInput {
    let (n, k) = (1 + number % 4, [3, 5, 7, 2, 15, 4][number % 6]);
    let outputs: Vec<OutputInput> = (0..n)
        .map(|_| OutputInput {
            answer: match (ending, rng.next() % 7) {
                (Ending::Undelivered, 0..=3) | (_, 0) => Answer::Declined,
                (Ending::Undelivered, _) | (_, 1) => Answer::Missed,
                (Ending::Unopened, 2..=4) => Answer::Unopened,
                _ => Answer::Delivered { latency_ms: rng.next() % 80_000 },
            },
            price: u128::from(rng.next() % 2_000_000_000_000),
        })
        .collect();
    let truth: Vec<f64> = (0..n).map(|_| rng.uniform()).collect();
    // One task in eight is one whose input most could not get.
    let gone = number % 8 == 7;
    let panel = (0..k)
        .map(|_| {
            let conduct = match (ending, rng.next() % 12) {
                (Ending::Consensus, 0) => Conduct::Missed,
                (Ending::Consensus, 1) => Conduct::Unrevealed,
                (Ending::Consensus, 3) => Conduct::Revealed(vec![Score::NO_INPUT; n]),
                (Ending::Consensus, 4..=9) if gone => Conduct::Revealed(vec![Score::NO_INPUT; n]),
                (Ending::Consensus, behaviour) => Conduct::Revealed(scores(rng, &truth, behaviour)),
                (Ending::BelowQuorum, 0..=3) => Conduct::Waited,
                (Ending::BelowQuorum, 4..=9) => Conduct::Missed,
                _ => Conduct::Vacant,
            };
            let committed = !matches!(conduct, Conduct::Missed | Conduct::Vacant);
            EvaluatorInput {
                conduct,
                latency_ms: if committed { rng.next() % 70_000 } else { 0 },
                trust: any_ratio(rng).max(Ratio::from_permille(50)),
                due: i128::from(rng.next() % 8_000_000_000_000) - 2_000_000_000_000,
            }
        })
        .collect();
    SettlementInput {
        ending,
        fee: 3_000_000_000_000 + u128::from(rng.next() % 1_000_000_000_000),
        keepers: u128::from(rng.next() % 4) * 5_000_000_000,
        early: number % 3 == 1,
        inline: number % 4 == 2,
        outputs,
        panel,
        population: population(rng, number),
    }
}

fn merits_and_trusts() -> Vec<(MeritRule, TrustRule)> {
    let merits = [
        MeritRule::Closeness,
        MeritRule::Information { step: Ratio::from_permille(20), floor: Ratio::from_permille(10) },
    ];
    let trusts = [
        TrustRule::Multiplicative { eta: Ratio::from_permille(100) },
        TrustRule::Centred { up: Ratio::from_permille(100), down: Ratio::from_permille(500) },
        TrustRule::RelativeMerit { rate: Ratio::from_permille(50) },
        TrustRule::Anchored { rate: Ratio::from_permille(200) },
    ];
    merits.into_iter().flat_map(|merit| trusts.map(|trust| (merit, trust))).collect()
}

#[test]
fn settlements() {
    let mut rng = Rng(8);
    let mut cases = Vec::new();
    for aggregation in rules() {
        for (merit, trust) in merits_and_trusts() {
            let number = cases.len();
            let params = KindParams {
                aggregation,
                merit,
                trust,
                // A fifth of the cases scale by something else than one, and slash outliers early.
                evaluator_weights: RewardWeights {
                    alpha: if number % 5 == 1 { Ratio::from_ppb(777_777_777) } else { Ratio::ONE },
                    beta: Ratio::from_permille(100),
                },
                outlier_bound: Ratio::from_permille(if number % 5 == 2 { 250 } else { 600 }),
                quality_floor: Ratio::from_permille(if number % 3 == 0 { 500 } else { 100 }),
                ..vector_params()
            };
            let input = task(&mut rng, number, Ending::Consensus);
            let expected = settle(&params, &input);
            assert!(expected.is_some());
            let name = format!("{number}: {aggregation:?}, {merit:?}, {trust:?}");
            cases.push(SettlementCase { name, params, input, expected });
        }
    }
    // What the clock ends.
    for ending in
        [Ending::Undelivered, Ending::Unopened, Ending::NoSecret, Ending::NoPanel, Ending::BelowQuorum]
    {
        for _ in 0..4 {
            let (number, params) = (cases.len(), vector_params());
            let input = task(&mut rng, number, ending);
            let expected = settle(&params, &input);
            assert!(expected.is_some());
            cases.push(SettlementCase { name: format!("{number}: {ending:?}"), params, input, expected });
        }
    }
    // Fees that do not fill the slots, and one too large.
    for (name, fee) in [("too small a fee", 9_999), ("too large a fee", vector_params().fee_max + 1)] {
        let (params, input) =
            (vector_params(), SettlementInput { fee, ..task(&mut rng, 1, Ending::Consensus) });
        let expected = settle(&params, &input);
        assert!(expected.is_none());
        cases.push(SettlementCase { name: name.into(), params, input, expected });
    }
    let ended = |ending| {
        let is = move |c: &&SettlementCase| c.expected.as_ref().is_some_and(|s| s.ending == ending);
        cases.iter().filter(is)
    };
    for (ending, least) in [(Ending::Consensus, 20), (Ending::BelowQuorum, 5), (Ending::InputUnavailable, 3)]
    {
        assert!(ended(ending).count() >= least, "{ending:?}: {}", ended(ending).count());
    }
    golden("settlement", cases.iter().map(|case| json!(case)).collect());
}

#[test]
fn audits() {
    let mut rng = Rng(9);
    let mut cases = Vec::new();
    for (merit, trust) in merits_and_trusts() {
        for _ in 0..3 {
            let number = cases.len();
            let params = KindParams { merit, trust, audit_ms: 60_000, ..vector_params() };
            let (n, k) = (1 + number % 4, [3, 5, 7, 2][number % 4]);
            let world: Vec<f64> = (0..n).map(|_| rng.uniform()).collect();
            let input = AuditInput {
                truth: world
                    .iter()
                    .map(|q| (!rng.next().is_multiple_of(4)).then(|| Ratio::from_f64(*q)))
                    .collect(),
                scores: (0..k)
                    .map(|_| match rng.next() % 8 {
                        0 => None,
                        1 => Some(vec![Score::NO_INPUT; n]),
                        behaviour => Some(scores(&mut rng, &world, behaviour)),
                    })
                    .collect(),
                panel: (0..k)
                    .map(|_| TrustState {
                        trust: any_ratio(&mut rng).max(Ratio::from_permille(50)),
                        gain_average: match rng.next() % 4 {
                            0 => 0,
                            _ => any_ratio(&mut rng).signed() / 5 - 50_000_000,
                        },
                    })
                    .collect(),
                population: population(&mut rng, number),
            };
            let expected = audit(&params, &input);
            let name = format!("{number}: {merit:?}, {trust:?}");
            cases.push(AuditCase { name, params, input, expected });
        }
    }
    golden("audit", cases.iter().map(|case| json!(case)).collect());
}

/// What is on disk reads back as the types that the other programs use, and settles to the same.
#[test]
fn settlements_from_disk() {
    if blessing() {
        return; // the file is being written
    }
    let cases: Vec<SettlementCase> = serde_json::from_value(read("settlement")).unwrap();
    assert_eq!(cases.len(), 62);
    for case in cases {
        assert_eq!(case.params.validate(), Ok(()));
        assert_eq!(settle(&case.params, &case.input), case.expected, "{}", case.name);
    }
    let cases: Vec<AuditCase> = serde_json::from_value(read("audit")).unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        assert_eq!(audit(&case.params, &case.input), case.expected, "{}", case.name);
    }
}

#[test]
fn json_refuses_what_is_out_of_range() {
    assert!(serde_json::from_value::<Ratio>(json!(ONE)).is_ok());
    assert!(serde_json::from_value::<Ratio>(json!(ONE + 1)).is_err());
    assert!(serde_json::from_value::<Score>(json!(ONE + 1)).is_err());
    assert_eq!(serde_json::from_value::<Score>(Value::Null).unwrap(), Score::UNAVAILABLE);
    assert_eq!(serde_json::from_value::<Score>(json!("no_input")).unwrap(), Score::NO_INPUT);
    let output = OutputInput { answer: Answer::Missed, price: u128::MAX };
    let text = json!({"answer": "missed", "price": u128::MAX.to_string()});
    assert_eq!(json!(output), text);
    assert_eq!(serde_json::from_value::<OutputInput>(text).unwrap(), output);
    assert!(serde_json::from_value::<OutputInput>(json!({"answer": "missed", "price": "-1"})).is_err());
}
