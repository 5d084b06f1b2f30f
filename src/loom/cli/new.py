"""Makes the folder of a new project from a template: flow, steps, config, tests, sample input, Dockerfile and CI."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from loom.cli.exit_codes import InputError
from loom.cli.versions import versions

__all__ = ["TEMPLATES", "create_project"]

TEMPLATES = ("basic", "routing", "enrichment")

#: what every project has, beside the files of its template
_COMMON = "common"
#: files end with this, so that no tool takes them for Python of ours
_SUFFIX = ".tmpl"
#: names that would hide what a project imports
_TAKEN = frozenset({"loom", "tests", "test", "data"})


def create_project(name: str, template: str, parent: Path) -> list[Path]:
    """Make the project and return its files, relative to `parent`.

    Raises `InputError` for a name that is no name of a package, and for a folder that holds something already.
    """
    package = name.replace("-", "_").lower()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or keyword.iskeyword(package) or package in _TAKEN:
        raise InputError(f"{name!r} is no name for a project: use letters, digits, - and _, beginning with a letter")
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not empty")
    texts = {"@@name@@": name, "@@package@@": package, "@@version@@": versions()["loom-streaming"]}
    root = files("loom.cli") / "templates"
    made = []
    for part in (_COMMON, template):
        for source, path in _walk(root / part, Path()):
            target = Path(name, *(piece.replace("PACKAGE", package) for piece in path.parts))
            text = source.read_text(encoding="utf-8")
            for placeholder, value in texts.items():
                text = text.replace(placeholder, value)
            (parent / target).parent.mkdir(parents=True, exist_ok=True)
            (parent / target).write_text(text, encoding="utf-8")
            made.append(target)
    return sorted(made)


def _walk(folder: Traversable, path: Path) -> list[tuple[Traversable, Path]]:
    """The files of a folder, each with the path that it gets. `DOT_…` and `TESTS` are names here that tools which pack files,
    or look for our own tests, would treat in their way.
    """
    found: list[tuple[Traversable, Path]] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        name = entry.name.removesuffix(_SUFFIX).replace("DOT_", ".").replace("TESTS", "tests")
        if entry.is_dir():
            found += _walk(entry, path / name)
        elif entry.name.endswith(_SUFFIX):
            found.append((entry, path / name))
    return found
