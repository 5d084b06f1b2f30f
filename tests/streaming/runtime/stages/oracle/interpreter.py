"""What a described flow should do: one record after the other through one node after the other, slowly and obviously.

Nothing is fused and nothing is put back in order here: each item carries the record that it stems from and its place among
that record's children, and whoever compares sorts by them. `encodes` says whether the outputs are topics, which refuse what
no format holds, or sinks, which take it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loom.streaming import ErrorKind
from tests.streaming.runtime.stages.oracle.flows import MADE_KEY, NO_KEY
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
)

__all__ = ["Failure", "Interpreter", "Item"]

Path = tuple[int, ...]
TASK, ROUTING, WIRE = ErrorKind.TASK, ErrorKind.ROUTING, ErrorKind.WIRE
WRONG = "{} returned a str, and declares Number | Other | Tombstone. Return what is declared, or change the annotation"
NONE = "{} returned None, which its return type does not say; write `-> … | None` to drop records"


@dataclass(frozen=True)
class Item:
    """Something under way."""

    #: which input it stems from
    origin: int
    value: int | None
    #: a number is no key that a topic takes
    key: bytes | int | None = None
    type: str = "Number"
    stuck: bool = False
    #: where it stands among the results of its input
    order: Path = ()
    #: which child of each expansion it is, as errors tell it
    index: Path = ()

    def number(self) -> int:
        assert self.value is not None
        return self.value

    def child(self, number: int, *, told: bool = True) -> Item:
        index = (*self.index, number) if told else self.index
        return replace(self, order=(*self.order, number), index=index, stuck=self.stuck and not told)


@dataclass(frozen=True)
class Failure:
    item: Item
    kind: ErrorKind
    step_id: str
    path: Path
    #: `None`: whatever the decoder or encoder says
    reason: str | None


@dataclass(frozen=True)
class Place:
    """Somewhere in the flow: the nodes that come next, their path, and what stands behind them."""

    nodes: tuple[Any, ...]
    path: Path
    parent: str
    then: Place | None

    @property
    def behind(self) -> Place:
        node = self.nodes[0]
        step = 2 + len(node.inner) if isinstance(node, Collected) else 1
        return replace(self, nodes=self.nodes[1:], path=(*self.path[:-1], self.path[-1] + step))

    def branch(self, number: int, label: str, chain: Chain) -> Place:
        node, path, parent = self.nodes[0], (*self.path, number), f"{self.parent}.{self.nodes[0].name}.{label}"
        if isinstance(node, Broadcasting) and node.outside[number]:  # its topic has the path of the branch
            return Place(chain.nodes, (*path, 0), parent, Place((f"={chain.end}",), path, parent, None))
        then = self.behind if isinstance(node, Choice) and node.kind == "router" else None
        return Place(everything(chain), (*path, 0), parent, then)

    @property
    def step_id(self) -> str:
        node = self.nodes[0]
        if isinstance(node, str):
            return f"{self.parent}.{node if node == DRAIN else f'into-{node}'}"
        return f"{self.parent}.{node.name}"


def everything(chain: Chain) -> tuple[Any, ...]:
    return chain.nodes if chain.end is None else (*chain.nodes, chain.end)


@dataclass
class Waiting:
    """What stands at a place that takes several at once."""

    place: Place
    items: list[Item] = field(default_factory=list)
    due: float = 0.0


@dataclass
class Retrying:
    """What waits for its next call at a step with a policy: when it is due, which it is, and how many calls have failed."""

    place: Place
    items: list[tuple[float, int, Item, int]] = field(default_factory=list)


class Interpreter:
    """One run of a flow, told batch by batch what is read."""

    def __init__(self, chain: Chain, *, encodes: bool = True) -> None:
        self._start = Place(everything(chain), (0,), "flow", None)
        self._encodes = encodes
        self._now = 0.0
        #: batch steps on records, and collecting nodes, in the order in which records meet them
        self._gathered: dict[Path, Waiting] = {}
        self._collected: dict[Path, Waiting] = {}
        self._retrying: dict[Path, Retrying] = {}
        #: those that keep items beyond their batch
        self._keeping: list[Waiting | Retrying] = []
        self._kept_so_far = 0
        self._find(self._start)
        self.read = 0
        #: by the name of the topic or sink, and by the path of the node
        self.written: dict[str, list[Item]] = {}
        self.at: dict[Path, list[Item]] = {}
        self.failures: list[Failure] = []
        self.drops: Counter[str] = Counter()
        #: what was kept when the flow was stopped
        self.discarded: list[Item] = []

    def batch(self, given: Sequence[Input], now: float = 0.0) -> None:
        """What the source hands over at once."""
        self._now = now
        for one in given:
            item = Item(self.read, one.value, one.key)
            self.read += 1
            if one.form == "broken":
                self._fail(item, WIRE, "flow.source", (), None)
            else:
                self._push(item, self._start)
        self._flush()
        for waiting in self._keeping:
            if isinstance(waiting, Retrying):
                due = sorted(one for one in waiting.items if one[0] <= now)
                waiting.items = [one for one in waiting.items if one[0] > now]
                self._call_again(waiting.place, due)
            elif waiting.items and waiting.due <= now:
                self._send(waiting)
                self._flush()

    def end(self, *, emits: bool = True) -> None:
        """The end of the input, when no call is to be repeated any more, or a stop, which may discard."""
        if not emits:
            self.discarded += self.kept()
            for waiting in self._keeping:
                waiting.items = []
            return
        for waiting in self._keeping:
            if isinstance(waiting, Retrying):
                due, waiting.items = sorted(waiting.items), []
                self._call_again(waiting.place, due, last=True)
            elif waiting.items:
                self._send(waiting)
                self._flush()

    def kept(self) -> list[Item]:
        """What waits."""
        found: list[Item] = []
        for waiting in self._keeping:
            found += [one[2] for one in waiting.items] if isinstance(waiting, Retrying) else waiting.items
        return found

    @property
    def repeats_calls(self) -> bool:
        """Whether any step has a policy."""
        return bool(self._retrying)

    def next_due(self) -> float | None:
        """When something that waits is let go next."""
        calls = [due for waiting in self._retrying.values() for due, *_ in waiting.items]
        return min([*calls, *(waiting.due for waiting in self._collected.values() if waiting.items)], default=None)

    # ---- one item

    def _push(self, item: Item, place: Place | None) -> None:
        while place is not None and not place.nodes:
            place = place.then
        if place is None:
            self._write(item, "out", "flow.output", ())
            return
        node = place.nodes[0]
        match node:
            case Single():
                self._single(item, node, place)
            case Expansion():
                self._expand(item, node, place, place.step_id, place.path)
            case Together():
                self._gathered[place.path].items.append(item)
            case Collected():
                self._collect(item, node, self._collected[place.path])
            case Choice():
                self._choose(item, node, place)
            case Broadcasting():
                for number, branch in enumerate(node.branches):
                    self._push(item.child(number, told=False), place.branch(number, f"b{number}", branch))
            case Parted():
                self._part(item, node, place)
            case str(name) if name == DRAIN:
                self.drops[place.step_id] += 1
            case str(name):
                name = name.removeprefix("=")
                self._write(item, name, f"{place.parent}.into-{name}", place.path)

    def _single(self, item: Item, node: Single, place: Place) -> None:
        if item.value is None:
            self._push(replace(item, value=0, type="Number") if node.sees_tombstones else item, place.behind)
            return
        if not self._has_failed(item, node, place, 1):
            self._answer(item, node, place)

    def _has_failed(self, item: Item, node: Single, place: Place, calls: int, *, last: bool = False) -> bool:
        """Whether the last of so many calls fails for a while: it is repeated, or there was no attempt left."""
        if calls > node.trouble(item.number()):
            return False
        if calls >= ATTEMPTS or last:
            self._fail(item, TASK, place.step_id, place.path, node.name)
        else:
            self._kept_so_far += 1
            due = round(self._now + WAITS[calls - 1], 6)
            self._retrying[place.path].items.append((due, self._kept_so_far, item, calls))
        return True

    def _call_again(self, place: Place, due: list[tuple[float, int, Item, int]], *, last: bool = False) -> None:
        for _, _, item, calls in due:
            if not self._has_failed(item, place.nodes[0], place, calls + 1, last=last):
                self._answer(item, place.nodes[0], place)
        self._flush()

    def _answer(self, item: Item, node: Single, place: Place) -> None:
        rule = node.rule(item.number())
        if node.kind == "function" and rule in ("message", "key", "no key"):
            rule = "add"
        self._result(item, rule, place, place.step_id, place.path, may_drop=node.may_drop, name=node.name)

    def _result(
        self, item: Item, rule: str, place: Place | None, step_id: str, path: Path, *, may_drop: bool, name: str
    ) -> list[Item]:
        """What one call of a step makes of an item; it goes on to `place`, or is handed back where there is none."""
        if rule in ("task", "business", "panic"):
            self._fail(item, TASK if rule == "panic" else ErrorKind(rule), step_id, path, name)
        elif rule == "wrong":
            self._fail(item, TASK, step_id, path, WRONG.format(name))
        elif rule in ("drop", "none") and may_drop:
            self.drops[step_id] += 1
        elif rule in ("drop", "none"):
            self._fail(item, TASK, step_id, path, NONE.format(name))
        else:
            after = replace(item, value=item.number() + 1, stuck=rule in ("stuck", "nan"))
            if rule == "tombstone":
                after = replace(after, value=None)
            elif rule == "made":
                after = replace(after, key=MADE_KEY)
            elif rule == "no key":
                after = replace(after, key=NO_KEY)
            elif rule == "key":
                after = replace(after, key=b"k%d" % item.number())
            if place is None:
                return [after]
            self._push(after, place.behind)
        return []

    def _children(self, item: Item, node: Expansion, step_id: str, path: Path) -> list[Item]:
        width = node.width(item.number())
        if width < 0:
            self._fail(item, TASK, step_id, path, node.name)
        found = []
        for child in range(max(width, 0)):
            one = replace(item.child(child), value=item.number() + child)
            rule = node.child(one.number())
            name = step_id if node.kind == "explode" else node.name
            if rule in ("none", "wrong"):
                self._fail(one, TASK, step_id, path, (NONE if rule == "none" else WRONG).format(name))
            elif rule == "tombstone":
                found.append(replace(one, value=None))
            else:
                found.append(replace(one, key=MADE_KEY) if rule == "made" else one)
        return found

    def _expand(self, item: Item, node: Expansion, place: Place, step_id: str, path: Path) -> None:
        children = [item] if item.value is None else self._children(item, node, step_id, path)
        for child in children:
            self._push(child, place.behind)

    def _choose(self, item: Item, node: Choice, place: Place) -> None:
        default = place.branch(len(node.keys), "default", node.default) if node.default is not None else None
        reason = "a tombstone, which nothing here asks for among its types, and no default"
        found = default
        if item.value is not None or node.asks == "message":
            n = item.value or 0
            if node.fails(n):
                self._fail(item, ROUTING, place.step_id, place.path, node.name)
                return
            takes = (lambda key: key == node.key(n)) if node.by else (lambda key: node.holds(key, n))
            number = next((number for number, key in enumerate(node.keys) if takes(key)), None)
            if number is not None:
                found = place.branch(number, str(node.keys[number]), node.branches[number])
            reason = (f"no branch for {node.key(n)!r}" if node.by else "no predicate holds") + " and no default"
        if found is None:
            self._fail(item, ROUTING, place.step_id, place.path, reason)
        else:
            self._push(item, found)

    def _part(self, item: Item, node: Parted, place: Place) -> None:
        declared = [(name, chain) for name, chain in (("Number", node.number), ("Other", node.other)) if chain]
        branches = {name: place.branch(at, name.lower(), chain) for at, (name, chain) in enumerate(declared)}
        default = place.branch(len(declared), "default", node.default) if node.default is not None else None
        if item.value is None:
            if default is not None:
                self._push(item, default)
            else:
                self._fail(
                    item, ROUTING, place.step_id, place.path, "a tombstone, which no branch takes, and no default"
                )
            return
        numbers, others = node.width(item.value)
        if numbers < 0:
            self._fail(item, TASK, place.step_id, place.path, node.name)
            return
        made = [("Number", child) for child in range(numbers)] + [("Other", child) for child in range(others)]
        for at, (kind, child) in enumerate(made):
            one = replace(item.child(at), value=item.value + child, type=kind)
            into = branches.get(kind, default)
            if into is None:
                self._fail(one, ROUTING, place.step_id, place.path, f"no branch for the type {kind} and no default")
            else:
                self._push(one, into)

    # ---- several at once

    def _batch_step(self, items: list[Item], node: Together, step_id: str, path: Path) -> list[Item]:
        """What comes out; tombstones keep their place."""
        rules = {item: node.rule(item.value) for item in items if item.value is not None}
        reason = node.name
        if "raise" in rules.values():
            rules = dict.fromkeys(rules, "business")
        elif "short" in rules.values():
            reason = f"{node.name} returned {len(rules) - 1} entries for {len(rules)} messages"
            rules = dict.fromkeys(rules, "task")
        found = []
        for item in items:
            if item.value is None:
                found.append(item)
            else:
                found += self._result(item, rules[item], None, step_id, path, may_drop=True, name=reason)
        return found

    def _flush(self) -> None:
        for path, waiting in self._gathered.items():
            items, waiting.items = waiting.items, []
            place = waiting.place
            for item in self._batch_step(items, place.nodes[0], place.step_id, path):
                self._push(item, place.behind)

    def _collect(self, item: Item, node: Collected, waiting: Waiting) -> None:
        if not waiting.items:
            waiting.due = self._now + node.timeout_ms / 1000
        waiting.items.append(item)
        if len(waiting.items) == node.most:
            self._send(waiting)

    def _send(self, waiting: Waiting) -> None:
        place = waiting.place
        items, waiting.items = waiting.items, []
        for number, inner in enumerate(place.nodes[0].inner, 1):
            path, step_id = (*place.path[:-1], place.path[-1] + number), f"{place.parent}.{inner.name}"
            if isinstance(inner, Together):
                items = self._batch_step(items, inner, step_id, path)
            else:
                items = [
                    child
                    for item in items
                    for child in ([item] if item.value is None else self._children(item, inner, step_id, path))
                ]
        for item in items:
            self._push(item, place.behind)

    def _find(self, place: Place) -> None:
        """Every place where items wait, upstream first."""
        while place.nodes:
            node: Node | Any = place.nodes[0]
            if isinstance(node, Together):
                self._gathered[place.path] = Waiting(place)
            elif isinstance(node, Collected):
                self._collected[place.path] = Waiting(place)
                self._keeping.append(self._collected[place.path])
            elif isinstance(node, Single) and node.troubles:
                self._retrying[place.path] = Retrying(place)
                self._keeping.append(self._retrying[place.path])
            for branch in branches_of(node, place):
                self._find(branch)
            place = place.behind

    # ---- the ends

    def _write(self, item: Item, name: str, step_id: str, path: Path) -> None:
        if self._encodes and (item.stuck or item.key == NO_KEY) and name not in SINKS:
            self._fail(item, TASK, step_id, path, None)
            return
        self.written.setdefault(name, []).append(item)
        self.at.setdefault(path, []).append(item)

    def _fail(self, item: Item, kind: ErrorKind, step_id: str, path: Path, reason: str | None) -> None:
        self.failures.append(Failure(item, kind, step_id, path, reason))


def branches_of(node: Any, place: Place) -> list[Place]:
    match node:
        case Choice():
            chains = [*zip(map(str, node.keys), node.branches, strict=True), ("default", node.default)]
        case Broadcasting():
            chains = [(f"b{at}", branch) for at, branch in enumerate(node.branches)]
        case Parted():
            chains = [(name, chain) for name, chain in (("number", node.number), ("other", node.other)) if chain]
            chains.append(("default", node.default))
        case _:
            return []
    return [place.branch(at, label, chain) for at, (label, chain) in enumerate(chains) if chain is not None]
