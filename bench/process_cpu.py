"""What a process of ours has used of the CPU so far, looked up from outside. Linux only."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, those that have ended included; in steps of 10 ms, as a rule."""
    # The name of the program stands in parentheses and may hold anything; the fields behind it are numbers.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
