"""Outputs may not run into one topic by accident, nor into the topic that the flow reads."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import Fork, IntoTopic, Process, compile_flow
from loom.streaming.compiler import Code, CompilationError, CompiledPlan, CompiledTopic, Issue
from tests.streaming.orders import CONFIG, by_country, config, ended, flow, price


def plan(declared: Any, settings: Any = CONFIG) -> CompiledPlan:
    return compile_flow(declared, config=settings)


def output(declared: Any, settings: Any = CONFIG) -> CompiledTopic:
    found = plan(declared, settings).output
    assert found is not None
    return found


def errors(declared: Any, settings: Any = CONFIG) -> tuple[Issue, ...]:
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=settings)
    return caught.value.errors


def test_one_output_may_fall_back_to_the_common_topic() -> None:
    assert output(flow(price, errors=None), config(producer={"topic": "all"})).topic == "all"


def test_every_output_that_would_share_the_common_topic_is_named() -> None:
    declared = flow(price, output=IntoTopic("orders.priced", dlq="dead"))
    (issue,) = errors(declared, config(producer={"topic": "all"}))
    assert issue.code is Code.TOPIC_SHARED
    assert issue.message.endswith(": dead, orders.errors, orders.priced")


def test_an_output_with_a_topic_of_its_own_does_not_share() -> None:
    settings = config(producer={"topic": "all"}, producers={"orders.errors": {"topic": "bad"}})
    assert {topic.topic for topic in plan(flow(price), settings).topics()} == {"all", "bad"}


def test_two_branches_may_write_to_one_logical_name() -> None:
    fork = Fork.by(by_country, {"ES": Process(IntoTopic("x")), "PT": Process(IntoTopic("x"))})
    made = plan(ended(fork, errors=None), config(producer={"topic": "all"}))
    assert {topic.topic for topic in made.terminal_sinks.values()} == {"all"}


RENAMED = config(consumer={"topics": ["a", "b"]}, producers={"orders.priced": {"topic": "b"}})


@pytest.mark.parametrize(
    ("declared", "settings", "where", "path"),
    [
        (flow(price, output=IntoTopic("orders.raw")), CONFIG, "output", ()),
        (flow(price, output=IntoTopic("orders.priced", dlq="orders.raw")), CONFIG, "output", ()),
        (ended(IntoTopic("orders.raw")), CONFIG, "process", (0,)),
        (ended(IntoTopic("orders.priced", dlq="orders.raw")), CONFIG, "process", (0,)),
        (ended(Fork.by(by_country, {"ES": Process(price, IntoTopic("orders.raw"))})), CONFIG, "process", (0, 0, 1)),
        (flow(price, errors=IntoTopic("orders.raw")), CONFIG, "errors", ()),
        (flow(price, errors=IntoTopic("bad", dlq="orders.raw")), CONFIG, "errors", ()),
        (flow(price), RENAMED, "output", ()),
    ],
    ids=["output", "dlq", "node", "dlq of a node", "branch", "errors", "dlq of errors", "renamed"],
)
def test_a_flow_that_writes_what_it_reads_is_refused(declared: Any, settings: Any, where: str, path: Any) -> None:
    (issue,) = errors(declared, settings)
    assert (issue.code, issue.where, issue.path) == (Code.TOPIC_LOOP, where, path)


def test_the_logical_name_of_the_source_may_be_written_where_it_is_another_topic() -> None:
    settings = config(consumer={"topics": ["raw-v1"]})
    assert output(flow(price, output=IntoTopic("orders.raw")), settings).topic == "orders.raw"


@pytest.mark.parametrize("brokers", ["localhost:9092", "other:1, localhost:9092", ["other:1", "localhost:9092"]])
def test_brokers_that_are_shared_are_one_cluster(brokers: Any) -> None:
    settings = config(producers={"orders.raw": {"brokers": brokers}})
    (issue,) = errors(flow(price, output=IntoTopic("orders.raw")), settings)
    assert issue.code is Code.TOPIC_LOOP


def test_a_copy_to_other_brokers_is_a_warning() -> None:
    settings = config(producers={"orders.raw": {"brokers": ["elsewhere:9092"]}})
    (warning,) = plan(flow(price, output=IntoTopic("orders.raw")), settings).warnings
    assert (warning.code, warning.where) == (Code.TOPIC_LOOP, "output")
    assert "'orders.raw'" in warning.message
