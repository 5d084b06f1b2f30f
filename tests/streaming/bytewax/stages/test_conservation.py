"""No record is lost, doubled or moved: generated flows against a slow interpreter that does one obvious thing after another.

The interpreter works node by node on a list of what is under way, each with the input it stems from and which child of
which expansion it is. A batch step sees what the engine's batch has brought it; everything else sees one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Process,
    RecordStep,
    StreamFlow,
    Tombstone,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import config_for, in_memory, into_topics


class Number(LoomFrozenStruct):
    n: int


# ---- what is generated: each node decides by the remainder of its number


@dataclass(frozen=True)
class Single:
    name: str
    kind: str  # "function" or "record"
    rules: tuple[str, ...]
    may_drop: bool

    def rule(self, n: int) -> str:
        return self.rules[n % len(self.rules)]


@dataclass(frozen=True)
class Expansion:
    name: str
    widths: tuple[int, ...]  # negative: fails behind so many children

    def width(self, n: int) -> int:
        return self.widths[n % len(self.widths)]


@dataclass(frozen=True)
class Together:
    name: str
    rules: tuple[str, ...]

    def rule(self, n: int) -> str:
        return self.rules[n % len(self.rules)]


@dataclass(frozen=True)
class Parting:
    keys: tuple[int, ...]
    branches: tuple[Chain, ...]
    default: Chain | None
    modulus: int
    fails_at: int | None

    def key(self, n: int) -> int:
        if n % self.modulus == self.fails_at:
            raise ZeroDivisionError("no key")
        return n % self.modulus


@dataclass(frozen=True)
class Chain:
    nodes: tuple[Single | Expansion | Together, ...]
    end: Parting | str  # a fork, or the topic


SINGLE_RULES = st.sampled_from(["add", "add", "add", "drop", "task", "business", "tombstone", "message"])
BATCH_RULES = st.sampled_from(["add", "add", "add", "drop", "task", "business", "raise", "short"])


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Single | Expansion | Together:
    what = draw(st.sampled_from(["single", "single", "expansion", "together"]))
    if what == "single":
        rules = draw(st.lists(SINGLE_RULES, min_size=1, max_size=5))
        return Single(name, draw(st.sampled_from(["function", "record"])), tuple(rules), draw(st.booleans()))
    if what == "expansion":
        return Expansion(name, tuple(draw(st.lists(st.integers(-2, 3), min_size=1, max_size=4))))
    return Together(name, tuple(draw(st.lists(BATCH_RULES, min_size=1, max_size=6))))


@st.composite
def chains(draw: st.DrawFn, depth: int = 2) -> Chain:
    made = tuple(draw(nodes(f"s{place}")) for place in range(draw(st.integers(0, 3))))
    if depth == 0 or draw(st.booleans()):
        return Chain(made, draw(st.sampled_from(["a", "b", "c"])))
    modulus = draw(st.integers(1, 4))
    keys = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)))
    branches = tuple(draw(chains(depth - 1)) for _ in keys)
    default = draw(st.none() | chains(depth - 1))
    fails_at = draw(st.none() | st.integers(0, 3))
    return Chain(made, Parting(keys, branches, default, modulus, fails_at))


VALUES = st.one_of(st.integers(0, 30), st.integers(0, 30), st.none(), st.just("broken"))


# ---- the flow that is run


def of_single(node: Single) -> Any:
    out = Number | Tombstone | None if node.may_drop else Number | Tombstone

    def act(n: int) -> Any:
        rule = node.rule(n)
        if rule == "task":
            raise ValueError(node.name)
        if rule == "business":
            raise RuleViolation(node.name)
        return {"drop": None, "tombstone": Tombstone()}.get(rule, Number(n + 1))

    if node.kind == "function":

        def function(number: Any) -> Any:
            return act(number.n)

        function.__annotations__ = {"number": Number, "return": out}
        return step(name=node.name)(function)

    class Generated(RecordStep[Number, out]):  # type: ignore[valid-type]
        name = node.name

        def execute(self, message):  # type: ignore[no-untyped-def]
            result = act(message.payload.n)
            return message.with_payload(result) if node.rule(message.payload.n) == "message" else result

    return Generated


def of_expansion(node: Expansion) -> Any:
    class Generated(ExpandStep[Number, Number]):
        name = node.name

        def execute(self, message):  # type: ignore[no-untyped-def]
            width = node.width(message.payload.n)
            for child in range(abs(width)):
                yield Number(message.payload.n + child)
            if width < 0:
                raise ValueError(node.name)

    return Generated


def of_together(node: Together) -> Any:
    class Generated(BatchStep[Number, Number | None]):
        name = node.name

        def execute(self, messages):  # type: ignore[no-untyped-def]
            rules = [node.rule(message.payload.n) for message in messages]
            if "raise" in rules:
                raise RuleViolation(node.name)
            results: list[Any] = []
            for rule, message in zip(rules, messages, strict=True):
                entry = {"drop": None, "task": ValueError(node.name), "business": RuleViolation(node.name)}
                results.append(entry.get(rule, Number(message.payload.n + 1)))
            return results[1:] if "short" in rules else results

    return Generated


def process_of(chain: Chain) -> Process:
    makers = {Single: of_single, Expansion: of_expansion, Together: of_together}
    made = [makers[type(node)](node) for node in chain.nodes]  # type: ignore[operator]
    if isinstance(chain.end, str):
        return Process(*made, IntoTopic(chain.end))
    end = chain.end
    branches = {key: process_of(branch) for key, branch in zip(end.keys, end.branches, strict=True)}

    def selector(number: Number) -> int:
        return end.key(number.n)

    return Process(*made, Fork.by(selector, branches, default=process_of(end.default) if end.default else None))


# ---- the interpreter


@dataclass
class Item:
    origin: int
    child: tuple[int, ...]
    value: int | None  # None is a tombstone


@dataclass
class Outcome:
    """What should come out."""

    written: dict[str, list[Item]] = field(default_factory=dict)
    failed: list[tuple[Item, ErrorKind, str]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)

    def fail(self, item: Item, kind: ErrorKind, step_id: str) -> None:
        self.failed.append((item, kind, step_id))

    def values(self, topic: str) -> list[int | None]:
        return [item.value for item in in_order(self.written.get(topic, []))]

    def errors(self) -> list[tuple[int, str, ErrorKind, str]]:
        """(offset, index of the child, kind, step)"""
        ordered = sorted(self.failed, key=lambda failure: (failure[0].origin, failure[0].child))
        return [(item.origin, ".".join(map(str, item.child)), kind, step_id) for item, kind, step_id in ordered]


def in_order(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (item.origin, item.child))


def interpret(chain: Chain, values: list[Any], batch_size: int) -> Outcome:
    outcome = Outcome()
    for begin in range(0, len(values), batch_size):
        items = []
        for origin, value in enumerate(values[begin : begin + batch_size], begin):
            item = Item(origin, (), value)
            if value == "broken":
                outcome.fail(item, ErrorKind.WIRE, "flow.source")
            else:
                items.append(item)
        walk(chain, items, "flow", outcome)
    return outcome


def walk(chain: Chain, items: list[Item], parent: str, outcome: Outcome) -> None:
    for node in chain.nodes:
        items = list(through(node, in_order(items), f"{parent}.{node.name}", outcome))
    if isinstance(chain.end, str):
        outcome.written.setdefault(chain.end, []).extend(items)
        return
    end = chain.end
    by_key = dict(zip(end.keys, zip(map(str, end.keys), end.branches, strict=True), strict=True))
    taken: dict[str, tuple[Chain, list[Item]]] = {}
    for item in items:
        label, branch = "default", end.default
        if item.value is not None:
            try:
                label, branch = by_key.get(end.key(item.value), (label, branch))
            except ZeroDivisionError:
                branch = None
        if branch is None:
            outcome.fail(item, ErrorKind.ROUTING, f"{parent}.fork")
        else:
            taken.setdefault(label, (branch, []))[1].append(item)
    for label, (branch, inside) in taken.items():
        walk(branch, inside, f"{parent}.{label}", outcome)


def through(node: Single | Expansion | Together, items: list[Item], step_id: str, outcome: Outcome) -> Iterator[Item]:
    numbers = [item for item in items if item.value is not None]
    yield from (item for item in items if item.value is None)
    if isinstance(node, Expansion):
        for item in numbers:
            assert item.value is not None
            width = node.width(item.value)
            if width < 0:
                outcome.fail(item, ErrorKind.TASK, step_id)
            for child in range(max(width, 0)):
                yield Item(item.origin, (*item.child, child), item.value + child)
        return
    rules = [node.rule(item.value) for item in numbers if item.value is not None]
    if isinstance(node, Together) and "raise" in rules:
        rules = ["business"] * len(rules)
    elif isinstance(node, Together) and "short" in rules:
        rules = ["task"] * len(rules)
    for item, rule in zip(numbers, rules, strict=True):
        assert item.value is not None
        if rule in ("task", "business"):
            outcome.fail(item, ErrorKind(rule), step_id)
        elif rule == "drop" and isinstance(node, Single) and not node.may_drop:
            outcome.fail(item, ErrorKind.TASK, step_id)
        elif rule == "drop":
            outcome.drops[step_id] += 1
        else:
            yield Item(item.origin, item.child, None if rule == "tombstone" else item.value + 1)


# ---- the property


def records_of(values: list[Any]) -> list[KafkaRecord]:
    encoded = [b"{" if value == "broken" else None if value is None else b'{"n":%d}' % value for value in values]
    return [KafkaRecord("numbers", b"k", value, {}, 0, offset) for offset, value in enumerate(encoded)]


def flow_of(chain: Chain) -> StreamFlow[Any, Any]:
    return StreamFlow("flow", FromTopic("numbers", Number), process_of(chain), errors=IntoTopic("errors"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chain=chains(), values=st.lists(VALUES, max_size=14), batch_size=st.integers(1, 6))
def test_what_comes_out_is_what_the_interpreter_says_and_every_input_is_accounted_for(
    chain: Chain, values: list[Any], batch_size: int
) -> None:
    expected = interpret(chain, values, batch_size)
    config = config_for(consumer={"batch_size": batch_size})
    topics, counts = into_topics(flow_of(chain), records_of(values), config=config)

    for topic in ("a", "b", "c"):
        found = [None if r.value is None else int(r.value[5:-1]) for r in topics.get(topic, [])]
        assert found == expected.values(topic), topic
    told = [dict(letter.headers) for letter in topics.get("errors", [])]
    assert [
        (
            int(one["x-error-offset"] or b""),
            (one.get("x-error-index") or b"").decode(),
            ErrorKind((one["x-error-kind"] or b"").decode()),
            (one["x-error-step"] or b"").decode(),
        )
        for one in told
    ] == expected.errors()

    failed = {item.origin for item, _, _ in expected.failed}
    written = {item.origin for items in expected.written.values() for item in items} - failed
    assert counts.read == len(values)
    assert counts.read == counts.written + counts.dropped + sum(counts.failed.values())
    assert (counts.written, sum(counts.failed.values())) == (len(written), len(failed))
    assert counts.errors == Counter((kind, step_id) for _, kind, step_id in expected.failed)
    assert counts.drops == dict(expected.drops)
    results = sum(len(items) for items in expected.written.values()) + len(expected.failed)
    assert sum(counts.outputs.values()) == results == counts.durable


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chain=chains(), values=st.lists(VALUES, max_size=14), batch_size=st.integers(1, 6))
def test_sinks_get_what_topics_would_get(chain: Chain, values: list[Any], batch_size: int) -> None:
    config = config_for(consumer={"batch_size": batch_size})
    topics, _ = into_topics(flow_of(chain), records_of(values), config=config)
    ran = in_memory(flow_of(chain), records_of(values), config=config)
    in_sinks = Counter(
        None if isinstance(payload, Tombstone) else payload.n
        for path in ran.terminals
        for payload in ran.payloads(path)
    )
    in_topics = Counter(
        None if r.value is None else int(r.value[5:-1]) for topic in topics if topic != "errors" for r in topics[topic]
    )
    assert in_sinks == in_topics
    assert sum(map(len, ran.errors.values())) == len(topics.get("errors", []))


def test_the_interpreter_knows_what_it_is_doing() -> None:
    """The judge is judged once, by hand."""
    chain = Chain(
        (Single("s0", "function", ("add", "task"), False), Expansion("s1", (2,))),
        Parting((0,), (Chain((Together("s0", ("add", "drop")),), "a"),), None, 2, None),
    )
    outcome = interpret(chain, [0, 1, 3, "broken", None], 5)
    # 0 becomes 1, then 1 and 2; 1 goes nowhere, 2 into the branch; 1 and 3 fail.
    assert outcome.values("a") == [3]
    assert outcome.errors() == [
        (0, "0", ErrorKind.ROUTING, "flow.fork"),
        (1, "", ErrorKind.TASK, "flow.s0"),
        (2, "", ErrorKind.TASK, "flow.s0"),
        (3, "", ErrorKind.WIRE, "flow.source"),
        (4, "", ErrorKind.ROUTING, "flow.fork"),
    ]
