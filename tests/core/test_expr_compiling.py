"""A compiled expression answers as a slow walk of what was written does, and raises what that raises."""

from __future__ import annotations

import math
import operator
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loom.core.expr import Reading, compile_expression, root, structure

order = root("order")
meta = root("meta")
record = root("record", order)

# What is written down, as data of these tests: ("attribute", of, name), ("==", left, right), …
Spec = Any
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NAMES = ("a", "b", "inner", "isin", "class", "_c", "two words", "missing")


def written(spec: Spec) -> Any:
    """The expression, as an author writes it."""
    match spec:
        case ("root",):
            return order
        case ("constant", value):
            return value
        case ("attribute", of, name):
            return getattr(written(of), name) if name in ("a", "b", "inner") else written(of).field(name)
        case ("item", of, key):
            return written(of)[written(key)]
        case ("between", value, low, high):
            return written(value).between(written(low), written(high))
        case ("isin", value, options):
            return written(value).isin(options)
        case ("not", operand):
            return ~written(operand)
        case ("and", left, right):
            return written(left) & written(right)
        case ("or", left, right):
            return written(left) | written(right)
        case (sign, left, right):
            return OPERATORS[sign](written(left), written(right))


def walked(spec: Spec, payload: Any) -> Any:
    """What the expression means, node by node."""
    match spec:
        case ("root",):
            return payload
        case ("constant", value):
            return value
        case ("attribute", of, name):
            return getattr(walked(of, payload), name)
        case ("item", of, key):
            return walked(of, payload)[walked(key, payload)]
        case ("between", value, low, high):
            least, middle = walked(low, payload), walked(value, payload)
            return least <= middle and middle <= walked(high, payload)  # noqa: PLR1716  as slow and plain as can be
        case ("isin", value, options):
            found = walked(value, payload)
            if all(map(hashes, options)):
                hash(found)
            return any(found is option or found == option for option in options)
        case ("not", operand):
            return not walked(operand, payload)
        case ("and", left, right):
            return bool(walked(left, payload)) and bool(walked(right, payload))
        case ("or", left, right):
            return bool(walked(left, payload)) or bool(walked(right, payload))
        case (sign, left, right):
            return OPERATORS[sign](walked(left, payload), walked(right, payload))


def hashes(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        value = call()
    except Exception as error:
        return "raised", type(error)
    return "gave", type(value), repr(value)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**80, -(2**63), 0.5, -0.0, math.inf, math.nan, "", "ES", "it's\n\0", "ñ\ud800", b"ES", b""]),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.tuples(SCALARS, SCALARS)
KEYS = st.sampled_from([("constant", key) for key in (0, -1, 1, "a", slice(1), slice(None, None, -1))])
PATHS = st.recursive(
    st.just(("root",)) | st.tuples(st.just("attribute"), st.just(("root",)), st.sampled_from(NAMES)),
    lambda paths: (
        st.tuples(st.just("attribute"), paths, st.sampled_from(NAMES)) | st.tuples(st.just("item"), paths, KEYS | paths)
    ),
    max_leaves=4,
)
OPERANDS = PATHS | st.tuples(st.just("constant"), VALUES)


def predicates(inner: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    anything = inner | PATHS
    return st.one_of(
        st.tuples(st.sampled_from([*OPERATORS]), anything, OPERANDS | inner),
        st.tuples(st.just("between"), anything, OPERANDS, OPERANDS | inner),
        st.tuples(st.just("isin"), anything, st.lists(VALUES, max_size=4) | st.lists(SCALARS, max_size=40)),
        st.tuples(st.just("not"), anything),
        st.tuples(st.sampled_from(["and", "or"]), anything, anything),
    )


SPECS = st.recursive(PATHS, predicates, max_leaves=8)
RECORDS = st.recursive(
    VALUES,
    lambda inner: (
        st.dictionaries(st.sampled_from(NAMES[:-1]), inner, max_size=7).map(lambda fields: SimpleNamespace(**fields))
        | st.dictionaries(SCALARS, inner, max_size=3)
    ),
    max_leaves=8,
)

NAN = math.nan


@settings(deadline=None)
@given(spec=SPECS, payload=RECORDS)
@example(spec=("isin", ("root",), [NAN]), payload=NAN)
@example(spec=("isin", ("root",), []), payload=[])
@example(spec=("isin", ("root",), [[1]]), payload=[1])
@example(spec=("and", ("root",), ("root",)), payload=5)
@example(spec=("or", ("==", ("root",), ("constant", 1)), ("attribute", ("root",), "missing")), payload=1)
@example(spec=("==", ("==", ("root",), ("constant", 1)), ("==", ("root",), ("constant", 2))), payload=3)
@example(
    spec=("==", ("attribute", ("root",), "\N{LATIN SMALL LETTER LONG S}"), ("constant", 1)),
    payload=SimpleNamespace(s=1),
)
def test_it_gives_and_raises_what_a_walk_of_it_does(spec: Spec, payload: Any) -> None:
    compiled = compile_expression(written(spec))
    assert compiled.takes == "order"
    assert outcome(lambda: compiled.call(payload)) == outcome(lambda: walked(spec, payload))


@settings(deadline=None)
@given(spec=SPECS, payload=RECORDS)
def test_from_within_a_record_it_gives_the_same(spec: Spec, payload: Any) -> None:
    within = compile_expression((record.topic == "orders") & written(spec))
    assert within.takes == "record"
    held = SimpleNamespace(topic="orders", order=payload)
    assert outcome(lambda: within.call(held)) == outcome(lambda: bool(walked(spec, payload)))


SOURCES = {
    "order.country == 'ES'": order.country == "ES",
    "order.total > 10 and order.country in {'ES', 'PT'}": (order.total > 10) & order.country.isin(["ES", "PT"]),
    "0 <= order.total <= order.limit": order.total.between(0, order.limit),
    "order.country": order.country,
}


@pytest.mark.parametrize(("source", "expression"), SOURCES.items())
def test_it_is_the_lambda_one_would_write(source: str, expression: Any) -> None:
    assert compile_expression(expression).source == source


def test_a_flag_beside_a_comparison_counts_as_true_or_false() -> None:
    call = compile_expression((order.a == 1) & order.b).call
    assert call(SimpleNamespace(a=1, b="text")) is True
    assert call(SimpleNamespace(a=1, b="")) is False


def test_what_is_decided_looks_no_further() -> None:
    looked: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> bool:
            looked.append(name)
            return name == "yes"

    assert compile_expression(order.no & order.yes).call(Watched()) is False
    assert compile_expression(order.yes | order.no).call(Watched()) is True
    assert looked == ["no", "yes"]


def test_a_bound_is_compared_once() -> None:
    looked: list[str] = []

    class Watched:
        @property
        def total(self) -> int:
            looked.append("total")
            return 5

    assert compile_expression(order.total.between(5, 5)).call(Watched()) is True
    assert looked == ["total"]


def test_a_traceback_names_the_expression() -> None:
    with pytest.raises(AttributeError) as raised:
        compile_expression(order.adress.city == "Vigo").call(SimpleNamespace())
    assert "<expression order.adress.city == 'Vigo'>" in "".join(traceback.format_exception(raised.value))


def test_a_value_that_shows_itself_oddly_is_no_obstacle() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "\0"

        def __eq__(self, other: object) -> bool:
            return other == 1

        __hash__ = None  # type: ignore[assignment]

    assert compile_expression(order.a == Odd()).call(SimpleNamespace(a=1)) is True


def test_several_roots_need_one_that_holds_them() -> None:
    assert compile_expression((order.id == 1) & (record.topic == "a")).takes == "record"
    with pytest.raises(ValueError, match=r"^no argument holds order and meta together: order\.id == meta\.id$"):
        compile_expression(order.id == meta.id)


def test_what_is_no_expression_is_refused_with_a_guess_at_the_mistake() -> None:
    with pytest.raises(TypeError) as refused:
        compile_expression(order.isin == 3)  # type: ignore[arg-type]
    assert str(refused.value) == (
        "False is no expression; one begins at a root and compares with == != < <= > >=, .isin(…) or .between(…). Was a "
        "field named like a method compared (write .field('isin')), or `is`, `in` or `not` used?"
    )


@pytest.mark.parametrize("levels", [150, 5_000])
def test_deep_nesting_compiles_or_is_refused_as_too_deep(levels: int) -> None:
    nested = order.a == 1
    for level in range(levels):
        nested = nested & order.yes if level % 2 else nested | order.no
    if levels < 200:
        assert compile_expression(nested).call(SimpleNamespace(a=1, yes=True, no=False)) is True
    else:
        with pytest.raises(
            ValueError, match=r"^an expression is nested too deeply to be compiled; use a function of the record$"
        ):
            compile_expression(nested)


def test_a_long_chain_is_not_deep() -> None:
    chain = order.id == 0
    for number in range(1, 3000):
        chain |= order.id == number
    call = compile_expression(chain).call
    assert [call(SimpleNamespace(id=number)) for number in (0, 2999, 3000)] == [True, True, False]


def test_compiled_expressions_are_equal_when_written_alike() -> None:
    one, same, other = (compile_expression(e) for e in (order.a == [1], order.a == [1], order.a == [2]))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "order.a == [1]"


def upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else str(value)


class Code(str):
    """A string of the author's own class, which a reading of plain strings converts."""

    __slots__ = ()


READ = {structure(order.code): Reading(plain=str, convert=upper)}
CODES: list[tuple[Any, Any, Any]] = [
    (order.code, "es", "es"),
    (order.code, Code("es"), "ES"),
    (order.code == "es", "ES", True),
    (order.code != "es", Code("es"), False),
    (order.code > "a", "B", True),
    (order.code.isin(["es", "pt"]), "PT", True),
    (order.code.isin(["es", "pt"]), "pt", False),
    (order.code.between("a", "c"), "B", True),
    (order.code[:2] == "es", "ES-1", True),
    (order.code[:2].isin(["es"]), "ES-1", True),
    (order.code[0] == "e", "e", True),
    (order.code == order.other, Code("x9"), True),
    (order.other == order.code, Code("x9"), True),
    (order.other == "x9", "", False),
    ((order.code == "es") & order.code, "ES", True),
]


@pytest.mark.parametrize(("expression", "code", "answer"), CODES, ids=lambda value: repr(value))
def test_a_path_with_a_reading_is_compared_as_it_is_read(expression: Any, code: Any, answer: Any) -> None:
    call = compile_expression(expression, readings=READ).call
    assert call(SimpleNamespace(code=code, other=Code("X9"))) == answer
