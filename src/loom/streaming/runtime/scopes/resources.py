"""The resources of a synchronous scope: opened when a step first needs one, closed in reverse order exactly once.

Used on the thread of one worker. Opening is all or nothing: if the third of five fails, two are closed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

from loom.streaming.compiler.dependencies import ENTERED_ONCE
from loom.streaming.compiler.scope_model import CompiledDependency, DependencyKind
from loom.streaming.runtime.run_errors import ResourceError

__all__ = ["Resources", "context_of", "is_async_context", "is_context"]


#: contexts that have been entered and cannot be again
_entered: WeakSet[Any] = WeakSet()


def is_context(found: object) -> bool:
    """Whether it is a synchronous context manager."""
    return hasattr(type(found), "__enter__") and hasattr(type(found), "__exit__")


def is_async_context(found: object) -> bool:
    """Whether it is an asynchronous context manager."""
    return hasattr(type(found), "__aenter__") and hasattr(type(found), "__aexit__")


def context_of(dependency: CompiledDependency) -> Any:
    """What a scope enters for a dependency that is not a plain value."""
    found = dependency.bound.instance
    if dependency.kind is DependencyKind.FACTORY:
        return found.create()
    if isinstance(found, ENTERED_ONCE):
        if found in _entered:
            raise RuntimeError(
                "it was given as an object, which can be entered only once, and has been: by another worker, or in an earlier "
                f"run. Write {dependency.name}=ContextFactory(…) with the function that makes it"
            )
        _entered.add(found)
    return found


class Resources:
    """What the steps inside one scope of one stage are given.

    Args:
        scope: the step id of the scope.
        dependencies: what it provides.
        opened: called when the resources have been opened.
    """

    def __init__(
        self,
        scope: str,
        dependencies: tuple[CompiledDependency, ...],
        opened: Callable[[Resources], None] | None = None,
    ) -> None:
        self.scope = scope
        self._dependencies = dependencies
        self._opened = opened
        self._stack: ExitStack | None = None
        self._values: dict[str, Any] = {}
        #: by the names that a step takes; empty while the resources are closed
        self._given: dict[tuple[str, ...], dict[str, Any]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the resources are open."""
        return self._stack is not None

    def bind(self, function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
        """The function with these dependencies. Hot path: it is called once per record."""
        given = self._given.setdefault(names, {})

        def call(argument: Any) -> Any:
            if not given:
                self.open()
            return function(argument, **given)

        return call

    def given(self, names: tuple[str, ...]) -> Mapping[str, Any]:
        """These dependencies; the resources are open."""
        return {name: self._values[name] for name in names}

    def open(self) -> None:
        """Open every resource in the order of the declaration.

        Raises:
            ResourceError: if one of them does not open; those before it have been closed again.
        """
        if self._stack is not None:
            return
        with ExitStack() as stack:
            for dependency in self._dependencies:
                self._values[dependency.name] = self._enter(stack, dependency)
            self._stack = stack.pop_all()
        for names, given in self._given.items():
            given.update(self.given(names))
        if self._opened is not None:
            self._opened(self)

    def _enter(self, stack: ExitStack, dependency: CompiledDependency) -> Any:
        if dependency.kind is DependencyKind.VALUE:
            return dependency.bound.instance
        try:
            context = context_of(dependency)
            if not is_context(context):
                raise TypeError(
                    f"the factory made a {type(context).__qualname__}, which With cannot open: it is no synchronous context "
                    "manager"
                )
            return stack.enter_context(context)
        except Exception as error:
            raise ResourceError(self.scope, dependency.name, "open", error) from error

    def close(self, error: BaseException | None = None) -> None:
        """Close every resource in reverse order. Idempotent.

        Args:
            error: what ends the work that the resources were opened for; contexts see it.

        Raises:
            ResourceError: if a resource does not close. The others are closed all the same.
        """
        stack, self._stack = self._stack, None
        if stack is None:
            return
        self._values.clear()
        for given in self._given.values():
            given.clear()
        try:
            stack.__exit__(*((type(error), error, error.__traceback__) if error is not None else (None, None, None)))
        except Exception as failed:
            if failed is error:
                return  # a context manager that passes on what it was told
            raise ResourceError(self.scope, None, "close", failed) from failed
