"""An error in an author's module while it is imported, told with its file, its line and what may help."""

from __future__ import annotations

import builtins
import difflib
import re
import sys
import sysconfig
import traceback
from importlib import import_module
from pathlib import Path

from loom.core.errors import LoomError

__all__ = ["ModuleFailedError", "module_failed"]

#: code under these folders is not the author's
_INSTALLED = tuple(
    str(Path(folder).resolve())
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        # An editable install of ours lies elsewhere.
        str(Path(__file__).resolve().parents[1]),
    }
)
_NO_NAME = re.compile(
    r"cannot import name '(?P<name>[^']+)' from (?:partially initialized module )?'(?P<module>[^']+)'"
)


class ModuleFailedError(LoomError):
    """A module of the author's raises while it is imported: where, what, and what may help."""


def module_failed(name: str, error: Exception) -> ModuleFailedError:
    """The error to raise for a module that raised `error` while it was imported."""
    text, help_line = _told(error)
    place = _place(error)
    said = f"{place}: {text}" if place else f"the module {name!r} cannot be imported: {text}"
    failed = ModuleFailedError(f"{said}\n    help:     {help_line}" if help_line else said)
    # It says all that the error says. A traceback still shows both.
    failed.__context__ = error
    return failed


def _place(error: Exception) -> str | None:
    """The file and line of the author's code that raised it: the innermost that is not in an installed package."""
    if isinstance(error, SyntaxError) and error.filename:
        return _shown(error.filename, error.lineno)
    found = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    own = [place for place in found if not str(Path(place[0]).resolve()).startswith(_INSTALLED)]
    return _shown(*own[-1]) if own else None


def _shown(file: str, line: int | None) -> str:
    path = Path(file)
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{shown}, line {line}" if line is not None else str(shown)


def _told(error: Exception) -> tuple[str, str | None]:
    """What is wrong, and what may help."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{kind}: {error.msg}", None
    if isinstance(error, ModuleNotFoundError):
        return f"{kind}: {error}", _of_module(error.name or "")
    if isinstance(error, ImportError) and (found := _NO_NAME.search(str(error))) is not None:
        near = _near(found["name"], _names_of(found["module"]))
        said = f"{kind}: {found[0]}"
        return said, f"did you mean {near!r}?" if near else f"look for the name in {found['module']}"
    if isinstance(error, NameError) and error.name is not None:
        return f"{kind}: {error}", _of_name(error)
    if isinstance(error, KeyError):
        return f"{kind}: {error}", "the key is not there; for a variable of the environment, set it"
    return f"{kind}: {error}", None


def _of_module(name: str) -> str:
    root = name.partition(".")[0]
    near = _near(root, sys.modules.keys() | sys.stdlib_module_names) if root not in sys.modules else None
    return f"install the package, or correct the name{f'; did you mean {near!r}?' if near else ''}"


def _of_name(error: NameError) -> str | None:
    if error.name in _names_of("loom.streaming"):
        return f"import it: from loom.streaming import {error.name}"
    frames = list(traceback.walk_tb(error.__traceback__))
    known = set(dir(builtins))
    if frames:
        known |= frames[-1][0].f_globals.keys() | frames[-1][0].f_locals.keys()
    near = _near(error.name or "", known)
    return f"did you mean {near!r}?" if near else "import or define it first"


def _names_of(module: str) -> set[str]:
    try:
        found = sys.modules.get(module) or import_module(module)
    except ImportError:
        return set()
    return {*getattr(found, "__all__", ()), *dir(found)}


def _near(name: str, known: set[str] | frozenset[str]) -> str | None:
    close = difflib.get_close_matches(name, sorted(one for one in known if not one.startswith("_")), n=1)
    return close[0] if close else None
