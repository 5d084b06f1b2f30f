"""Every stream ends somewhere, once."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import Fork, IntoTopic, Process, compile_flow
from loom.streaming.compiler import Code, CompilationError
from tests.streaming.orders import CONFIG, Price, by_country, ended, flow, price, validate

SPAIN = Fork.by(by_country, {"ES": Process(IntoTopic("es"))})


def problems(declared: Any) -> list[tuple[Code, tuple[int, ...]]]:
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=CONFIG)
    return [(issue.code, issue.path) for issue in caught.value.errors]


@pytest.mark.parametrize("terminal", [IntoTopic("es"), SPAIN])
def test_a_process_that_ends_itself_needs_no_output(terminal: Any) -> None:
    plan = compile_flow(ended(validate, terminal), config=CONFIG)
    assert plan.output is None
    assert plan.terminal_sinks


@pytest.mark.parametrize("terminal", [IntoTopic("es"), SPAIN])
def test_an_output_behind_an_end_is_refused(terminal: Any) -> None:
    assert problems(flow(validate, terminal)) == [(Code.TWO_ENDS, ())]


@pytest.mark.parametrize("terminal", [IntoTopic("es"), SPAIN])
@pytest.mark.parametrize("behind", [price, Price, Price.configure(), IntoTopic("other"), SPAIN, "nonsense"])
def test_nothing_may_stand_behind_an_end(terminal: Any, behind: Any) -> None:
    assert problems(ended(terminal, behind)) == [(Code.BEHIND_TERMINAL, (1,))]


def test_only_the_first_node_behind_an_end_is_told() -> None:
    assert problems(ended(IntoTopic("es"), price, price)) == [(Code.BEHIND_TERMINAL, (1,))]


def test_nothing_may_stand_behind_an_end_inside_a_branch() -> None:
    fork = Fork.by(by_country, {"ES": Process(IntoTopic("es"), price)})
    assert problems(ended(fork)) == [(Code.BEHIND_TERMINAL, (0, 0, 1))]


def test_a_process_without_end_or_output_is_refused() -> None:
    assert problems(ended(validate, price)) == [(Code.NO_END, ())]


def test_a_branch_never_falls_through_to_the_flows_output() -> None:
    fork = Fork.by(by_country, {"ES": Process(price)})
    assert problems(flow(fork)) == [(Code.NO_END, (0, 0)), (Code.TWO_ENDS, ())]


def test_every_branch_without_an_end_is_told_the_default_included() -> None:
    fork = Fork.by(
        by_country,
        {"ES": Process(price), "PT": Process(IntoTopic("pt")), "FR": Process(price)},
        default=Process(price),
    )
    assert problems(ended(fork)) == [(Code.NO_END, (0, 0)), (Code.NO_END, (0, 2)), (Code.NO_END, (0, 3))]


def test_a_branch_may_end_in_another_fork() -> None:
    outer = Fork.by(by_country, {"ES": Process(validate, SPAIN)})
    assert compile_flow(ended(outer), config=CONFIG).terminal_sinks.keys() == {(0, 0, 1, 0, 0)}


def test_what_a_node_behind_an_end_was_configured_with_is_not_shown() -> None:
    with pytest.raises(CompilationError) as caught:
        compile_flow(ended(IntoTopic("es"), Price.configure(currency="hunter2")), config=CONFIG)
    assert "Price comes after" in str(caught.value)
    assert "hunter2" not in str(caught.value)
