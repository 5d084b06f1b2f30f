"""What /proc says about a process that is no child of ours."""

from __future__ import annotations

import time
from pathlib import Path


def gone_within(seconds: float, process: int) -> bool:
    """Whether a process ends in this time; one that is dead and only waits to be reaped has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def resident_megabytes(process: int) -> float:
    """The resident set of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def command_name(process: int) -> str:
    """The name of the program that a process runs."""
    return Path(f"/proc/{process}/comm").read_text(encoding="ascii", errors="replace").strip()


def children_of(process: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in found.split()]
