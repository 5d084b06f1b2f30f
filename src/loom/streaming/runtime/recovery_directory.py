"""The directory of a recovery store: whose it is, checked before a run, and held by one process. Its files are the engine's.

Beside them lies a small file for each process that says which flow and layout the store belongs to. What does not fit is an
error, and nothing in the directory is changed. `prepare` checks; the engine opens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_errors import RecoveryDirectoryError
from loom.streaming.runtime.settings import BytewaxRecoverySettings

__all__ = ["StoreState", "check_recovery", "opened_store", "recovery_refused"]

_log = get_logger(__name__)

_KEY = "streaming.runtime.recovery.db_dir"
_STATES, _PARTS = "loom-store-*.json", "part-*.sqlite3"
_AWAY = "give each flow and each number of processes a directory of its own, or move this one away: offsets are kept by Kafka too"


class StoreState(LoomFrozenStruct):
    """What is written beside a store."""

    flow: str
    processes: int
    process: int
    cluster: bool
    #: how many runs have opened it
    generation: int
    #: how many runs its files knew of when it was last opened
    executions: int

    @property
    def layout(self) -> str:
        """For messages."""
        if self.processes == 1:
            return "1 process"
        return f"{'a cluster of ' if self.cluster else ''}{self.processes} processes"


def check_recovery(settings: BytewaxRecoverySettings, flow: str, layout: Layout) -> StoreState | None:
    """What is written beside the store of this process; `None` for a new one. Changes nothing.

    Raises `RecoveryDirectoryError` where the directory cannot be made or written, where it belongs to another flow or layout,
    and where its files are missing or older than what is written beside them.
    """
    directory = _directory(settings, layout).absolute()
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not there.is_dir():
        raise recovery_refused(settings, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise recovery_refused(settings, os.strerror(errno.EACCES))
    root = Path(settings.db_dir)
    states = [_read(settings, path) for path in (*root.glob(_STATES), *root.glob(f"process-*/{_STATES}"))]
    ours = StoreState(flow, layout.processes, layout.index, layout.is_cluster, 0, 0)
    for state in states:
        if state.flow != flow:
            raise _refused(settings, f"holds the state of the flow {state.flow!r}, and this is {flow!r}: {_AWAY}")
        if state.layout != ours.layout:
            raise _refused(settings, f"was written by {state.layout}, and this flow runs as {ours.layout}: {_AWAY}")
    if directory.name != root.name and any(root.glob(_PARTS)):
        raise _refused(settings, f"was written by 1 process, and this flow runs as {ours.layout}: {_AWAY}")
    own = next((state for state in states if state.process == layout.index), None)
    if own is not None:
        _check_files(settings, directory, own, layout)
    return own


@contextmanager
def opened_store(
    settings: BytewaxRecoverySettings, flow: str, layout: Layout, make: Callable[[Path, int], None]
) -> Iterator[Path]:
    """The directory of this process's store, held until the end of the block; new and empty stores are made.

    `make` makes the files of an empty store of so many parts in a directory. Raises as `check_recovery`, and where another
    process holds the store.
    """
    directory = _directory(settings, layout)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / f"loom-store-{layout.index}.lock").open("a")
    except OSError as error:
        raise recovery_refused(settings, error.strerror) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refused(
                settings, f"is in use by another run of the flow {flow!r}: stop that one first, or give each its own"
            ) from error
        before = check_recovery(settings, flow, layout)
        try:
            if before is None and not _parts(directory, layout):
                _make(directory, layout, make)
            executions = _executions(settings, _parts(directory, layout))
            generation = before.generation + 1 if before is not None else 1
            now = StoreState(flow, layout.processes, layout.index, layout.is_cluster, generation, executions)
            _write(directory / f"loom-store-{layout.index}.json", now)
        except OSError as error:
            raise recovery_refused(settings, error.strerror) from error
        _log.info("recovery_store_opened", directory=str(directory), generation=generation)
        yield directory


def recovery_refused(settings: BytewaxRecoverySettings, why: str | None) -> RecoveryDirectoryError:
    """The error that says why a directory cannot be used."""
    return RecoveryDirectoryError(f"streaming.runtime.recovery.db_dir {settings.db_dir!r} cannot be written: {why}")


def _refused(settings: BytewaxRecoverySettings, what: str) -> RecoveryDirectoryError:
    return RecoveryDirectoryError(f"{_KEY} {settings.db_dir!r} {what}. Nothing in it was changed")


def _directory(settings: BytewaxRecoverySettings, layout: Layout) -> Path:
    """Independent processes have a store each; those of a cluster share one, of which each makes its own part."""
    root = Path(settings.db_dir)
    return root if layout.is_alone or layout.is_cluster else root / f"process-{layout.index}"


def _parts(directory: Path, layout: Layout) -> list[Path]:
    """The files that are this process's own."""
    return sorted(directory.glob(f"part-{layout.index}.sqlite3" if layout.is_cluster else _PARTS))


def _check_files(settings: BytewaxRecoverySettings, directory: Path, state: StoreState, layout: Layout) -> None:
    parts = _parts(directory, layout)
    if not parts:
        raise _refused(
            settings,
            f"has lost its files (part-*.sqlite3), which run {state.generation} of the flow has used: restore them, or remove "
            "the rest of the directory to begin without them",
        )
    if _executions(settings, parts) < state.executions:
        raise _refused(
            settings,
            f"holds files that are older than loom-store-{state.process}.json beside them: restore both from one backup",
        )


def _executions(settings: BytewaxRecoverySettings, parts: list[Path]) -> int:
    """How many runs the files know of."""
    found = 0
    for part in parts:
        try:
            with closing(sqlite3.connect(part, timeout=5)) as store:
                found = max(found, *store.execute("SELECT COALESCE(MAX(ex_num) + 1, 0) FROM exs").fetchone())
        except sqlite3.Error as error:
            raise _refused(
                settings, f"holds a damaged file, {part.name} ({error}): restore it from a backup"
            ) from error
    return found


def _make(directory: Path, layout: Layout, make: Callable[[Path, int], None]) -> None:
    if not layout.is_cluster:
        make(directory, 1)
        return
    # One part for each process, wherever it runs: the engine wants all of them in the cluster, not in one place.
    making = directory / f".making-{layout.index}"
    making.mkdir(exist_ok=True)
    for left in making.iterdir():
        left.unlink()
    make(making, layout.processes)
    name = f"part-{layout.index}.sqlite3"
    (making / name).rename(directory / name)
    for left in making.iterdir():
        left.unlink()
    making.rmdir()


def _read(settings: BytewaxRecoverySettings, path: Path) -> StoreState:
    try:
        return msgspec.json.decode(path.read_bytes(), type=StoreState)
    except (OSError, msgspec.DecodeError) as error:
        raise _refused(
            settings, f"holds {path.name}, which cannot be read ({error}): restore it from a backup"
        ) from error


def _write(path: Path, state: StoreState) -> None:
    """Replace the file as a whole."""
    written = path.with_suffix(".tmp")
    with written.open("wb") as file:
        file.write(msgspec.json.encode(state) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    written.rename(path)
