"""The compiled flow: plain, immutable, engine-neutral.

The compiler makes it, the adapter lowers it, `explain` prints it.

It is a tree that mirrors the flow. What the compiler has decided (types, shapes, ids, paths, settings) is here, so that
nothing is decided again at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NewType, TypeAlias, get_origin

from loom.core.config.shape import show
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.catalogue import Issue
from loom.streaming.errors import ErrorKind
from loom.streaming.flow import Unrouted
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.kafka.client_properties import ClientProperties
from loom.streaming.kafka.delivery import Delivery, DeliveryMode
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from loom.streaming.message import has_message_type
from loom.streaming.nodes.boundary import PartitionPolicy
from loom.streaming.nodes.shape import StreamShape

__all__ = [
    "BoundStep",
    "CompiledBranch",
    "CompiledCluster",
    "CompiledErrorRoute",
    "CompiledNode",
    "CompiledProducer",
    "CompiledSource",
    "CompiledTopic",
    "NodeForm",
    "NodePath",
    "PayloadTypes",
    "PlanModel",
    "Reads",
    "StepId",
    "StepKind",
    "StorageSink",
    "walk_nodes",
]

NodePath: TypeAlias = tuple[int, ...]
StepId = NewType("StepId", str)


class PayloadTypes(LoomFrozenStruct):
    """The payload types that may arrive at one place of the flow; not `known` if the author left them open."""

    types: tuple[Any, ...] = ()
    known: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The types as a reader knows them."""
        return tuple(map(_name, self.types))

    def __str__(self) -> str:
        return (" | ".join(self.names) or "nothing") if self.known else "any"


def _name(payload: Any) -> str:
    cls = get_origin(payload) or payload
    return cls.__qualname__ if has_message_type(cls) else show(payload)


class StepKind(StrEnum):
    """How a step is called."""

    FUNCTION = "function"  #: payload in, result out
    RECORD = "record"  #: message in, result out
    EXPAND = "expand"  #: message in, any number of results out
    BATCH = "batch"  #: list of messages in, list of results out
    BATCH_EXPAND = "batch expand"  #: list of messages in, list of any number of results for each out


class BoundStep(LoomFrozenStruct, eq=False):
    """What is called, and what it was made of.

    Two are equal when they name the same class or function with the same arguments, whichever instance serves them.
    """

    target: Any
    arguments: Mapping[str, Any]
    #: the instance, or the function itself; one per plan
    instance: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundStep):
            return NotImplemented
        return self.target == other.target and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash(self.target)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # An argument may be a secret, whatever its name; so may what an instance shows of itself.
        target = self.target if hasattr(self.target, "__qualname__") else type(self.target)
        return [("target", target.__qualname__), ("arguments", list(self.arguments))]

    def __repr__(self) -> str:
        return f"BoundStep({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Reads(StrEnum):
    """How a source finds out what a record holds."""

    PAYLOAD = "payload"  #: every record holds the one payload type
    LABELLED = "labelled"  #: its message type says which of several
    DEAD_LETTERS = "dead letters"  #: it is a dead letter, and becomes an `ErrorEnvelope`


class CompiledCluster(LoomFrozenStruct):
    """Brokers that clients of the plan talk to as one user."""

    #: its number in the plan
    index: int
    #: what any client of it is made with
    properties: ClientProperties


class CompiledProducer(LoomFrozenStruct):
    """A producer client, shared by all outputs whose client properties are equal."""

    #: its number in the plan
    index: int
    cluster: CompiledCluster
    properties: ClientProperties


class CompiledSource(LoomFrozenStruct):
    """Where the records of a plan come from.

    >>> source = compiled(Price, output=IntoTopic("orders.priced")).source
    >>> source.name, source.topics, source.payload.__name__, source.delivery.value
    ('orders.raw', ('orders.raw',), 'Order', 'at_least_once')
    """

    name: str
    #: what is decoded: one type, or those that a label chooses from
    payloads: tuple[Any, ...]
    reads: Reads
    shape: StreamShape
    topics: tuple[str, ...]
    settings: ConsumerSettings
    mode: DeliveryMode
    cluster: CompiledCluster
    #: the format the consumer was set to; on its default it reads JSON and recognises an envelope
    wire_format: str
    recognise_envelope: bool
    where: str = "source"
    dec_hook: DecHook | None = None

    @property
    def delivery(self) -> Delivery | None:
        """The delivery that holds; `None` under the client's auto-commit, which promises nothing."""
        return self.mode.delivery

    @property
    def payload(self) -> Any:
        """The payload type of a source that reads one."""
        return self.payloads[0]


class CompiledTopic(LoomFrozenStruct):
    """Where records go: a logical name with its physical topic, settings and producer.

    >>> output = compiled(Price, output=IntoTopic("orders.priced")).output
    >>> output.topic, str(output.payloads), output.producer.index
    ('orders.priced', 'PricedOrder', 0)
    """

    name: str
    topic: str
    path: NodePath
    where: str
    step_id: StepId
    payloads: PayloadTypes
    settings: ProducerSettings
    producer: CompiledProducer
    #: how messages get their key, where the author says
    partitioning: PartitionPolicy | None = None
    #: where records go that the broker refuses permanently
    dlq: CompiledTopic | None = None
    enc_hook: EncHook | None = None


class NodeForm(StrEnum):
    """How a picture shows a node."""

    BOX = "box"
    CHOICE = "choice"
    STORE = "store"
    END = "end"


class CompiledNode(LoomFrozenStruct, kw_only=True):
    """What every node of a plan has. The classes for each kind of node add fields of their own.

    >>> node = compiled(Price, output=IntoTopic("orders.priced")).nodes[0]
    >>> node.path, node.step_id, node.in_shape.value, str(node.returns)
    ((0,), 'orders.price', 'record', 'PricedOrder')
    """

    path: NodePath
    step_id: StepId
    in_shape: StreamShape
    #: `NONE` for a terminal
    out_shape: StreamShape
    accepts: PayloadTypes
    #: what leaves the node for the next one
    returns: PayloadTypes

    @property
    def branches(self) -> tuple[CompiledBranch, ...]:
        """The ways out of a node that has several, the default last."""
        return ()

    @property
    def inside(self) -> tuple[CompiledNode, ...]:
        """The nodes of a scope, which every record passes. They are those of its only branch."""
        return ()

    @property
    def awaits(self) -> bool:
        """Whether it runs coroutines, which need a bridge."""
        return False

    @property
    def continues(self) -> bool:
        """Whether something leaves the node for the next one."""
        return self.out_shape is not StreamShape.NONE

    @property
    def multiplies(self) -> bool:
        """Whether one record may become several, so that its results have an order among themselves."""
        return False

    @property
    def gathers(self) -> bool:
        """Whether records are held until others have come, so that some may overtake others."""
        return False

    @property
    def waits(self) -> bool:
        """Whether records are kept beyond the engine's batch that brought them."""
        return False

    @property
    def overtakes(self) -> bool:
        """Whether a record may leave the node before an earlier one that is kept there."""
        return False

    @property
    def longest_wait_ms(self) -> float | None:
        """How long the node may keep a record, where that is bounded by a policy of the author's."""
        return None

    @property
    def summary(self) -> str:
        """What a reader of the plan should know of the node, in half a line."""
        return ""

    @property
    def form(self) -> NodeForm:
        """How a picture shows the node."""
        return NodeForm.BOX if self.continues or self.branches else NodeForm.END

    @property
    def output(self) -> CompiledTopic | None:
        """The topic that a terminal writes to."""
        return None

    @property
    def sink(self) -> Any:
        """The sink of the author's own that a terminal hands messages to, else `None`."""
        return None

    @property
    def step_kind(self) -> StepKind | None:
        """How user code is called, where the node is a step."""
        return None

    @property
    def given(self) -> tuple[Any, ...]:
        """The objects that the author gave the node and that may remember something from one run to the next."""
        return ()

    @property
    def otherwise(self) -> str | None:
        """What becomes of a record that no branch takes, where that needs saying."""
        return None


class CompiledBranch(LoomFrozenStruct):
    """One branch of a node.

    >>> plan = compiled(Fork.by(payload.country, {"ES": Process(IntoTopic("orders.es"))}, default=Process(Drain())))
    >>> [(branch.key, branch.label) for branch in plan.nodes[0].branches]
    [('ES', 'es'), (None, 'default')]
    """

    #: what selects the branch: a selector's key, a payload type, or nothing
    key: Any
    label: str
    #: the branch as a reader of the plan knows it
    title: str
    nodes: tuple[CompiledNode, ...]
    #: where the branch ends when its process does not end itself
    output: CompiledTopic | None = None
    path: NodePath = ()


class CompiledErrorRoute(LoomFrozenStruct):
    """Where errors of some kinds go.

    >>> plan = compiled(Drain(), errors=IntoTopic("orders.errors"))
    >>> [(len(route.kinds), route.output.topic) for route in plan.error_routes]
    [(4, 'orders.errors')]
    """

    kinds: tuple[ErrorKind, ...]
    output: CompiledTopic


class StorageSink(LoomFrozenStruct, eq=False):
    """A sink of the author's own and what it is built with. Two are equal when the sinks are."""

    step_id: str
    sink: Any
    config: Any

    def __eq__(self, other: object) -> bool:
        return (
            (self.step_id, self.sink) == (other.step_id, other.sink)
            if isinstance(other, StorageSink)
            else NotImplemented
        )

    def __hash__(self) -> int:
        return hash(self.step_id)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # A sink may hold secrets, and so may the config.
        return [("step_id", self.step_id), ("sink", type(self.sink).__qualname__)]

    def __repr__(self) -> str:
        return f"StorageSink({self.step_id!r}, {type(self.sink).__qualname__})"


class PlanModel(LoomFrozenStruct):
    """The data of a whole flow, checked and resolved; `CompiledPlan` is what others see of it."""

    name: str
    source: CompiledSource
    nodes: tuple[CompiledNode, ...]
    output: CompiledTopic | None
    error_routes: tuple[CompiledErrorRoute, ...]
    needs_async_bridge: bool
    #: inner outputs by the path of their node
    terminal_sinks: Mapping[NodePath, CompiledTopic]
    #: storage sinks inside the process, by path
    terminal_storage_sinks: Mapping[NodePath, Any]
    unrouted: Unrouted = "fail"
    warnings: tuple[Issue, ...] = ()

    def topics(self) -> tuple[CompiledTopic, ...]:
        """Everything the plan may write to, dead letters included."""
        outputs = [*([self.output] if self.output else []), *self.terminal_sinks.values()]
        outputs += [route.output for route in self.error_routes]
        return (*outputs, *(output.dlq for output in outputs if output.dlq is not None))

    @property
    def producers(self) -> tuple[CompiledProducer, ...]:
        """The producers of all topics that the plan may write to."""
        found = {output.producer.index: output.producer for output in self.topics()}
        return tuple(found[index] for index in sorted(found))

    @property
    def clusters(self) -> tuple[CompiledCluster, ...]:
        """The clusters that the plan reads from and writes to."""
        found = {cluster.index: cluster for cluster in (self.source.cluster, *(p.cluster for p in self.producers))}
        return tuple(found[index] for index in sorted(found))


def walk_nodes(nodes: tuple[CompiledNode, ...]) -> Iterator[CompiledNode]:
    """Every node, each before those inside it."""
    for node in nodes:
        yield node
        for branch in node.branches:
            yield from walk_nodes(branch.nodes)
