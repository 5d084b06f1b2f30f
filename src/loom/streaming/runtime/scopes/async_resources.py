"""The resources of an async scope: opened by its first call, closed in reverse order exactly once. Used inside the event loop.

A task of their own enters and leaves the contexts, since many (task groups, timeouts) have to be left by the task that has
entered them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from loom.streaming.compiler.scope_model import CompiledDependency, DependencyKind
from loom.streaming.runtime.run_errors import ResourceError
from loom.streaming.runtime.scopes.resources import context_of, is_async_context

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskGroup

__all__ = ["AsyncResources"]


class AsyncResources:
    """What the steps inside one scope are given, for a worker or for a batch.

    Args:
        scope: the step id of the scope.
        dependencies: what it provides.
    """

    def __init__(self, scope: str, dependencies: tuple[CompiledDependency, ...]) -> None:
        self._scope = scope
        self._dependencies = dependencies
        self._values: dict[str, Any] = {}
        self._given: dict[tuple[str, ...], Mapping[str, Any]] = {}
        self._opening: anyio.Event | None = None
        self._closing: anyio.Event | None = None
        self._closed: anyio.Event | None = None
        #: nothing has to be waited for any more
        self.ready = all(one.kind is DependencyKind.VALUE for one in dependencies)
        self._reason: BaseException | None = None
        #: what went wrong
        self.error: BaseException | None = None
        if self.ready:
            self._values.update((one.name, one.bound.instance) for one in dependencies)

    def given(self, names: tuple[str, ...]) -> Mapping[str, Any]:
        """These dependencies; the resources are open."""
        found = self._given.get(names)
        if found is None:
            found = self._given[names] = {name: self._values[name] for name in names}
        return found

    async def open(self, tasks: TaskGroup) -> None:
        """Open every resource; calls that come meanwhile wait.

        Raises:
            ResourceError: if one of them does not open; those before it have been closed again.
        """
        import anyio

        if self._opening is None:
            self._opening, self._closing, self._closed = anyio.Event(), anyio.Event(), anyio.Event()
            tasks.start_soon(self._host, name=f"resources of {self._scope}")
        await self._opening.wait()
        if self.error is not None:
            raise self.error

    async def close(self, reason: BaseException | None = None) -> BaseException | None:
        """Close every resource in reverse order; returns, when that is done, what went wrong with it.

        Args:
            reason: what ends the work that they were opened for; contexts see it.
        """
        if self._closing is None or self._closed is None or not self.ready:
            return None
        self._reason = reason
        self._closing.set()
        await self._closed.wait()
        return self.error

    async def _host(self) -> None:
        assert self._opening is not None
        assert self._closing is not None
        assert self._closed is not None
        try:
            async with AsyncExitStack() as stack:
                for dependency in self._dependencies:
                    self._values[dependency.name] = await self._enter(stack, dependency)
                self.ready = True
                self._opening.set()
                await self._closing.wait()
                self.ready = False
                if self._reason is not None:
                    raise self._reason
        except Exception as error:  # noqa: BLE001 - told to who waits for it
            # What did not open is known already, whatever the contexts around it have made of that.
            if self.error is None and error is not self._reason:
                self.error = ResourceError(self._scope, None, "close", error)
                self.error.__cause__ = error
        finally:
            self._values.clear()
            self._opening.set()
            self._closed.set()

    async def _enter(self, stack: AsyncExitStack, dependency: CompiledDependency) -> Any:
        if dependency.kind is DependencyKind.VALUE:
            return dependency.bound.instance
        try:
            context = context_of(dependency)
            if not is_async_context(context):
                raise TypeError(
                    f"the factory made a {type(context).__qualname__}, which WithAsync cannot open: it is no async context "
                    "manager"
                )
            return await stack.enter_async_context(context)
        except Exception as error:
            self.error = ResourceError(self._scope, dependency.name, "open", error)
            raise self.error from error
