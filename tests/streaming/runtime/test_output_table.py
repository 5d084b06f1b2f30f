"""The ways out of a plan: what each is counted as, and which of them no transaction can hold."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.runtime.output_table import OutputTable, output_table_of
from tests.support.running import config_for, keeping


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("numbers", FromTopic("numbers", Number), Process(same), IntoTopic("out"), IntoTopic("errors"))


def outlets(**given: Any) -> OutputTable:
    overrides: dict[str, Any] = {"sink": None, "terminal_sinks": None, "error_sinks": None, **given}
    return output_table_of(compile_flow(FLOW, config=config_for()), **overrides)


def test_topics_alone_are_what_a_transaction_holds() -> None:
    assert not outlets().has_sinks
    assert outlets().slots.names == ("out", "errors")


@pytest.mark.parametrize(
    "given",
    [
        {"sink": keeping([])},
        {"error_sinks": {ErrorKind.TASK: keeping([])}},
        {"audits": {"log": keeping([])}},
    ],
    ids=["output", "errors", "audit"],
)
def test_a_sink_of_any_purpose_is_beyond_a_transaction(given: dict[str, Any]) -> None:
    assert outlets(**given).has_sinks


def test_sinks_are_counted_by_what_they_take() -> None:
    rules, rest = keeping([]), keeping([])
    errors = {ErrorKind.BUSINESS: rules, ErrorKind.WIRE: rest, ErrorKind.TASK: rest}
    found = outlets(sink=keeping([]), error_sinks=errors, audits={"log": keeping([]), "copy": keeping([])})
    assert found.slots.names == ("output", "wire, task errors", "errors", "business errors", "audit log", "audit copy")
