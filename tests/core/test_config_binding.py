"""A class is declared with its section and overrides, and built with arguments that were checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigBinding, ConfigContext, ConfigError, ConfigProblem, Configurable
from loom.core.model import LoomFrozenStruct

if TYPE_CHECKING:
    from decimal import Decimal


class Pool(LoomFrozenStruct):
    size: int


class Price(Configurable):
    def __init__(self, currency: str, digits: int = 2, *, pool: Pool | None = None) -> None:
        self.currency, self.digits, self.pool = currency, digits, pool


def context(**sections: Any) -> ConfigContext:
    return ConfigContext.from_dict(sections)


def problems_of(loaded: ConfigContext, binding: ConfigBinding[Any]) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded.resolve(binding)
    return caught.value.problems


def test_a_binding_is_data() -> None:
    assert Price.from_config("pricing", digits=3) == ConfigBinding(Price, "pricing", {"digits": 3})
    assert Price.configure(digits=3) == ConfigBinding(Price, "", {"digits": 3})
    assert ConfigBinding(Price) == ConfigBinding(Price, "", {})


def test_a_section_becomes_constructor_arguments() -> None:
    loaded = context(pricing={"currency": "EUR", "digits": "4", "pool": {"size": "8"}})
    price = loaded.resolve(Price.from_config("pricing"))
    assert (price.currency, price.digits, price.pool) == ("EUR", 4, Pool(8))
    assert loaded.unread_sections() == ()


def test_overrides_win_over_the_section() -> None:
    loaded = context(pricing={"currency": "EUR", "digits": 4})
    assert loaded.arguments(Price.from_config("pricing", digits=3)) == {"currency": "EUR", "digits": 3}


def test_overrides_alone_are_enough() -> None:
    assert context().arguments(Price.configure(currency="EUR")) == {"currency": "EUR"}


def test_an_override_of_the_annotated_type_is_kept_as_it_is() -> None:
    class SharedPool(Pool):
        owner: str = "all"

    for pool in (Pool(3), SharedPool(3)):
        assert context().arguments(Price.configure(currency="EUR", pool=pool))["pool"] is pool


def test_an_override_may_be_a_mapping_for_a_struct() -> None:
    assert context().arguments(Price.configure(currency="EUR", pool={"size": 3}))["pool"] == Pool(3)


def test_what_an_override_replaces_need_not_resolve() -> None:
    loaded = context(pricing={"currency": "${oc.env:LOOM_TEST_UNSET}"})
    assert loaded.arguments(Price.from_config("pricing", currency="EUR")) == {"currency": "EUR"}


def test_all_wrong_arguments_are_reported_together() -> None:
    loaded = context(pricing={"curency": "EUR", "digits": "many", "pool": {"sise": 3}})
    problems = problems_of(loaded, Price.from_config("pricing", colour="red"))
    assert [(problem.key, problem.nearest) for problem in problems] == [
        ("pricing.curency", "currency"),
        ("pricing.digits", None),
        ("pricing.pool.sise", "size"),
        ("pricing.pool.size", None),
        ("pricing.colour", None),
        ("pricing.currency", None),
    ]
    assert "`Price` has no such argument" in problems[0].message
    assert "required argument of `Price` is missing" in problems[-1].message


def test_a_wrongly_typed_override_is_named() -> None:
    (problem,) = problems_of(context(), Price.configure(currency="EUR", digits="hunter2"))
    assert (problem.key, problem.message) == ("digits", "expected `int`, got `str`")


def test_a_section_that_is_named_has_to_exist() -> None:
    (problem,) = problems_of(context(pricing={}), Price.from_config("princing", currency="EUR"))
    assert (problem.key, problem.nearest) == ("princing", "pricing")


def test_a_section_of_arguments_has_to_be_a_mapping() -> None:
    (problem,) = problems_of(context(pricing=[1]), Price.from_config("pricing"))
    assert "expected a mapping" in problem.message


def test_a_section_left_empty_holds_no_arguments() -> None:
    assert context(pricing=None).arguments(Price.from_config("pricing", currency="EUR")) == {"currency": "EUR"}


def test_an_argument_may_be_called_like_our_own() -> None:
    class Odd(Configurable):
        def __init__(self, path: str, cls: str = "") -> None: ...

    assert context(odd={}).arguments(Odd.from_config("odd", path="x")) == {"path": "x"}


class Loose:
    def __init__(self, anything, **more: int) -> None:  # type: ignore[no-untyped-def]
        self.anything, self.more = anything, more


def test_an_argument_without_annotation_accepts_anything_and_kwargs_any_name() -> None:
    loose = context(loose={"anything": ["1"], "x.y": 3}).bind(Loose, "loose")
    assert (loose.anything, loose.more) == (["1"], {"x.y": 3})


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    norm: float = dataclasses.field(init=False, default=0.0)


class Pair(NamedTuple):
    left: int
    right: int = 0


class Renamed(LoomFrozenStruct, rename="camel"):
    group_id: str


class Bare:
    pass


def test_structs_dataclasses_tuples_and_bare_classes_are_built_too() -> None:
    loaded = context(point={"x": "1"}, pair={"left": "2"}, pool={"size": "3"}, renamed={"groupId": "g"}, bare=None)
    assert loaded.bind(Point, "point") == Point(1)
    assert loaded.bind(Pair, "pair") == Pair(2)
    assert loaded.bind(Pool, "pool") == Pool(3)
    assert loaded.bind(Renamed, "renamed") == Renamed("g")
    assert loaded.resolve(ConfigBinding(Renamed, "renamed", {"group_id": "h"})) == Renamed("h")
    assert isinstance(loaded.bind(Bare, "bare"), Bare)
    (problem,) = problems_of(context(point={"x": 1, "norm": 1.0}), ConfigBinding(Point, "point"))
    assert problem.key == "point.norm"


class Clock(Protocol):
    def now(self) -> float: ...


class FixedClock:
    def now(self) -> float:
        return 0.0


class Wired(Configurable):
    def __init__(self, clock: Clock, on_done: Callable[[int], None], home: Path | str = "", big: Decimal | None = None):
        self.clock, self.on_done, self.home, self.big = clock, on_done, home, big


def test_objects_of_types_that_no_configuration_can_hold_are_passed_as_overrides() -> None:
    clock, done, big = FixedClock(), print, object()
    wired = context().resolve(Wired.configure(clock=clock, on_done=done, home=Path("/x"), big=big))
    assert (wired.clock, wired.on_done, wired.home, wired.big) == (clock, done, Path("/x"), big)


def test_such_objects_cannot_come_from_the_configuration() -> None:
    loaded = context(wired={"clock": "hunter2", "on_done": "hunter2", "big": "1"})
    problems = problems_of(loaded, Wired.from_config("wired"))
    assert [problem.key for problem in problems] == ["wired.clock", "wired.on_done", "wired.big"]
    assert "`Clock`" in problems[0].message
    assert "does not exist at run time" in problems[2].message


class Fussy(Configurable):
    def __init__(self, url: str, port: int = 0) -> None:
        raise ConnectionError(f"cannot reach {url!r} on {port}, {url[3:12]}...")


def test_a_constructor_that_raises_is_told_where_and_without_what_it_was_given() -> None:
    (problem,) = problems_of(context(db={"url": "amqp://ann:hunter2@host", "port": "5672"}), Fussy.from_config("db"))
    assert problem.key == "db"
    assert "`Fussy` cannot be built: ConnectionError raised at test_config_binding.py:" in problem.message
    assert "cannot reach" in problem.message
    assert "hunter" not in problem.message
    assert "5672" not in problem.message


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789:/@!", min_size=4, max_size=40))
def test_a_constructors_complaint_never_repeats_its_argument(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        context().resolve(Fussy.configure(url=url))
    said = str(caught.value).partition("cannot reach")[2]
    assert url not in said
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
