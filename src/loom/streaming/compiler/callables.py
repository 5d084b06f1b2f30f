"""What a callable of the author returns: its result, or something that would have to be awaited."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_origin

from loom.core.config.shape import bare, is_union

__all__ = ["is_async", "is_async_generator", "is_generator", "never_iterable"]

_ONE_VALUE = (str, bytes, bytearray, memoryview, dict, type(None))


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await, in whichever way the callable was made."""
    forms = (function, _code_of(function))
    return any(inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form) for form in forms)


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it runs nothing of it yet, and gives an iterator."""
    return inspect.isgeneratorfunction(_code_of(function))


def is_async_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it gives an async iterator."""
    return inspect.isasyncgenfunction(_code_of(function))


def never_iterable(annotation: Any) -> bool:
    """Whether no value of an annotation can be the results of an expansion; what is not known can.

    Texts, bytes and mappings are one value, though Python iterates them.

    >>> never_iterable(int), never_iterable(str), never_iterable(list[str]), never_iterable(int | list[int])
    (True, True, False, False)
    """
    shape = bare(annotation)
    if is_union(shape):
        return all(map(never_iterable, shape.__args__))
    if shape is None:
        return True
    cls = get_origin(shape) or shape
    if cls in (Any, object) or not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return False
    if (issubclass(cls, tuple) and hasattr(cls, "_fields")) or hasattr(cls, "__pydantic_fields__"):
        return True  # a named tuple or a pydantic model, of which only the fields can be iterated
    return issubclass(cls, _ONE_VALUE) or not (hasattr(cls, "__iter__") or hasattr(cls, "__getitem__"))


def _code_of(function: Any) -> Any:
    """What is run in the end: below `functools.partial`, and the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    return getattr(type(function), "__call__", function)  # noqa: B004 - what is meant is its code
