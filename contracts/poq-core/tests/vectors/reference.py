#!/usr/bin/env python3
"""A second implementation of the Proof-of-Quality arithmetic, to check the golden vectors with.

Written from the documentation of poq-core's modules, in Python's exact integers, for clarity rather than speed. Prints how
many values of each file it checked, and ends with an error at the first file that differs.
"""

import collections
import hashlib
import json
import math
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


def spread(gain, reference, due, slot):
    """The merit, and what is due after it: a task earns up to two slots, and pays an eighth of what is due."""
    size = of(fraction(abs(gain), 2 * reference), 2 * slot)
    due += -size if gain < 0 else size
    part = max(-2 * slot, min(2 * slot, truncate(due, 8)))
    return (fraction(part, slot) if part > 0 else 0), due - part


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
    """protocol, keepers' reserve, inference slot, evaluator slot"""
    protocol, keepers = of(params["protocol_fee"], fee), 4 * int(params["keeper_fee"])
    net = fee - protocol - keepers
    inference = of(params["inference_share"], net)
    slots = inference // outputs, (net - inference) // panel
    enough = slots[0] >= int(params["inference_slot_min"]) and slots[1] >= int(params["evaluator_slot_min"])
    return (protocol, keepers, *slots) if enough and 0 <= fee <= int(params["fee_max"]) else None


def revealed_scores(conduct):
    return conduct["revealed"] if isinstance(conduct, dict) else None


def no_input(scores):
    return scores is not None and scores[:1] == ["no_input"]


def verdict(params, task):
    """How a panel that may settle ends its task."""
    said = [revealed_scores(e["conduct"]) for e in task["panel"]]
    revealed, without = sum(s is not None for s in said), sum(map(no_input, said))
    if not task["inline"] and 2 * without > revealed:
        return "input_unavailable"
    quorum = max(2, -(-params["quorum"] * len(said) // ONE))
    return "consensus" if revealed - without >= quorum else "below_quorum"


def delivered(answer):
    return isinstance(answer, dict)


def inference_share_lost(params, answers, own):
    """The share of its stake at risk that an inference node loses for what it did not do."""
    if delivered(own):
        return 0
    if own == "declined":
        if any(delivered(a) or a == "unopened" for a in answers):
            return params["bad_penalty"]
        all_of_several = len(answers) > 1 and all(a == "declined" for a in answers)
        return 0 if all_of_several else params["decline_penalty"]
    return params[{"missed": "missed_penalty", "unopened": "unrevealed_penalty"}[own]]


def evaluator_share_lost(params, conduct):
    if conduct == "missed":
        return params["missed_penalty"]
    return params["unrevealed_penalty"] if conduct == "unrevealed" else 0


def settle(params, task):
    fee = int(task["fee"])
    parts = split(params, fee, len(task["outputs"]), len(task["panel"]))
    if parts is None:
        return None
    protocol, reserve, inference_slot, evaluator_slot = parts
    ending = verdict(params, task) if task["ending"] == "consensus" else task["ending"]
    answers = [o["answer"] for o in task["outputs"]]
    nobody = not any(map(delivered, answers))
    free = ending in ("undelivered", "unopened", "no_secret") and nobody
    if ending == "consensus":
        outputs, panel, consensus, reference, weight = by_scores(params, task, parts)
    else:
        outputs, panel = without_consensus(params, task, parts, ending)
        consensus, reference, weight = None, task["population"]["reference"], 0

    # Who gets what nobody earned.
    outputs_back = ending == "consensus" or free
    panel_back = ending == "no_panel" or free
    refund = fee - protocol - reserve - inference_slot * len(outputs) - evaluator_slot * len(panel)
    if outputs_back:
        for answer, row in zip(answers, outputs):
            kept = of(params["delivery_share"], inference_slot) if task["early"] and delivered(answer) else 0
            refund += inference_slot - max(row["payout"], kept)
    if panel_back:
        refund += evaluator_slot * len(panel)
    treasury = 0 if free else protocol // 2
    refund += protocol if free else 0
    paid = sum(row["payout"] for row in outputs + panel)
    slashed = sum(row["slashed"] for row in outputs + panel)
    for row in panel:
        row["due"] = str(row["due"])
    for row in outputs + panel:
        row["payout"], row["slashed"] = str(row["payout"]), str(row["slashed"])
    return {
        "ending": ending,
        "outputs": outputs,
        "panel": panel,
        "treasury": str(treasury),
        "burned": str(fee - int(task["keepers"]) - paid - treasury - refund),
        "slashed": str(slashed),
        "refund": str(refund),
        "consensus": consensus,
        "reference": reference,
        "weight": str(weight),
    }


def output_row(**known):
    return {"quality": None, "cost": 0, "net": 0, "payout": 0, "slashed": 0} | known


def seat_row(**known):
    return {"deviation": 0, "gain": None, "merit": 0, "due": 0, "cost": 0, "net": 0, "payout": 0, "slashed": 0} | known


def without_consensus(params, task, parts, ending):
    _, _, inference_slot, evaluator_slot = parts
    answers = [o["answer"] for o in task["outputs"]]
    share = ONE if ending == "no_secret" else params["delivery_share"]
    risk, seat_risk = params["inference_risk"] * inference_slot, params["evaluator_risk"] * evaluator_slot
    outputs = [
        output_row(
            payout=of(share, inference_slot) if delivered(a) else 0,
            slashed=of(inference_share_lost(params, answers, a), risk),
        )
        for a in answers
    ]
    panel = []
    for evaluator in task["panel"]:
        told = ending == "input_unavailable" and no_input(revealed_scores(evaluator["conduct"]))
        panel.append(
            seat_row(
                due=int(evaluator["due"]),
                payout=of(params["unavailable_share"], evaluator_slot) if told else 0,
                slashed=of(evaluator_share_lost(params, evaluator["conduct"]), seat_risk),
            )
        )
    return outputs, panel


def mean(values):
    return sum(values) // len(values) if values else 0


def gain_of(pairs, tolerance, ring, available):
    """Over the available outputs: one abstained on counts as zero."""
    gain = information_gain(pairs, tolerance, ring)
    return None if gain is None else gain * len(pairs) // available


def by_scores(params, task, parts):
    protocol, reserve, inference_slot, evaluator_slot = parts
    outputs, panel, past = task["outputs"], task["panel"], task["population"]
    risk, seat_risk = params["inference_risk"] * inference_slot, params["evaluator_risk"] * evaluator_slot
    missed, seat_missed = of(params["missed_penalty"], risk), of(params["missed_penalty"], seat_risk)
    rule, tolerance = params["aggregation"], params["tolerance"]
    answers = [o["answer"] for o in outputs]

    said = [revealed_scores(e["conduct"]) for e in panel]
    voices = [m for m, scores in enumerate(said) if scores is not None and not no_input(scores)]

    def scores(f, without=None):
        return [(said[m][f], panel[m]["trust"]) for m in voices if m != without and said[m][f] is not None]

    quality = []
    for f, answer in enumerate(answers):
        had = delivered(answer) and 2 * len(scores(f)) > len(voices)
        quality.append(aggregate(rule, scores(f)) if had else None)
    available = [f for f, q in enumerate(quality) if q is not None]

    settled_outputs = []
    for output, q in zip(outputs, quality):
        answer = output["answer"]
        row = output_row(slashed=missed if delivered(answer) else of(inference_share_lost(params, answers, answer), risk))
        if q is not None:
            row["quality"] = q
            row["cost"] = inference_cost(
                answer["delivered"]["latency_ms"],
                params["inference_latency"],
                params["latency_weight"],
                int(output["price"]),
                int(params["price_cap"]),
                params["price_weight"],
            )
            row["net"] = net(params["inference_weights"], q, row["cost"])
            row["payout"], late = outcome(params["inference_weights"], row["net"], inference_slot, missed)
            short = fraction(max(0, params["quality_floor"] - q), params["quality_floor"])
            row["slashed"] = min(missed, late + of(of(params["bad_penalty"], short), risk))
        settled_outputs.append(row)

    def pairs_of(m, others):
        """(own, the others' consensus) where at least so many others have a score."""
        if m not in voices:
            return []
        answered = [f for f in available if said[m][f] is not None and len(scores(f, m)) >= others]
        return [(said[m][f], aggregate(rule, scores(f, m))) for f in answered]

    settled_panel = []
    for m, evaluator in enumerate(panel):
        pairs = pairs_of(m, 1)
        row = seat_row(due=int(evaluator["due"]), slashed=of(evaluator_share_lost(params, evaluator["conduct"]), seat_risk))
        settled_panel.append(row)
        if no_input(said[m]):
            row["slashed"] = seat_missed
        if m not in voices:
            continue
        if not pairs:
            row["slashed"] = seat_missed if available and all(said[m][f] is None for f in available) else 0
            continue
        row["deviation"] = mean([max(0, abs(a - b) - tolerance) for a, b in pairs])
        row["gain"] = gain_of(pairs, tolerance, past["ring"]["entries"], len(available))
        share = fraction(len(pairs), len(available))
        if params["merit"] == "closeness" or row["gain"] is None:
            row["merit"] = of(share, ONE - row["deviation"])
        else:
            reference = max(past["reference"], params["merit"]["information"]["floor"])
            merit, row["due"] = spread(row["gain"], reference, row["due"], evaluator_slot)
            row["merit"] = min(share, merit)
        row["cost"] = latency_cost(evaluator["latency_ms"], params["evaluator_latency"])
        row["net"] = net(params["evaluator_weights"], row["merit"], row["cost"])
        payout, penalty = outcome(params["evaluator_weights"], row["net"], evaluator_slot, seat_missed)
        if mean([abs(a - b) for a, b in pairs_of(m, 2)]) > params["outlier_bound"]:
            row["slashed"] = max(penalty, of(params["outlier_penalty"], seat_risk))
        else:
            row["payout"], row["slashed"] = payout, penalty

    reference = past["reference"]
    burned = protocol // 2 + reserve - int(task["keepers"])
    if params["merit"] != "closeness":
        least = params["merit"]["information"]["floor"]
        weight = fraction(burned, int(params["ring_burn"]))
        step = of(params["merit"]["information"]["step"], weight)
        gains = [row["gain"] for row in settled_panel if row["gain"] is not None]
        above = sum(g > past["reference"] for g in gains)
        for _ in range(abs(2 * above - len(gains)) if step else 0):
            by = max(1, of(step, reference))
            reference = max(least, clip(reference + (by if 2 * above > len(gains) else -by)))
    return settled_outputs, settled_panel, next((q for q in quality if q is not None), None), reference, burned


def audit(params, task):
    """What an opened reference makes of a panel's trust."""
    truth, past, floor, tolerance = task["truth"], task["population"], params["trust_floor"], params["tolerance"]
    opened = [f for f, t in enumerate(truth) if t is not None]
    pairs = []
    for scores in task["scores"]:
        silent = scores is None or no_input(scores)
        pairs.append([] if silent else [(scores[f], truth[f]) for f in opened if scores[f] is not None])
    apart = [mean([max(0, abs(a - b) - tolerance) for a, b in p]) for p in pairs]
    compared = sorted(d for d, p in zip(apart, pairs) if p)
    n = len(compared)
    middle = (compared[(n - 1) // 2] + compared[n // 2]) // 2 if n else 0
    gains = [gain_of(p, tolerance, past["ring"]["entries"], len(opened)) if p else None for p in pairs]
    name, rule = next(iter(params["trust"].items()))
    counted = [g for g in gains if g is not None and (g > 0 or name != "anchored")]
    round_mean = sum(counted) // len(counted) if counted else None
    standard = past["gain_average"] or round_mean or 0

    panel = []
    for state, p, d, gain in zip(task["panel"], pairs, apart, gains):
        w, average = state["trust"], state["gain_average"]
        if p and name == "multiplicative":
            w = multiplicative(w, d, rule["eta"], floor)
        elif p and name == "centred":
            w = centred(w, d, middle, rule["up"], rule["down"], floor)
        elif gain is not None:
            start = average or starting_average(w, standard)
            average = moving_average(start, gain, rule["rate"]) if start else average
            w = relative_merit(w, average, standard, floor)
        panel.append({"trust": w, "gain_average": average})
    average = past["gain_average"]
    if counted and name in ("relative_merit", "anchored"):
        average = moving_average(average, round_mean, rule["rate"]) if average else max(0, round_mean)
    return {"panel": panel, "gain_average": average}


# ---- draw and commitments


def draw_class(weight):
    if weight == 0:
        return None
    return next((c for c in range(15) if weight > ONE >> (c + 1)), 15)


def pick(counts, random, by):
    """The class, the place in it, and the heaviest weight that is refused there."""
    power = {"weight": 1, "square": 2}[by]
    size = lambda c: (ONE >> c) ** power
    total = sum(n * size(c) for c, n in enumerate(counts))
    if total == 0:
        return None
    rest = random % total
    for c, n in enumerate(counts):
        if rest < n * size(c):
            place, threshold = divmod(rest, size(c))
            return [c, place, threshold if by == "weight" else math.isqrt(threshold)]
        rest -= n * size(c)


def blake2(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def counted(items):
    """A short sequence is preceded by its length times four."""
    return bytes([len(items) * 4]) + b"".join(items)


def preimage(case):
    h = lambda key: bytes.fromhex(case[key])
    kind, start = case["of"], h("network") if "network" in case else b""
    task, node = case.get("task", 0).to_bytes(8, "little"), case.get("node", 0).to_bytes(4, "little")
    domain = {"reference": "refrnc", "request_secret": "derive", "panel_seed": "panel", "inference_seed": "infrnc"}
    head = f"poq/v2/{domain.get(kind, kind)}".encode().ljust(14, b"\0")
    if kind == "network":
        return head + h("genesis") + h("contract")
    if kind == "output":
        return head + start + task + node + h("output_hash") + h("salt")
    if kind == "scores":
        raw = {None: 2**32 - 1, "no_input": 2**32 - 2}
        scores = counted([raw.get(s, s).to_bytes(4, "little") for s in case["scores"]])
        return head + start + task + node + scores + h("report_hash") + h("salt")
    if kind == "reference":
        return head + start + h("auditor") + h("reference_hash") + h("salt")
    if kind == "secret":
        return head + start + h("requester") + h("secret")
    if kind == "request_secret":
        return head + h("key") + start + h("reference_commitment")
    if kind == "panel_seed":
        return head + start + task + h("secret") + counted([bytes.fromhex(s) for s in case["salts"]])
    if kind == "inference_seed":
        return head + start + task + h("secret_hash")
    assert kind == "salt"
    purpose = bytes([["output", "scores"].index(case["purpose"])])
    return head + h("secret") + start + task + node + purpose


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
    if gain is None:
        return {"gain": None, "merit": None, "due": None}
    merit, due = spread(gain, c["reference"], int(c["due"]), int(c["slot"]))
    return {"gain": gain, "merit": merit, "due": str(due)}


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
        return pick(c["counts"], int(c["random"]), c["by"])
    start = bytes.fromhex(c["seed"]) + bytes([c["round"]])
    numbers = (blake2(start + i.to_bytes(4, "little")) for i in range(c["count"]))
    return [str(int.from_bytes(n[:16], "little")) for n in numbers]


def check_commitment(c):
    data = preimage(c)
    return {"preimage": data.hex(), "hash": blake2(data).hex()}


def check_settlement(c):
    return settle(c["params"], c["input"])


def check_audit(c):
    return audit(c["params"], c["input"])


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
    "audit": check_audit,
}


def main():
    files = {name: json.loads((HERE / f"{name}.json").read_text()) for name in CHECKS if (HERE / f"{name}.json").exists()}
    sections = [(f"{name}.json", name, cases) for name, cases in files.items()]
    hand = json.loads((HERE / "hand.json").read_text())
    sections += [("hand.json", name, cases) for name, cases in hand["cases"].items()]
    for file, name, cases in sections:
        for number, case in enumerate(cases):
            if name in ("settlement", "audit") and "params" not in case:
                case["params"] = hand["params"] | case["change"]
            got = CHECKS[name](case)
            if got != case["expected"]:
                sys.exit(f"{file}: {name} {number} ({case.get('name', '')}): expected\n{case['expected']}\ngot\n{got}")
        print(f"{file}: {name}: {len(cases)} agree")


if __name__ == "__main__":
    main()
