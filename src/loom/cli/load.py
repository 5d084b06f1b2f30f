"""From `module:flow` on the command line to a declared flow."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from typing import Any

from loom.cli.exits import FlowNotFoundError
from loom.streaming.flow import StreamFlow

__all__ = ["load_flow"]


def load_flow(target: str) -> StreamFlow[Any, Any]:
    """The flow that `module:flow` names; the working directory is looked in first, as `python -m` does.

    Raises `FlowNotFoundError` for a name that leads nowhere. An error inside the module itself is its author's to see
    and comes out as it is.
    """
    module_name, separator, flow_name = target.partition(":")
    if not separator or not module_name or not flow_name:
        raise FlowNotFoundError(f"{target!r} does not name a flow; write MODULE:FLOW, for example orders.main:flow")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise FlowNotFoundError(
                f"there is no module {error.name!r}; looked in {here} and the installed packages"
            ) from None
        raise
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
