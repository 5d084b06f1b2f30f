"""The engine's recovery store: a local directory, made ready before the first run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir

from loom.streaming.runtime.recovery_directory import recovery_refused
from loom.streaming.runtime.settings import BytewaxRecoverySettings

__all__ = ["open_recovery"]

#: The number of store partitions is fixed for the life of a directory; one is enough for one process.
_PARTITIONS = 1


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
        raise recovery_refused(settings, error.strerror) from error
    interval = settings.backup_interval_ms
    kept = timedelta(milliseconds=interval) if interval is not None else None
    return RecoveryConfig(directory, kept)  # type: ignore[no-untyped-call]
