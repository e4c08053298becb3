#!/usr/bin/env python3
"""A second implementation of the Proof-of-Quality arithmetic, to check the golden vectors with.

Written from the documentation of poq-core's modules, in Python's exact integers, for clarity rather than speed. Prints how
many values of each file it checked, and ends with an error at the first file that differs.
"""

import collections
import hashlib
import json
import pathlib
import re
import string
import sys

ONE = 10**9
HERE = pathlib.Path(__file__).parent


def clip(x):
    return max(0, min(ONE, x))


def fraction(part, whole):
    """part/whole in parts per billion, rounded down, clipped."""
    if part == 0:
        return 0
    return ONE if part >= whole else part * ONE // whole


def of(share, amount):
    return share * amount // ONE


def truncate(a, b):
    """a/b rounded towards zero."""
    return -(-a // b) if a < 0 else a // b


# ---- aggregation


def aggregate(rule, scores):
    """The consensus of [(score, trust)]."""
    if not scores:
        return None
    scores = sorted(scores)
    values = [s for s, _ in scores]
    total = sum(t for _, t in scores)
    name = rule if isinstance(rule, str) else next(iter(rule))
    if total == 0:
        name = {"trust_weighted_mean": "mean", "trust_weighted_median": "median"}.get(name, name)
    n = len(values)
    if name == "mean":
        return sum(values) // n
    if name == "median":
        return (values[(n - 1) // 2] + values[n // 2]) // 2
    if name == "trimmed_mean":
        drop = min(rule["trimmed_mean"]["trim"] * n // ONE, (n - 1) // 2)
        middle = values[drop : n - drop]
        return sum(middle) // len(middle)
    if name == "trust_weighted_mean":
        return sum(s * t for s, t in scores) // total
    assert name == "trust_weighted_median", name
    # The lowest score that at least half of the trust is at or below, and the highest that half is at or above.
    low = next(s for s, t in scores if t and 2 * sum(u for r, u in scores if r <= s) >= total)
    high = next(s for s, t in reversed(scores) if t and 2 * sum(u for r, u in scores if r >= s) >= total)
    return (low + high) // 2


# ---- cost and reward


def latency_cost(latency, bounds):
    return fraction(max(0, latency - bounds["min_ms"]), bounds["max_ms"] - bounds["min_ms"])


def inference_cost(latency, bounds, latency_weight, price, price_cap, price_weight):
    cost = of(latency_weight, latency_cost(latency, bounds)) + of(price_weight, fraction(price, price_cap))
    return min(ONE, cost)


def net(weights, quality, cost):
    return (weights["alpha"] * quality - weights["beta"] * cost) // ONE


def outcome(weights, reward, slot, cap):
    """(payout, penalty)"""
    if reward >= 0:
        return of(fraction(reward, weights["alpha"]), slot), 0
    return 0, of(fraction(-reward, weights["beta"]), cap)


# ---- merit and trust


def information_gain(pairs, tolerance, ring):
    known = [e["quality"] for e in ring if e["settled_at"] > 0]
    if not pairs or len(known) < 4:
        return None
    far = lambda a, b: max(0, abs(a - b) - tolerance)
    gains = [sum(far(own, q) for q in known) // len(known) - far(own, others) for own, others in pairs]
    return sum(gains) // len(gains)


def information(gain, reference):
    return 0 if gain < 0 else fraction(gain, reference)


def multiplicative(w, d, eta, floor):
    drift = truncate((ONE - 2 * d) * eta, ONE)
    return max(floor, clip(truncate(w * (ONE + drift), ONE)))


def centred(w, d, middle, up, down, floor):
    if d <= middle:
        return max(floor, min(ONE, w + of(w, of(up, middle - d))))
    return max(floor, max(0, w - of(w, of(down, d - middle))))


def moving_average(average, gain, rate):
    average, gain = max(-ONE, min(ONE, average)), max(-ONE, min(ONE, gain))
    return average + truncate((gain - average) * rate, ONE)


def relative_merit(w, own, population, floor):
    if population <= 0:
        return max(floor, w)
    return max(floor, 0 if own < 0 else fraction(own, population))


def starting_average(w, population):
    return of(w, clip(population))


# ---- settlement


def split(params, fee, outputs, panel):
    protocol = of(params["protocol_fee"], fee)
    inference = of(params["inference_share"], fee - protocol)
    slots = inference // outputs, (fee - protocol - inference) // panel
    enough = slots[0] >= int(params["inference_slot_min"]) and slots[1] >= int(params["evaluator_slot_min"])
    return (protocol, *slots) if enough else None


def settle(params, task):
    outputs, panel, past = task["outputs"], task["panel"], task["population"]
    fee = int(task["fee"])
    parts = split(params, fee, len(outputs), len(panel))
    if parts is None:
        return None
    protocol, inference_slot, evaluator_slot = parts
    inference_risk, evaluator_risk = int(params["inference_at_risk"]), int(params["evaluator_at_risk"])
    rule, tolerance, floor = params["aggregation"], params["tolerance"], params["trust_floor"]

    said = [e["conduct"]["revealed"] if isinstance(e["conduct"], dict) else None for e in panel]
    revealed = [m for m, scores in enumerate(said) if scores is not None]

    def scores(f, without=None):
        voices = [m for m in revealed if m != without and said[m][f] is not None]
        return [(said[m][f], panel[m]["trust"]) for m in voices]

    quality = []
    for f, output in enumerate(outputs):
        had = output["latency_ms"] is not None and 2 * len(scores(f)) > len(revealed)
        quality.append(aggregate(rule, scores(f)) if had else None)
    available = [f for f, q in enumerate(quality) if q is not None]

    settled_outputs = []
    for f, output in enumerate(outputs):
        row = {"quality": quality[f], "cost": 0, "net": 0, "payout": 0, "slashed": of(params["missed_penalty"], inference_risk)}
        if quality[f] is not None:
            row["cost"] = inference_cost(
                output["latency_ms"],
                params["inference_latency"],
                params["latency_weight"],
                int(output["price"]),
                int(params["price_cap"]),
                params["price_weight"],
            )
            row["net"] = net(params["inference_weights"], quality[f], row["cost"])
            row["payout"], row["slashed"] = outcome(
                params["inference_weights"], row["net"], inference_slot, inference_risk
            )
        settled_outputs.append(row)

    # A gold task: what was opened is compared with the truth.
    truth = task.get("truth")
    had = available
    if truth is not None:
        available = [f for f in available if truth[f] is not None]
    yardstick = lambda f, m: aggregate(rule, scores(f, without=m)) if truth is None else truth[f]

    pairs = []
    for m, own in enumerate(said):
        answered = [f for f in available if own is not None and own[f] is not None]
        # One who reveals alone has nobody to be compared with.
        compared = [(own[f], yardstick(f, m)) for f in answered]
        pairs.append([(a, b) for a, b in compared if b is not None])
    raw = [sum(abs(a - b) for a, b in p) // len(p) if p else 0 for p in pairs]
    tolerated = [sum(max(0, abs(a - b) - tolerance) for a, b in p) // len(p) if p else 0 for p in pairs]
    compared = sorted(d for d, p in zip(tolerated, pairs) if p)
    n = len(compared)
    middle = (compared[(n - 1) // 2] + compared[n // 2]) // 2 if n else 0

    gains = []
    for p in pairs:
        gain = information_gain(p, tolerance, past["ring"])
        gains.append(None if gain is None else gain * len(p) // len(available))
    known = [g for g in gains if g is not None]
    counted = [g for g in known if g > 0] if "anchored" in params["trust"] else known
    round_mean = sum(counted) // len(counted) if counted else None
    standard = past["gain_average"] or round_mean or 0

    merit_rule = params["merit"]
    trust_name, trust_rule = next(iter(params["trust"].items()))
    missed = of(params["missed_penalty"], evaluator_risk)
    settled_panel = []
    for m, evaluator in enumerate(panel):
        row = {
            "deviation": tolerated[m],
            "gain": gains[m],
            "merit": 0,
            "cost": 0,
            "net": 0,
            "payout": 0,
            "slashed": 0,
            "trust": evaluator["trust"],
            "gain_average": evaluator["gain_average"],
        }
        settled_panel.append(row)
        if evaluator["conduct"] == "missed":
            row["slashed"] = missed
        elif evaluator["conduct"] == "unrevealed":
            row["slashed"] = of(params["unrevealed_penalty"], evaluator_risk)
        elif not pairs[m]:
            row["slashed"] = missed if had and all(said[m][f] is None for f in had) else 0
        else:
            share = fraction(len(pairs[m]), len(available))
            if merit_rule == "closeness" or gains[m] is None:
                row["merit"] = of(share, ONE - tolerated[m])
            else:
                reference = max(past["reference"], merit_rule["information"]["floor"])
                row["merit"] = min(share, information(gains[m], reference))
            row["cost"] = latency_cost(max(0, evaluator["committed_at"] - task["drawn_at"]), params["evaluator_latency"])
            row["net"] = net(params["evaluator_weights"], row["merit"], row["cost"])
            payout, penalty = outcome(params["evaluator_weights"], row["net"], evaluator_slot, missed)
            if truth is not None:
                row["payout"] = payout
            elif raw[m] > params["outlier_bound"]:
                row["slashed"] = max(penalty, of(params["outlier_penalty"], evaluator_risk))
            else:
                row["payout"], row["slashed"] = payout, penalty
            w = evaluator["trust"]
            if trust_name == "multiplicative":
                row["trust"] = multiplicative(w, tolerated[m], trust_rule["eta"], floor)
            elif trust_name == "centred":
                row["trust"] = centred(w, tolerated[m], middle, trust_rule["up"], trust_rule["down"], floor)
            elif gains[m] is not None and (trust_name == "relative_merit" or truth is not None):
                start = evaluator["gain_average"] or starting_average(w, standard)
                if start:
                    row["gain_average"] = moving_average(start, gains[m], trust_rule["rate"])
                row["trust"] = relative_merit(w, row["gain_average"], standard, floor)

    reference = past["reference"]
    if merit_rule != "closeness" and truth is None:
        step, least = merit_rule["information"]["step"], merit_rule["information"]["floor"]
        above = sum(g > past["reference"] for g in known)
        for _ in range(abs(2 * above - len(known))):
            by = max(1, of(step, reference))
            reference = max(least, clip(reference + (by if 2 * above > len(known) else -by)))
    average = past["gain_average"]
    if counted and (trust_name == "relative_merit" or (trust_name == "anchored" and truth is not None)):
        average = moving_average(average, round_mean, trust_rule["rate"]) if average else max(0, round_mean)

    paid = sum(row["payout"] for row in settled_outputs + settled_panel)
    slashed = sum(row["slashed"] for row in settled_outputs + settled_panel)
    earned = sum(row["payout"] for row in settled_panel)
    forfeited = 0 if truth is None else evaluator_slot * len(panel) - earned
    for row in settled_outputs + settled_panel:
        row["payout"], row["slashed"] = str(row["payout"]), str(row["slashed"])
    return {
        "outputs": settled_outputs,
        "panel": settled_panel,
        "protocol_fee": str(protocol),
        "slashed": str(slashed),
        "forfeited": str(forfeited),
        "refund": str(fee - protocol - paid - forfeited),
        "consensus": next((q for q in quality if q is not None), None),
        "reference": reference,
        "gain_average": average,
    }


# ---- draw and commitments


def draw_class(weight):
    if weight == 0:
        return None
    return next((c for c in range(15) if weight > ONE >> (c + 1)), 15)


def pick(counts, random):
    total = sum(n * (ONE >> c) for c, n in enumerate(counts))
    if total == 0:
        return None
    rest = random % total
    for c, n in enumerate(counts):
        if rest < n * (ONE >> c):
            return [c, *divmod(rest, ONE >> c)]
        rest -= n * (ONE >> c)


def blake2(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def preimage(case):
    h = lambda key: bytes.fromhex(case[key])
    task, node = case.get("task", 0).to_bytes(8, "little"), case.get("node", 0).to_bytes(4, "little")
    if case["of"] == "output":
        return b"poq/v1/output\0" + h("contract") + task + node + h("output_hash") + h("salt")
    if case["of"] == "scores":
        # A short sequence is preceded by its length times four.
        coded = bytes([len(case["scores"]) * 4])
        coded += b"".join((2**32 - 1 if s is None else s).to_bytes(4, "little") for s in case["scores"])
        return b"poq/v1/scores\0" + h("contract") + task + node + coded + h("report_hash") + h("salt")
    if case["of"] == "reference":
        return b"poq/v1/refrnc\0" + h("contract") + h("auditor") + h("reference_hash") + h("salt")
    assert case["of"] == "salt"
    purpose = bytes([["output", "scores"].index(case["purpose"])])
    return b"poq/v1/salt\0\0\0" + h("secret") + h("contract") + task + node + purpose


# ---- token F1: the official evaluate-v1.1.py of SQuAD, its names kept; parts per billion at the end


def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def token_f1(reference, output):
    prediction, truth = normalize_answer(output).split(), normalize_answer(reference).split()
    same = sum((collections.Counter(prediction) & collections.Counter(truth)).values())
    return fraction(2 * same, len(prediction) + len(truth))


# ---- the files


def check_text(c):
    return token_f1(c["reference"], c["output"])


def check_aggregate(c):
    return aggregate(c["rule"], [tuple(s) for s in c["scores"]])


def check_cost(c):
    return inference_cost(
        c["latency_ms"], c["range"], c["latency_weight"], int(c["price"]), int(c["price_cap"]), c["price_weight"]
    )


def check_reward(c):
    reward = net(c["weights"], c["quality"], c["cost"])
    payout, penalty = outcome(c["weights"], reward, int(c["slot"]), int(c["penalty_cap"]))
    return {"net": reward, "payout": str(payout), "penalty": str(penalty)}


def check_merit(c):
    pairs = [tuple(p) for p in c["comparisons"]]
    gain = information_gain(pairs, c["tolerance"], c["ring"])
    return {"gain": gain, "merit": None if gain is None else information(gain, c["reference"])}


def check_trust(c):
    kind = c["of"]
    if kind == "multiplicative":
        return multiplicative(c["trust"], c["deviation"], c["eta"], c["floor"])
    if kind == "centred":
        return centred(c["trust"], c["deviation"], c["median_deviation"], c["up"], c["down"], c["floor"])
    if kind == "relative_merit":
        return relative_merit(c["trust"], c["own"], c["population"], c["floor"])
    if kind == "moving_average":
        return moving_average(c["average"], c["gain"], c["rate"])
    return starting_average(c["trust"], c["population"])


def check_ratio(c):
    return str(of(c["share"], int(c["amount"]))) if c["of"] == "share" else fraction(int(c["part"]), int(c["whole"]))


def check_split(c):
    parts = split(c, int(c["fee"]), c["outputs"], c["panel"])
    return None if parts is None else [str(p) for p in parts]


def check_draw(c):
    if c["of"] == "class":
        return draw_class(c["weight"])
    if c["of"] == "pick":
        return pick(c["counts"], int(c["random"]))
    numbers = (blake2(bytes.fromhex(c["seed"]) + i.to_bytes(4, "little")) for i in range(c["count"]))
    return [str(int.from_bytes(n[:16], "little")) for n in numbers]


def check_commitment(c):
    data = preimage(c)
    return {"preimage": data.hex(), "hash": blake2(data).hex()}


def check_settlement(c):
    return settle(c["params"], c["input"])


CHECKS = {
    "ratio": check_ratio,
    "split": check_split,
    "aggregate": check_aggregate,
    "cost": check_cost,
    "reward": check_reward,
    "merit": check_merit,
    "trust": check_trust,
    "draw": check_draw,
    "commitments": check_commitment,
    "text": check_text,
    "settlement": check_settlement,
}


def main():
    files = {name: json.loads((HERE / f"{name}.json").read_text()) for name in CHECKS if (HERE / f"{name}.json").exists()}
    sections = [(f"{name}.json", name, cases) for name, cases in files.items()]
    hand = json.loads((HERE / "hand.json").read_text())
    sections += [("hand.json", name, cases) for name, cases in hand["cases"].items()]
    for file, name, cases in sections:
        for number, case in enumerate(cases):
            if name == "settlement" and "params" not in case:
                case["params"] = hand["params"] | case["change"]
            got = CHECKS[name](case)
            if got != case["expected"]:
                sys.exit(f"{file}: {name} {number} ({case.get('name', '')}): expected\n{case['expected']}\ngot\n{got}")
        print(f"{file}: {name}: {len(cases)} agree")


if __name__ == "__main__":
    main()
