"""Scoped resources around an inner process. Declared here, refused by the compiler until they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from loom.core.choices import choice
from loom.core.model import LoomFrozenStruct
from loom.streaming.process import Process
from loom.streaming.typed import In, Out, Typed

__all__ = ["ContextFactory", "ResourceScope", "With", "WithAsync"]


class ResourceScope(StrEnum):
    """How long a resource lives: as long as the worker, or for one batch.

    >>> list(ResourceScope)
    [<ResourceScope.WORKER: 'worker'>, <ResourceScope.BATCH: 'batch'>]
    """

    WORKER = "worker"
    BATCH = "batch"


class ContextFactory(LoomFrozenStruct):
    """Makes a context manager when a scope opens.

    >>> from contextlib import nullcontext
    >>> with ContextFactory(lambda: nullcontext("a connection")).callable() as connection:
    ...     print(connection)
    a connection

    Args:
        callable: called without arguments; returns a context manager.
    """

    callable: Callable[..., Any]


@dataclass(frozen=True, init=False)
class With(Typed[In, Out]):
    """Run an inner process with synchronous resources, passed by name to `execute`. Not built yet: it does not compile.

    >>> scoped = With(process=Process(Price), rates={"EUR": 1.0})

    Args:
        scope: how long a resource lives.
        process: the inner nodes.
        deps: context managers, factories or plain values, by name.
    """

    scope: ResourceScope
    process: Process
    deps: Mapping[str, Any]

    def __init__(self, scope: ResourceScope = ResourceScope.WORKER, *, process: Process, **deps: Any) -> None:
        object.__setattr__(self, "scope", choice(ResourceScope, scope, "With(scope=…)"))
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "deps", deps)


@dataclass(frozen=True, init=False)
class WithAsync(Typed[In, Out]):
    """Run an inner process of async steps, several messages at a time. Not built yet: it does not compile.

    >>> scoped = WithAsync(process=Process(Price), max_concurrency=50, task_timeout_ms=2_000)

    Args:
        scope: how long a resource lives.
        max_concurrency: the most messages in progress at a time.
        task_timeout_ms: the longest time for one step and message, in milliseconds; `None` means no limit.
        process: the inner nodes.
        deps: context managers, factories or plain values, by name.
    """

    scope: ResourceScope
    max_concurrency: int
    task_timeout_ms: int | None
    process: Process
    deps: Mapping[str, Any]

    def __init__(
        self,
        scope: ResourceScope = ResourceScope.WORKER,
        max_concurrency: int = 10,
        task_timeout_ms: int | None = None,
        *,
        process: Process,
        **deps: Any,
    ) -> None:
        object.__setattr__(self, "scope", choice(ResourceScope, scope, "WithAsync(scope=…)"))
        object.__setattr__(self, "max_concurrency", max_concurrency)
        object.__setattr__(self, "task_timeout_ms", task_timeout_ms)
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "deps", deps)
