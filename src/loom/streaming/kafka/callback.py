"""A function that the config names as `module:function`. No client is imported here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["load_callback"]


def load_callback(name: str) -> Callable[..., Any]:
    """The function of this name. Raises `ValueError`, which says what is wrong with the name.

    >>> load_callback("json:dumps").__name__
    'dumps'
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ValueError(f"{name!r} is not of the form module:function")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(f"the module of {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module_name} has no {path!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{name!r} names a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]
