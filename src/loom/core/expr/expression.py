"""What an author writes: a path from a root, compared, and comparisons combined.

Nothing is evaluated here. An expression holds a tree (`tree.py`), which `compiling.py` makes a function of.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NoReturn

from loom.core.expr.tree import (
    Attribute,
    Between,
    Compare,
    Comparison,
    Constant,
    IsIn,
    Item,
    Logical,
    Node,
    Not,
    Root,
    is_name,
    render,
)

__all__ = ["Condition", "Expression", "PathExpression", "root", "same_expression", "structure"]


class Expression:
    """Something that is true or false for a record, or a value taken from it; built before there is a record.

    Immutable. `==` builds another expression, so compare two with `same_expression`. As a key of a dict, an expression stands
    for itself alone; `structure` is equal for equal expressions.

    `==`, `!=`, `<`, `<=`, `>`, `>=`, `isin` and `between` compare. `&`, `|` and `~` combine; they evaluate only as far as needed
    and return true or false. A comparison binds less tightly than `&` and `|`, so put it in parentheses. What only a record can
    show (a `None` on the way, values that do not compare) is raised by the compiled function, as Python raises it.

    >>> order = root("order")
    >>> (order.country == "ES") & ~order.total.between(0, order.limit)
    (order.country == 'ES') & ~order.total.between(0, order.limit)
    """

    __slots__ = ("_node",)

    _node: Node

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "_node", node)

    def isin(self, options: Iterable[object]) -> Condition:
        """Whether the value is one of these. An empty collection never matches.

        >>> root("order").country.isin({"PT", "ES"})
        order.country.isin(['ES', 'PT'])

        Args:
            options: the values, which are read once, now.

        Raises:
            TypeError: for text and bytes, whose parts are single characters and hardly ever meant.
        """
        if isinstance(options, Expression):
            raise TypeError(f"isin() takes values that are known now, not the expression {options!r}")
        if isinstance(options, str | bytes | bytearray):
            raise TypeError(f"isin() takes a collection of values, not {options!r}; write isin([{options!r}])")
        if not isinstance(options, Iterable):
            raise TypeError(f"isin() takes a collection of values, not {options!r}; compare with == instead")
        constants = [_constant(option) for option in options]
        if isinstance(options, set | frozenset):
            # Sets of text are in another order in each process; an expression reads the same in all.
            constants.sort(key=lambda constant: (type(constant.value).__name__, render(constant)))
        return Condition(IsIn(self._node, tuple(constants)))

    def between(self, low: object, high: object) -> Condition:
        """Whether the value lies between two others, or equals one of them.

        >>> root("order").total.between(10, 20)
        order.total.between(10, 20)

        Args:
            low: the lower bound.
            high: the upper bound.
        """
        return Condition(Between(self._node, _node_of(low), _node_of(high)))

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: object) -> Condition:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Condition:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Condition:
        return self._compare(">=", other)

    def __and__(self, other: object) -> Condition:
        return _combine("and", self, other)

    def __rand__(self, other: object) -> Condition:
        return _combine("and", other, self)

    def __or__(self, other: object) -> Condition:
        return _combine("or", self, other)

    def __ror__(self, other: object) -> Condition:
        return _combine("or", other, self)

    def __invert__(self) -> Condition:
        return Condition(Not(self._node))

    # By identity: a dict asks equal hashes for `==`, whose answer here is neither true nor false.
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return render(self._node)

    def __reduce__(self) -> tuple[type[Expression], tuple[Node]]:
        return type(self), (self._node,)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} is an expression, which cannot be changed: nothing to set {name!r} on")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r} is an expression, which cannot be changed: nothing to delete {name!r} from")

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is neither true nor false before there is a record: combine with & | ~ instead of and, or, not "
            "(each comparison in parentheses), and write .isin(…) instead of in, .between(low, high) instead of a < b < c"
        )

    def __contains__(self, value: object) -> NoReturn:
        raise TypeError(
            f"{self!r} holds nothing before there is a record: to ask whether it is one of some values, write .isin(…); "
            "to look into it, use a function of the record"
        )

    def __iter__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be iterated before there is a record: name an item, as in [0], or use a function of the record"
        )

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be called before there is a record: an expression compares (== != < <= > >=, isin, between) "
            "and combines (& | ~); for anything else use a function of the record"
        )

    def _compare(self, operator: Comparison, other: object) -> Condition:
        return Condition(Compare(operator, self._node, _node_of(other)))


class Condition(Expression):
    """Something that is true or false for a record: a comparison, or conditions combined.

    >>> order = root("order")
    >>> isinstance((order.country == "ES") & ~(order.id > 5), Condition)
    True
    """

    # A class beside `PathExpression`, not above it: Python asks the right operand first where its class is the narrower.
    __slots__ = ()


class PathExpression(Expression):
    """A root, or an attribute or item below one; each attribute and item of it is a path again.

    >>> order = root("order")
    >>> order.address.city, order.lines[0].sku, order.labels["gift"], order.sku[:2]
    (order.address.city, order.lines[0].sku, order.labels['gift'], order.sku[:2])
    """

    __slots__ = ()

    def field(self, name: str) -> PathExpression:
        """The attribute of this name, for the few that cannot be written with a dot.

        Those are names of methods (`isin`, `between`, `field`), names that begin with an underscore, and keywords.

        >>> root("order").field("between") == 3
        order.field('between') == 3

        Args:
            name: the name of the attribute.
        """
        if not isinstance(name, str):
            raise TypeError(f"field() takes the name of an attribute, not {name!r}; an item is written [{name!r}]")
        if isinstance(self._node, Root):
            part = next((part for part in self._node.parts if part.name == name), None)
            if part is not None:
                return PathExpression(part)
        return PathExpression(Attribute(self._node, name))

    def __getattr__(self, name: str) -> PathExpression:
        # Pickle, copy and debuggers ask any object for private names; there are none.
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no {name!r}; for a field of that name write .field({name!r})")
        return self.field(name)

    def __getitem__(self, key: object) -> PathExpression:
        return PathExpression(Item(self._node, _node_of(key)))


def root(name: str, *parts: PathExpression) -> PathExpression:
    """A new thing to build expressions on.

    >>> order = root("order")
    >>> root("record", order).order.id
    order.id

    Args:
        name: its name in printed expressions.
        parts: roots that are attributes of this one, under their names.
    """
    if not is_name(name) or name.startswith("_"):
        raise ValueError(f"a root is named as a public variable is, not {name!r}")
    return PathExpression(Root(name, tuple(_root_of(part) for part in parts)))


def structure(expression: Expression) -> Node:
    """The tree of an expression. Equal, with equal hashes, for expressions that are written alike.

    >>> order = root("order")
    >>> structure(order.id == 1) in {structure(order.id == 1)}, structure(order.id == 1) == structure(order.id == True)
    (True, False)

    Args:
        expression: the expression.
    """
    return expression._node


def same_expression(a: object, b: object) -> bool:
    """Whether two expressions are written alike; for anything else, whether they are equal.

    >>> order = root("order")
    >>> same_expression(order.id == 1, order.id == 1), same_expression(order.id == 1, order.id == 2)
    (True, False)

    Args:
        a: an expression or any value.
        b: another.
    """
    if isinstance(a, Expression) and isinstance(b, Expression):
        return structure(a) == structure(b)
    return not (isinstance(a, Expression) or isinstance(b, Expression)) and a == b


def _combine(operator: Any, left: object, right: object) -> Condition:
    for operand in (left, right):
        if not isinstance(operand, Expression):
            sign = "&" if operator == "and" else "|"
            raise TypeError(
                f"{sign} combines expressions, and {operand!r} is none; {sign} binds more tightly than a comparison, "
                f"so write (a == 1) {sign} (b == 2)"
            )
    operands: list[Node] = []
    for node in (_node_of(left), _node_of(right)):
        # Flat, so that a long chain of one operator does not become a deep tree.
        operands += node.operands if isinstance(node, Logical) and node.operator == operator else [node]
    return Condition(Logical(operator, tuple(operands)))


def _node_of(value: object) -> Node:
    return value._node if isinstance(value, Expression) else _constant(value)


def _constant(value: object) -> Constant:
    if (inner := _expression_in(value)) is not None:
        raise TypeError(f"a value that holds the expression {inner!r} cannot be compared; compare its parts one by one")
    # A list that its author changes later must not change the expression.
    return Constant(copy.deepcopy(value) if isinstance(value, list | tuple | set | dict | bytearray) else value)


def _expression_in(value: object) -> Expression | None:
    if isinstance(value, Expression):
        return value
    parts: Iterable[object] = ()
    if isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
    return next((found for part in parts if (found := _expression_in(part)) is not None), None)


def _root_of(part: PathExpression) -> Root:
    node = structure(part)
    if not isinstance(node, Root):
        raise TypeError(f"a part of a root is a root, and {part!r} is none")
    return node
