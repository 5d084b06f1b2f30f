"""The directory of a recovery store, checked before a run. Opening it is the engine's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from loom.streaming.runtime.run_errors import RecoveryDirectoryError
from loom.streaming.runtime.settings import BytewaxRecoverySettings

__all__ = ["check_recovery", "recovery_refused"]


def check_recovery(settings: BytewaxRecoverySettings) -> None:
    """Raise `RecoveryDirectoryError` where the directory could not be made or written. Makes nothing."""
    directory = Path(settings.db_dir).absolute()
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not there.is_dir():
        raise recovery_refused(settings, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise recovery_refused(settings, os.strerror(errno.EACCES))


def recovery_refused(settings: BytewaxRecoverySettings, why: str | None) -> RecoveryDirectoryError:
    """The error that says why a directory cannot be used."""
    return RecoveryDirectoryError(f"streaming.runtime.recovery.db_dir {settings.db_dir!r} cannot be written: {why}")
