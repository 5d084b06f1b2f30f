"""What the objects of a flow remember: kept before a run, and put back for one that begins again.

Used by the test kit's `reset`, and by a run that is taken up again after a transaction that was aborted. The compiler warns
of what cannot be put back.

A step that is named as a class is recreated by each compilation. One that is given as an instance outlives them, with what
it has seen. Its state is restored in place, so that a test can keep using the object that it gave.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import msgspec

from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import CompiledNode, CompiledSource, CompiledTopic, NodePath, walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import LoomStreamingError
from loom.streaming.nodes.boundary import PartitionPolicy

__all__ = ["CannotForgetError", "Memory", "warn_unforgettable"]

#: objects of Loom itself, which are no state of an author's step
_OURS = ("loom.core", "loom.streaming")
#: slots that hold no state
_PYTHONS = ("__dict__", "__weakref__")


class CannotForgetError(LoomStreamingError):
    """A step that was given as an instance holds something that cannot be put back."""


def warn_unforgettable(
    source: CompiledSource, nodes: tuple[CompiledNode, ...], outputs: Iterable[CompiledTopic], issues: Issues
) -> None:
    """Warn of objects that an aborted transaction cannot put back to their start, so that it ends the run."""
    for node in walk_nodes(nodes):
        _warn(node.given, node.step_id, issues, "process", node.path)
    _warn(_of_source(source), "the source", issues, "source", ())
    for output in outputs:
        _warn(_of_topic(output), output.step_id, issues, output.where, output.path)


def _warn(given: Iterable[Any], owner: str, issues: Issues, where: str, path: NodePath) -> None:
    for holder, found in _Kept(_each(given)).unforgettable:
        name = type(holder).__qualname__
        issues.warn(
            Code.STEP_MEMORY,
            f"the {name} of {owner} cannot forget what it has seen, so under exactly_once an aborted transaction ends the run "
            "with exit code 7 instead of being taken up in place",
            where=where,
            path=path,
            expected="an object that can begin again",
            found=f"one that holds a {type(found).__qualname__}, which moves on and never back",
            remedy=f"give the flow the class, or {name}.configure(…), or let it define reset()",
        )


class _Kept:
    """The state of some objects, as it was when this was made."""

    def __init__(self, objects: Iterable[Any]) -> None:
        self._resets: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []
        #: objects that cannot be put back to their start, each with what makes it so
        self.unforgettable: list[tuple[Any, Any]] = []
        for found in objects:
            reset = getattr(found, "reset", None)
            if callable(reset):
                self._resets.append(reset)
            else:
                self._keep(found)

    def restore(self) -> None:
        """Restore everything; a step with a `reset()` does it itself."""
        for put_back in (*self._undo, *self._resets):
            put_back()

    def _keep(self, given: Any) -> None:
        package = type(given).__module__.partition(".")[0]
        seen: set[int] = set()
        waiting = [given]
        while waiting:
            found = waiting.pop()
            if id(found) in seen or isinstance(found, type | FunctionType | ModuleType):
                continue
            seen.add(id(found))
            if isinstance(found, Iterator | random.Random):
                self.unforgettable.append((given, found))
            waiting += self._keep_content(found)
            if found is given or _is_of(package, found):
                waiting += self._keep_attributes(found)

    def _keep_content(self, found: Any) -> Iterable[Any]:
        """What a container holds; one that can change is kept."""
        if isinstance(found, dict):
            entries = dict(found)
            self._undo += [lambda: dict.clear(found), lambda: dict.update(found, entries)]
            return (*entries, *entries.values())
        if isinstance(found, list | bytearray):
            items = found[:]
            self._undo.append(lambda: found.__setitem__(slice(None), items))
            return () if isinstance(found, bytearray) else list(items)
        if isinstance(found, set):
            members = set(found)
            self._undo += [found.clear, lambda: found.update(members)]
            return members
        if isinstance(found, deque):
            queued = tuple(found)
            self._undo += [found.clear, lambda: found.extend(queued)]
            return queued
        return found if isinstance(found, tuple | frozenset) else ()

    def _keep_attributes(self, found: Any) -> Iterable[Any]:
        held = getattr(found, "__dict__", None)
        values: list[Any] = []
        if isinstance(held, dict):
            attributes = dict(held)
            self._undo.append(lambda: _put_back(found, held, attributes))
            values += attributes.values()
        names = tuple(_slots(type(found)))
        slots = {name: getattr(found, name) for name in names if hasattr(found, name)}
        if names:
            self._undo.append(lambda: _put_back_slots(found, slots))
            values += slots.values()
        return values


class Memory:
    """The state of every object that an author gave a flow, as it was when this was made."""

    def __init__(self, plan: CompiledPlan) -> None:
        self._kept = _Kept(_each(_all(plan)))

    def restore(self) -> None:
        """Restore everything; a step with a `reset()` does it itself. Raises as `check`."""
        self.check()
        self._kept.restore()

    def check(self) -> None:
        """Raise `CannotForgetError` for an object whose state cannot be put back."""
        for holder, found in self._kept.unforgettable:
            raise CannotForgetError(
                f"reset() cannot make {type(holder).__qualname__} forget: it holds a {type(found).__qualname__}, which moves on "
                f"and never back. Give the flow its class or {type(holder).__qualname__}.configure(…), which each compilation "
                "creates again, or let it define reset()"
            )


def _each(given: Iterable[Any]) -> Iterator[Any]:
    """The objects that the author made, each once; what a binding made belongs to its plan."""
    seen: set[int] = set()
    for found in map(_owner, given):
        # An expression is written as a tree of ours, and a function keeps nothing in itself.
        is_object = not isinstance(found, FunctionType) and not type(found).__module__.startswith(_OURS)
        if is_object and id(found) not in seen:
            seen.add(id(found))
            yield found


def _all(plan: CompiledPlan) -> Iterator[Any]:
    for node in walk_nodes(plan.nodes):
        yield from node.given
    yield from _of_source(plan.source)
    for topic in plan.topics():
        yield from _of_topic(topic)


def _of_source(source: CompiledSource) -> tuple[Any, ...]:
    return (source.dec_hook,) if source.dec_hook is not None else ()


def _of_topic(topic: CompiledTopic) -> Iterator[Any]:
    # What is no policy is a problem of its own, which is reported with the others.
    if isinstance(topic.partitioning, PartitionPolicy):
        yield topic.partitioning.strategy
    if topic.enc_hook is not None:
        yield topic.enc_hook


def _owner(given: Any) -> Any:
    """The object that keeps the state: of a method the one it is bound to, of a partial the callable below."""
    while isinstance(given, MethodType | partial):
        given = given.__self__ if isinstance(given, MethodType) else given.func
    return given


def _is_of(package: str, found: Any) -> bool:
    """Whether an object is of a class of the author: only those are inspected."""
    module = type(found).__module__
    return module.partition(".")[0] == package and not module.startswith(_OURS)


def _slots(cls: type) -> Iterator[str]:
    if issubclass(cls, msgspec.Struct):
        yield from cls.__struct_fields__
    for base in cls.__mro__:
        names = vars(base).get("__slots__", ())
        yield from (name for name in ((names,) if isinstance(names, str) else names) if name not in _PYTHONS)


def _put_back(owner: Any, held: dict[str, Any], attributes: dict[str, Any]) -> None:
    if vars(owner) is not held:
        owner.__dict__ = held
    held.clear()
    held.update(attributes)


def _put_back_slots(owner: Any, slots: dict[str, Any]) -> None:
    for name in _slots(type(owner)):
        if name in slots:
            if getattr(owner, name, slots) is not slots[name]:
                setattr(owner, name, slots[name])
        elif hasattr(owner, name):
            delattr(owner, name)
