"""Policies are plain data: checked when they are made, equal by value, attached to a step in each of its forms."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigBinding
from loom.core.errors import DomainError, NotFound
from loom.streaming import CircuitBreaker, Message, RateLimit, RecordStep, Retry, RetryAfter, step
from tests.streaming.orders import Order, Price, PricedOrder, price


class Configured(RecordStep[Order, PricedOrder]):
    def __init__(self, currency: str = "EUR") -> None:
        self.currency = currency

    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


def test_the_defaults_are_those_of_the_contract() -> None:
    made = Retry()
    assert (made.attempts, made.wait_initial_ms, made.wait_max_ms, made.wait_jitter_ms) == (5, 100, 10_000, 100)
    assert (made.timeout_ms, made.on, made.give_up_on) == (None, (Exception,), (DomainError,))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"attempts": 0}, r"Retry\(attempts=0\) must be a whole number of at least 1"),
        ({"attempts": True}, r"Retry\(attempts=True\)"),
        ({"attempts": 2.5}, r"Retry\(attempts=2.5\)"),
        ({"wait_initial_ms": -1}, r"wait_initial_ms=-1\) must be a whole number of at least 0"),
        ({"wait_jitter_ms": -1}, "wait_jitter_ms=-1"),
        ({"timeout_ms": 0}, r"timeout_ms=0\) must be a whole number of at least 1"),
        ({"wait_initial_ms": 500, "wait_max_ms": 400}, "the longest wait must be at least the first one"),
    ],
)
def test_a_number_out_of_its_range_is_refused_when_the_policy_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Retry(**wrong)


@pytest.mark.parametrize("wrong", [42, "ValueError", ValueError("an instance"), (ValueError, int), BaseException])
@pytest.mark.parametrize("name", ["on", "give_up_on"])
def test_only_exception_classes_can_be_retried_or_given_up_on(wrong: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"Retry\({name}=…\) takes subclasses of Exception"):
        Retry(**{name: wrong})


def test_one_exception_class_or_several_in_any_collection() -> None:
    assert Retry(on=TimeoutError).on == (TimeoutError,)  # type: ignore[arg-type]
    assert Retry(give_up_on=[NotFound, KeyError]).give_up_on == (NotFound, KeyError)  # type: ignore[arg-type]
    assert Retry(give_up_on=()).give_up_on == ()


def test_policies_are_equal_by_value() -> None:
    assert Retry(3, on=(KeyError,)) == Retry(attempts=3, on=KeyError)  # type: ignore[arg-type]
    assert hash(Retry(3)) == hash(Retry(3))
    assert Retry(3) != Retry(4)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "10", True])
def test_a_rate_is_a_number_above_zero(wrong: Any) -> None:
    with pytest.raises(ValueError, match="must be a number above 0"):
        RateLimit(wrong, 1)


def test_a_burst_is_at_least_one_call() -> None:
    with pytest.raises(ValueError, match=r"RateLimit\(burst=0\)"):
        RateLimit(10, 0)


@pytest.mark.parametrize(("failures", "open_ms"), [(0, 100), (1, 0)])
def test_a_breaker_needs_failures_and_a_time(failures: int, open_ms: int) -> None:
    with pytest.raises(ValueError, match="CircuitBreaker"):
        CircuitBreaker(failures, open_ms)


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf"), "3"])
def test_a_step_cannot_ask_for_a_wait_that_is_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="must be 0 seconds or more"):
        RetryAfter(wrong)


def test_a_request_to_wait_tells_why_and_can_be_pickled() -> None:
    asked = RetryAfter(1.5, "429 from the price service")
    assert str(asked) == "429 from the price service (retry after 1.5 s)"
    assert str(RetryAfter(2)) == "asked to be called again (retry after 2 s)"
    again = pickle.loads(pickle.dumps(asked))
    assert (str(again), again.seconds) == (str(asked), 1.5)


@given(
    attempts=st.integers(1, 200),
    initial=st.integers(0, 5_000),
    more=st.integers(0, 100_000),
    jitter=st.integers(0, 5_000),
)
def test_the_longest_time_is_that_of_all_waits_with_all_of_their_jitter(
    attempts: int, initial: int, more: int, jitter: int
) -> None:
    policy = Retry(attempts, wait_initial_ms=initial, wait_max_ms=initial + more, wait_jitter_ms=jitter)
    waits = [policy.wait_ms(n) for n in range(1, attempts)]
    assert policy.longest_ms == pytest.approx(sum(waits))
    assert waits == sorted(waits)
    assert all(wait <= policy.wait_max_ms for wait in waits)
    assert Retry(attempts, timeout_ms=7).longest_ms <= 7


# ---- on a step


def test_a_class_an_instance_and_a_binding_can_be_given_a_policy() -> None:
    policy = Retry(3)
    instance = Configured("USD")
    assert Price.with_retry(policy).step is Price
    assert instance.with_retry(policy).step is instance
    bound = Configured.with_retry(policy).from_config("pricing", currency="GBP")
    assert (bound.step, bound.retry) == (ConfigBinding(Configured, "pricing", {"currency": "GBP"}), policy)
    assert Configured.with_retry(policy).configure(currency="GBP").step == Configured.configure(currency="GBP")
    with pytest.raises(TypeError, match=r"from_config\(\) needs a step class"):
        instance.with_retry(policy).from_config("pricing")
    assert Price.with_retry(Retry(3)) == Price.with_retry(Retry(3))


def test_a_function_can_be_given_a_policy_where_it_is_made_or_later() -> None:
    @step(retry=Retry(2), name="pricing")
    def retried(order: Order) -> PricedOrder:
        return PricedOrder(order.id)

    assert retried.retry == Retry(2)
    assert retried(Order(7)) == PricedOrder(7)
    again = retried.with_retry(Retry(9))
    assert (again.retry, again.step_name(), again.function) == (Retry(9), "pricing", retried.function)
    assert (retried.retry, price.retry) == (Retry(2), None)


@pytest.mark.parametrize("wrong", [3, None, Retry])
def test_a_policy_is_a_retry_and_nothing_else(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"with_retry\(\) takes a Retry, not"):
        Price.with_retry(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match=r"@step\(retry=…\) takes a Retry, not"):
            step(retry=wrong)(lambda order: order)
