"""The engine's recovery store: a local directory, made ready before the first run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from bytewax.recovery import (
    InconsistentPartitionsError,
    MissingPartitionsError,
    NoPartitionsError,
    RecoveryConfig,
    init_db_dir,
)

from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.recovery_directory import opened_store
from loom.streaming.runtime.run_errors import RecoveryDirectoryError
from loom.streaming.runtime.settings import BytewaxRecoverySettings

__all__ = ["opened_recovery"]

_REFUSED = (InconsistentPartitionsError, MissingPartitionsError, NoPartitionsError)


@contextmanager
def opened_recovery(
    settings: BytewaxRecoverySettings | None, flow: str, layout: Layout
) -> Iterator[RecoveryConfig | None]:
    """What the engine takes, while the store is held; `None` without one.

    Raises `RecoveryDirectoryError` when it cannot be used, also by the engine itself.
    """
    if settings is None:
        yield None
        return
    interval = settings.backup_interval_ms
    kept = timedelta(milliseconds=interval) if interval is not None else None
    with opened_store(settings, flow, layout, _make) as directory:
        try:
            yield RecoveryConfig(directory, kept)  # type: ignore[no-untyped-call]
        except Exception as error:
            refused = next((e for e in (error, error.__cause__) if isinstance(e, _REFUSED)), None)
            if refused is None:
                raise
            raise RecoveryDirectoryError(
                f"streaming.runtime.recovery.db_dir {settings.db_dir!r} holds files that do not belong together ({refused}): "
                "restore all of them, of every process, from one backup, and make recovery.backup_interval_ms longer than the "
                "time between two backups"
            ) from error


def _make(directory: Path, parts: int) -> None:
    init_db_dir(directory, parts)  # type: ignore[no-untyped-call]
