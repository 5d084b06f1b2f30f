"""What a suite found, as a table to read, as one to paste, and as JSON to keep and show again."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec

from bench.environment import ROOT, pinned
from bench.result import Result, Suite
from bench.targets import verdicts
from tests.support.kafka_jars import kafka_version


class Report(msgspec.Struct, frozen=True):
    """One run of one suite: all samples, and where, when and of what they were taken."""

    suite: str
    date: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, str]
    #: as the tables show them, for comparisons over time
    figures: dict[str, dict[str, float]]
    ratios: dict[str, dict[str, float]]
    result: Result


def report_of(suite: Suite, result: Result) -> Report:
    """All there is to know about the run that has just ended."""
    figures = {
        name: {figure.key: round(result.value(name, figure), 3) for figure in suite.figures} for name in result.samples
    }
    ratios: dict[str, dict[str, float]] = {}
    for key, baseline in suite.ratios:
        for name in result.samples:
            if (ratio := result.ratio(name, suite.figure(key), baseline)) is not None:
                ratios.setdefault(f"{key}/{baseline}", {})[name] = round(ratio, 3)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(suite.name, date, commit_of(ROOT), _machine(), _versions(suite), figures, ratios, result)


def keep(report: Report, folder: Path) -> Path:
    """Write a report to `<suite>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.suite}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path


def kept(suite: Suite, folder: Path) -> Report | None:
    """The report that an earlier run left, if one did."""
    path = folder / f"{suite.name}.json"
    if not path.is_file():
        return None
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    samples = msgspec.convert(report.result.samples, dict[str, list[suite.sample]])  # type: ignore[name-defined]
    return msgspec.structs.replace(report, result=msgspec.structs.replace(report.result, samples=samples))


def as_text(suite: Suite, report: Report) -> str:
    """For a terminal."""
    rows = _rows(suite, report.result)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{suite.title}: {_extent(report.result)}"]
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(c.rjust(w) if index else c.ljust(w) for index, (c, w) in enumerate(cells)))
    lines += [f"not there: {name} ({reason})" for name, reason in report.result.missing.items()]
    lines += verdicts(suite, report.result)
    return "\n".join(lines)


def as_markdown(suite: Suite, report: Report) -> str:
    """For `README.md`."""
    head, *body = _rows(suite, report.result)
    rows = [[head[0], *head[1:]], ["---", *["---:"] * (len(head) - 1)], *([f"`{row[0]}`", *row[1:]] for row in body)]
    lines = [f"### {suite.title}", "", f"{_extent(report.result)}. {_circumstances(report)}", ""]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"\nNot there: `{name}` ({reason})." for name, reason in report.result.missing.items()]
    lines += ["", *(f"- {verdict}" for verdict in verdicts(suite, report.result))]
    return "\n".join(lines).rstrip()


def _extent(result: Result) -> str:
    return f"{result.records:,} records, medians of {result.rounds}"


def _circumstances(report: Report) -> str:
    machine = f"{report.machine['cpu']}, {report.machine['cores']} cores, {report.machine['memory_gb']} GB"
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"{report.date[:10]}, commit {report.commit}; {machine}; {versions}."


def _rows(suite: Suite, result: Result) -> list[list[str]]:
    ratios = [(suite.figure(key), baseline) for key, baseline in suite.ratios if baseline in result.samples]
    head = ["contender"]
    for figure in suite.figures:
        head += [figure.title, "min–max"] if figure.spread else [figure.title]  # noqa: RUF001 - a range
    head += [f"{figure.title.split()[0]} / {baseline}" for figure, baseline in ratios]
    rows = [head]
    for name in result.samples:
        row = [name]
        for figure in suite.figures:
            row.append(figure.text(result.value(name, figure)))
            if figure.spread:
                low, high = result.spread(name, figure)
                row.append(f"{figure.text(low)}–{figure.text(high)}")  # noqa: RUF001 - a range
        found = [result.ratio(name, figure, baseline) for figure, baseline in ratios]
        rows.append(row + ["" if ratio is None else f"{ratio:.2f}" for ratio in found])
    return rows


@functools.cache  # of the start of a run: the results that it keeps are changes, too
def commit_of(root: Path) -> str:
    """The commit of a checkout, and whether it is changed; "unknown" where there is none."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout
        return "unknown"


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        # Above 0 at the end of a run it is the bench's own; well above the cores, something else was running.
        "load_average": os.getloadavg(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions(suite: Suite) -> dict[str, str]:
    found = {"CPython": platform.python_version(), "Apache Kafka": kafka_version()}
    for package in ("bytewax", "msgspec", "confluent-kafka"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["librdkafka"] = confluent_kafka.libversion()[0]
    for contender in suite.contenders.values():
        if contender.requirements is not None:
            # Of an environment of its own, where the file of pins says what is there.
            pins = pinned(contender.requirements)
            package = next(name for name in ("quixstreams", "faststream") if name in pins)
            found[package] = f"{pins[package]} (with confluent-kafka {pins['confluent-kafka']})"
    return found
