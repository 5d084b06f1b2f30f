"""An expression as data: frozen nodes that compare and hash by structure, and their text.

Made by `expression.py`; read by `compiling.py` and `checking.py`.
"""

from __future__ import annotations

import enum
import keyword
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from loom.core.model import LoomFrozenStruct

__all__ = [
    "METHODS",
    "Attribute",
    "Between",
    "Compare",
    "Comparison",
    "Constant",
    "IsIn",
    "Item",
    "Logical",
    "Node",
    "Not",
    "Root",
    "is_name",
    "render",
    "roots_of",
]

Comparison: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]

#: what a path can do itself, so that a field of this name is written `.field("isin")`
METHODS = frozenset({"isin", "between", "field"})


class Node(LoomFrozenStruct):
    """Base of all nodes of an expression."""


class Root(Node):
    """What an expression is evaluated on. `parts` are roots of their own that can be had from it as attributes."""

    name: str
    parts: tuple[Root, ...] = ()


class Attribute(Node):
    """A named attribute of the node before it."""

    of: Node
    name: str


class Item(Node):
    """An item of the node before it."""

    of: Node
    key: Node


class Constant(Node, eq=False):
    """A value that was written down. Two are equal when their types are too: 1, 1.0 and True are three constants."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return _identity(self.value) == _identity(other.value) if isinstance(other, Constant) else NotImplemented

    def __hash__(self) -> int:
        try:
            return hash(_identity(self.value))
        except TypeError:  # something of the author's own that does not hash
            return hash(type(self.value))


class Compare(Node):
    """Two operands and the comparison between them."""

    operator: Comparison
    left: Node
    right: Node


class Between(Node):
    """Whether a value lies between two others or is one of them."""

    value: Node
    low: Node
    high: Node


class IsIn(Node):
    """Whether a value is one of these."""

    value: Node
    options: tuple[Constant, ...]


class Not(Node):
    """The opposite."""

    operand: Node


class Logical(Node):
    """Two or more operands of which all (`and`) or one (`or`) must hold."""

    operator: Literal["and", "or"]
    operands: tuple[Node, ...]


def is_name(name: str) -> bool:
    """Whether source code that says `.name` reads the attribute of just this name."""
    # Python normalises the identifiers in source code, but not the argument of `getattr`.
    return name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name


def roots_of(node: Node) -> Iterator[Root]:
    """The roots that a tree reads, each as often as it does."""
    match node:
        case Root():
            yield node
        case Logical(operands=operands):
            for operand in operands:
                yield from roots_of(operand)
        case Constant():
            pass
        case _:
            for name in node.__struct_fields__:
                if isinstance(child := getattr(node, name), Node):
                    yield from roots_of(child)


def render(node: Node) -> str:
    """The text one would write for a tree.

    >>> render(Compare("==", Attribute(Root("order"), "country"), Constant("ES")))
    "order.country == 'ES'"
    """
    match node:
        case Root(name=name):
            return name
        case Attribute(of=of, name=name):
            if is_name(name) and name not in METHODS and not name.startswith("_"):
                return f"{render(of)}.{name}"
            return f"{render(of)}.field({name!r})"
        case Item(of=of, key=key):
            return f"{render(of)}[{render(key)}]"
        case Constant(value=slice() as part):
            bounds = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
            return ":".join("" if bound is None else repr(bound) for bound in bounds)
        case Constant(value=enum.Enum() as member):
            return f"{type(member).__name__}.{member.name}"
        case Constant(value=value):
            return repr(value)
        case Compare(operator=operator, left=left, right=right):
            return f"{_operand(left)} {operator} {_operand(right)}"
        case Between(value=value, low=low, high=high):
            return f"{_called(value)}.between({render(low)}, {render(high)})"
        case IsIn(value=value, options=options):
            return f"{_called(value)}.isin([{', '.join(map(render, options))}])"
        case Not(operand=operand):
            return f"~{_operand(operand)}"
        case Logical(operator=operator, operands=operands):
            return (" & " if operator == "and" else " | ").join(map(_operand, operands))
    raise AssertionError(node)


def _operand(node: Node) -> str:
    # `&` and `|` bind more tightly than a comparison, and are kept apart from each other for the reader.
    return f"({render(node)})" if isinstance(node, Compare | Logical) else render(node)


def _called(node: Node) -> str:
    return f"({render(node)})" if isinstance(node, Compare | Logical | Not) else render(node)


def _identity(value: Any) -> Any:
    """What makes a constant the same as another: its value with the types in it."""
    kind = type(value)
    if kind in (tuple, list):
        return kind, tuple(map(_identity, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(_identity, value))
    if kind is dict:
        return kind, frozenset((_identity(key), _identity(item)) for key, item in value.items())
    if kind is slice:
        return kind, _identity((value.start, value.stop, value.step))
    if kind is float:
        return kind, repr(value)  # which tells 0.0 from -0.0, and has one nan
    return kind, value
