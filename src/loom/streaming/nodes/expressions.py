"""The roots of an author's expressions, `msg` and `payload`, and what is particular to those about a stream.

Authors write `payload.country == "ES"`; the compiler checks and compiles what they wrote with the functions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from loom.core.expr.annotations import members
from loom.core.expr.checking import ExpressionProblem, check_expression, types_of_expression
from loom.core.expr.compiling import Reading, compile_expression
from loom.core.expr.expression import Expression, PathExpression, root, same_expression, structure
from loom.core.expr.tree import roots_of
from loom.core.model import LoomFrozenStruct
from loom.streaming.message import Message, Tombstone

__all__ = [
    "RoutingExpression",
    "compile_routing_expression",
    "key_as_bytes",
    "msg",
    "payload",
    "types_of",
    "unknown_fields",
]

#: The payload of a record: `payload.country == "ES"`, `payload.lines[0].sku`. A stage builds no message for it.
payload: Final[PathExpression] = root("payload")
#: The whole message: `msg.meta.key`, `msg.meta.headers["x"]`. `msg.payload` is `payload`.
msg: Final[PathExpression] = root("msg", payload)

_KEY = structure(msg.meta.key)


class RoutingExpression(LoomFrozenStruct, eq=False):
    """An expression as a stage calls it. Two are equal when their expressions are written alike."""

    #: answers with the key of a route, or with what is true or false
    call: Callable[[Any], Any]
    takes: Literal["payload", "message"]
    #: whether it is `msg.meta.key` itself: `call` answers in bytes, so keys of routes go through `key_as_bytes`
    is_key: bool
    #: whether it reads the payload at all; one that does not can route a tombstone too
    reads_payload: bool
    expression: Expression

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RoutingExpression):
            return NotImplemented
        return same_expression(self.expression, other.expression)

    def __hash__(self) -> int:
        return hash(structure(self.expression))


def compile_routing_expression(expression: Expression) -> RoutingExpression:
    """Compile an expression to a function of the payload where it asks for no more, else of the message.

    A key is read as bytes, as Kafka holds it, also where a step has set it to text; text that is compared with it is
    encoded as UTF-8, a literal when this is called. Raises `TypeError` for what is no expression, `ValueError` for one
    that is nested too deeply.

    >>> from loom.streaming.message import MessageMeta
    >>> spanish = compile_routing_expression(msg.meta.key == "ES")
    >>> spanish.takes, spanish.call(Message(None, MessageMeta("m", key=b"ES")))
    ('message', True)
    """
    compiled = compile_expression(expression, readings=_READINGS)
    node = structure(expression)
    return RoutingExpression(
        compiled.call,
        "payload" if compiled.takes == "payload" else "message",
        node == _KEY,
        any(read.name == "payload" for read in roots_of(node)),
        expression,
    )


def key_as_bytes(key: Any) -> Any:
    """A key as Kafka holds it: text as UTF-8, anything else as it is.

    >>> key_as_bytes("ES"), key_as_bytes(b"ES"), key_as_bytes(None)
    (b'ES', b'ES', None)
    """
    return key.encode() if isinstance(key, str) else key


_READINGS: Final = {_KEY: Reading(plain=bytes, convert=key_as_bytes)}


def types_of(expression: Expression, payload_types: Iterable[Any]) -> tuple[Any, ...]:
    """What an expression may answer with, `None` aside, given the payload types that may arrive; `Any` where it is not known.

    >>> types_of(msg.meta.topic, [])
    (<class 'str'>,)
    """
    payloads = [found for found in members(payload_types) if found is not Tombstone]
    return types_of_expression(expression, {"payload": payloads or [Any], "msg": [Message]})


def unknown_fields(expression: Expression, payload_types: Iterable[Any]) -> list[ExpressionProblem]:
    """What can be said against an expression, given the payload types that may arrive; none given means any.

    Beside paths that do not exist, of the payload or of the message, these are comparisons that can never hold. A
    tombstone among the types is passed over, as it passes an expression on the payload.

    >>> [str(problem) for problem in unknown_fields(msg.meta.topics == "orders", [])]
    ["msg.meta.topics: MessageMeta has no field 'topics'; did you mean 'topic'?"]
    """
    payloads = [found for found in members(payload_types) if found is not Tombstone]
    return check_expression(expression, {"payload": payloads, "msg": [Message]})
