"""Lazy exports for package `__init__`s (PEP 562), so that importing a package loads only what is used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import Any

from loom.core.errors import NotSupportedYetError

__all__ = ["exports_of", "lazy_exports"]

_BLOCK = "if TYPE_CHECKING:\n"


def lazy_exports(package: str, *, later: Collection[str] = ()) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that imports its public names under `if TYPE_CHECKING:`.

    That block is the only list of where a name lives: a type checker reads it, and so does the first use of a name, which is
    then kept in the package. A name of `later` is part of the contract and not built yet: asking for it raises
    `NotSupportedYetError`, also in a `from … import …`. `later` may hold patterns, such as `Mongo*`.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            # The import system asks for it at every import of a submodule.
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = exports_of(package).get(name)
        if module is None and any(fnmatchcase(name, pattern) for pattern in later):
            raise NotSupportedYetError(f"{package}.{name} is not supported yet")
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(exports_of(package))

    return __getattr__, __dir__


@cache
def exports_of(package: str) -> dict[str, str]:
    """The module of each name that a package imports under `if TYPE_CHECKING:`.

    Raises `ImportError` where the package was installed without its source.
    """
    spec = sys.modules[package].__spec__
    read = getattr(spec.loader if spec is not None else None, "get_source", None)
    source: str | None = read(package) if read is not None else None
    if source is None:
        raise ImportError(
            f"{package} needs its source file, {package.replace('.', '/')}/__init__.py: keep it when packaging"
        )
    _, _, rest = source.partition(_BLOCK)
    lines = rest.splitlines()
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    block = ast.parse(_BLOCK + "\n".join(lines[:end])).body[0]
    assert isinstance(block, ast.If)
    return {
        name.name: node.module or "" for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
