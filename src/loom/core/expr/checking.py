"""Checks an expression before there is a record: fields that no type has, and values that never compare.

Called when a flow is compiled, with what is known of the roots. Whatever the annotations leave open is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from loom.core.config.keys import nearest
from loom.core.config.shape import mapping_hints, show
from loom.core.expr.annotations import MISSING, attribute_of, fields_of, is_method, item_of, members
from loom.core.expr.expression import Expression, structure
from loom.core.expr.tree import (
    Attribute,
    Between,
    Compare,
    Constant,
    IsIn,
    Item,
    Logical,
    Node,
    Not,
    Root,
    render,
)
from loom.core.model import LoomFrozenStruct

__all__ = ["ExpressionProblem", "ProblemKind", "check_expression", "types_of_expression"]


class ProblemKind(StrEnum):
    """What is wrong with an expression: a path that a type does not have, or operands that can never compare.

    >>> list(ProblemKind)
    [<ProblemKind.UNKNOWN_FIELD: 'unknown-field'>, <ProblemKind.INCOMPARABLE: 'incomparable'>]
    """

    UNKNOWN_FIELD = "unknown-field"  #: a path that a type does not have
    INCOMPARABLE = "incomparable"  #: operands of types that are never equal, or have no order


class ExpressionProblem(LoomFrozenStruct):
    """One thing that is wrong with an expression.

    >>> problem = ExpressionProblem(ProblemKind.UNKNOWN_FIELD, "order.contry", "Order", "Order has no field 'contry'", "country")
    >>> print(problem)
    order.contry: Order has no field 'contry'

    Args:
        kind: what kind of problem.
        path: the path up to what is missing, or the comparison.
        found: the type that lacks it, or those on the left of the comparison.
        message: what is wrong.
        nearest: the field that was most likely meant.
        remedy: how to fix it.
    """

    kind: ProblemKind
    #: the path up to what is missing, or the comparison
    path: str
    #: the type that lacks it, or those on the left of the comparison
    found: str
    message: str
    #: the field that was most likely meant
    nearest: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def check_expression(expression: Expression, types: Mapping[str, Iterable[Any]]) -> list[ExpressionProblem]:
    """Check an expression against the annotations that the values of each root may have.

    A path must exist on each of them, and on each member of a union on the way; `None` in a union is allowed. Structs,
    dataclasses and built-in types are known, as are the items of lists, tuples and mappings.

    >>> from loom.core.expr import root
    >>> from loom.core.model import LoomFrozenStruct
    >>> class Order(LoomFrozenStruct):
    ...     country: str
    ...     total: int
    >>> order = root("order")
    >>> for problem in check_expression((order.contry == "ES") | (order.total < "10"), {"order": [Order]}):
    ...     print(problem)
    order.contry: Order has no field 'contry'; did you mean 'country'?
    order.total < '10': int and str have no order

    Args:
        expression: the expression.
        types: the annotations for each root; a root left out may be anything.

    Returns:
        Every problem once.
    """
    checker = _Checker(types)
    checker.types_of(structure(expression))
    return list(dict.fromkeys(checker.problems))


def types_of_expression(expression: Expression, types: Mapping[str, Iterable[Any]]) -> tuple[Any, ...]:
    """The annotations that the values of an expression may have, `None` aside, given those of its roots."""
    return _Checker(types).types_of(structure(expression))


#: types of one group compare with each other; those of two never do. Every other type is left alone.
_GROUPS = {bool: "number", int: "number", float: "number", str: "text", bytes: "bytes"}


class _Checker:
    """Walks one tree and collects what is wrong with it."""

    def __init__(self, types: Mapping[str, Iterable[Any]]) -> None:
        self.problems: list[ExpressionProblem] = []
        self._types = types

    def types_of(self, node: Node) -> tuple[Any, ...]:
        """What the values of a node may be, `None` aside."""
        match node:
            case Root(name=name):
                return members(self._types.get(name, (Any,)))
            case Constant(value=value):
                return members([type(value)])
            case Attribute(of=of, name=name):
                return members(self._attribute(node, owner, name) for owner in self.types_of(of))
            case Item(of=of, key=key):
                owners = self.types_of(of)
                self.types_of(key)
                return members(self._item(node, owner) for owner in owners)
            case Compare(operator=operator, left=left, right=right):
                self._compare(render(node), operator, self.types_of(left), self.types_of(right))
            case Between(value=value, low=low, high=high):
                found = self.types_of(value)
                self._compare(render(Compare(">=", value, low)), ">=", found, self.types_of(low))
                self._compare(render(Compare("<=", value, high)), "<=", found, self.types_of(high))
            case IsIn(value=value, options=options):
                found = self.types_of(value)
                for option in options:
                    self._compare(render(Compare("==", value, option)), "==", found, self.types_of(option))
            case Not(operand=operand):
                self.types_of(operand)
            case Logical(operands=operands):
                for operand in operands:
                    self.types_of(operand)
        return (bool,)

    def _attribute(self, node: Attribute, owner: Any, name: str) -> Any:
        found = attribute_of(owner, name)
        if found is not MISSING:
            return found
        if is_method(owner, name):
            self._missing(node, owner, f"field {name!r}, but a method", None, "an expression cannot call it")
            return Any
        meant = nearest(name, fields_of(owner))
        remedy = f"did you mean {meant!r}?" if meant is not None else None
        if mapping_hints(owner) is not None:
            remedy = f"an item is read as {render(Item(node.of, Constant(name)))}"
        self._missing(node, owner, f"field {name!r}", meant, remedy)
        return Any

    def _item(self, node: Item, owner: Any) -> Any:
        known = isinstance(node.key, Constant)
        key = node.key.value if isinstance(node.key, Constant) else Any
        found = item_of(owner, key)
        if found is not MISSING:
            return found
        meant = nearest(key, fields_of(owner)) if known and isinstance(key, str) else None
        remedy = f"a field is read as {render(Attribute(node.of, meant))}" if meant is not None else None
        self._missing(node, owner, f"item {render(node.key)}", meant, remedy)
        return Any

    def _missing(self, node: Node, owner: Any, what: str, meant: str | None, remedy: str | None) -> None:
        message = f"{show(owner)} has no {what}"
        self.problems.append(
            ExpressionProblem(ProblemKind.UNKNOWN_FIELD, render(node), show(owner), message, meant, remedy)
        )

    def _compare(self, text: str, operator: str, left: tuple[Any, ...], right: tuple[Any, ...]) -> None:
        groups = [{_GROUPS.get(member) for member in side} for side in (left, right)]
        if not all(groups) or None in groups[0] | groups[1] or groups[0] & groups[1]:
            return
        shown = [" | ".join(map(show, side)) for side in (left, right)]
        relation = "are never equal" if operator in ("==", "!=") else "have no order"
        message = f"{shown[0]} and {shown[1]} {relation}"
        self.problems.append(ExpressionProblem(ProblemKind.INCOMPARABLE, text, shown[0], message))
