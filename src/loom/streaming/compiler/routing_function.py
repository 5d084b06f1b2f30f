"""What routing nodes ask of a record: a selector or a predicate, in any form it may be written in, as something to call."""

from __future__ import annotations

from typing import Any, Literal

from loom.core.expr import Expression, structure
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.signatures import UnreadableSignature, fits, read_selector, without_tombstones
from loom.streaming.compiler.walk import ProcessCompiler, StreamType, named
from loom.streaming.message import Tombstone
from loom.streaming.nodes.expressions import compile_routing_expression, unknown_fields
from loom.streaming.nodes.route import Predicate, Selector
from loom.streaming.nodes.step import StepFunction

__all__ = ["RoutingFunction", "read_asked"]


class RoutingFunction(LoomFrozenStruct, eq=False):
    """A question to a record. Two are equal when they were written down equal, whatever they were compiled to."""

    #: what the author wrote, in a form that can be compared
    written: Any
    call: Any
    #: what `call` receives
    of: Literal["payload", "message"]
    #: asked of tombstones too
    takes_tombstones: bool
    #: the question for a reader of the plan
    title: str
    #: the answer is the record's key, which is bytes
    is_key: bool = False

    @property
    def is_type(self) -> bool:
        """Whether the answer is the payload's class."""
        return self.call is type

    def __eq__(self, other: object) -> bool:
        return self.written == other.written if isinstance(other, RoutingFunction) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.written)


def read_asked(
    walk: ProcessCompiler, what: str, asked: Any, path: NodePath, flowing: StreamType
) -> RoutingFunction | None:
    """A selector or a predicate (`what`), checked against what arrives; `None` where it cannot be asked at all."""
    if isinstance(asked, Expression):
        return _expression(walk, what, asked, path, flowing)
    if asked is type and what == "selector":
        return RoutingFunction(type, type, "payload", takes_tombstones=False, title="type")
    protocol, method = (Selector, "select") if what == "selector" else (Predicate, "matches")
    is_object = isinstance(asked, protocol)
    if isinstance(asked, type) or not (is_object or callable(asked)):
        walk.issues.error(
            Code.NODE_UNKNOWN,
            f"the {what} {named(asked)} is neither an expression, a function nor an object with {method}(message)",
            path=path,
            remedy=f"give an instance, {asked.__qualname__}(…)"
            if isinstance(asked, type)
            else f"write payload.field …, a function of the payload, or a class with {method}(message)",
        )
        return None
    call = getattr(asked, method) if is_object else asked.function if isinstance(asked, StepFunction) else asked
    try:
        signature = read_selector(call)
    except UnreadableSignature as unreadable:
        problem = f"the {what} {named(asked)}: {unreadable}"
        walk.issues.error(Code.STEP_SIGNATURE, problem, path=path, remedy=unreadable.remedy)
        return None
    accepts, on_message = signature.accepts, is_object or signature.asks_for_message
    if not fits(without_tombstones(flowing.payloads), accepts):
        walk.issues.error(
            Code.TYPE_MISMATCH,
            f"the {what} {named(asked)} does not take what arrives",
            path=path,
            expected=accepts,
            found=flowing.payloads,
            remedy="change its annotation, or put a step in front that makes what it takes",
        )
    takes_tombstones = on_message or (accepts.known and Tombstone in accepts.types)
    of: Literal["payload", "message"] = "message" if on_message else "payload"
    return RoutingFunction(asked, call, of, takes_tombstones, of)


def _expression(
    walk: ProcessCompiler, what: str, asked: Expression, path: NodePath, flowing: StreamType
) -> RoutingFunction:
    arriving = without_tombstones(flowing.payloads)
    for problem in unknown_fields(asked, arriving.types if arriving.known else ()):
        walk.issues.error(
            Code.EXPRESSION_FIELD,
            f"the {what} {asked!r} cannot be asked: {problem}",
            path=path,
            found=flowing.payloads,
            remedy="ask for something that every payload type arriving here has",
        )
    compiled = compile_routing_expression(asked)
    return RoutingFunction(
        structure(asked), compiled.call, compiled.takes, not compiled.reads_payload, repr(asked), compiled.is_key
    )
