"""Lazy exports for package `__init__`s (PEP 562), so that importing a package loads only what is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from loom.core.errors import NotSupportedYetError

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, where: Mapping[str, tuple[str, ...]], *, later: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package whose names live in these modules.

    A name is imported at its first use and kept in the package, so the next use costs nothing. A name of `later` is part
    of the contract and not built yet: asking for it raises `NotSupportedYetError`, also in a `from … import …`. `later`
    may hold patterns, such as `Mongo*`.
    """
    module_of = {name: module for module, names in where.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in module_of and any(fnmatchcase(name, pattern) for pattern in later):
            raise NotSupportedYetError(f"{package}.{name} is not supported yet")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(module_of)

    return __getattr__, __dir__
