"""A sink that a config may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from loom.core.model import LoomFrozenStruct
from loom.streaming.bytewax import RuntimeSinkBinding


class FileSettings(LoomFrozenStruct):
    path: str


class FileOfErrors:
    """A line for each error."""

    sink_type: ClassVar[str] = "file"
    config_type: ClassVar[type] = FileSettings

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def build_binding(cls, cfg: FileSettings, ctx: Any) -> RuntimeSinkBinding:
        return RuntimeSinkBinding("errors", cls(cfg.path))

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> _Lines:
        return _Lines(self._path)


class _Lines:
    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._taken: list[Any] = []

    def write_batch(self, items: list[Any]) -> None:
        self._taken += items

    def flush(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{item.reason}\n" for item in self._taken)
        self._taken.clear()

    def close(self) -> None:
        self._taken.clear()
