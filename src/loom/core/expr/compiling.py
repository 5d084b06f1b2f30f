"""An expression as a plain function: source code generated once, so that a record costs what a hand-written lambda does.

Called when a flow is compiled. Names and plain literals in the source are checked or quoted; every other constant is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

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
    is_name,
    render,
    roots_of,
)
from loom.core.model import LoomFrozenStruct

__all__ = ["CompiledExpression", "Reading", "compile_expression"]

#: longer collections are passed in, so that source code stays readable
_LONGEST_IN_SOURCE = 32


class Reading(LoomFrozenStruct):
    """How the values of a path are read, so that two ways to write a value compare as equal.

    >>> Reading(plain=bytes, convert=lambda key: key.encode()).convert("ES")
    b'ES'

    Args:
        plain: a value of exactly this class is used as it is.
        convert: called with any other value, and with each constant.
    """

    #: a value of just this class is taken as it is, without a call
    plain: type
    #: what is made of any other value, and of each constant
    convert: Callable[[Any], Any]


class CompiledExpression(LoomFrozenStruct, eq=False):
    """A function of one argument, and which root of the expression that argument is.

    Two are equal if their expressions are written alike.

    >>> from loom.core.expr import root
    >>> spanish = compile_expression(root("order").country == "ES")
    >>> spanish.takes, spanish.call(Order(7, "ES"))
    ('order', True)

    Args:
        call: the function.
        takes: the name of the root that `call` takes.
        expression: the expression.
        source: the body of `call`; constants that are not plain literals appear in it as `_0`, `_1`, …
    """

    call: Callable[[Any], Any]
    #: the name of the root that `call` takes
    takes: str
    expression: Expression
    #: the body of `call`; constants that are not plain literals appear in it as `_0`, `_1`, …
    source: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompiledExpression):
            return NotImplemented
        return structure(self.expression) == structure(other.expression)

    def __hash__(self) -> int:
        return hash(structure(self.expression))


def compile_expression(expression: Expression, *, readings: Mapping[Node, Reading] | None = None) -> CompiledExpression:
    """Compile an expression to a function of the one root it uses, or of the root that the others are parts of.

    The function returns the value of a path, and true or false for anything else. It raises whatever reading, indexing or
    comparing raises.

    >>> from types import SimpleNamespace
    >>> from loom.core.expr import root
    >>> order = root("order")
    >>> large = compile_expression((order.country == "ES") & (order.total > 10))
    >>> large.source, large.takes
    ("order.country == 'ES' and order.total > 10", 'order')
    >>> large.call(SimpleNamespace(country="ES", total=11))
    True

    Args:
        expression: the expression.
        readings: paths (by their `structure`) that are read in a particular way, as is what they are compared with;
            constants are converted once, now.

    Raises:
        TypeError: for anything that is no expression.
        ValueError: for roots that no single argument contains, and for an expression nested more than some hundred levels
            deep (a chain of `&` or `|` is one level).
    """
    if not isinstance(expression, Expression):
        raise TypeError(
            f"{expression!r} is no expression; one begins at a root and compares with == != < <= > >=, .isin(…) or "
            ".between(…). Was a field named like a method compared (write .field('isin')), or `is`, `in` or `not` used?"
        )
    try:
        node = structure(expression)
        writer = _Writer(_argument(node), readings or {})
        source = writer.write(node)
        text = render(node)
        # The text takes the place of a file name in tracebacks. The `repr` of a value may contain any characters.
        shown = text if text.isprintable() else "with unprintable values"
        file = f"<expression {shown if len(shown) <= 100 else shown[:99] + '…'}>"
        maker = compile(f"lambda {', '.join(writer.names)}: lambda {writer.argument.name}: {source}", file, "eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("an expression is nested too deeply to be compiled; use a function of the record") from error
    # As parameters of a function around it, since a closure's names are looked up fastest.
    call: Callable[[Any], Any] = eval(maker)(**writer.names)
    return CompiledExpression(call, writer.argument.name, expression, source)


def _argument(node: Node) -> Root:
    """The root that a function of this tree takes."""
    roots = dict.fromkeys(roots_of(node))
    for root in roots:
        if all(other == root or other in root.parts for other in roots):
            return root
    raise ValueError(f"no argument holds {' and '.join(root.name for root in roots)} together: {render(node)}")


#: how tightly the source of a node binds, loosest first; what is not here binds most tightly
_OR, _AND, _NOT, _COMPARISON, _PRIMARY = range(5)


class _Writer:
    """Writes the source of one tree, and collects what is passed in beside it."""

    def __init__(self, argument: Root, readings: Mapping[Node, Reading]) -> None:
        self.argument = argument
        self.names: dict[str, Any] = {}
        self._readings = readings

    def write(self, node: Node, within: int = _OR) -> str:
        """The source of a node, in parentheses inside an operator that binds more tightly."""
        source, tightness = self._write(node)
        return source if tightness >= within else f"({source})"

    def _write(self, node: Node) -> tuple[str, int]:
        match node:
            case Constant(value=value):
                return self._constant(value), _PRIMARY
            case Root() | Attribute() | Item():
                reading = self._readings.get(node)
                return self._path(node) if reading is None else self._converted(self._path(node), reading), _PRIMARY
            case Compare(operator=operator, left=left, right=right):
                first, second = self._operands(left, right)
                return f"{first} {operator} {second}", _COMPARISON
            case Between(value=value, low=low, high=high):
                least, middle, most = self._operands(low, value, high)
                return f"{least} <= {middle} <= {most}", _COMPARISON
            case IsIn(value=value, options=options):
                reading = self._reading_of(value)
                known = [option.value if reading is None else reading.convert(option.value) for option in options]
                return f"{self.write(value, _PRIMARY)} in {self._collection(known)}", _COMPARISON
            case Not(operand=operand):
                return f"not {self.write(operand, _NOT)}", _NOT
            case Logical(operator=operator, operands=operands):
                tightness = _AND if operator == "and" else _OR
                return f" {operator} ".join(self._truth(operand, tightness) for operand in operands), tightness
        raise AssertionError(node)

    def _path(self, node: Root | Attribute | Item) -> str:
        match node:
            case Root(name=name):
                return name if node == self.argument else f"{self.argument.name}.{name}"
            case Attribute(of=of, name=name) if is_name(name):
                return f"{self.write(of, _PRIMARY)}.{name}"
            case Attribute(of=of, name=name):
                return f"{self._name(getattr)}({self.write(of)}, {name!r})"
            case Item(of=of, key=key):
                return f"{self.write(of, _PRIMARY)}[{self.write(key)}]"

    def _operands(self, *nodes: Node) -> list[str]:
        """What is compared with each other, all of it read as the first that has a reading is."""
        reading = next((found for node in nodes if (found := self._reading_of(node)) is not None), None)
        if reading is None:
            return [self.write(node, _PRIMARY) for node in nodes]
        return [self._read(node, reading) for node in nodes]

    def _read(self, node: Node, reading: Reading) -> str:
        if isinstance(node, Constant):
            return self._constant(reading.convert(node.value))
        source = self.write(node, _PRIMARY)
        return source if self._reading_of(node) is not None else self._converted(source, reading)

    def _converted(self, source: str, reading: Reading) -> str:
        # The call would cost more than the rest of most expressions.
        plain, convert = self._name(reading.plain), self._name(reading.convert)
        return f"(_read if (_read := {source}).__class__ is {plain} else {convert}(_read))"

    def _reading_of(self, node: Node) -> Reading | None:
        while isinstance(node, Item) and isinstance(node.key, Constant) and isinstance(node.key.value, slice):
            node = node.of
        return self._readings.get(node)

    def _truth(self, node: Node, within: int) -> str:
        """The source of an operand of `and` or `or`, which would answer with the operand itself."""
        if isinstance(node, Root | Attribute | Item):
            return f"not not {self.write(node, _PRIMARY)}"
        return self.write(node, within)

    def _constant(self, value: Any) -> str:
        # Constants in the source load faster than those passed in.
        return repr(value) if _is_literal(value) else self._name(value)

    def _collection(self, options: list[Any]) -> str:
        if 0 < len(options) <= _LONGEST_IN_SOURCE and all(map(_is_literal, options)):
            return f"{{{', '.join(map(repr, options))}}}"  # which the interpreter makes a constant frozenset
        try:
            return self._name(frozenset(options))
        except TypeError:  # not all of them hash
            return self._name(tuple(options))

    def _name(self, value: Any) -> str:
        # A root's name does not begin with an underscore.
        name = f"_{len(self.names)}"
        self.names[name] = value
        return name


def _is_literal(value: Any) -> bool:
    """Whether the text of a value is source code for it."""
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str, bytes)
