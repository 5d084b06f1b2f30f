"""From `module:flow` or `file.py:flow` on the command line to a declared flow."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from loom.cli.exit_codes import FlowNotFoundError
from loom.cli.module_errors import module_failed
from loom.core.errors import LoomError
from loom.streaming.flow import StreamFlow

__all__ = ["load_flow", "load_module"]


def load_flow(target: str) -> StreamFlow[Any, Any]:
    """The flow that `module:flow` or `file.py:flow` names.

    Raises `FlowNotFoundError` for a name that leads nowhere. Raises `ModuleFailedError` for
    an error inside the module, with its place.
    """
    module_name, separator, flow_name = target.rpartition(":")
    if not separator or not module_name or not flow_name:
        raise FlowNotFoundError(
            f"{target!r} does not name a flow; write MODULE:FLOW, for example orders.main:flow, or FILE.py:FLOW"
        )
    module = load_module(module_name)
    found: Any = module
    for part in flow_name.split("."):
        if not hasattr(found, part):
            flows = [name for name, value in vars(module).items() if isinstance(value, StreamFlow)]
            near = difflib.get_close_matches(flow_name, flows, n=1) or flows
            hint = f"; did you mean {module_name}:{near[0]}?" if near else "; it holds no StreamFlow"
            raise FlowNotFoundError(f"the module {module_name!r} has no {flow_name!r}{hint}")
        found = getattr(found, part)
    if not isinstance(found, StreamFlow):
        raise FlowNotFoundError(f"{target} is a {type(found).__qualname__}, not a StreamFlow")
    return found


def load_module(name: str) -> ModuleType:
    """The module that a dotted name or a path to a file names. The working directory is looked in, as `python -m` does,
    and for a file its own directory (for one in a package, that of the package), as `python FILE` does.

    Raises `FlowNotFoundError` as `load_flow`.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        _look_first_in(here)
    if name.endswith(".py") or "/" in name:
        return _module_of(Path(name))
    if not all(part.isidentifier() for part in name.split(".")):
        plain = ".".join(part for part in name.split(".") if part)
        hint = f"; did you mean {plain}?" if plain.replace(".", "_").isidentifier() else ""
        raise FlowNotFoundError(
            f"{name!r} is no name of a module: write it as in an import, without a leading dot{hint}"
        )
    return _imported(name, f"looked in {here} and the installed packages")


def _module_of(path: Path) -> ModuleType:
    file = path.resolve()
    if file.is_dir() or file.suffix != ".py":
        raise FlowNotFoundError(f"{str(path)!r} is no Python file; write MODULE:NAME or FILE.py:NAME")
    if not file.is_file():
        raise FlowNotFoundError(f"there is no file {str(path)!r}")
    root, parts = file.parent, [] if file.stem == "__init__" else [file.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    name = ".".join(parts)
    if not all(part.isidentifier() for part in parts):
        raise FlowNotFoundError(f"{str(path)!r} cannot be imported: {name!r} is no name of a module; rename the file")
    _look_first_in(str(root))
    module = _imported(name, f"looked in {root}")
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        raise FlowNotFoundError(
            f"{str(path)!r} cannot be imported: {name!r} is another module already ({found or 'built in'}); rename the file"
        )
    return module


def _imported(name: str, looked: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise FlowNotFoundError(f"there is no module {error.name!r}; {looked}{_another(name)}") from None
        failed = module_failed(name, error)
    except LoomError:
        raise  # it says itself what is wrong
    except Exception as error:  # noqa: BLE001 - whatever a module does when it is imported
        failed = module_failed(name, error)
    raise failed


def _another(name: str) -> str:
    """Which module of this folder may be meant."""
    here = [found.name for found in pkgutil.iter_modules([str(Path.cwd())])]
    near = difflib.get_close_matches(name.partition(".")[0], here, n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != name.partition(".")[0] else ""


def _look_first_in(directory: str) -> None:
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path.insert(0, directory)
