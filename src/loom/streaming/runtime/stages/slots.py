"""The plan's ways out as the stages know them. Made by the outlets, once per build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import NodePath
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.stages.failures import ErrorTarget
from loom.streaming.runtime.stages.outputs import build_topic

__all__ = ["BuildTopic", "OutputSlots"]

#: the type of `build_topic` and of its replacements
BuildTopic: TypeAlias = Callable[..., tuple[Any, Any]]


class OutputSlots(LoomFrozenStruct):
    """Which slot of the plan's outlets each output of the flow has, and which of them take messages."""

    #: the flow's own output has the empty path
    outputs: Mapping[NodePath, int]
    hosted: frozenset[int]
    errors: Mapping[ErrorKind, ErrorTarget]
    #: the name under which results are counted, by slot
    names: tuple[str, ...]
    #: sinks that get a copy of every output message
    audits: tuple[int, ...] = ()
    #: makes the end of a stage that is a topic; the test kit looks on here
    into_topic: BuildTopic = build_topic
