"""The flow that is run, and the records that it reads, made of the descriptions in `shapes.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ExpandRoutes,
    ExpandStep,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    Retry,
    Route,
    Router,
    StreamFlow,
    Tombstone,
    payload,
    step,
)
from loom.streaming.formats.envelope_format import EnvelopeFormat
from loom.streaming.kafka import KafkaRecord
from tests.streaming.runtime.stages.oracle.shapes import (
    ATTEMPTS,
    DRAIN,
    SINKS,
    WAITS,
    Broadcasting,
    Chain,
    Choice,
    Collected,
    Expansion,
    Input,
    Node,
    Parted,
    Single,
    Together,
    goes_on,
)

__all__ = ["MADE_KEY", "NO_KEY", "Number", "Other", "Taken", "flow_of", "records_of"]

#: the key of a message that a step has made from nothing
MADE_KEY = b"made"
#: what no topic takes as a key
NO_KEY = 5
#: what no step declares
WRONG = "wrong"
FIRST_MS = 1_000


class Number(LoomFrozenStruct):
    n: int
    #: something that no format holds
    stuck: Any = None


class Other(LoomFrozenStruct):
    n: int
    stuck: Any = None
    other: bool = True


Payload = Number | Other


def into(name: str) -> IntoTopic[Any]:
    """A topic that names every type that may come, so that branches may differ in theirs."""
    return IntoTopic(name, payload=Payload)  # type: ignore[arg-type]


class Taken:
    """A sink of the flow's own that keeps what it is given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Message[Any]] = []

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Taken:
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.messages += items

    def flush(self) -> None: ...

    def close(self) -> None: ...


def made(result: Any) -> Message[Any]:
    """A message that owes nothing to the one that came in."""
    return Message(result, MessageMeta("made", key=MADE_KEY))


class Panic(BaseException):
    """As native libraries raise it."""


def act(rule: str, given: Any, message: Message[Any] | None, name: str) -> Any:
    """What a step does by a rule."""
    if rule == "task":
        raise ValueError(name)
    if rule == "business":
        raise RuleViolation(name)
    if rule == "panic":
        raise Panic(name)
    after = type(given)(given.n + 1)
    match rule:
        case "drop":
            return None
        case "tombstone":
            return Tombstone()
        case "wrong":
            return WRONG
        case "nan":
            return type(given)(given.n + 1, math.nan)
        case "no key" if message is not None:
            return message.with_key(NO_KEY).with_payload(after)  # type: ignore[arg-type]
        case "stuck":
            return type(given)(given.n + 1, object())
        case "made":
            return made(after)
        case "message" if message is not None:
            return message.with_payload(after)
        case "key" if message is not None:
            return message.with_key(f"k{given.n}").with_payload(after)
    return after


class Trouble:
    """Fails the first calls for each payload."""

    def __init__(self, node: Single) -> None:
        self._node = node
        #: by the id of a payload, which is held so that the id stays its own
        self._calls: dict[int, tuple[Any, int]] = {}

    def meet(self, given: Any) -> None:
        if isinstance(given, Tombstone) or not self._node.troubles:
            return
        _, calls = self._calls.get(id(given), (given, 0))
        self._calls[id(given)] = (given, calls + 1)
        if calls < self._node.trouble(given.n):
            raise TimeoutError(self._node.name)


def of_single(node: Single) -> Any:
    trouble = Trouble(node)
    policy = Retry(ATTEMPTS, wait_initial_ms=round(WAITS[0] * 1000), wait_jitter_ms=0, on=(TimeoutError,))
    returns = Payload | Tombstone | None if node.may_drop else Payload | Tombstone
    takes = Payload | Tombstone if node.sees_tombstones else Payload
    if node.kind == "function":

        def function(given: Any) -> Any:
            trouble.meet(given)
            return Number(0) if isinstance(given, Tombstone) else act(node.rule(given.n), given, None, node.name)

        function.__annotations__ = {"given": takes, "return": returns}
        return step(name=node.name, retry=policy if node.troubles else None)(function)

    class Generated(RecordStep[takes, returns]):  # type: ignore[valid-type]
        name = node.name

        def execute(self, message):  # type: ignore[no-untyped-def]
            given = message.payload
            trouble.meet(given)
            return Number(0) if isinstance(given, Tombstone) else act(node.rule(given.n), given, message, node.name)

    return Generated.with_retry(policy) if node.troubles else Generated


def children_of(node: Expansion, given: Any) -> Iterator[Any]:
    width = node.width(given.n)
    for child in range(abs(width)):
        after = type(given)(given.n + child)
        odd = {"tombstone": Tombstone(), "made": made(after), "none": None, "wrong": WRONG}
        yield odd.get(node.child(given.n + child), after)
    if width < 0:
        raise ValueError(node.name)


def of_expansion(node: Expansion) -> Any:
    if node.kind == "explode":

        def explode(given: Payload) -> list[Number | Other | Tombstone]:
            return children_of(node, given)  # type: ignore[return-value]

        return Explode(explode, name=node.name)
    if node.kind == "batch":

        class Batched(BatchExpandStep[Payload, Payload | Tombstone]):
            name = node.name

            def execute(self, messages):  # type: ignore[no-untyped-def]
                return [children_of(node, message.payload) for message in messages]

        return Batched

    class Generated(ExpandStep[Payload, Payload | Tombstone]):
        name = node.name

        def execute(self, message):  # type: ignore[no-untyped-def]
            return children_of(node, message.payload)

    return Generated


def of_together(node: Together) -> Any:
    class Generated(BatchStep[Payload, Payload | Tombstone | None]):
        name = node.name

        def execute(self, messages):  # type: ignore[no-untyped-def]
            rules = [node.rule(message.payload.n) for message in messages]
            if "raise" in rules:
                raise RuleViolation(node.name)
            results: list[Any] = []
            for rule, message in zip(rules, messages, strict=True):
                try:
                    results.append(act(rule, message.payload, message, node.name))
                except BaseException as error:
                    results.append(error)
            return results[1:] if "short" in rules else results

    return Generated


def of_choice(node: Choice) -> Any:
    """A router or a fork, in the form that the description asks for."""
    kind, route = (Router, Route) if node.kind == "router" else (Fork, ForkRoute)
    default = process_of(node.default) if node.default is not None else None
    branches = list(zip(node.keys, map(process_of, node.branches), strict=True))

    def number(given: Any) -> int:
        if isinstance(given, Message):
            given = given.payload
        n = 0 if isinstance(given, Tombstone) else given.n
        if node.fails(n):
            raise ZeroDivisionError(node.name)
        return int(n)

    takes = Message[Payload] if node.asks == "message" else Payload

    def asked(answer: Any) -> Any:
        def question(given: Any) -> Any:
            return answer(number(given))

        question.__annotations__ = {"given": takes}
        return question

    if node.by:
        selector = payload.n if node.asks == "expression" else asked(node.key)
        return kind.by(selector, dict(branches), default=default, name=node.name)
    routes = []
    for key, process in branches:
        if node.asks == "expression":
            when: Any = payload.n.between(key, key + node.modulus)
        else:
            when = asked(lambda n, key=key: node.holds(key, n))
        routes.append(route(when, process, name=str(key)))
    return kind.when(routes, default=default, name=node.name)


def of_broadcast(node: Broadcasting) -> Broadcast:
    routes = []
    for place, (branch, outside) in enumerate(zip(node.branches, node.outside, strict=True)):
        if outside:
            inside = Process(*nodes_of(branch.nodes))
            routes.append(BroadcastRoute(inside, into(str(branch.end)), name=f"b{place}"))
        else:
            routes.append(BroadcastRoute(process_of(branch), name=f"b{place}"))
    return Broadcast(*routes, name=node.name)


def of_parted(node: Parted) -> ExpandRoutes:
    class Parting:
        def expand(self, given: Payload) -> dict[type, list[Any]]:
            numbers, others = node.width(given.n)
            if numbers < 0:
                raise ValueError(node.name)
            return {
                Number: [Number(given.n + child) for child in range(numbers)],
                Other: [Other(given.n + child) for child in range(others)],
            }

    declared = {Number: node.number, Other: node.other}
    routes: dict[type, Process] = {t: process_of(branch) for t, branch in declared.items() if branch is not None}
    default = process_of(node.default) if node.default is not None else None
    return ExpandRoutes(expander=Parting(), routes=routes, default=default, name=node.name)


def nodes_of(nodes: tuple[Node, ...]) -> list[Any]:
    found: list[Any] = []
    for node in nodes:
        match node:
            case Single():
                found.append(of_single(node))
            case Expansion():
                found.append(of_expansion(node))
            case Together():
                found.append(of_together(node))
            case Choice():
                found.append(of_choice(node))
            case Collected():
                found.append(CollectBatch(node.most, node.timeout_ms, name=node.name))
                found += [of_together(one) if isinstance(one, Together) else of_expansion(one) for one in node.inner]
                found.append(ForEach())
    return found


def process_of(chain: Chain) -> Process:
    found = nodes_of(chain.nodes)
    match chain.end:
        case Choice():
            found.append(of_choice(chain.end))
        case Broadcasting():
            found.append(of_broadcast(chain.end))
        case Parted():
            found.append(of_parted(chain.end))
        case str(name):
            # One that writes to a sink is told apart by the name of the sink.
            found.append(Drain() if name == DRAIN else Taken(name) if name in SINKS else into(name))
    return Process(*found)


def flow_of(chain: Chain) -> StreamFlow[Any, Any]:
    output = into("out") if goes_on(chain) else None
    return StreamFlow("flow", FromTopic("numbers", Number), process_of(chain), output, IntoTopic("errors"))


_sealed = EnvelopeFormat().framer()


def records_of(given: list[Input]) -> list[Any]:
    """What the source hands over; the timestamp of each tells which of them it is."""
    found: list[Any] = []
    offsets = [0, 0, 0]
    for place, one in enumerate(given):
        offset = offsets[one.partition]
        offsets[one.partition] += 1
        number: Any = Tombstone() if one.value is None else Number(one.value)
        meta = MessageMeta("", produced_at_ms=FIRST_MS + place, topic="numbers", partition=one.partition, offset=offset)
        value: bytes | None = b'{"n":%d}' % one.value if one.value is not None else None
        if one.form == "broken":
            value = b'{"n":"many"}' if one.value is None else b"{"
        elif one.form == "envelope" and value is not None:
            value = _sealed(number, meta)
        elif one.form == "message":
            found.append(Message(number, meta).with_key(one.key))
            continue
        found.append(KafkaRecord("numbers", one.key, value, {}, one.partition, offset, FIRST_MS + place))
    return found
