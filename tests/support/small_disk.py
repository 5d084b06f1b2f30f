"""A directory that holds a few megabytes and no more: a size-limited tmpfs, which only root can mount."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SmallDisk"]

_PIECE = b"\0" * 65_536


class SmallDisk:
    """Mounted at `directory` while the block lasts. Raises `PermissionError` where it cannot be mounted."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self._megabytes = megabytes

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "loom-tests", str(self.directory)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as problem:
            raise PermissionError(str(problem)) from None
        if done.returncode:
            raise PermissionError(f"mounting a tmpfs: {done.stderr.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.directory)], capture_output=True, check=False)

    def fill(self) -> None:
        """Use up all that is left, and go on doing so until the file holds it."""
        with (self.directory / "filler").open("ab", buffering=0) as filler:
            size = len(_PIECE)
            while size:
                try:
                    filler.write(_PIECE[:size])
                except OSError as problem:
                    if problem.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Give it back."""
        os.unlink(self.directory / "filler")
