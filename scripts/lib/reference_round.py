"""A Proof-of-Quality round in NumPy: the straightforward version that the simulator is timed against.

The arithmetic is that of contracts/poq-core, in floats: consensus, cost, reward, merit, trust, gold tasks, slashing. `check`
compares it with poq-core's golden settlements, so that what is timed is the same computation.

    python reference_round.py check contracts/poq-core/tests/vectors/settlement.json
    python reference_round.py time ROUNDS     # seconds of processor time for so many rounds of the papers' setting
"""

import json
import sys
import time

import numpy as np

ONE = 1e9
RING_MIN = 4


def weighted_median(scores, trust):
    order = np.lexsort((trust, scores))
    scores, trust = scores[order], trust[order]
    scores, trust = scores[trust > 0], trust[trust > 0]
    below = np.cumsum(trust)
    half = below[-1] / 2
    at = np.searchsorted(below, half, side="left")
    if abs(below[at] - half) < 1e-15 and at + 1 < len(scores):
        return (scores[at] + scores[at + 1]) / 2
    return scores[at]


def aggregate(rule, scores, trust):
    """The consensus of `scores` (not empty)."""
    name, options = (rule, {}) if isinstance(rule, str) else next(iter(rule.items()))
    if name.startswith("trust_weighted") and trust.sum() == 0:
        name = "mean" if name.endswith("mean") else "median"
    if name == "mean":
        return scores.mean()
    if name == "median":
        return np.median(scores)
    if name == "trimmed_mean":
        drop = min(int(options["trim"] * len(scores) + 1e-9), (len(scores) - 1) // 2)
        return np.sort(scores)[drop : len(scores) - drop].mean()
    if name == "trust_weighted_mean":
        return (scores * trust).sum() / trust.sum()
    return weighted_median(scores, trust)


def latency_cost(latency, low, high):
    return np.clip((latency - low) / (high - low), 0.0, 1.0)


def outcome(net, alpha, beta, slot, cap):
    """(payout, penalty) of a net reward."""
    if net >= 0:
        return min(1.0, net / alpha) * slot, 0.0
    return 0.0, min(1.0, -net / beta) * cap if beta > 0 else 0.0


def split(params, fee, outputs, panel):
    """(protocol fee, inference slot, evaluator slot)."""
    protocol = params["protocol_fee"] * fee
    rest = fee - protocol
    return protocol, params["inference_share"] * rest / outputs, (1 - params["inference_share"]) * rest / panel


def settle(params, task, ring, reference, population):
    """Settles a task.

    task: fee, drawn_at, latency[N] (nan: not delivered), price[N], scores[K, N] (nan: unavailable), revealed[K], missed[K],
    committed_at[K], trust[K], average[K], truth[N] or None. ring: consensus values of earlier tasks.
    """
    p, scores, revealed, trust = params, task["scores"], task["revealed"], task["trust"]
    outputs, panel = scores.shape[1], scores.shape[0]
    protocol, inference_slot, evaluator_slot = split(p, task["fee"], outputs, panel)
    given = revealed[:, None] & ~np.isnan(scores)

    # Consensus, and what inference nodes get.
    quality = np.full(outputs, np.nan)
    pay_f, slash_f = np.zeros(outputs), np.zeros(outputs)
    for f in range(outputs):
        who = given[:, f]
        if np.isnan(task["latency"][f]) or who.sum() * 2 <= revealed.sum():
            slash_f[f] = p["missed_penalty"] * p["inference_at_risk"]
            continue
        quality[f] = aggregate(p["aggregation"], scores[who, f], trust[who])
        cost = p["latency_weight"] * latency_cost(task["latency"][f], *p["inference_latency"])
        cost += p["price_weight"] * min(1.0, task["price"][f] / p["price_cap"])
        alpha, beta = p["inference_weights"]
        net = alpha * quality[f] - beta * cost
        pay_f[f], slash_f[f] = outcome(net, alpha, beta, inference_slot, p["inference_at_risk"])

    # What every evaluator is measured against: the others, or the truth.
    gold = task["truth"] is not None
    usable = ~np.isnan(quality) if not gold else ~np.isnan(quality) & ~np.isnan(task["truth"])
    available = int(usable.sum())
    others = np.full((panel, outputs), np.nan)
    for f in np.flatnonzero(usable):
        who = given[:, f]
        for m in np.flatnonzero(who):
            if gold:
                others[m, f] = task["truth"][f]
            else:
                rest = who.copy()
                rest[m] = False
                if rest.any():
                    others[m, f] = aggregate(p["aggregation"], scores[rest, f], trust[rest])
    compared = ~np.isnan(others)
    count = compared.sum(axis=1)
    off = np.where(compared, np.abs(scores - others), 0.0)
    divisor = np.maximum(count, 1)
    raw = off.sum(axis=1) / divisor
    tolerated = np.where(compared, np.maximum(off - p["tolerance"], 0.0), 0.0).sum(axis=1) / divisor
    median_deviation = np.median(tolerated[count > 0]) if (count > 0).any() else 0.0

    # Information gains.
    gain = np.full(panel, np.nan)
    if len(ring) >= RING_MIN:
        for m in np.flatnonzero(count > 0):
            own = scores[m, compared[m]]
            apart = np.maximum(np.abs(own[:, None] - ring[None, :]) - p["tolerance"], 0.0).mean(axis=1)
            near = np.maximum(np.abs(own - others[m, compared[m]]) - p["tolerance"], 0.0)
            gain[m] = (apart - near).mean() * count[m] / available
    has_gain = ~np.isnan(gain)
    rule, options = next(iter(p["trust"].items()))
    # Against a truth those are the standard who know something of it.
    counted = gain[has_gain & (gain > 0)] if rule == "anchored" else gain[has_gain]
    round_gain = counted.mean() if len(counted) else None
    standard = population if population != 0 else (round_gain or 0.0)

    pay_m, slash_m = np.zeros(panel), np.zeros(panel)
    new_trust, new_average = trust.copy(), task["average"].copy()
    forfeited = 0.0
    missed = p["missed_penalty"] * p["evaluator_at_risk"]
    alpha, beta = p["evaluator_weights"]
    for m in range(panel):
        if task["missed"][m]:
            slash_m[m] = missed
        elif not revealed[m]:
            slash_m[m] = p["unrevealed_penalty"] * p["evaluator_at_risk"]
        elif count[m] == 0:
            with_consensus = ~np.isnan(quality)
            if with_consensus.any() and not given[m, with_consensus].any():
                slash_m[m] = missed
        else:
            answered = count[m] / available
            if p["merit"] != "closeness" and has_gain[m]:
                x_ref = max(reference, p["merit"]["information"]["floor"])
                merit = min(np.clip(gain[m] / x_ref, 0.0, 1.0), answered)
            else:
                merit = (1 - tolerated[m]) * answered
            late = max(0.0, task["committed_at"][m] - task["drawn_at"])
            net = alpha * merit - beta * latency_cost(late, *p["evaluator_latency"])
            payout, penalty = outcome(net, alpha, beta, evaluator_slot, missed)
            if gold:
                pay_m[m] = payout
            elif raw[m] > p["outlier_bound"]:
                slash_m[m] = max(penalty, p["outlier_penalty"] * p["evaluator_at_risk"])
            else:
                pay_m[m], slash_m[m] = payout, penalty
            floor = p["trust_floor"]
            if rule == "multiplicative":
                new_trust[m] = np.clip(trust[m] * (1 + options["eta"] * (1 - 2 * tolerated[m])), floor, 1.0)
            elif rule == "centred":
                d = median_deviation - tolerated[m]
                rate = options["up"] if d >= 0 else options["down"]
                new_trust[m] = np.clip(trust[m] * (1 + rate * d), floor, 1.0)
            elif has_gain[m] and (gold or rule == "relative_merit"):
                start = task["average"][m]
                if start == 0:
                    start = trust[m] * np.clip(standard, 0.0, 1.0)
                if start != 0:
                    new_average[m] = start + options["rate"] * (gain[m] - start)
                if standard > 0:
                    new_trust[m] = np.clip(new_average[m] / standard, floor, 1.0)
        if gold:
            forfeited += evaluator_slot - pay_m[m]
    refund = task["fee"] - protocol - pay_f.sum() - pay_m.sum() - forfeited

    # What the kind remembers.
    if p["merit"] != "closeness" and not gold and has_gain.any():
        information = p["merit"]["information"]
        above = int((gain[has_gain] > reference).sum())
        rest = int(has_gain.sum()) - above
        for _ in range(abs(above - rest)):
            reference *= 1 + information["step"] if above > rest else 1 - information["step"]
            reference = min(1.0, max(information["floor"], reference))
    moves = rule == "relative_merit" or (rule == "anchored" and gold)
    if moves and round_gain is not None:
        population = max(0.0, round_gain) if population == 0 else population + options["rate"] * (round_gain - population)
    present = quality[~np.isnan(quality)]
    return {
        "pay_f": pay_f, "slash_f": slash_f, "pay_m": pay_m, "slash_m": slash_m, "trust": new_trust,
        "average": new_average, "refund": refund, "protocol": protocol, "forfeited": forfeited,
        "quality": quality, "consensus": present[0] if len(present) else None, "reference": reference,
        "population": population,
    }  # fmt: skip


# ---- the golden settlements


def ratios(value):
    """A rule's options as floats."""
    if isinstance(value, dict):
        return {k: ratios(v) for k, v in value.items()}
    return value / ONE if isinstance(value, int) else value


def read_params(raw):
    p = {k: ratios(v) for k, v in raw.items() if isinstance(v, (int, dict, str)) and not k.endswith("_ms")}
    for name in ("inference_at_risk", "evaluator_at_risk", "price_cap"):
        p[name] = float(raw[name])
    for name in ("inference_latency", "evaluator_latency"):
        p[name] = (raw[name]["min_ms"], raw[name]["max_ms"])
    for name in ("inference_weights", "evaluator_weights"):
        p[name] = (raw[name]["alpha"] / ONE, raw[name]["beta"] / ONE)
    return p


def read_task(raw):
    def scores(evaluator):
        conduct = evaluator["conduct"]
        if isinstance(conduct, dict):
            return [np.nan if s is None else s / ONE for s in conduct["revealed"]]
        return [np.nan] * len(raw["outputs"])

    panel = raw["panel"]
    truth = raw.get("truth")
    return {
        "fee": float(raw["fee"]),
        "drawn_at": raw["drawn_at"],
        "latency": np.array([np.nan if o["latency_ms"] is None else o["latency_ms"] for o in raw["outputs"]], float),
        "price": np.array([float(o["price"]) for o in raw["outputs"]]),
        "scores": np.array([scores(e) for e in panel], float),
        "revealed": np.array([isinstance(e["conduct"], dict) for e in panel]),
        "missed": np.array([e["conduct"] == "missed" for e in panel]),
        "committed_at": np.array([e["committed_at"] for e in panel], float),
        "trust": np.array([e["trust"] / ONE for e in panel]),
        "average": np.array([e["gain_average"] / ONE for e in panel]),
        "truth": None if truth is None else np.array([np.nan if t is None else t / ONE for t in truth], float),
    }


def check(path):
    with open(path, encoding="utf-8") as file:
        cases = json.load(file)
    compared = 0
    for case in cases:
        expected = case["expected"]
        if expected is None:
            continue
        population = case["input"]["population"]
        ring = np.array([e["quality"] / ONE for e in population["ring"] if e["settled_at"] > 0])
        task = read_task(case["input"])
        got = settle(
            read_params(case["params"]), task, ring, population["reference"] / ONE, population["gain_average"] / ONE
        )
        money = max(task["fee"], 1.0)

        def same(what, a, b, scale):
            nonlocal compared
            a, b = np.asarray(a, float), np.asarray(b, float)
            if not np.allclose(a, b, rtol=1e-6, atol=1e-6 * scale):
                raise SystemExit(f"{case['name']}: {what}: {a} instead of {b}")
            compared += a.size

        same("payouts", got["pay_f"], [float(o["payout"]) for o in expected["outputs"]], money)
        same("payouts of the panel", got["pay_m"], [float(e["payout"]) for e in expected["panel"]], money)
        risk = max(float(case["params"]["evaluator_at_risk"]), float(case["params"]["inference_at_risk"]))
        same("slashed", got["slash_f"], [float(o["slashed"]) for o in expected["outputs"]], risk)
        same("slashed of the panel", got["slash_m"], [float(e["slashed"]) for e in expected["panel"]], risk)
        same("trust", got["trust"], [e["trust"] / ONE for e in expected["panel"]], 1.0)
        same("averages", got["average"], [e["gain_average"] / ONE for e in expected["panel"]], 1.0)
        same("refund", got["refund"], float(expected["refund"]), money)
        same("x_ref", got["reference"], expected["reference"] / ONE, 1.0)
        same("average gain", got["population"], expected["gain_average"] / ONE, 1.0)
    print(f"{len(cases)} settlements, {compared} numbers agree with poq-core within one part in a million")


# ---- the papers' setting


def papers_setting():
    """Parameters, language models and scoring models as in the simulator's papers::cost_aware."""
    unit = 1e12
    params = {
        "aggregation": "mean", "merit": "closeness", "trust": {"multiplicative": {"eta": 0.1}},
        "trust_floor": 0.05, "tolerance": 0.01, "outlier_bound": 0.6,
        "inference_weights": (1.0, 0.3), "evaluator_weights": (1.0, 0.1),
        "inference_latency": (1_000, 60_000), "evaluator_latency": (1_000, 60_000),
        "latency_weight": 0.7, "price_weight": 0.3, "price_cap": unit, "protocol_fee": 0.02, "inference_share": 0.6,
        "inference_at_risk": unit, "evaluator_at_risk": unit, "missed_penalty": 0.1, "unrevealed_penalty": 1.0,
        "outlier_penalty": 0.5,
    }  # fmt: skip
    models = [(3.2, 1.8, 4_000), (3.0, 2.0, 4_300), (1.75, 3.25, 16_000), (1.5, 3.5, 12_000), (2.1, 2.9, 55_000)]
    scorers = [(0.66, 2_000), (0.02, 2_500), (-0.05, 6_000)]
    return params, models, scorers, unit


def simulate(rounds, seed=1):
    """So many rounds of the papers' setting: five inference nodes, nine evaluators, one answer, three scores."""
    rng = np.random.default_rng(seed)
    params, models, scorers, unit = papers_setting()
    fee, stake, truth_sd, score_sd, fault = 10 * unit, 100 * unit, 0.24, 0.2, 0.005
    evaluators = np.arange(9) % 3
    trust, average = np.full(9, 0.5), np.zeros(9)
    free, claimable = np.full(14, stake), np.zeros(14)
    requester, treasury = fee * rounds, 0.0
    total = free.sum() + requester
    means = [a / (a + b) for a, b, _ in models]
    usual = float(np.mean(means))
    ring, now, errors = [], 0.0, []
    for _ in range(rounds):
        f = rng.integers(5)
        a, b, median = models[f]
        quality = rng.beta(a, b)
        latency = np.ceil(median * np.exp(0.2 * rng.standard_normal()) / 1_000) * 1_000
        weight = np.minimum(free[5:], 1_000 * unit) / (1_000 * unit) * trust
        # One evaluator of each scoring model: with K = 3 no model may have more than half of the panel.
        panel = []
        while len(panel) < 3:
            p = weight.copy()
            p[panel] = 0.0
            p[np.isin(evaluators, evaluators[panel])] = 0.0
            panel.append(int(rng.choice(9, p=p / p.sum())))
        panel = np.array(panel)
        scores = np.empty((3, 1))
        committed = np.empty(3)
        for i, m in enumerate(panel):
            r, scoring = scorers[evaluators[m]]
            noise = score_sd * np.sqrt(1 - r * r) * rng.standard_normal()
            scores[i, 0] = np.clip(usual + r * score_sd / truth_sd * (quality - usual) + noise, 0.0, 1.0)
            committed[i] = np.ceil(scoring * np.exp(0.2 * rng.standard_normal()) / 1_000) * 1_000
        missed = rng.random(3) < fault
        if missed.sum() > 1:
            continue  # below quorum: the simulator draws a second panel
        drawn_at = now + latency + 1_000
        task = {
            "fee": fee, "drawn_at": drawn_at, "latency": np.array([latency]), "price": np.array([unit / 10]),
            "scores": scores, "revealed": ~missed, "missed": missed, "committed_at": drawn_at + committed,
            "trust": trust[panel], "average": average[panel], "truth": None,
        }  # fmt: skip
        got = settle(params, task, np.array(ring[-16:]), 0.0, 0.0)
        trust[panel], average[panel] = got["trust"], got["average"]
        claimable[f] += got["pay_f"][0]
        free[f] -= got["slash_f"][0]
        claimable[5 + panel] += got["pay_m"]
        free[5 + panel] -= got["slash_m"]
        treasury += got["protocol"] + got["forfeited"] + got["slash_f"].sum() + got["slash_m"].sum()
        requester += got["refund"] - fee
        assert abs(free.sum() + claimable.sum() + treasury + requester - total) < 1e-9 * total
        if got["consensus"] is not None:
            ring.append(got["consensus"])
            errors.append(got["consensus"] - quality)
        now = drawn_at + 15_000
    return {"error": float(np.mean(np.abs(errors))), "claimable": claimable / unit, "trust": trust}


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "check":
        check(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "time":
        start = time.process_time()
        simulate(int(sys.argv[2]))
        print(f"{time.process_time() - start:.6f}")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
