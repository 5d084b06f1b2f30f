"""Whether the `dec_hook` of a source and the `enc_hook` of an output can be called as msgspec calls them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from loom.streaming.compiler.callables import is_async, is_generator
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import NodePath
from loom.streaming.formats.format import Format

__all__ = ["check_hook"]

#: what each hook is called with
_CALLED_WITH = {"dec_hook": ("type", "value"), "enc_hook": ("object",)}


def check_hook(
    issues: Issues,
    owner: str,
    name: str,
    hook: Callable[..., Any] | None,
    wire_format: Format,
    where: str,
    path: NodePath,
) -> None:
    """Report a hook (`dec_hook` or `enc_hook`) of `owner` that cannot be called, or that its format never calls."""
    if hook is None:
        return
    called = f"{name}({', '.join(_CALLED_WITH[name])})"
    problem = _problem(hook, len(_CALLED_WITH[name]), called)
    if problem is not None:
        issues.error(
            Code.STEP_SIGNATURE,
            f"the {name} of {owner} cannot be called: {problem}",
            where=where,
            path=path,
            expected=f"a function that is called as {called} and returns the result",
            remedy=f"write def {called}: …",
        )
    elif not wire_format.takes_hooks:
        issues.error(
            Code.CONFIG_INVALID,
            f"the format {wire_format.name} calls no {name}, and {owner} has one",
            where=where,
            path=path,
            expected="a format that calls it, such as json or msgpack",
            found=wire_format.name,
            remedy=f"remove {name}=…, or set another format",
        )


def _problem(hook: Any, arguments: int, called: str) -> str | None:
    if not callable(hook):
        return f"{type(hook).__qualname__} is no function"
    if is_async(hook):
        return "it is async, and has to return its result"
    if is_generator(hook):
        return "it is a generator, and has to return its result"
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):
        return None  # some C callables tell no signature
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        return f"it is called as {called}: {error}"
    return None
