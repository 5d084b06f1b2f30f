"""Which component compiles and runs a node. A component is found by its name and loaded on first use.

What `loom.streaming.nodes.<family>` declares is the work of `loom.streaming.components.<family>`, which lists its
`COMPONENTS`. Node classes of other packages are looked up among the entry points of the group `loom.streaming.nodes`: the
entry point's name is the full name of the node class, its value names a `NodeComponent`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Final

from loom.core.config import ConfigBinding
from loom.core.entry_points import EntryPointError, offers, only_offer
from loom.core.expr import Expression
from loom.streaming.compiler.walk import ComponentError, NodeComponent
from loom.streaming.nodes.sink import IntoSink
from loom.streaming.nodes.step import Step

if TYPE_CHECKING:
    from loom.streaming.compiler.model import CompiledNode
    from loom.streaming.runtime.stages.builder import BuildNode

__all__ = ["COMPONENTS", "ENTRY_POINTS", "builder_of", "built_in_components", "component_of"]

#: the entry points under which other packages register their node classes
ENTRY_POINTS: Final = "loom.streaming.nodes"
COMPONENTS: Final = "loom.streaming.components"
_NODES: Final = "loom.streaming.nodes."

#: the components that have been found, by the class of the compiled nodes they make
_found: dict[type[CompiledNode], NodeComponent] = {}


def component_of(node: Any) -> NodeComponent | None:
    """The component of something in a process; `None` if that is no node.

    >>> component_of("price") is None
    True

    Args:
        node: what an author wrote into a process.

    Raises:
        ComponentError: the component is of another package and cannot be used.
    """
    if isinstance(node, ConfigBinding):
        # A binding counts as the step class of which it will make an instance.
        return _built_in(Step)
    declared = node if isinstance(node, type) else type(node)
    component = _built_in(declared)
    # An expression has every attribute, and a class no partition to build.
    if component is None and isinstance(node, IntoSink) and not isinstance(node, type | Expression):
        component = _built_in(IntoSink)
    if component is None:
        component = _installed(declared)
    if component is None or (isinstance(node, type) and not component.takes_classes):
        return None
    return component


def builder_of(node_class: type[CompiledNode]) -> BuildNode:
    """How the stages build a compiled node.

    Args:
        node_class: its class.

    Raises:
        ComponentError: no component that has been found makes such nodes.
    """
    component = _found.get(node_class)
    if component is None or component.build is None:
        raise ComponentError(f"no component builds a {node_class.__qualname__}")
    return component.build


def built_in_components() -> Iterator[NodeComponent]:
    """Every component of this package, each loaded."""
    for module in iter_modules(import_module(COMPONENTS).__path__):
        yield from _components_in(f"{COMPONENTS}.{module.name}")


def _built_in(declared: type) -> NodeComponent | None:
    for base in declared.__mro__:
        if base.__module__.startswith(_NODES):
            for component in _components_in(f"{COMPONENTS}.{base.__module__.removeprefix(_NODES)}"):
                if base in component.declares:
                    return _kept(component)
    return None


def _components_in(module: str) -> tuple[NodeComponent, ...]:
    if find_spec(module) is None:
        return ()
    found: tuple[NodeComponent, ...] = getattr(import_module(module), "COMPONENTS", ())
    return found


def _installed(declared: type) -> NodeComponent | None:
    offered = offers(ENTRY_POINTS)  # reads the metadata of every package, so once for all bases
    for base in declared.__mro__:
        try:
            offer = only_offer(offered, f"{base.__module__}.{base.__qualname__}")
            found: object = offer.load() if offer is not None else None
        except EntryPointError as error:
            raise ComponentError(str(error)) from error
        if offer is None:
            continue
        if not isinstance(found, NodeComponent):
            raise ComponentError(f"{offer} is a {type(found).__qualname__}, not a NodeComponent")
        if base not in found.declares:
            raise ComponentError(f"{offer} does not declare {base.__qualname__}")
        return _kept(found)
    return None


def _kept(component: NodeComponent) -> NodeComponent:
    if component.compiled is not None:
        other = _found.setdefault(component.compiled, component)
        if other.build is not component.build:
            raise ComponentError(f"two components build {component.compiled.__qualname__}, each in its own way")
    return component
