"""Kafka sections that a config lacks are filled in; what is there is kept."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigContext
from loom.streaming import IntoTopic, Process, StreamFlow, compile_flow
from loom.streaming.compiler import CompilationError
from loom.streaming.kafka import Delivery
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.testing.flows import Number, double, flow

OUT: IntoTopic[Any] = IntoTopic("out")
FLOW = flow(double, output=OUT)


def _plan(kafka: Any) -> Any:
    return StreamingTestRunner.from_dict(FLOW, {"kafka": kafka}).plan


def test_a_flow_without_kafka_sections_would_not_compile_elsewhere() -> None:
    with pytest.raises(CompilationError):
        compile_flow(FLOW, config={})
    assert StreamingTestRunner.from_flow(FLOW).plan.source.settings.group_id == "test"


def test_sections_that_are_there_are_kept() -> None:
    plan = _plan({"consumer": {"brokers": "a:1", "group_id": "mine", "delivery": "at_least_once"}})
    assert (plan.source.settings.group_id, plan.source.delivery) == ("mine", Delivery.AT_LEAST_ONCE)


def test_an_empty_section_is_filled_in() -> None:
    assert StreamingTestRunner.from_dict(FLOW, {"kafka": None}).plan.source.topics == ("raw",)
    assert _plan({"consumer": None}).source.topics == ("raw",)


@pytest.mark.parametrize(
    "kafka",
    [
        {"consumer": {"brokers": ["a:1"], "group_id": "g", "security": {"protocol": "SSL"}}},
        {"consumers": {"raw": {"brokers": ["a:1"], "security": {"protocol": "SSL"}}}},
        {"producer": {"brokers": ["a:1"], "security": {"protocol": "SSL"}}},
    ],
)
def test_what_is_filled_in_is_of_the_same_cluster(kafka: Any) -> None:
    plan = _plan(kafka)
    assert list(plan.output.settings.brokers) == list(plan.source.settings.brokers) == ["a:1"]
    assert plan.output.settings.security == plan.source.settings.security is not None


def test_a_flow_that_writes_to_what_it_reads_is_refused_as_in_production() -> None:
    with pytest.raises(CompilationError, match="which it reads"):
        StreamingTestRunner.from_flow(flow(double, output=IntoTopic("raw"))).run()


def test_a_section_that_does_not_resolve_is_told_by_the_compiler() -> None:
    runner = StreamingTestRunner.from_dict(FLOW, {"kafka": {"consumer": {"brokers": "${oc.env:NOBODY_SETS_THIS}"}}})
    with pytest.raises(CompilationError, match="NOBODY_SETS_THIS"):
        runner.run()


def test_a_flow_without_a_source_is_told_by_the_compiler() -> None:
    with pytest.raises(CompilationError, match="is no source"):
        StreamingTestRunner.from_flow(StreamFlow("none", None, Process(double), OUT)).run()  # type: ignore[arg-type]


def test_a_section_that_is_incomplete_is_not_completed() -> None:
    with pytest.raises(CompilationError, match="group_id"):
        StreamingTestRunner.from_dict(FLOW, {"kafka": {"consumer": {"brokers": ["a:1"]}}}).run()


def test_the_context_that_was_given_is_not_changed() -> None:
    context = ConfigContext.from_dict({"kafka": {"producer": {"brokers": ["a:1"]}}})
    StreamingTestRunner.from_flow(FLOW, context).with_payloads([Number(1)]).run()
    assert not context.has("kafka.consumer")


def test_the_file_of_a_config_is_still_named(tmp_path: Any) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("kafka: {consumer: {brokers: [a], groupid: g}}\n")
    with pytest.raises(CompilationError, match=r"config\.yaml"):
        StreamingTestRunner.from_yaml(FLOW, path).run()
