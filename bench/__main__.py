"""`python -m bench [SUITE|all]`: run benchmarks, print and perhaps keep what came out; `--help` lists the suites."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import (
    against,
    async_calls,
    async_kafka,
    authoring,
    kafka,
    latency,
    members,
    memory,
    processes,
    report,
    startup,
)
from bench.environment import EnvironmentUnavailable
from bench.measure import compare
from bench.result import Suite

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        memory.SUITE,
        authoring.SUITE,
        async_calls.SUITE,
        async_kafka.SUITE,
        processes.SUITE,
        kafka.SUITE,
        latency.SUITE,
        members.SUITE,
        startup.SUITE,
    )
}
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suite", choices=[*SUITES, "all"], nargs="?", default="all")
    parser.add_argument("--records", type=int, help="records of one run")
    parser.add_argument("--rounds", type=int, help="runs of each contender; medians are compared")
    parser.add_argument("--markdown", action="store_true", help="print the tables ready to paste into README.md")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="FOLDER",
        help=f"keep all samples, machine, versions and commit as FOLDER/SUITE.json ({RESULTS.name}/ beside this file)",
    )
    parser.add_argument("--show", action="store_true", help="measure nothing, print what --json has kept")
    parser.add_argument(
        "--against",
        metavar="REVISION",
        help="compare our contenders with themselves at another commit, in turn, instead of with others",
    )
    parser.add_argument(
        "--contender", action="append", metavar="NAME", help="with --against: only this one (may be repeated)"
    )
    parser.add_argument(
        "--beside", metavar="NAME", help="compare each --contender with this one, run before and after it in each round"
    )
    arguments = parser.parse_args()
    if arguments.beside is not None and (arguments.suite == "all" or not arguments.contender or arguments.against):
        parser.error("--beside takes one suite and one --contender or more, and no --against")

    as_table = report.as_markdown if arguments.markdown else report.as_text
    for suite in SUITES.values() if arguments.suite == "all" else [SUITES[arguments.suite]]:
        records, rounds = arguments.records or suite.records, arguments.rounds or suite.rounds
        if arguments.beside is not None:
            unknown = {arguments.beside, *arguments.contender} - suite.contenders.keys()
            if unknown:
                parser.error(f"{suite.name} has no {', '.join(sorted(unknown))}")
            beside = against.compare_beside(suite, arguments.beside, arguments.contender, records, rounds)
            print(f"\n{against.as_text(suite, beside)}\n", flush=True)
            continue
        if arguments.against is not None:
            ours = arguments.contender or [
                name for name, one in suite.contenders.items() if name.startswith("loom") and not one.aside
            ]
            try:
                changed = against.compare_with(suite, arguments.against, ours, records, rounds)
            except EnvironmentUnavailable as reason:
                raise SystemExit(str(reason)) from reason
            print(f"\n{against.as_text(suite, changed)}\n", flush=True)
            continue
        if arguments.show:
            found = report.kept(suite, arguments.json or RESULTS)
            if found is None:
                raise SystemExit(f"no kept figures of {suite.name}")
        else:
            print(f"{suite.name}:", flush=True)
            result = compare(suite, records, rounds)
            found = report.report_of(suite, result)
            if arguments.json is not None:
                report.keep(found, arguments.json)
        print(f"\n{as_table(suite, found)}\n", flush=True)


if __name__ == "__main__":
    main()
