"""Times the simulator beside its NumPy version, in turns, so that both see the same machine. Called by scripts/bench.sh.

    python bench_simulate.py POQ_SIMULATE SETTLEMENT_VECTORS [--json FILE] [--quick]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REFERENCE = Path(__file__).with_name("reference_round.py")


def seconds(command):
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("vectors")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()

    # What is timed is the same computation.
    subprocess.run([sys.executable, REFERENCE, "check", options.vectors], check=True)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        quick = ["--quick"] if options.quick else []
        subprocess.run([options.program, "bench", *quick, "--json", out], check=True)
        result = json.loads(out.read_text())

    # Enough rounds that starting a process and importing NumPy, which neither side counts, would not matter either.
    rounds = {"numpy": 500 if options.quick else 2_000, "rust": 20_000}
    pairs = []
    for _ in range(3 if options.quick else 5):
        rust = seconds([options.program, "bench", "--rounds", str(rounds["rust"])]) / rounds["rust"]
        numpy = seconds([sys.executable, REFERENCE, "time", str(rounds["numpy"])]) / rounds["numpy"]
        pairs.append((rust, numpy))
        print(f"per round: simulator {rust * 1e6:.1f} µs, NumPy {numpy * 1e6:.0f} µs, {numpy / rust:.0f} times")
    result["numpy_ratio"] = statistics.median(numpy / rust for rust, numpy in pairs)
    result["numpy_us_per_round"] = statistics.median(numpy for _, numpy in pairs) * 1e6
    result["simulator_us_per_round"] = statistics.median(rust for rust, _ in pairs) * 1e6
    print(f"median: the simulator is {result['numpy_ratio']:.0f} times as fast as NumPy")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
