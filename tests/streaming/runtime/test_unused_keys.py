"""A key that nothing reads is refused in every mapping that the API takes, with the keys that there are."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigContext
from loom.streaming import ErrorKind, IntoTopic, Process, StreamFlow, StreamingRunner, compile_flow, step
from loom.streaming.bytewax import build_dataflow, build_dataflow_with_shutdown
from tests.streaming.orders import CONFIG, PRICED, RAW, Order, flow, price
from tests.support.running import in_memory, keeping, records

PLAN = compile_flow(flow(price), config=CONFIG)


@pytest.mark.bytewax
@pytest.mark.parametrize("build", [build_dataflow, build_dataflow_with_shutdown])
def test_a_sink_for_a_kind_of_error_that_does_not_exist_is_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="error_sinks takes 'wire', 'routing', 'task' or 'business', not 'taks'"):
        build(PLAN, error_sinks={"taks": keeping([])})


def test_the_runner_refuses_it_too() -> None:
    runner = StreamingRunner.from_dict(flow(price), CONFIG)
    with pytest.raises(ValueError, match="did you mean 'task'"):
        runner.prepare_run(error_sinks={"taks": keeping([])})  # type: ignore[dict-item]


def test_the_text_of_a_kind_names_it() -> None:
    @step
    def fails(order: Order) -> Order:
        raise RuntimeError("no")

    taken: list[Any] = []
    source = records(b'{"id":1}', topic="orders.raw")
    in_memory(StreamFlow("orders", RAW, Process(fails), PRICED), source, error_sinks={"task": keeping(taken)})
    assert [(envelope.kind, envelope.reason) for envelope in taken] == [(ErrorKind.TASK, "no")]


@pytest.mark.bytewax
@pytest.mark.parametrize("path", [(7,), "output", None], ids=repr)
def test_a_sink_for_a_path_without_a_terminal_is_refused_whatever_the_path_is(path: Any) -> None:
    sinks = {path: keeping([]), (8,): keeping([])}
    with pytest.raises(ValueError, match="terminal_sinks names paths without a terminal"):
        build_dataflow(PLAN, terminal_sinks=sinks)


def test_an_error_route_for_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'wire', 'routing', 'task' or 'business', not 'taks'; did you mean 'task'"):
        StreamFlow("orders", RAW, Process(price), PRICED, {"taks": IntoTopic("bad")})  # type: ignore[dict-item]


@pytest.mark.parametrize("resolvers", [{"upper": str.upper}, [str.upper], ["upper"]], ids=repr)
def test_a_config_resolver_that_is_none_is_refused(resolvers: Any) -> None:
    with pytest.raises(TypeError, match=r"ConfigResolver\(name, callable\)"):
        ConfigContext.from_dict({}, resolvers=resolvers)
