"""Which process of how many this is, from the config and the environment."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigError
from loom.streaming.bytewax import BytewaxRuntimeConfig
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.layout import Layout, TooManyProcessesError, layout_of

TWO = ("a:2101", "b:2102")


@pytest.mark.parametrize(
    ("runtime", "environment", "layout"),
    [
        ({}, {}, Layout()),
        ({}, {"LOOM_PROCESS_ID": "2", "LOOM_PROCESSES": "3"}, Layout(2, 3)),
        ({}, {"LOOM_PROCESS_ID": "0", "LOOM_PROCESSES": "1"}, Layout()),
        ({"process_id": 1, "addresses": TWO}, {}, Layout(1, 2, TWO)),
        ({"addresses": TWO}, {"LOOM_PROCESS_ID": "1"}, Layout(1, 2, TWO)),
        ({}, {"LOOM_PROCESS_ID": "1", "LOOM_ADDRESSES": "a:2101, b:2102"}, Layout(1, 2, TWO)),
    ],
)
def test_either_says_which_process_this_is(
    runtime: Mapping[str, object], environment: Mapping[str, str], layout: Layout
) -> None:
    assert layout_of(BytewaxRuntimeConfig(**runtime), environment) == layout  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runtime", "environment", "named"),
    [
        ({"process_id": 0}, {}, ["streaming.runtime.process_id", "LOOM_PROCESSES", "streaming.runtime.addresses"]),
        ({"addresses": TWO}, {}, ["streaming.runtime.addresses", "LOOM_PROCESS_ID", "streaming.runtime.process_id"]),
        ({}, {"LOOM_PROCESS_ID": "0"}, ["LOOM_PROCESS_ID", "LOOM_PROCESSES", "LOOM_ADDRESSES"]),
        ({}, {"LOOM_PROCESSES": "2"}, ["LOOM_PROCESSES", "LOOM_PROCESS_ID"]),
        ({}, {"LOOM_ADDRESSES": "a:1,b:2"}, ["LOOM_ADDRESSES", "LOOM_PROCESS_ID"]),
        (
            {"process_id": 0, "addresses": TWO},
            {"LOOM_PROCESS_ID": "0", "LOOM_PROCESSES": "2"},
            ["LOOM_PROCESS_ID: is given as streaming.runtime.process_id too", "LOOM_PROCESSES: cannot be combined"],
        ),
        (
            {},
            {"LOOM_PROCESS_ID": "0", "LOOM_PROCESSES": "2", "LOOM_ADDRESSES": "a:1,b:2"},
            ["LOOM_PROCESSES: cannot be combined with LOOM_ADDRESSES"],
        ),
        (
            {"process_id": 0, "addresses": TWO},
            {"LOOM_ADDRESSES": "a:1,b:2"},
            ["LOOM_ADDRESSES: is given as streaming.runtime.addresses too"],
        ),
        ({}, {"LOOM_PROCESS_ID": "2", "LOOM_PROCESSES": "2"}, ["LOOM_PROCESS_ID: must be 0 to 1"]),
        ({"process_id": 2, "addresses": TWO}, {}, ["streaming.runtime.process_id: must be 0 to 1", "2 addresses"]),
        ({}, {"LOOM_PROCESS_ID": "one", "LOOM_PROCESSES": "2"}, ["LOOM_PROCESS_ID: must be a whole number"]),
        ({}, {"LOOM_PROCESS_ID": "0", "LOOM_PROCESSES": "65"}, ["LOOM_PROCESSES: must be 1 to 64"]),
        ({}, {"LOOM_PROCESS_ID": "0", "LOOM_PROCESSES": "0"}, ["LOOM_PROCESSES: must be 1 to 64"]),
        ({"process_id": 0, "addresses": ("a", "b:1")}, {}, ["streaming.runtime.addresses", "host:port"]),
        ({"process_id": 0, "addresses": ("a:1", "a:1")}, {}, ["streaming.runtime.addresses", "a:1 twice"]),
        ({"process_id": 0, "addresses": ()}, {}, ["streaming.runtime.addresses: must be 1 to 64"]),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    runtime: Mapping[str, object], environment: Mapping[str, str], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        layout_of(BytewaxRuntimeConfig(**runtime), environment)  # type: ignore[arg-type]
    for name in named:
        assert name in str(refused.value)


@given(st.integers(1, 64), st.dictionaries(st.sampled_from("abc"), st.integers(1, 200), min_size=1))
def test_every_partition_has_one_process(processes: int, counts: dict[str, int]) -> None:
    topics = {topic: tuple(range(count)) for topic, count in counts.items()}
    owned = [partition for index in range(processes) for partition in Layout(index, processes).owned(topics)]
    assert sorted(owned) == sorted(TopicPartition(topic, number) for topic in topics for number in topics[topic])


def test_a_process_without_a_partition_is_refused() -> None:
    Layout(0, 4).check({"few": (0, 1), "many": (0, 1, 2, 3)})
    with pytest.raises(TooManyProcessesError, match=r"5 processes share .*few, many.* 4 partitions"):
        Layout(0, 5).check({"few": (0, 1), "many": (0, 1, 2, 3)})
