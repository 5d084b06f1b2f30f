"""What an author gave to a scope: bound, told apart, and checked for what the scope can open. Called by the scopes' component."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from loom.core.config import ConfigBinding, ConfigError
from loom.streaming.compiler.bindings import code_of_problem, required_arguments
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import BoundStep, NodePath
from loom.streaming.compiler.scope_model import CompiledDependency, DependencyKind
from loom.streaming.compiler.walk import ProcessCompiler
from loom.streaming.nodes.scope import ContextFactory

__all__ = ["ENTERED_ONCE", "bind_dependencies"]


@contextlib.contextmanager
def _generated() -> Iterator[None]:
    yield


@contextlib.asynccontextmanager
async def _generated_async() -> AsyncIterator[None]:
    yield


#: what `@contextmanager` and `@asynccontextmanager` make; each can be entered only once
ENTERED_ONCE: tuple[type, type] = (type(_generated()), type(_generated_async()))


def bind_dependencies(
    walk: ProcessCompiler, scope: str, deps: Mapping[str, Any], path: NodePath, *, is_async: bool, per_batch: bool
) -> tuple[CompiledDependency, ...]:
    """The dependencies of a scope; what is wrong with one becomes an issue."""
    found = []
    for name, given in deps.items():
        bound = _bound(walk, scope, name, given, path)
        if bound is None:
            continue
        dependency = CompiledDependency(name, _kind(bound.instance), bound)
        if _can_open(walk, scope, dependency, path, is_async=is_async, per_batch=per_batch):
            found.append(dependency)
    return tuple(found)


def _bound(walk: ProcessCompiler, scope: str, name: str, given: Any, path: NodePath) -> BoundStep | None:
    if isinstance(given, type) and issubclass(given, ContextFactory):
        given = given.configure()
    if not isinstance(given, ConfigBinding):
        return BoundStep(given, {}, given)
    target = given.target
    if not given.config_path and (missing := set(required_arguments(target)) - set(given.overrides)):
        walk.issues.error(
            Code.STEP_ARGUMENTS,
            f"{target.__qualname__}, the dependency {name!r} of {scope}, cannot be made without arguments",
            path=path,
            expected=f"values for {', '.join(sorted(missing))}",
            remedy=f'name a section, {target.__qualname__}.from_config("…"), or give an instance',
        )
        return None
    try:
        arguments = walk.config.arguments(given)
        return BoundStep(target, arguments, walk.config.resolve(given))
    except ConfigError as error:
        for problem in error.problems:
            code = code_of_problem(problem, given, walk.config)
            walk.issues.config(code, ConfigError([problem]), subject=target.__qualname__, where="process", path=path)
        return None


def _kind(found: Any) -> DependencyKind:
    if isinstance(found, ContextFactory):
        return DependencyKind.FACTORY
    if _is_sync(type(found)) or _is_async(type(found)):
        return DependencyKind.CONTEXT
    return DependencyKind.VALUE


def _can_open(
    walk: ProcessCompiler,
    scope: str,
    dependency: CompiledDependency,
    path: NodePath,
    *,
    is_async: bool,
    per_batch: bool,
) -> bool:
    name, found = dependency.name, dependency.bound.instance
    if dependency.kind is DependencyKind.VALUE:
        return True
    makes = _made_by(found) if dependency.kind is DependencyKind.FACTORY else type(found)
    opens, other = (_is_async, _is_sync) if is_async else (_is_sync, _is_async)
    if makes is not None and not opens(makes) and other(makes):
        kind, remedy = (
            ("a synchronous", "wrap it in an async context manager, or use With")
            if is_async
            else ("an async", "use WithAsync, or give a synchronous context manager")
        )
        walk.issues.error(
            Code.SCOPE_DEPENDENCY,
            f"{name!r} is {kind} context, which {scope} cannot open",
            path=path,
            expected="an async context manager" if is_async else "a synchronous context manager",
            found=type(found).__qualname__,
            remedy=remedy,
        )
        return False
    if per_batch and isinstance(found, ENTERED_ONCE):
        walk.issues.error(
            Code.SCOPE_DEPENDENCY,
            f"{name!r} can be entered only once, and {scope}(ResourceScope.BATCH) enters it for each batch",
            path=path,
            expected="a ContextFactory",
            found=type(found).__qualname__,
            remedy=f"write {name}=ContextFactory(…) with the function that makes it, not with what it has made",
        )
        return False
    return True


def _made_by(factory: ContextFactory) -> type | None:
    """The class of what a factory makes, as far as that can be seen without a call."""
    if type(factory).create is not ContextFactory.create:
        return None
    made: Any = factory.callable
    if isinstance(made, type):
        return made
    inner = inspect.unwrap(made) if callable(made) else made
    if inner is made:
        return None
    if inspect.isasyncgenfunction(inner):
        return ENTERED_ONCE[1]
    return ENTERED_ONCE[0] if inspect.isgeneratorfunction(inner) else None


def _is_sync(cls: type) -> bool:
    return hasattr(cls, "__enter__") and hasattr(cls, "__exit__")


def _is_async(cls: type) -> bool:
    return hasattr(cls, "__aenter__") and hasattr(cls, "__aexit__")
