"""Sections are found by their keys, read as types, and remembered as read."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct


class Pricing(LoomFrozenStruct):
    currency: str
    digits: int = 2


class Flag(LoomFrozenStruct):
    on: bool = False


def context(**sections: Any) -> ConfigContext:
    return ConfigContext.from_dict(sections)


def test_a_section_is_read_as_its_type() -> None:
    assert context(pricing={"currency": "EUR"}).section("pricing", Pricing) == Pricing("EUR")


def test_a_nested_section_is_reached_by_a_dotted_key() -> None:
    assert context(a={"b": {"currency": "EUR"}}).section("a.b", Pricing) == Pricing("EUR")


def test_problems_in_a_section_carry_the_whole_key() -> None:
    with pytest.raises(ConfigError) as caught:
        context(a={"b": {"curency": "EUR"}}).section("a.b", Pricing)
    assert [problem.key for problem in caught.value.problems] == ["a.b.curency", "a.b.currency"]


def test_an_absent_section_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        context(pricing={}).section("princing", Pricing)
    (problem,) = caught.value.problems
    assert (problem.key, problem.nearest) == ("princing", "pricing")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("kafka.consumr", "kafka.consumer"), ("kafak.consumer", "kafka"), ("kafka.consumer.x.y", None), ("zzz.y", None)],
)
def test_an_absent_nested_section_names_what_comes_closest(key: str, nearest: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        context(kafka={"consumer": {"group_id": "g"}}).raw(key)
    assert caught.value.problems[0].nearest == nearest


def test_logical_names_with_dots_are_keys_and_not_paths() -> None:
    loaded = context(kafka={"producers": {"orders.priced": {"topic": "priced-v2"}}})
    assert loaded.raw("kafka.producers") == {"orders.priced": {"topic": "priced-v2"}}
    assert loaded.raw("kafka.producers.orders.priced.topic") == "priced-v2"
    assert not loaded.has("kafka.producers.orders")


def test_a_list_can_come_out_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Consumer(LoomFrozenStruct):
        brokers: tuple[str, ...]

    monkeypatch.setenv("LOOM_TEST_BROKERS", "[a:9092,b.c:9093]")
    with pytest.raises(ConfigError) as caught:
        context(consumer={"brokers": "${oc.env:LOOM_TEST_BROKERS}"}).section("consumer", Consumer)
    remedy = caught.value.problems[0].remedy
    assert remedy is not None
    assert "${oc.decode:${oc.env:NAME}}" in remedy
    mended = context(consumer={"brokers": "${oc.decode:${oc.env:LOOM_TEST_BROKERS}}"})
    assert mended.section("consumer", Consumer).brokers == ("a:9092", "b.c:9093")


def test_where_a_key_is_ambiguous_the_longest_name_wins() -> None:
    both = ConfigContext.from_dict({"a.b": {"c": 1}, "a": {"b": {"c": 2, "d": 3}}})
    assert both.raw("a.b.c") == 1
    assert both.raw("a.b.d") == 3


def test_has_looks_without_reading() -> None:
    loaded = context(pricing={"currency": None})
    assert loaded.has("pricing")
    assert loaded.has("pricing.currency")
    assert not loaded.has("pricing.rate")
    assert not loaded.has("pricing.currency.x")
    assert not loaded.has("")
    assert loaded.unread_sections() == ("pricing",)


def test_an_empty_section_is_one_without_keys() -> None:
    assert context(flag=None).section("flag", Flag) == Flag()


def test_an_optional_section_may_be_absent_or_empty() -> None:
    loaded = context(flag=None, other={"on": True})
    assert loaded.section_optional("flag", Flag) is None
    assert loaded.section_optional("nowhere.at.all", Flag) is None
    assert loaded.section_optional("other", Flag) == Flag(True)


def test_a_default_stands_in_for_an_absent_section_but_not_for_a_wrong_one() -> None:
    loaded = context(wrong={"off": True})
    assert loaded.section_or_default("flag", Flag, Flag(True)) == Flag(True)
    with pytest.raises(ConfigError, match=r"wrong\.off"):
        loaded.section_or_default("wrong", Flag, Flag(True))


def test_raw_containers_may_be_changed() -> None:
    loaded = context(a={"b": [1]})
    loaded.raw("a")["b"].append(2)
    assert loaded.raw("a") == {"b": [1]}


def test_what_nothing_reads_is_known() -> None:
    loaded = context(kafka={"consumer": {"on": True}}, pricing={}, streaming={}, legacy={}, extra={}, marked={})
    loaded.section("kafka.consumer", Flag)
    loaded.raw("pricing")
    loaded.section_optional("streaming.supervision", Flag)
    loaded.mark_read("marked.deeper")
    assert loaded.unread_sections() == ("legacy", "extra")


def test_a_section_that_is_referred_to_counts_as_read_with_its_referrer() -> None:
    loaded = ConfigContext.from_dict(
        {
            "kafka": {"brokers": ["${shared.host}:1"], "keys": "${oc.dict.keys:tables}"},
            "shared": {"host": "${names.host}"},
            "names": {"host": "h"},
            "tables": {"a": 1},
            "alone": {"x": "${shared.host}"},
        }
    )
    assert loaded.unread_sections() == ("kafka", "shared", "names", "tables", "alone")
    loaded.raw("kafka")
    assert loaded.unread_sections() == ("alone",)


def test_one_context_serves_several_threads() -> None:
    loaded = context(pricing={"currency": "${name}"}, name="EUR")
    seen: list[Pricing] = []
    threads = [threading.Thread(target=lambda: seen.append(loaded.section("pricing", Pricing))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [Pricing("EUR")] * 8


def test_an_error_reads_as_a_list() -> None:
    with pytest.raises(ConfigError) as caught:
        context(pricing={"curency": "EUR", "digits": []}).section("pricing", Pricing)
    assert str(caught.value).splitlines() == [
        "3 problems in the configuration:",
        "  pricing.curency: unknown key; did you mean `currency`?",
        "  pricing.digits: expected `int`, got `array`",
        "  pricing.currency: required key is missing; expected `str`",
    ]


def test_a_context_laid_over_another_replaces_key_by_key_and_leaves_both_alone() -> None:
    below = ConfigContext.from_dict({"a": {"x": 1, "list": [1, 2]}, "empty": None})
    above = below.overlaid({"a": {"list": [3]}, "empty": {"filled": "${a.x}"}, "orders.raw": {"y": 2}})
    assert above.raw("a") == {"x": 1, "list": [3]}
    assert above.raw("empty.filled") == 1
    assert above.raw("orders.raw.y") == 2
    assert below.raw("a") == {"x": 1, "list": [1, 2]}
    assert not below.has("orders.raw")
