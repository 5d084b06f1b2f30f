"""Steps are classes or functions with a name; a class can be bound to the config, a function stays a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from loom.core.config import ConfigBinding, ConfigContext
from loom.core.logger import configure_logging
from loom.streaming import BatchStep, ExpandStep, Message, MessageMeta, RecordStep, Step, step
from tests.streaming.orders import Order, Price, PricedOrder, price, validate


class PriceHTTPOrder2Go(RecordStep[Order, PricedOrder]):
    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class Renamed(Price):
    name = "pricing"


@pytest.mark.parametrize(
    ("declared", "name"),
    [(Price, "price"), (PriceHTTPOrder2Go, "price_http_order2_go"), (Renamed, "pricing"), (Renamed(), "pricing")],
)
def test_a_step_is_called_by_its_class_in_snake_case_unless_it_has_a_name(declared: Any, name: str) -> None:
    assert declared.step_name() == name


def test_a_decorated_function_is_called_as_it_was() -> None:
    assert validate.step_name() == "validate"
    assert validate(Order(1)) == Order(1)
    assert validate(order=Order(1)) == Order(1)


def test_a_decorated_function_keeps_its_name_docstring_and_signature() -> None:
    assert (validate.__name__, validate.__doc__) == ("validate", "Let every order through.")
    assert validate.__module__ == "tests.streaming.orders"
    assert list(inspect.signature(validate).parameters) == ["order"]
    assert validate.__wrapped__ is validate.function


def test_a_function_can_be_given_another_name() -> None:
    @step(name="pricing")
    def price_of(order: Order) -> PricedOrder:
        """Price it."""
        return PricedOrder(order.id)

    assert price_of.step_name() == "pricing"
    assert (price_of.__name__, price_of.__doc__) == ("price_of", "Price it.")
    assert price_of(Order(3)) == PricedOrder(3)


def test_a_function_with_bound_arguments_can_be_a_step() -> None:
    def add(by: int, order: Order) -> Order:
        return Order(order.id + by)

    bound = step(functools.partial(add, 2))
    assert bound(Order(1)) == Order(3)
    assert bound.step_name() == "partial"


def test_a_step_shows_what_it_is() -> None:
    assert repr(price) == "step(price)"


@pytest.mark.parametrize(
    ("base", "argument"), [(RecordStep, "message"), (ExpandStep, "message"), (BatchStep, "messages")]
)
def test_a_step_without_a_body_says_what_is_missing(base: type, argument: str) -> None:
    class Empty(base): ...

    with pytest.raises(NotImplementedError, match=rf"Empty must define execute\(self, {argument}\)"):
        Empty().execute(Message(1, MessageMeta("m")))  # type: ignore[attr-defined]


def test_every_kind_of_step_is_a_step() -> None:
    assert all(issubclass(kind, Step) for kind in (RecordStep, ExpandStep, BatchStep))


def test_a_class_can_be_bound_to_a_section_with_overrides() -> None:
    assert Price.from_config("pricing", digits=3) == ConfigBinding(Price, "pricing", {"digits": 3})


def test_a_class_can_be_bound_to_arguments_alone() -> None:
    assert Price.configure(currency="USD") == ConfigBinding(Price, "", {"currency": "USD"})


def test_binding_makes_nothing() -> None:
    class Fails(RecordStep[Order, Order]):
        def __init__(self) -> None:
            raise AssertionError

    Fails.from_config("anything")
    Fails.configure()


def test_a_binding_becomes_the_step_it_declares() -> None:
    context = ConfigContext.from_dict({"pricing": {"currency": "USD"}})
    made = context.resolve(Price.from_config("pricing", digits=0))
    assert (type(made), made.currency, made.digits) == (Price, "USD", 0)


@pytest.fixture
def default_logging() -> Any:
    yield
    configure_logging()


def test_a_step_logs_under_its_name(capsys: pytest.CaptureFixture[str], default_logging: None) -> None:
    configure_logging(format="json")
    Renamed().log.info("priced", order=7)
    written = capsys.readouterr().err
    assert '"step": "pricing"' in written
    assert '"logger": "tests.streaming.nodes.test_step"' in written


@pytest.mark.parametrize("make", [lambda: step(validate.function), lambda: step(name="x")(validate.function)])
def test_decorating_twice_makes_two_steps_of_one_function(make: Callable[[], Any]) -> None:
    made = make()
    assert made is not validate
    assert made.function is validate.function


def test_a_function_that_is_made_a_step_by_a_call_may_be_given_another_name() -> None:
    assert step(lambda text: text, name="shout").step_name() == "shout"
