"""The name by which a class can be imported, also where its module is the program that was started.

Python calls that module `__main__`, which is another one in every program, so the name is useless to a reader.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from loom.core.errors import LoomError

__all__ = ["NotImportableError", "importable_name", "qualified_name"]

#: the second one is what a process of `multiprocessing` calls the program that started it
_STARTED = ("__main__", "__mp_main__")


class NotImportableError(LoomError):
    """A class of the program that was started, which nothing else can import."""


def importable_name(cls: type) -> str:
    """`module.qualname`, with the name that the class's module is imported by.

    Raises `NotImportableError` for a class of an interactive session, of `python -c`, or of a file that cannot be imported
    by its own name.

    >>> importable_name(LoomError)
    'loom.core.errors.LoomError'
    """
    module = cls.__module__
    if module in _STARTED:
        module = _started_as(sys.modules.get(module), cls.__qualname__)
    return f"{module}.{cls.__qualname__}"


def qualified_name(cls: type) -> str:
    """As `importable_name`, and `module.qualname` as Python has it where there is none. For people, not for programs."""
    try:
        return importable_name(cls)
    except NotImportableError:
        return f"{cls.__module__}.{cls.__qualname__}"


def _started_as(program: ModuleType | None, qualname: str) -> str:
    name = None
    # A profiler or debugger may be what was started: then the class is not there.
    if program is not None and qualname.partition(".")[0] in vars(program):
        spec, file = getattr(program, "__spec__", None), getattr(program, "__file__", None)
        name = spec.name if spec is not None else _stem(file) if file is not None else None
    if name is None or name in _STARTED:
        raise NotImportableError(
            f"{qualname} is defined in the program that was started, which no other program can import by a name"
        )
    return name


@cache
def _stem(file: str) -> str | None:
    """The name of a file that was started, if an import of that name finds this very file."""
    path = Path(file)
    if (path.parent / "__init__.py").exists():
        return None  # part of a package, which others import by a longer name
    try:
        spec = find_spec(path.stem)
        same = spec is not None and spec.origin is not None and path.samefile(spec.origin)
    except (ImportError, ValueError, OSError):
        return None
    return path.stem if same else None
