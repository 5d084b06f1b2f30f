"""Where in the author's code an exception was raised. Error path only: called once for each record that fails."""

from __future__ import annotations

import os
import sysconfig
from enum import Enum
from types import TracebackType

import loom

__all__ = ["author_traceback", "raised_at"]


class _Origin(Enum):
    """Whose code a file holds."""

    LOOM = "loom"
    LIBRARY = "library"
    AUTHOR = "author"


_LOOM = os.path.dirname(os.path.abspath(loom.__file__)) + os.sep
#: flows that come with the package are flows all the same
_EXAMPLES = os.path.join(_LOOM, "examples") + os.sep
_LIBRARIES = tuple(
    os.path.join(path, "")
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
#: generated code, our own loops among it, and modules that are frozen into the interpreter
_GENERATED = "<"

_origins: dict[str, _Origin] = {}


def raised_at(error: BaseException) -> str | None:
    """`file:line` of the innermost frame in the author's code, `None` for an exception that passed none.

    The first frame outside Loom is the author's. Below it, frames of the same top-level package and frames outside the
    interpreter's libraries are, so that a flow which is installed like a library is recognised too.
    """
    found: TracebackType | None = None
    package = ""
    trace = author_traceback(error)
    while trace is not None:
        code = trace.tb_frame.f_code
        root = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if found is None:
            found, package = trace, root
        elif root == package or _origin(code.co_filename) is _Origin.AUTHOR:
            found = trace
        trace = trace.tb_next
    return None if found is None else f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}"


def author_traceback(error: BaseException) -> TracebackType | None:
    """The part of an exception's traceback that begins in the author's code."""
    trace = error.__traceback__
    while trace is not None and _origin(trace.tb_frame.f_code.co_filename) is _Origin.LOOM:
        trace = trace.tb_next
    return trace


def _origin(file: str) -> _Origin:
    known = _origins.get(file)
    if known is None:
        if file.startswith("<fused stage") or (file.startswith(_LOOM) and not file.startswith(_EXAMPLES)):
            known = _Origin.LOOM
        elif file.startswith((_GENERATED, *_LIBRARIES)):
            known = _Origin.LIBRARY
        else:
            known = _Origin.AUTHOR
        _origins[file] = known
    return known
