"""Names and values that are empty, as an environment variable that is set and empty gives them, or that no client takes."""

from __future__ import annotations

from typing import Any

import pytest

from loom.cli.exit_codes import Exit, exit_for
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.bytewax import BytewaxRecoverySettings, BytewaxRuntimeConfig
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import ConsumerSettings, KafkaProducer, ProducerSettings
from tests.support.running import config_for


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


def flow(
    name: str = "numbers", source: str = "numbers", output: str = "out", dlq: str | None = None, errors: str = "errors"
) -> StreamFlow[Any, Any]:
    return StreamFlow(
        name, FromTopic(source, Number), Process(same), IntoTopic(output, Number, dlq=dlq), IntoTopic(errors)
    )


CONSUMER: list[tuple[str, Any, str]] = [
    ("group_id", "", "group_id: must not be empty"),
    ("group_id", " \t", "group_id: must not be empty"),
    ("brokers", "", "brokers: must not be empty"),
    ("brokers", [], "brokers: must not be empty"),
    ("brokers", [""], "brokers: must not be empty"),
    ("brokers", "x:1,,", "brokers: holds an empty address"),
    ("brokers", ["x:1", "y:1,"], "brokers: holds an empty address"),
    ("topics", ["numbers", ""], "topics: must not be empty"),
    ("batch_size", 0, "batch_size: expected `int` >= 1"),
    ("batch_size", 1_000_001, "batch_size: expected `int` <= 1000000"),
    ("topic_check_interval_ms", 10**15, "topic_check_interval_ms: expected `int` <="),
]


@pytest.mark.parametrize(("key", "value", "told"), CONSUMER)
def test_an_unusable_consumer_setting_is_named_by_its_key(key: str, value: Any, told: str) -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(), config=config_for(consumer={key: value}))
    assert f"kafka.consumer.{told}" in str(refused.value)
    assert exit_for(refused.value) is Exit.CONFIG
    with pytest.raises(ValueError, match=key):
        ConsumerSettings(**{"brokers": "x:1", "group_id": "readers", key: value})


def test_an_empty_variable_is_what_the_remedy_speaks_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUP", "")
    with pytest.raises(CompilationError, match="the variable is set and empty"):
        compile_flow(flow(), config=config_for(consumer={"group_id": "${oc.env:GROUP}"}))


@pytest.mark.parametrize(("key", "value"), [("brokers", ""), ("brokers", "x:1,,"), ("topic", " ")])
def test_an_unusable_producer_setting_is_named_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(CompilationError, match=rf"kafka\.producer\.{key}: "):
        compile_flow(flow(), config=config_for(producer={key: value}))
    with pytest.raises(ValueError, match=key):
        ProducerSettings(**{"brokers": "x:1", key: value})


@pytest.mark.parametrize(
    "names", [{"name": ""}, {"name": " "}, {"source": ""}, {"output": ""}, {"dlq": " "}, {"errors": ""}]
)
def test_an_empty_name_in_a_flow_does_not_compile(names: dict[str, str]) -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(**names), config=config_for())
    assert {issue.code for issue in refused.value.errors} == {Code.NAME_INVALID}


@pytest.mark.parametrize("name", ["orders raw", "orders/raw", "größe", ".", "..", "x" * 250])
def test_a_name_that_kafka_takes_for_no_topic_does_not_compile(name: str) -> None:
    for names in ({"source": name}, {"output": name}, {"dlq": name}, {"errors": name}):
        with pytest.raises(CompilationError, match="is no name of a topic"):
            compile_flow(flow(**names), config=config_for())


def test_a_logical_name_may_be_any_where_the_config_names_the_topic() -> None:
    config = config_for(consumer={"topics": ["numbers"]})
    config["kafka"]["producers"] = {"what is priced": {"topic": "priced-v2"}}
    plan = compile_flow(flow(source="all numbers", output="what is priced"), config=config)
    assert plan.output is not None
    assert (plan.source.topics, plan.output.topic) == (("numbers",), "priced-v2")


def test_a_recovery_directory_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="db_dir must not be empty"):
        BytewaxRecoverySettings("")


@pytest.mark.parametrize("key", ["epoch_interval_ms", "force_shutdown_timeout_ms"])
def test_a_time_that_no_wait_takes_is_refused_at_its_key(key: str) -> None:
    context = ConfigContext.from_dict({"runtime": {key: 10**15}})
    with pytest.raises(Exception, match=rf"runtime\.{key}: must be at most"):
        context.section("runtime", BytewaxRuntimeConfig)


def test_a_producer_without_a_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the name of a topic"):
        KafkaProducer(ProducerSettings("x:1"), "", Number)
