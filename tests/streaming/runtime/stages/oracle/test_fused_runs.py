"""Generated flows on the engine do what the interpreter says: the same outputs on the same paths in the same order, the same
errors, the same counters; and every input ends exactly where it should.

`make oracle` runs many more of them (the Hypothesis profile `nightly`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming import ErrorKind, Message, Tombstone
from loom.streaming.kafka.record_headers import key_bytes
from loom.streaming.metrics import FlowCounts
from tests.streaming.runtime.stages.oracle.flows import FIRST_MS, Taken, flow_of, records_of
from tests.streaming.runtime.stages.oracle.interpreter import Failure, Interpreter, Item
from tests.streaming.runtime.stages.oracle.profiles import ORACLE
from tests.streaming.runtime.stages.oracle.shapes import SINKS, TOPICS, Chain, Input, chains, inputs
from tests.support.running import Written, config_for, in_memory, into_topics

pytestmark = pytest.mark.timeout(21_600)

BATCH_SIZES = st.integers(1, 6)


def interpret(chain: Chain, read: list[Input], batch_size: int, *, encodes: bool) -> Interpreter:
    """What one run over all of the input should do; every time-out lies far beyond its end."""
    expected = Interpreter(chain, encodes=encodes)
    for begin in range(0, len(read), batch_size):
        expected.batch(read[begin : begin + batch_size])
    expected.end()
    return expected


def by_partition(items: Iterable[Item], read: list[Input]) -> dict[int, list[Item]]:
    """Items in the order in which each partition has to see them leave."""
    found: dict[int, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.origin, item.order)):
        found.setdefault(read[item.origin].partition, []).append(item)
    return found


def told(item: Item) -> tuple[Any, ...]:
    """What shows of an item in a record of a topic."""
    return (item.origin, None if item.value is None else (item.value, item.type), item.key)


def found_in(record: Written) -> tuple[Any, ...]:
    value = None
    if record.value is not None:
        fields = msgspec.json.decode(record.value)
        value = (fields["n"], "Other" if "other" in fields else "Number")
    return (record.timestamp_ms - FIRST_MS, value, record.key)


def error_told(failure: Failure) -> tuple[Any, ...]:
    return (
        failure.item.origin,
        ".".join(map(str, failure.item.index)),
        failure.kind,
        failure.step_id,
        failure.path,
        failure.reason,
    )


def check_counts(counts: FlowCounts, expected: Interpreter) -> None:
    """Each input in one place, each result counted once."""
    results = Counter({name: len(items) for name, items in expected.written.items() if name in (*TOPICS, "out")})
    kinds: dict[int, list[ErrorKind]] = {}
    for failure in expected.failures:
        kinds.setdefault(failure.item.origin, []).append(failure.kind)
    written = {item.origin for items in expected.written.values() for item in items} - kinds.keys()
    assert counts.read == expected.read
    assert counts.read == counts.written + counts.dropped + sum(counts.failed.values())
    assert counts.written == len(written)
    assert sum(counts.failed.values()) == len(kinds)
    certain = Counter(found[0] for found in kinds.values() if len(set(found)) == 1)
    assert all(counts.failed[kind] >= count for kind, count in certain.items())
    assert counts.errors == Counter((failure.kind, failure.step_id) for failure in expected.failures)
    assert counts.drops == dict(expected.drops)
    assert {name: counts.outputs.get(name, 0) for name in results} == results
    everything = sum(map(len, expected.written.values())) + len(expected.failures)
    assert sum(counts.outputs.values()) == everything == counts.durable


def sinks_of(flow: Any) -> dict[str, list[Message[Any]]]:
    """What the flow's own sinks have taken, by name."""
    found: dict[str, list[Message[Any]]] = {}

    def look(node: Any) -> None:
        if isinstance(node, Taken):
            found.setdefault(node.name, []).extend(node.messages)
        for name in ("process", "default", "routes", "branches", "nodes"):
            inner = getattr(node, name, None)
            for one in inner.values() if isinstance(inner, dict) else inner if isinstance(inner, tuple) else [inner]:
                if one is not None:
                    look(one)

    look(flow.process)
    return found


def shown(message: Message[Any]) -> tuple[Any, ...]:
    payload = message.payload
    value = None if isinstance(payload, Tombstone) else (payload.n, type(payload).__name__)
    return (value, key_bytes(message.meta.key))


@ORACLE
@given(chain=chains(), read=inputs(), batch_size=BATCH_SIZES)
def test_what_stands_in_the_topics_is_what_the_interpreter_says(
    chain: Chain, read: list[Input], batch_size: int
) -> None:
    expected = interpret(chain, read, batch_size, encodes=True)
    flow = flow_of(chain)
    topics, counts = into_topics(flow, records_of(read), config=config_for(consumer={"batch_size": batch_size}))

    for topic in (*TOPICS, "out"):
        found = [found_in(record) for record in topics.get(topic, [])]
        for partition, items in by_partition(expected.written.get(topic, []), read).items():
            assert [one for one in found if read[one[0]].partition == partition] == [*map(told, items)], topic
        assert len(found) == len(expected.written.get(topic, [])), topic
    taken = sinks_of(flow)
    for name in SINKS:
        wanted = Counter(told(item)[1:] for item in expected.written.get(name, []))
        assert Counter(map(shown, taken.get(name, []))) == wanted
    check_letters(topics.get("errors", []), expected, read)
    check_counts(counts, expected)


def check_letters(letters: list[Written], expected: Interpreter, read: list[Input]) -> None:
    """The dead letters of each partition, in order."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for letter in letters:
        headers = {name: (value or b"").decode() for name, value in letter.headers}
        path = tuple(int(part) for part in headers.get("x-error-path", "").split(".") if part)
        kind, step_id = ErrorKind(headers["x-error-kind"]), headers["x-error-step"]
        origin = int(headers["x-error-timestamp"]) - FIRST_MS
        told = (origin, headers.get("x-error-index", ""), kind, step_id, path, headers["x-error-reason"])
        found.setdefault(read[origin].partition, []).append(told)
    for partition in range(3):
        wanted = [f for f in expected.failures if read[f.item.origin].partition == partition]
        wanted.sort(key=lambda f: (f.item.origin, f.item.order))
        assert [without_reason(one, f) for one, f in zip(found.get(partition, []), wanted, strict=False)] == [
            *map(error_told, wanted)
        ]
        assert len(found.get(partition, [])) == len(wanted)


def without_reason(one: tuple[Any, ...], failure: Failure) -> tuple[Any, ...]:
    """What a decoder or an encoder says is its own business."""
    return one if failure.reason is not None else (*one[:-1], None)


@ORACLE
@given(chain=chains(), read=inputs(), batch_size=BATCH_SIZES)
def test_what_sinks_in_the_place_of_topics_are_given_is_what_the_interpreter_says(
    chain: Chain, read: list[Input], batch_size: int
) -> None:
    expected = interpret(chain, read, batch_size, encodes=False)
    flow = flow_of(chain)
    ran = in_memory(flow, records_of(read), config=config_for(consumer={"batch_size": batch_size}))

    for path, messages in {(): ran.output, **ran.terminals}.items():
        items = expected.at.get(path, [])
        assert Counter(map(shown, messages)) == Counter(told(item)[1:] for item in items), path
        # Every message says where it stems from, one that a step has made of nothing too.
        for partition, inside in by_partition(items, read).items():
            placed = [shown(message) for message in messages if message.meta.partition == partition]
            assert placed == [told(item)[1:] for item in inside], path
    for kind, envelopes in ran.errors.items():
        wanted = Counter((f.step_id, f.path, f.item.origin) for f in expected.failures if f.kind is kind)
        origins = [
            e.source.timestamp_ms - FIRST_MS for e in envelopes if e.source is not None and e.source.timestamp_ms
        ]
        assert Counter((e.step_id, e.path, o) for e, o in zip(envelopes, origins, strict=True)) == wanted
    assert ran.counts.accounted == len(read) == ran.counts.read
    assert ran.counts.drops == dict(expected.drops)
