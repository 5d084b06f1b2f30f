"""The engine's recovery store: a local directory, made ready before the first run."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir

from loom.streaming.bytewax.errors import RecoveryDirectoryError
from loom.streaming.bytewax.settings import BytewaxRecoverySettings

__all__ = ["check_recovery", "open_recovery"]

#: The number of store partitions is fixed for the life of a directory; one is enough for one process.
_PARTITIONS = 1


def check_recovery(settings: BytewaxRecoverySettings) -> None:
    """Raise `RecoveryDirectoryError` where the directory could not be made or written. Makes nothing."""
    directory = Path(settings.db_dir).absolute()
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not there.is_dir():
        raise _refused(settings, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _refused(settings, os.strerror(errno.EACCES))


def open_recovery(settings: BytewaxRecoverySettings) -> RecoveryConfig:
    """Make the directory where it is missing, and the store in it where it is empty.

    Raises `RecoveryDirectoryError` when it cannot be made or written.
    """
    directory = Path(settings.db_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
        if not any(directory.glob("part-*.sqlite3")):
            init_db_dir(directory, _PARTITIONS)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise _refused(settings, error.strerror) from error
    interval = settings.backup_interval_ms
    kept = timedelta(milliseconds=interval) if interval is not None else None
    return RecoveryConfig(directory, kept)  # type: ignore[no-untyped-call]


def _refused(settings: BytewaxRecoverySettings, why: str | None) -> RecoveryDirectoryError:
    return RecoveryDirectoryError(f"streaming.runtime.recovery.db_dir {settings.db_dir!r} cannot be written: {why}")
