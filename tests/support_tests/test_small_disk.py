"""A disk that is full when the tests say so."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.small_disk import SmallDisk


def test_a_small_disk_can_be_filled_and_freed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(SmallDisk(tmp_path / "disk", 1))
        except PermissionError as reason:
            pytest.skip(f"not possible here: {reason}")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.directory / "more").write_bytes(b"x" * 100)
        disk.free()
        (disk.directory / "more").write_bytes(b"x" * 100_000)
    assert not os.path.ismount(disk.directory)
