"""What a cell found: one JSON line each in docs/results/crash-matrix.jsonl, appended, so that the matrix can be resumed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.kafka.crash.faults import VERSION, Cell, Delivery
from tests.support.engines import chosen_engine

ROOT = Path(__file__).resolve().parents[3]
RESULTS = Path(os.environ.get("LOOM_CRASH_RESULTS") or ROOT / "docs" / "results" / "crash-matrix.jsonl")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition. Counts are of records."""

    version: int
    fault: str
    delivery: str
    workers: int
    repetition: int
    engine: str = "bytewax"
    seed: int
    commit: str
    date: str
    records: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    #: where copies of some of the duplicated records stand
    repeated: tuple[str, ...] = ()
    #: records that stood in the source more than once, and were to come out as often
    twice_in_source: int = 0
    #: in an output, and never in the input
    invented: int = 0
    #: from the last restart, or from the end of the fault where nothing was restarted: the first batch read
    seconds_to_read: float | None = None
    #: the same, to the first results that are durable
    seconds_to_resume: float | None = None
    #: members of a group that were ended by a fault of ours, and the longest time in which none of them ended an epoch
    members_ended: int = 0
    longest_stall: float | None = None
    #: of the whole repetition
    seconds: float = 0.0
    #: how each process of the flow ended, in that order; negative for a signal
    exit_codes: tuple[int, ...] = ()
    #: why the fault cannot be had on this machine
    impossible: str | None = None
    #: what did not end or resume within its bound
    overdue: str | None = None
    #: further figures of the long loads
    figures: dict[str, float] = {}

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """Which cell of the matrix this is, and on which engine."""
        return self.fault, self.delivery, self.workers, self.repetition, self.engine


#: the exit codes of two instances: one says that another took over, the other goes on until it is stopped
_ONE_GOES_ON = (8, 0)


def broken_promises(
    result: Result, *, overlap: bool = False, graceful: bool = False, exit_codes: Collection[int] | None = None
) -> list[str]:
    """What of the delivery's promise was not kept; `overlap`: two instances ran at a time.

    `exit_codes` are those with which an instance may end while no other one runs; `None` allows any.
    """
    if result.impossible is not None:
        return []
    broken = [result.overdue] if result.overdue is not None else []
    keeps_all = result.delivery in {Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE}
    once = result.delivery == Delivery.EXACTLY_ONCE or (result.delivery == Delivery.AT_MOST_ONCE and not overlap)
    if result.members_ended:
        broken.append(f"{result.members_ended} healthy members ended")
    if result.invented:
        broken.append(f"{result.invented} records came from nowhere")
    if result.lost and (keeps_all or (graceful and result.delivery == Delivery.AT_MOST_ONCE)):
        broken.append(f"{result.lost} records lost")
    if result.duplicated and (once or (graceful and result.delivery == Delivery.AT_LEAST_ONCE)):
        broken.append(f"{result.duplicated} duplicates")
    if result.out_of_order and (keeps_all or not overlap):
        broken.append(f"{result.out_of_order} records out of order")
    if overlap and keeps_all and result.exit_codes != _ONE_GOES_ON:
        broken.append(f"the instances ended with {result.exit_codes}; one is to end as fenced, and the other to go on")
    elif exit_codes is not None and not overlap and not set(result.exit_codes) <= set(exit_codes):
        broken.append(f"the only instance ended with {result.exit_codes}; {sorted(exit_codes)} are its codes")
    return broken


def blank(cell: Cell, seed: int) -> Result:
    """The result of a cell before anything is known of it."""
    return Result(
        version=VERSION,
        fault=cell.fault.name,
        delivery=cell.delivery,
        workers=cell.workers,
        repetition=cell.repetition,
        engine=chosen_engine(),
        seed=seed,
        commit=commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def load(path: Path = RESULTS) -> list[Result]:
    """The results of the current matrix."""
    if not path.exists():
        return []
    decoder = msgspec.json.Decoder(Result)
    found = [decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]
    return [result for result in found if result.version == VERSION]


def present(name: str, delivery: str, workers: int) -> bool:
    """Whether there is a result of something that is done once."""
    wanted = (name, delivery, workers, chosen_engine())
    return any((result.fault, result.delivery, result.workers, result.engine) == wanted for result in load())


def append(result: Result, path: Path = RESULTS) -> None:
    """Keep a result."""
    said = {name: value for name, value in msgspec.to_builtins(result).items() if value not in (None, {}, ())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(said) + b"\n")


def missing(cells: Iterable[Cell], path: Path = RESULTS) -> list[Cell]:
    """The cells without a result on the engine that was chosen."""
    done, engine = {result.key for result in load(path)}, chosen_engine()
    return [
        cell for cell in cells if (cell.fault.name, cell.delivery, cell.workers, cell.repetition, engine) not in done
    ]


def commit() -> str:
    """The commit that is tested; with a plus when the sources differ from it."""
    given = os.environ.get("LOOM_CRASH_COMMIT")
    if given:
        return given

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "src") else "")
