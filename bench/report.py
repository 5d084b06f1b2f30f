"""What a suite found, as a table to read and as JSON to keep."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec

from bench.measure import Sample
from tests.support.kafka_jars import kafka_version


class Result(msgspec.Struct, frozen=True):
    """All samples of a suite by contender, one for each round; ratios are against the baselines."""

    suite: str
    records: int
    baselines: tuple[str, ...]
    samples: dict[str, list[Sample]]
    missing: tuple[str, ...]

    def median(self, contender: str, figure: Callable[[Sample], float]) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(map(figure, self.samples[contender]))

    def ratios(self, contender: str, figure: Callable[[Sample], float]) -> dict[str, float]:
        """How many times a baseline's figure a contender's is: the median of the rounds' ratios.

        Not the ratio of the medians: what disturbs a machine for some seconds disturbs neighbours of one round alike.
        """
        return {
            baseline: statistics.median(
                figure(ours) / figure(theirs)
                for ours, theirs in zip(self.samples[contender], self.samples[baseline], strict=True)
            )
            for baseline in self.baselines
            if baseline in self.samples
        }


def cpu(sample: Sample) -> float:
    """Microseconds of CPU for one record."""
    return sample.cpu_us_per_record


def rate(sample: Sample) -> float:
    """Records per second by the clock on the wall."""
    return sample.records_per_second


def table(result: Result) -> str:
    """Medians, the spread of the CPU figure, and ratios, one contender a line."""
    present = [baseline for baseline in result.baselines if baseline in result.samples]
    rows = [["contender", "CPU µs/record", "min-max", "records/s", *(f"CPU / {name}" for name in present), "RSS MB"]]
    for name, samples in result.samples.items():
        figures = [cpu(sample) for sample in samples]
        ratios = result.ratios(name, cpu)
        rows.append(
            [
                name,
                f"{statistics.median(figures):.2f}",
                f"{min(figures):.2f}-{max(figures):.2f}",
                f"{result.median(name, rate):,.0f}",
                *(f"{ratios[baseline]:.2f}" for baseline in present),
                f"{max(sample.max_rss_mb for sample in samples):.0f}",
            ]
        )
    rounds = len(next(iter(result.samples.values()), []))
    lines = [f"{result.suite}: {result.records:,} records, medians of {rounds}", *_aligned(rows)]
    lines += [f"not there: {name}" for name in result.missing]
    return "\n".join(lines)


def as_json(results: Iterable[Result]) -> bytes:
    """All there is to know about a run, for people and for comparisons over time."""
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
        "suites": {result.suite: _suite(result) for result in results},
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def _suite(result: Result) -> dict[str, Any]:
    return {
        "records": result.records,
        "missing": result.missing,
        "contenders": {
            name: {
                "cpu_us_per_record": round(result.median(name, cpu), 3),
                "records_per_second": round(result.median(name, rate)),
                "cpu_ratio": {base: round(ratio, 3) for base, ratio in result.ratios(name, cpu).items()},
                "rate_ratio": {base: round(ratio, 3) for base, ratio in result.ratios(name, rate).items()},
                "samples": samples,
            }
            for name, samples in result.samples.items()
        },
    }


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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "apache-kafka": kafka_version()}
    for package in ("loom-streaming", "bytewax", "confluent-kafka", "msgspec"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"librdkafka": confluent_kafka.libversion()[0]}


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in enumerate(line))
        for line in (zip(row, widths, strict=True) for row in rows)
    ]
