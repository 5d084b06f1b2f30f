"""Run contenders in turn, each time in a fresh process, and take stock of what they cost. Called by the suites.

The figure that counts is CPU: user and system time of the contender's process, the threads of its clients included, of
the work alone and not of imports and preparation, so the process takes stock itself (`measured`). In each round every
contender runs once, A B C A B C, so that a machine that is slow for a while is slow for all of them.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.contenders import Contender, missing, python_of
from bench.environment import ROOT, with_code_of
from bench.result import Figure, Result, Run, Suite
from tests.support.die_with_parent import die_with_parent


class Sample(msgspec.Struct, frozen=True):
    """One run of one contender."""

    records: int
    cpu_seconds: float
    wall_seconds: float
    #: Of the whole process, records that were prepared for it included.
    max_rss_mb: float
    #: Where start and end were seen from outside: the rate between them.
    steady_per_second: float | None = None

    @property
    def cpu_us_per_record(self) -> float:
        """Microseconds of CPU for one record."""
        return self.cpu_seconds / self.records * 1e6

    @property
    def records_per_second(self) -> float:
        """By the clock on the wall."""
        return self.steady_per_second or self.records / self.wall_seconds


CPU = Figure("cpu", "CPU µs/record", lambda sample: sample.cpu_us_per_record, spread=True)
RATE = Figure("rate", "records/s", lambda sample: sample.records_per_second, digits=0)
SECONDS = Figure("seconds", "s", lambda sample: sample.wall_seconds, digits=1)
RSS = Figure("rss", "RSS MB", lambda sample: sample.max_rss_mb, digits=0, worst=True)


def measured(work: Callable[[], int], expected: int) -> Sample:
    """Run the work in this process and say what it cost; called in the contender's process, after all preparation."""
    gc.collect()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    written = work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    if written != expected:
        raise RuntimeError(f"the contender wrote {written} records of {expected}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(written, cpu, wall, after.ru_maxrss / 1024)


class Job(msgspec.Struct, frozen=True):
    """One run of a contender that needs nothing but its records."""

    contender: str
    records: int


def alone(suite: str) -> Callable[[int], AbstractContextManager[Run]]:
    """How a suite opens whose runs need nothing but a process each."""

    @contextmanager
    def opened(records: int) -> Iterator[Run]:
        def run(name: str, contender: Contender, root: Path) -> Sample:
            return in_fresh_process(suite, contender, Job(name, records), root)

        yield run

    return opened


def in_fresh_process(
    suite: str, contender: Contender, job: msgspec.Struct, root: Path = ROOT, timeout: float = 900.0
) -> Sample:
    """`bench.<suite>.run_job(job)` in a new interpreter; a process that takes longer than `timeout` seconds is killed.

    `root` is the checkout whose code runs, the bench's own included.

    The parent takes stock too, of the process's whole life, and does not believe a child that reports more than that.
    """
    with tempfile.TemporaryDirectory(prefix="loom-bench-") as folder:
        answer = Path(folder) / "sample.json"
        with started(suite, contender, job, Path(folder), root) as process:
            deadline = threading.Timer(timeout, process.kill)
            deadline.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                deadline.cancel()
            if process.returncode != 0:
                raise RuntimeError(f"the contender's process ended with {process.returncode}: {job}{_said(folder)}")
        sample = msgspec.json.decode(answer.read_bytes(), type=Sample)
    whole = usage.ru_utime + usage.ru_stime
    if sample.cpu_seconds > whole:
        raise RuntimeError(f"{sample.cpu_seconds} s of CPU were reported, the whole process took {whole} s: {job}")
    return sample


@contextmanager
def started(
    suite: str, contender: Contender, job: msgspec.Struct, folder: Path, root: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a contender, killed at the end if it still runs. What it says goes to a file in `folder`."""
    python = python_of(contender)
    command = [str(python or sys.executable), "-m", "bench.child", suite]
    command += [msgspec.json.encode(job).decode(), str(folder / "sample.json")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            die_with_parent(command),
            cwd=root,
            env=with_code_of(root, foreign=python is not None),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _said(folder: str) -> str:
    lines = (Path(folder) / "output").read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"\n  | {line}" for line in lines[-25:])


def compare(suite: Suite, records: int, rounds: int) -> Result:
    """The samples of `rounds` rounds in which each contender of a suite that is there runs once."""
    absent = missing(suite.contenders)
    samples: dict[str, list[Any]] = {
        name: [] for name, contender in suite.contenders.items() if name not in absent and not contender.aside
    }
    width = max(map(len, suite.contenders))
    with suite.opened(records) as run:
        for number in range(1, rounds + 1):
            for name, taken in samples.items():
                sample = run(name, suite.contenders[name], ROOT)
                taken.append(sample)
                print(f"  round {number}/{rounds}  {name:{width}} {suite.summary(sample)}", flush=True)
    return Result(records, samples, absent)


def cpu_and_rate(sample: Sample) -> str:
    """A line about a run, printed as soon as it is over."""
    return f"{sample.cpu_us_per_record:7.2f} µs/record {sample.records_per_second:11,.0f} records/s"
