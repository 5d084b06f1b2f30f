"""What a plan says of a scope's dependencies: data only."""

from __future__ import annotations

from enum import StrEnum

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import BoundStep

__all__ = ["CompiledDependency", "DependencyKind"]


class DependencyKind(StrEnum):
    """What a scope does with a dependency."""

    VALUE = "value"  #: it is given to the steps as it is
    CONTEXT = "context"  #: it is entered and left
    FACTORY = "factory"  #: it makes a context each time the scope opens


class CompiledDependency(LoomFrozenStruct):
    """What a scope gives to the steps that ask for its name."""

    name: str
    kind: DependencyKind
    bound: BoundStep
