"""Logical names become topics and settings: a named entry overlays the common one."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import FromTopic, IntoTopic, compile_flow
from loom.streaming.compiler import Code, CompilationError, CompiledPlan, CompiledTopic, Issue
from tests.streaming.orders import CONFIG, Order, config, ended, flow, price


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


def test_a_logical_name_is_the_topic_unless_the_config_names_another() -> None:
    assert output(flow(price)).topic == "orders.priced"
    renamed = config(producers={"orders.priced": {"topic": "priced-v2"}})
    assert (output(flow(price), renamed).name, output(flow(price), renamed).topic) == ("orders.priced", "priced-v2")


@pytest.mark.parametrize("topics", [None, []])
def test_a_source_without_topics_reads_its_logical_name(topics: Any) -> None:
    """An empty list once read nothing."""
    assert plan(flow(price), config(consumer={"topics": topics})).source.topics == ("orders.raw",)


def test_a_source_reads_the_topics_that_the_config_names() -> None:
    named = config(consumer={"topics": ["a"]}, consumers={"orders.raw": {"topics": ["b", "c"]}})
    assert plan(flow(price), config(consumer={"topics": ["a"]})).source.topics == ("a",)
    assert plan(flow(price), named).source.topics == ("b", "c")


def test_a_named_entry_overlays_the_common_one_key_by_key() -> None:
    settings = config(
        producer={"format": "msgpack", "client_id": "common", "extra": {"linger.ms": 1, "batch.size": 2}},
        producers={"orders.priced": {"client_id": "own", "extra": {"linger.ms": 9}}},
    )
    made = output(flow(price), settings).settings
    assert (made.format, made.client_id, made.extra) == ("msgpack", "own", {"linger.ms": 9, "batch.size": 2})
    assert plan(flow(price), settings).error_routes[0].output.settings.client_id == "common"


def test_security_is_overlaid_too() -> None:
    settings = config(
        consumer={"security": {"protocol": "SASL_SSL", "sasl_username": "ann"}},
        consumers={"orders.raw": {"security": {"sasl_username": "bob"}}},
    )
    security = plan(flow(price), settings).source.settings.security
    assert security is not None
    assert (security.protocol, security.sasl_username) == ("SASL_SSL", "bob")


def test_a_named_entry_is_enough_where_there_is_no_common_one() -> None:
    settings = {
        "kafka": {
            "consumers": {"orders.raw": {"brokers": "a:1", "group_id": "g"}},
            "producers": {"orders.priced": {"brokers": ["b:1"]}, "orders.errors": {"brokers": ["c:1"]}},
        }
    }
    made = plan(flow(price), settings)
    assert made.source.settings.brokers == "a:1"
    assert [topic.settings.brokers for topic in made.topics()] == [("b:1",), ("c:1",)]


def test_names_with_dots_are_keys_and_never_ways_into_the_config() -> None:
    settings = config(
        producers={
            "orders": {"topic": "wrong"},
            "orders.priced.v2": {"topic": "right"},
            "orders.priced": {"topic": "no"},
        },
    )
    assert output(flow(price, output=IntoTopic("orders.priced.v2")), settings).topic == "right"
    nested = config(producers={"orders": {"priced": {"topic": "wrong"}}})
    assert output(flow(price), nested).topic == "orders.priced"


def test_every_output_is_resolved_by_its_own_name() -> None:
    settings = config(
        producers={"es": {"topic": "spain"}, "dead": {"topic": "letters"}, "orders.errors": {"topic": "e"}}
    )
    made = plan(ended(IntoTopic("es", dlq="dead")), settings)
    (into,) = made.terminal_sinks.values()
    assert into.dlq is not None
    assert (into.topic, into.dlq.topic, made.error_routes[0].output.topic) == ("spain", "letters", "e")


@pytest.mark.parametrize(
    ("settings", "delivery"),
    [
        ({"delivery": None}, None),
        ({"delivery": None, "enable_auto_commit": True}, None),
        ({"delivery": None, "enable_auto_commit": False}, "at_least_once"),
        ({"delivery": "at_least_once"}, "at_least_once"),
        ({"delivery": "at_most_once", "enable_auto_commit": False}, "at_most_once"),
        ({"delivery": "at_most_once", "enable_auto_commit": "false"}, "at_most_once"),
    ],
)
def test_the_delivery_rules_where_it_is_given(settings: dict[str, Any], delivery: str | None) -> None:
    source = plan(flow(price), config(consumer=settings)).source
    assert source.delivery == delivery
    assert source.settings.auto_commit is (delivery is None)


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize("entry", ["consumer", "consumers"])
def test_a_delivery_beside_a_written_auto_commit_is_a_conflict(delivery: str, entry: str) -> None:
    changes: dict[str, Any] = {"delivery": delivery, "enable_auto_commit": "true"}
    settings = config(**{entry: changes if entry == "consumer" else {"orders.raw": changes}})
    (issue,) = errors(flow(price), settings)
    assert (issue.code, issue.where) == (Code.DELIVERY_CONFLICT, "config")
    assert delivery in issue.message


@pytest.mark.parametrize(
    ("kafka", "place", "remedy"),
    [
        ({"producers": {"orders.pricd": {}}}, 'kafka.producers["orders.pricd"]', "did you mean 'orders.priced'?"),
        ({"consumers": {"orders-raw": {}}}, "kafka.consumers.orders-raw", "did you mean 'orders.raw'?"),
        ({"producers": {"zzz": {}}}, "kafka.producers.zzz", "remove it, or use that logical name"),
    ],
)
def test_a_named_entry_that_no_node_asks_for_is_a_warning(kafka: Any, place: str, remedy: str) -> None:
    """A misspelt name once fell back to the common entry without a word."""
    (warning,) = plan(flow(price), config(**kafka)).warnings
    assert (warning.code, warning.message, warning.remedy) == (Code.CONFIG_UNREAD, f"nothing reads {place}", remedy)


@pytest.mark.parametrize(
    ("format", "reads", "recognises"),
    [(None, "json", True), ("json", "json", False), ("msgpack", "msgpack", False), ("envelope", "envelope", False)],
)
def test_only_a_source_on_its_default_format_recognises_envelopes(
    format: str | None, reads: str, recognises: bool
) -> None:
    source = plan(flow(price, source=FromTopic("orders.raw", Order)), config(consumer={"format": format})).source
    assert (source.wire_format, source.recognise_envelope) == (reads, recognises)


@pytest.mark.parametrize(
    ("declared", "settings", "where", "code", "remedy"),
    [
        (
            flow(price),
            {"consumer": {"topics": ["orders.eu", r"^orders\..*"]}},
            "source",
            Code.CONFIG_INVALID,
            "list the topics",
        ),
        (flow(price, source=FromTopic(r"^orders\..*", Order)), {}, "source", Code.NAME_INVALID, "list the topics"),
        (flow(price), {"producers": {"orders.priced": {"topic": "^x"}}}, "output", Code.CONFIG_INVALID, "by its name"),
    ],
)
def test_a_pattern_of_topics_is_refused_with_what_to_write_instead(
    declared: Any, settings: dict[str, Any], where: str, code: Code, remedy: str
) -> None:
    (issue,) = errors(declared, config(**settings))
    assert (issue.code, issue.where) == (code, where)
    assert "is a pattern" in issue.message
    assert issue.remedy is not None
    assert remedy in issue.remedy
