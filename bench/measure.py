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
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bench.contenders import resolve
from tests.support.die_with_parent import die_with_parent

ROOT = Path(__file__).resolve().parents[1]


class Sample(msgspec.Struct, frozen=True):
    """One run of one contender."""

    records: int
    cpu_seconds: float
    wall_seconds: float
    #: Of the whole process, records that were prepared for it included.
    max_rss_mb: float

    @property
    def cpu_us_per_record(self) -> float:
        """Microseconds of CPU for one record."""
        return self.cpu_seconds / self.records * 1e6

    @property
    def records_per_second(self) -> float:
        """By the clock on the wall."""
        return self.records / self.wall_seconds


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


def in_fresh_process(suite: str, job: msgspec.Struct, timeout: float = 900.0) -> Sample:
    """`bench.<suite>.run_job(job)` in a new interpreter; a process that takes longer than `timeout` seconds is killed.

    The parent takes stock too, of the process's whole life, and does not believe a child that reports more than that.
    """
    with tempfile.TemporaryDirectory(prefix="loom-bench-") as folder:
        answer = Path(folder) / "sample.json"
        command = [sys.executable, "-m", "bench.child", suite, msgspec.json.encode(job).decode(), str(answer)]
        process = subprocess.Popen(die_with_parent(command), cwd=ROOT, stdin=subprocess.DEVNULL)
        deadline = threading.Timer(timeout, process.kill)
        deadline.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            deadline.cancel()
        if process.returncode != 0:
            raise RuntimeError(f"the contender's process ended with {process.returncode}: {job}")
        sample = msgspec.json.decode(answer.read_bytes(), type=Sample)
    whole = usage.ru_utime + usage.ru_stime
    if sample.cpu_seconds > whole:
        raise RuntimeError(f"{sample.cpu_seconds} s of CPU were reported, the whole process took {whole} s: {job}")
    return sample


def in_turn(contenders: Mapping[str, str], rounds: int, run: Callable[[str], Sample]) -> dict[str, list[Sample]]:
    """The samples of `rounds` rounds in which each contender that is there runs once."""
    present = [name for name, target in contenders.items() if resolve(target) is not None]
    samples: dict[str, list[Sample]] = {name: [] for name in present}
    for number in range(1, rounds + 1):
        for name in present:
            sample = run(name)
            samples[name].append(sample)
            figures = f"{sample.cpu_us_per_record:7.2f} µs/record {sample.records_per_second:11,.0f} records/s"
            print(f"  round {number}/{rounds}  {name:18} {figures}", flush=True)
    return samples
