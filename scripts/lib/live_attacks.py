"""Runs `poq demo` once for every attack and shows what cheating came to, beside the simulator's books."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# Those that never answer, open or reveal wait for the demonstration's deadlines, which are minutes: the workers' tests have them.
ATTACKS = [
    "noise=0.3", "boosting=0.4", "sabotage=0.4", "intermittent=0.3", "copy-cat", "constant=0", "shared-signal=1", "free-ride",
    "panel-majority=0.4", "boost-own=0.4", "exaggerate=0.08", "selective=0.08", "slow-scoring=10", "slow-delivery=10",
    "output-copying", "model-swap=0.25", "decline", "claim-no-input",
]  # fmt: skip
UNIT = 10**12


def mean_gain(nodes, key):
    """What these nodes got per task they served, in UNIT, after slashing; None where they served none."""
    tasks = sum(node["tasks"] for node in nodes)
    gain = sum(int(node[f"{key}reward"]) - int(node[f"{key}slashed"]) for node in nodes)
    return gain / tasks / UNIT if tasks else None


def run(poq, attack, rest):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demo.json"
        done = subprocess.run(
            [poq, "demo", "--attack", attack, "--json", file, *rest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not file.exists():
            sys.exit(f"poq demo --attack {attack} failed:\n{done.stdout[-3000:]}")
        report = json.loads(file.read_text())
    role = next(node["role"] for node in report["nodes"] if node["dishonest"])
    peers = [node for node in report["nodes"] if node["role"] == role]
    row = {
        "attack": attack,
        "role": role,
        "simulator_agrees": report["simulator_agrees"],
        "explained": all(task["explain_ok"] for task in report["tasks"]),
        "settled": sum(task["ending"] == "consensus" for task in report["tasks"]),
        "money_difference": report["money"]["difference"],
    }
    for side, dishonest in (("honest", False), ("dishonest", True)):
        nodes = [node for node in peers if node["dishonest"] == dishonest]
        row[side] = mean_gain(nodes, "")
        row[f"{side}_simulated"] = mean_gain(nodes, "simulated_")
    return row


def shown(number):
    return "–" if number is None else f"{number:.6f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("poq", help="the program")
    parser.add_argument("attacks", nargs="*", default=ATTACKS, help="by default all that need no deadline to pass")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--dishonest", default="1", help="how many of five evaluators")
    parser.add_argument("--node", action="store_true", help="on the development node instead of a chain in the process")
    args = parser.parse_intermixed_args()
    rest = ["--dishonest", args.dishonest, *(["--node"] if args.node else [])]
    print("| attack | by | honest, UNIT per task | dishonest | the same by the simulator | books agree | money difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for attack in args.attacks:
        row = run(args.poq, attack, rest)
        rows.append(row)
        simulated = ", ".join(shown(row[f"{side}_simulated"]) for side in ("honest", "dishonest"))
        agree = "yes" if row["simulator_agrees"] and row["explained"] else "**no**"
        print(
            f"| {attack} | {row['role']} | {shown(row['honest'])} | {shown(row['dishonest'])} | {simulated} | {agree} "
            f"| {row['money_difference']} |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"dishonest": int(args.dishonest), "attacks": rows}, indent=2) + "\n")
    if not all(row["simulator_agrees"] and row["explained"] and row["money_difference"] == "0" for row in rows):
        sys.exit("a run differs from the simulator's books, or money is missing")


if __name__ == "__main__":
    main()
