"""What the oracle is asked about: descriptions of flows and of what is read, as plain data, and how Hypothesis makes them.

`flows.py` makes the flow that is run of a description, `interpreter.py` says what it should do. What a node does with a
record is decided by the remainder of the record's number, so that both know it without a word between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from hypothesis import strategies as st

__all__ = [
    "Broadcasting",
    "Chain",
    "Choice",
    "Collected",
    "Expansion",
    "Input",
    "Node",
    "Parted",
    "Single",
    "Together",
    "chains",
    "inputs",
]

TOPICS = ("a", "b", "c")
SINKS = ("x", "y")
DRAIN = "drain"
#: the policy of steps that are in trouble: attempts, and the waits after the first and the second in seconds
ATTEMPTS, WAITS = 3, (0.01, 0.02)


@dataclass(frozen=True)
class Single:
    """A step that takes one record: a `@step` function or a `RecordStep`."""

    name: str
    kind: Literal["function", "record"]
    rules: tuple[str, ...]
    may_drop: bool
    sees_tombstones: bool
    #: how many calls fail before the first that does what the rule says; with any, the step has the policy `RETRIES`
    troubles: tuple[int, ...] = ()

    def trouble(self, n: int) -> int:
        return self.troubles[n % len(self.troubles)] if self.troubles else 0

    def rule(self, n: int) -> str:
        return self.rules[n % len(self.rules)]


@dataclass(frozen=True)
class Expansion:
    """An `ExpandStep`, an `Explode`, or a `BatchExpandStep`; a negative width fails behind so many children."""

    name: str
    kind: Literal["step", "explode", "batch"]
    widths: tuple[int, ...]
    children: tuple[str, ...]

    def width(self, n: int) -> int:
        return self.widths[n % len(self.widths)]

    def child(self, n: int) -> str:
        return self.children[n % len(self.children)]


@dataclass(frozen=True)
class Together:
    """A `BatchStep`: on what the engine's batch brings, or inside a `Collected`."""

    name: str
    rules: tuple[str, ...]

    def rule(self, n: int) -> str:
        return self.rules[n % len(self.rules)]


@dataclass(frozen=True)
class Collected:
    """`CollectBatch`, steps that take the batch, `ForEach`."""

    name: str
    most: int
    timeout_ms: int
    inner: tuple[Together | Expansion, ...]


@dataclass(frozen=True)
class Choice:
    """A `Router`, or a `Fork` at the end of a chain."""

    name: str
    kind: Literal["router", "fork"]
    by: bool
    asks: Literal["function", "message", "expression"]
    keys: tuple[int, ...]
    branches: tuple[Chain, ...]
    default: Chain | None
    modulus: int
    fails_at: int | None

    def fails(self, n: int) -> bool:
        return self.asks != "expression" and n % self.modulus == self.fails_at

    def key(self, n: int) -> int:
        return n if self.asks == "expression" else n % self.modulus

    def holds(self, key: int, n: int) -> bool:
        """Whether the predicate of the branch with this key takes the number; several may."""
        return key <= n <= key + self.modulus if self.asks == "expression" else n % self.modulus >= key


@dataclass(frozen=True)
class Broadcasting:
    """A `Broadcast`; `outside` says of each branch whether its topic stands beside its process, as `output`."""

    name: str
    branches: tuple[Chain, ...]
    outside: tuple[bool, ...]


@dataclass(frozen=True)
class Parted:
    """`ExpandRoutes`: so many children of each of two types; a negative number fails."""

    name: str
    widths: tuple[tuple[int, int], ...]
    number: Chain | None
    other: Chain | None
    default: Chain | None

    def width(self, n: int) -> tuple[int, int]:
        return self.widths[n % len(self.widths)]


Node: TypeAlias = Single | Expansion | Together | Collected | Choice
End: TypeAlias = Choice | Broadcasting | Parted | str | None


@dataclass(frozen=True)
class Chain:
    """Nodes one behind the other, and how they end: `None` goes on to what stands behind, at last to the flow's output."""

    nodes: tuple[Node, ...]
    end: End

    @property
    def goes_on(self) -> bool:
        return self.end is None


@dataclass(frozen=True)
class Input:
    """A record: `value` is its number, `None` for a tombstone; `form` is how it is handed over."""

    value: int | None
    form: Literal["json", "envelope", "message", "broken"]
    partition: int
    key: bytes | None


INPUT_FORMS = st.sampled_from(["json", "json", "json", "json", "envelope", "message", "broken"])
SINGLE_RULES = st.sampled_from(
    [
        *("add", "add", "add", "drop", "task", "business", "panic", "wrong", "tombstone"),
        *("message", "key", "no key", "made", "stuck", "nan"),
    ]
)
BATCH_RULES = st.sampled_from(
    [
        *("add", "add", "add", "add", "drop", "task", "business", "panic", "wrong", "tombstone"),
        *("message", "made", "raise", "short"),
    ]
)
CHILDREN = st.sampled_from(["plain", "plain", "plain", "tombstone", "made", "none", "wrong"])


def inputs(most: int = 14) -> st.SearchStrategy[list[Input]]:
    """What is read: records of three partitions, some of them odd."""
    value = st.integers(0, 30) | st.integers(0, 30) | st.none()
    keys = st.sampled_from([None, b"k", b"l"])
    return st.lists(st.builds(Input, value, INPUT_FORMS, st.integers(0, 2), keys), max_size=most)


@st.composite
def _expansions(draw: st.DrawFn, name: str, kinds: tuple[str, ...]) -> Expansion:
    widths = tuple(draw(st.lists(st.integers(-2, 3), min_size=1, max_size=4)))
    children = tuple(draw(st.lists(CHILDREN, min_size=1, max_size=4)))
    return Expansion(name, draw(st.sampled_from(kinds)), widths, children)  # type: ignore[arg-type]


@st.composite
def _togethers(draw: st.DrawFn, name: str) -> Together:
    return Together(name, tuple(draw(st.lists(BATCH_RULES, min_size=1, max_size=6))))


@st.composite
def _collected(draw: st.DrawFn, name: str, timeouts: tuple[int, ...]) -> Collected:
    inner = tuple(
        draw(_togethers(f"{name}b{place}") | _expansions(f"{name}e{place}", ("batch",)))
        for place in range(draw(st.integers(0, 2)))
    )
    return Collected(name, draw(st.integers(1, 5)), draw(st.sampled_from(timeouts)), inner)


@st.composite
def _choices(draw: st.DrawFn, name: str, kind: str, depth: int, options: _Options) -> Choice:
    keys = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)))
    ends = kind == "fork"
    branches = tuple(draw(_chains(depth - 1, options, ends=ends)) for _ in keys)
    default = draw(st.none() | _chains(depth - 1, options, ends=ends))
    asks = draw(st.sampled_from(["function", "message", "expression"]))
    fails_at = draw(st.none() | st.integers(0, 3))
    return Choice(name, kind, draw(st.booleans()), asks, keys, branches, default, draw(st.integers(1, 4)), fails_at)  # type: ignore[arg-type]


@st.composite
def _broadcasts(draw: st.DrawFn, name: str, depth: int, options: _Options) -> Broadcasting:
    branches = tuple(draw(_chains(depth - 1, options, ends=True)) for _ in range(draw(st.integers(1, 3))))
    outside = tuple(draw(st.booleans()) and branch.end in TOPICS and bool(branch.nodes) for branch in branches)
    return Broadcasting(name, branches, outside)


@st.composite
def _parted(draw: st.DrawFn, name: str, depth: int, options: _Options) -> Parted:
    pairs = st.tuples(st.integers(-1, 2), st.integers(0, 2))
    branch = _chains(depth - 1, options, ends=True)
    number, other = draw(st.none() | branch), draw(st.none() | branch)
    if number is None and other is None:
        number = draw(branch)
    return Parted(name, tuple(draw(st.lists(pairs, min_size=1, max_size=4))), number, other, draw(st.none() | branch))


@dataclass(frozen=True)
class _Options:
    timeouts: tuple[int, ...]
    sinks: bool
    retries: bool = False


@st.composite
def _nodes(draw: st.DrawFn, name: str, depth: int, options: _Options) -> Node:
    kinds = ["single", "single", "single", "expansion", "together"]
    if options.timeouts:
        kinds += ["collected", "collected"]
    if depth > 0:
        kinds += ["router", "router"]
    what = draw(st.sampled_from(kinds))
    if what == "expansion":
        return draw(_expansions(name, ("step", "explode")))
    if what == "together":
        return draw(_togethers(name))
    if what == "collected":
        return draw(_collected(name, options.timeouts))
    if what == "router":
        return draw(_choices(name, "router", depth, options))
    rules = draw(st.lists(SINGLE_RULES, min_size=1, max_size=5))
    kind = draw(st.sampled_from(["function", "record"]))
    troubles: tuple[int, ...] = ()
    if options.retries and draw(st.booleans()):
        troubles = tuple(draw(st.lists(st.sampled_from([0, 0, 1, 2, 9]), min_size=1, max_size=4)))
    return Single(name, kind, tuple(rules), draw(st.booleans()), draw(st.integers(0, 5)) == 0, troubles)  # type: ignore[arg-type]


@st.composite
def _chains(draw: st.DrawFn, depth: int, options: _Options, *, ends: bool) -> Chain:
    made = tuple(draw(_nodes(f"s{place}", depth, options)) for place in range(draw(st.integers(0, 3))))
    # A router none of whose branches goes on ends the chain.
    cut = next((place for place, node in enumerate(made, 1) if _is_end(node)), None)
    if cut is not None:
        return Chain(made[:cut], None)
    kinds = ["topic", "topic", "topic", DRAIN, *(["sink"] if options.sinks else [])]
    if depth > 0:
        kinds += ["fork", "fork", "broadcast", "broadcast", "parted"]
    what = draw(st.sampled_from(kinds if ends else ["none", "none", "none", *kinds]))
    end: End = None
    if what == "fork":
        end = draw(_choices("end", "fork", depth, options))
    elif what == "broadcast":
        end = draw(_broadcasts("end", depth, options))
    elif what == "parted":
        end = draw(_parted("end", depth, options))
    elif what != "none":
        end = draw(st.sampled_from({"topic": TOPICS, "sink": SINKS}.get(what, (DRAIN,))))
    elif not made:
        made = (draw(_nodes("s0", 0, options)),)  # a process is never empty
    return Chain(made, end)


def _is_end(node: Node) -> bool:
    """Whether nothing goes on behind a node."""
    if not isinstance(node, Choice):
        return False
    branches = [*node.branches, *([node.default] if node.default is not None else [])]
    return not any(goes_on(branch) for branch in branches)


def goes_on(chain: Chain) -> bool:
    """Whether something leaves a chain at its end."""
    return chain.end is None and not (chain.nodes and _is_end(chain.nodes[-1]))


def chains(
    *, depth: int = 2, timeouts: tuple[int, ...] = (60_000,), sinks: bool = True, retries: bool = False
) -> st.SearchStrategy[Chain]:
    """Flows. Without `timeouts` none of them collects; with `retries` some steps fail for a while."""
    return _chains(depth, _Options(timeouts, sinks, retries), ends=False)
