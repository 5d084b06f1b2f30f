"""The declaration of a whole flow: source, process, output, error routes.

Nothing happens here; `compile_flow` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, TypeAlias

from msgspec.structs import force_setattr

from loom.core.choices import Declaration, choice
from loom.streaming.errors import ErrorKind
from loom.streaming.nodes.boundary import FromMultiTypeTopic, FromTopic, IntoTopic
from loom.streaming.process import Process
from loom.streaming.typed import In, Out

__all__ = ["ErrorRoute", "ErrorRoutes", "StreamFlow", "Unrouted"]

Unrouted: TypeAlias = Literal["fail", "drop"]


class ErrorRoute(Declaration):
    """Where errors of one or several kinds go.

    >>> route = ErrorRoute([ErrorKind.WIRE, ErrorKind.TASK], IntoTopic("orders.errors"))

    Args:
        kinds: one kind or several; their text (`"wire"`) is accepted too.
        output: the topic.

    Raises:
        ValueError: for no kind, or for a text that is none.
        TypeError: for an output that is no `IntoTopic`.
    """

    kinds: ErrorKind | Iterable[ErrorKind]
    output: IntoTopic[Any]

    def __post_init__(self) -> None:
        # An iterator would be used up by its first reader, so what is kept is always a tuple. A kind is a text, which
        # is iterable too.
        kinds = (self.kinds,) if isinstance(self.kinds, str) else tuple(self.kinds)
        if not kinds:
            raise ValueError("ErrorRoute() needs at least one kind, for example ErrorKind.TASK")
        force_setattr(self, "kinds", tuple(choice(ErrorKind, kind, "an error route") for kind in kinds))
        if not isinstance(self.output, IntoTopic):
            raise TypeError(f"ErrorRoute() takes its output as IntoTopic(…), not {self.output!r}")

    @property
    def kind_set(self) -> tuple[ErrorKind, ...]:
        """The kinds as a tuple, whichever way they were declared."""
        return self.kinds if isinstance(self.kinds, tuple) else ()


ErrorRoutes: TypeAlias = IntoTopic[Any] | ErrorRoute | Iterable[ErrorRoute] | Mapping[ErrorKind, IntoTopic[Any]]


class _FlowOptions(Declaration, kw_only=True):
    unrouted: Unrouted = "fail"


class StreamFlow(_FlowOptions, Generic[In, Out]):
    """A typed stream: read from `source`, pass `process`, write to `output`.

    Declaring a flow opens nothing. `compile_flow` checks it, `StreamingRunner` and `loom run` run it.

    >>> priced = StreamFlow(
    ...     name="orders",
    ...     source=FromTopic("orders.raw", payload=Order),
    ...     process=Process(Price),
    ...     output=IntoTopic("orders.priced", payload=PricedOrder),
    ...     errors=IntoTopic("orders.errors"),
    ... )
    >>> [kind.value for route in priced.error_routes for kind in route.kinds]
    ['wire', 'routing', 'task', 'business']

    Args:
        name: the name of the flow, in step ids, transactional ids and beside committed offsets.
        source: where records come from.
        process: the nodes that each record passes.
        output: where results go; `None` if the process ends itself.
        errors: one topic for all kinds, one `ErrorRoute`, several, or a mapping from kind to topic.
        unrouted: what happens to an error whose kind has no route: `"fail"` ends the run and names kind, step and record;
            `"drop"` counts and logs the record.

    Raises:
        ValueError: if a kind is routed twice, or `unrouted` is another text.
        TypeError: for error routes of another type.
    """

    name: str
    source: FromTopic[In] | FromMultiTypeTopic[In]
    process: Process
    output: IntoTopic[Out] | None = None
    errors: ErrorRoutes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "errors", _routes(self.errors))

    @property
    def error_routes(self) -> tuple[ErrorRoute, ...]:
        """The error routes in one form, whichever way they were declared."""
        return self.errors if isinstance(self.errors, tuple) else ()


def _routes(errors: ErrorRoutes | None) -> tuple[ErrorRoute, ...]:
    if errors is None:
        return ()
    if isinstance(errors, IntoTopic):
        return (ErrorRoute(tuple(ErrorKind), errors),)
    if isinstance(errors, Mapping):
        return tuple(ErrorRoute(kind, output) for kind, output in errors.items())
    routes = (errors,) if isinstance(errors, ErrorRoute) else tuple(errors)
    seen: set[ErrorKind] = set()
    for route in routes:
        if not isinstance(route, ErrorRoute):
            raise TypeError(f"errors takes IntoTopic, ErrorRoute, a sequence of ErrorRoute or a mapping, not {route!r}")
        for kind in route.kind_set:
            if kind in seen:
                raise ValueError(f"error kind {kind.value!r} is routed twice; give each kind one route")
            seen.add(kind)
    return routes
