"""`python -m bench memory|kafka|all`: run the benchmarks, print what came out, keep it as JSON if asked to."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import kafka, memory, report

#: Records and rounds of a run that is worth quoting; each round runs every contender once.
DEFAULTS = {"memory": (400_000, 5), "kafka": (1_500_000, 3)}
COMPARE = {"memory": memory.compare, "kafka": kafka.compare}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", choices=[*DEFAULTS, "all"], nargs="?", default="all")
    parser.add_argument("--records", type=int, help="records of one run")
    parser.add_argument("--rounds", type=int, help="runs of each contender; medians are compared")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all samples, machine and versions here")
    arguments = parser.parse_args()

    results = []
    for suite in DEFAULTS if arguments.suite == "all" else [arguments.suite]:
        records, rounds = DEFAULTS[suite]
        print(f"{suite}:", flush=True)
        result = COMPARE[suite](arguments.records or records, arguments.rounds or rounds)
        print(f"\n{report.table(result)}\n", flush=True)
        results.append(result)
    if arguments.json is not None:
        arguments.json.write_bytes(report.as_json(results))


if __name__ == "__main__":
    main()
