"""How far a run over a file is: kept beside its results, so that one that was stopped or killed continues."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from loom.cli.exit_codes import InputError
from loom.cli.parquet import is_parquet
from loom.core.model import LoomFrozenStruct

__all__ = ["Checkpoint", "fresh_checkpoint", "is_done", "load_checkpoint", "save_checkpoint"]

#: bytes of the beginning of a file that tell it from another
_HEAD = 65_536


class Checkpoint(LoomFrozenStruct):
    """The lines that are done, and how long each file of results was then."""

    flow: str
    source: str
    #: how many bytes at the beginning of the file tell it from another, and their hash; so it may grow
    head: int
    fingerprint: str
    lines: int = 0
    sizes: dict[str, int] = {}
    #: how long the file was when its end was reached
    done_at: int | None = None


def fresh_checkpoint(flow: str, source: Path) -> Checkpoint:
    """That of a run which begins. Raises `InputError` for a file that cannot be read."""
    head = min(_size(source), _HEAD)
    return Checkpoint(flow, str(source), head, _fingerprint(source, head))


def load_checkpoint(path: Path, flow: str, source: Path) -> Checkpoint:
    """The checkpoint that was saved, else a fresh one. Raises `InputError` for one of another flow or file."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return fresh_checkpoint(flow, source)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{path} cannot be read: {error}. Delete it, or begin again with --restart") from None
    if found.flow != flow or found.fingerprint != _fingerprint(source, found.head):
        raise InputError(
            f"{path} is of the flow {found.flow!r} over {found.source} as it was: begin again with --restart, or write elsewhere"
        )
    return found


def is_done(checkpoint: Checkpoint, source: Path) -> bool:
    """Whether the end of the file was reached, and the file has not grown since."""
    return checkpoint.done_at is not None and _size(source) <= checkpoint.done_at


def _fingerprint(source: Path, head: int) -> str:
    try:
        with source.open("rb") as file:
            found = hashlib.sha256(file.read(head))
            if is_parquet(source):
                # It says at its end what it holds, and cannot grow.
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _HEAD))
                found.update(b"%d " % size + file.read())
            return found.hexdigest()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from None


def _size(source: Path) -> int:
    try:
        return source.stat().st_size
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace what was saved, as a whole, and durably."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
