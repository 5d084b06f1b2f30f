"""Flows of any form over one payload type, for what must hold of every plan. Their names and keys are as odd as names can be."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    IntoTopic,
    Process,
    Route,
    Router,
    StreamFlow,
    payload,
    step,
)
from tests.streaming.orders import RAW, Order

#: what Mermaid, JSON or a terminal could take for something else
ODD = st.text(st.sampled_from("aZ09 _-.,:;#&<>\"'`|(){}[]\\/%*+~^$@!?=\n\tñ漢🦊"), max_size=12)


class Store:
    def __init__(self, name: str) -> None:
        self.name = name

    def build_partition(self, config: Any, worker_index: int, worker_count: int, **more: Any) -> Any: ...


class _Names:
    """Hands out each name once, so that step ids are unique."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, odd: str) -> str:
        self._count += 1
        return f"{odd} {self._count}"


def _step(name: str) -> Any:
    def same(order: Order) -> Order:
        return order

    return step(name=name)(same)


@st.composite
def flows(draw: st.DrawFn) -> StreamFlow[Any, Any]:
    """A flow that compiles, unless a name makes it impossible."""
    unique = _Names()

    def name() -> str:
        return unique(draw(ODD))

    def terminal(depth: int) -> Any:
        kinds = ["topic", "sink", "drain", *(["fork", "when", "broadcast"] if depth else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "topic":
            return IntoTopic(f"t{unique('')}", dlq=draw(st.sampled_from([None, "dead", "graves"])))
        if kind == "sink":
            return Store(name())
        if kind == "drain":
            return Drain(name=name())
        count = range(draw(st.integers(1, 3)))
        if kind == "broadcast":
            return Broadcast(*(BroadcastRoute(ended(depth - 1), name=name()) for _ in count), name=name())
        default = ended(depth - 1) if draw(st.booleans()) else None
        if kind == "fork":
            return Fork.by(payload.country, {name(): ended(depth - 1) for _ in count}, default=default, name=name())
        return Fork.when(
            [ForkRoute(payload.country == name(), ended(depth - 1), name=name()) for _ in count],
            default=default,
            name=name(),
        )

    def middle(depth: int) -> list[Any]:
        kind = draw(st.sampled_from(["step", "explode", "collect", *(["router"] if depth else [])]))
        if kind == "step":
            return [_step(name())]
        if kind == "explode":
            return [Explode(lambda order: [order], name=name()), _step(name())]
        if kind == "collect":
            return [CollectBatch(draw(st.integers(1, 9)), 1000, name=name()), ForEach()]
        routes = [
            Route(payload.country == name(), draw(st.sampled_from([open_, ended]))(depth - 1), name=name())
            for _ in range(draw(st.integers(0, 2)))
        ]
        routes.append(Route(payload.id > 0, open_(depth - 1), name=name()))
        return [Router.when(routes, default=open_(depth - 1) if draw(st.booleans()) else None, name=name())]

    def open_(depth: int) -> Process:
        return Process(*(node for _ in range(draw(st.integers(1, 2))) for node in middle(depth)))

    def ended(depth: int) -> Process:
        before = [node for _ in range(draw(st.integers(0, 2))) for node in middle(depth)]
        return Process(*before, terminal(depth))

    errors: dict[str, Any] = {
        kind: IntoTopic(f"{kind}-errors", dlq=draw(st.sampled_from([None, "dead"])))
        for kind in draw(st.sets(st.sampled_from(["wire", "routing", "task", "business"])))
    }
    options: dict[str, Any] = {"errors": errors or None, "unrouted": draw(st.sampled_from(["fail", "drop"]))}
    if draw(st.booleans()):
        return StreamFlow(draw(ODD) or "x", RAW, open_(2), IntoTopic("priced", dlq="dead"), **options)
    return StreamFlow(draw(ODD) or "x", RAW, ended(2), **options)
